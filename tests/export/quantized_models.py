"""The tiny network of drawn shapes, quantized by onnxruntime in each of its ways."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from onnx_gradcam.preprocessing import resolve_preprocessing
from onnx_gradcam.runtime.photo import read_photo
from onnx_gradcam.runtime.preprocess import preprocess

MODELS = Path(__file__).parents[2] / "models"
FLOAT = MODELS / "tiny_shapes.onnx"
RECIPE = MODELS / "tiny_shapes" / "preprocessing.json"
PICTURES = sorted((MODELS / "tiny_shapes").glob("*.png"))


def pictures() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the pictures, preprocessed, ``(N, 3, H, W)``."""
    recipe = resolve_preprocessing(RECIPE)
    assert recipe is not None
    images = [preprocess(read_photo(p), recipe, "NCHW", np.dtype(np.float32)) for p in PICTURES]
    return np.stack([image for image, _ in images])


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        name = onnx.load(FLOAT).graph.input[0].name
        self._feeds = iter([{name: picture[None]} for picture in pictures()])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def _static(
    form: QuantFormat, activations: QuantType, *, per_channel: bool = False, symmetric: bool = False
) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        quantize_static(
            FLOAT,
            path,
            _Reader(),
            quant_format=form,
            per_channel=per_channel,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": symmetric},
        )

    return write


def _dynamic(path: Path) -> None:
    operators = ["Conv", "Gemm", "MatMul"]
    quantize_dynamic(FLOAT, path, op_types_to_quantize=operators, weight_type=QuantType.QUInt8)


WAYS: dict[str, Callable[[Path], None]] = {
    "QDQ": _static(QuantFormat.QDQ, QuantType.QUInt8),
    "QDQ per channel": _static(QuantFormat.QDQ, QuantType.QUInt8, per_channel=True),
    "QDQ of int8": _static(QuantFormat.QDQ, QuantType.QInt8, symmetric=True),
    "QDQ of uint16": _static(QuantFormat.QDQ, QuantType.QUInt16),
    "QOperator": _static(QuantFormat.QOperator, QuantType.QUInt8),
    "QOperator per channel": _static(QuantFormat.QOperator, QuantType.QUInt8, per_channel=True),
    "dynamic": _dynamic,
}


def write_quantized(way: str, path: Path) -> Path:
    """Write the network, quantized in one of `WAYS`."""
    logging.getLogger().setLevel(logging.ERROR)  # advice to optimise the model first
    WAYS[way](path)
    return path
