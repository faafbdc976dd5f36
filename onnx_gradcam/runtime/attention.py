"""What a file with attention outputs has for the CAM methods.

In: the metadata and the outputs of a run. Out: what methods take as ``attention`` and ``legrad``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam import Need
from onnx_gradcam.cam.attention import TokenMaps
from onnx_gradcam.contract import (
    ATTENTION_OUTPUT,
    LEGRAD_OUTPUT,
    AttentionMetadata,
    ExportMetadata,
)

_NEEDS = {ATTENTION_OUTPUT: Need.ATTENTION, LEGRAD_OUTPUT: Need.LEGRAD}


def attention_outputs(metadata: ExportMetadata) -> dict[str, Need]:
    """Return the attention outputs that a file has, and the need that each serves."""
    return {name: need for name, need in _NEEDS.items() if name in metadata.outputs}


def attention_given(
    metadata: ExportMetadata, outputs: Mapping[str, NDArray[Any]], several: int
) -> Mapping[Need, TokenMaps]:
    """Return what methods take, a row for each map.

    Args:
        metadata: of the file.
        outputs: of a run, by name.
        several: maps per image where one run gives several, else 0.
    """
    if metadata.attention is None:
        return {}
    meta = AttentionMetadata(**metadata.attention)
    places = tuple(meta.grid), tuple(meta.cells), tuple(meta.read), meta.pooled
    return {
        need: TokenMaps(_rows(outputs[name], several), *places)
        for name, need in attention_outputs(metadata).items()
    }


def _rows(value: NDArray[Any], several: int) -> NDArray[np.float32]:
    floats = value.astype(np.float32, copy=False)
    return np.repeat(floats, several, axis=0) if several > 1 else floats
