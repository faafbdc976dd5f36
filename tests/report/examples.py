"""Folders of results to report on, and what a written page holds."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.batch.options import BatchOptions
from tests.batch.examples import batch, write_images, write_model

EVIL_LABELS = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    "<!-- <script>",
    '"><svg onload="window.hacked = 3">',
    "plain & simple",
]
EVIL_NAME = "<img src=x onerror=window.hacked=4>.png"

OPTIONS = BatchOptions(top_k=3, thumbnails=24, shard_size=4)


def write_results(
    folder: Path, options: BatchOptions = OPTIONS, *, count: int = 7, **model: Any
) -> Path:
    """Write results of so many images, one of which fails, to ``folder/results``."""
    folder.mkdir(parents=True, exist_ok=True)
    images = folder / "images"
    if not images.exists():
        write_images(images, count)
        (images / "broken.png").write_bytes(b"no image")
    batch(write_model(folder, **model), images, folder / "results", options)
    return folder / "results"


def edit_manifest(folder: Path, **changes: Any) -> None:
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@dataclass(frozen=True)
class Page:
    """What a page holds."""

    text: str
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray[Any, Any]]
    maps: np.ndarray[Any, Any]
    pictures: list[bytes]


def read_page(file: Path) -> Page:
    text = file.read_text(encoding="utf-8")
    held = dict(
        re.findall(r'<script type="[a-z/]+" id="([a-z0-9-]+)">(.*?)</script>', text, re.DOTALL)
    )
    facts = json.loads(held["facts"])
    packed = base64.b64decode(held["arrays"])
    arrays = {
        name: np.frombuffer(packed, f"<{dtype}", length, offset)
        for name, (dtype, offset, length) in facts["arrays"].items()
    }
    pieces = [held[f"pictures-{number}"] for number in range(len(held) - 3)]
    lines = [line for piece in pieces for line in piece.split("\n")]
    maps = np.frombuffer(base64.b64decode(held["maps"]), "<f2")
    return Page(text, facts, arrays, maps, [base64.b64decode(line) for line in lines])
