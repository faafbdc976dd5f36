"""Folders of results to report on, and what a written page holds."""

from __future__ import annotations

import base64
import json
import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_gradcam.batch.manifest import write_manifest
from onnx_gradcam.batch.options import BatchOptions
from onnx_gradcam.batch.parts import ResultFolder
from onnx_gradcam.batch.rows import stored_map
from onnx_gradcam.batch.schema import table_of
from onnx_gradcam.batch.worker import ShardResult
from tests.batch.examples import RECIPE, batch, write_images
from tests.contract_models import LABELS, contract_model

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
    folder: Path,
    options: BatchOptions = OPTIONS,
    *,
    count: int = 7,
    labels: list[str] = LABELS,
    evil: bool = False,
) -> Path:
    """Write results of so many images and one that fails to ``folder/results``.

    Evil ones have names that try to get out of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = folder / "images"
    if not images.exists():
        write_images(images, count)
        (images / f"broken{EVIL_NAME if evil else '.png'}").write_bytes(b"no image")
        if evil:
            (images / "0001.png").rename(images / EVIL_NAME)
    model = folder / "model.cam.onnx"
    model.write_bytes(contract_model(labels=labels, preprocessing=RECIPE.to_dict()))
    results = folder / ("<script>x" if evil else "results")
    batch(model, images, results, options)
    return results


def write_many(folder: Path, count: int) -> Path:
    """Write results of so many images that nobody explained."""
    raw = np.random.default_rng(1).random((count, 7, 7), np.float32)
    crop = {"crop_x": 0.0, "crop_y": 0.0, "crop_width": 40.0, "crop_height": 30.0}
    rows = [
        {"image": number, "path": f"{number:04d}.png", "height": 30, "width": 40, "rank": 0}
        | {"class": number % 5, "class_name": f"class {number % 5}", "score": number / count}
        | stored_map(raw[number]) | crop
        for number in range(count)
    ]  # fmt: skip
    with closing(ResultFolder(folder)) as results:
        results.commit(ShardResult(0, "", table_of(rows), count, 0))
    manifest = {
        "format": 1,
        "model": {"file": "none.onnx"},
        "options": {"method": "gradcam"},
        "sources": {},
        "complete": True,
        "parts": 1,
    }
    write_manifest(folder, manifest)
    return folder


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
