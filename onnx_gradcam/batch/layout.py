"""What lies where in a folder of results; nothing else there is ours to remove, or to skip."""

from __future__ import annotations

import re
from pathlib import PurePath, PurePosixPath

MANIFEST, COCO = "manifest.json", "coco.json"
PARTS, OVERLAYS, ARRAYS = FOLDERS = ("parts", "overlays", "arrays")
LOCK = ".onnx-gradcam.lock"

_FILES = rf"({PARTS}/part-\d{{6,}}\.parquet|{ARRAYS}/part-\d{{6,}}\.npz|{MANIFEST}|{COCO}"
_FILES += rf"|{OVERLAYS}/\d{{6,}}/\d{{9,}}\.cam\.(jpg|png))"
_RESULT = re.compile(_FILES)
_DRAFT = re.compile(r"\.(.+)\.\d+\.tmp")


def part_path(shard: int) -> str:
    """Return where the table of a shard lies in a folder of results."""
    return f"{PARTS}/part-{shard:06d}.parquet"


def arrays_path(shard: int) -> str:
    """Return where the raw maps of a shard lie."""
    return f"{ARRAYS}/part-{shard:06d}.npz"


def overlay_folder(shard: int) -> str:
    """Return where the pictures of a shard lie."""
    return f"{OVERLAYS}/{shard:06d}"


def overlay_path(shard: int, image: int, ending: str) -> str:
    """Return where the picture of an image lies; named so that it is never taken for a photo."""
    return f"{overlay_folder(shard)}/{image:09d}.cam.{ending}"


def is_result(path: PurePath) -> bool:
    """Return whether a path within a folder of results is named as what a batch writes."""
    return _RESULT.fullmatch(path.as_posix()) is not None


def is_draft(path: PurePath) -> bool:
    """Return whether it is named as what a batch was writing when it was killed."""
    found = _DRAFT.fullmatch(path.name)
    return found is not None and is_result(PurePosixPath(path.as_posix()).with_name(found[1]))
