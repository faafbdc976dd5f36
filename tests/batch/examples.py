"""An exported file and images for batches, small enough to explain hundreds in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from onnx_gradcam.batch.engine import BatchSummary, LocalEngine, run_batch
from onnx_gradcam.batch.options import BatchOptions
from onnx_gradcam.batch.sources import Sources
from onnx_gradcam.pipeline import Division
from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.runtime import load
from tests.contract_models import LABELS, contract_model

RECIPE = Preprocessing(resize=12, crop=(8, 10), scale=1 / 255, mean=(0.5,), std=(0.25,))


def write_model(folder: Path, **model: Any) -> Path:
    path = folder / "model.cam.onnx"
    path.write_bytes(contract_model(labels=LABELS, preprocessing=RECIPE.to_dict(), **model))
    return path


def pixels(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    random = np.random.default_rng(number)
    return random.integers(0, 256, (14 + number % 9, 30 - number % 7, 3), np.uint8)


def write_images(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:04d}.png"), pixels(number))
    return folder


def batch(
    model: Path, inputs: Path | str, output: Path, options: BatchOptions | None = None, **more: Any
) -> BatchSummary:
    wanted = options or BatchOptions(shard_size=4)
    explainer = load(model, device="cpu")
    engine = LocalEngine(explainer, wanted, Division(2))
    sources = Sources((str(inputs),), more.pop("column", None), more.pop("root", None))
    return run_batch(model, explainer, engine, sources, output, wanted, **more)


def rows(output: Path) -> list[dict[str, Any]]:
    parts = sorted((output / "parts").glob("*.parquet"))
    found: list[dict[str, Any]] = pa.concat_tables(map(pq.read_table, parts)).to_pylist()
    return found
