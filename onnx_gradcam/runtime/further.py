"""What a file gives for the CAM methods beside activations and gradients.

In: the metadata and the outputs of a run. Out: what methods take as ``attention``, ``legrad``,
``curvature`` and ``biases``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam import Need
from onnx_gradcam.cam.attention import TokenMaps
from onnx_gradcam.contract import (
    ATTENTION_OUTPUT,
    BIASES_OUTPUT,
    CURVATURE_OUTPUT,
    LEGRAD_OUTPUT,
    AttentionMetadata,
    ExportMetadata,
)

_NEEDS = {
    CURVATURE_OUTPUT: Need.CURVATURE,
    ATTENTION_OUTPUT: Need.ATTENTION,
    LEGRAD_OUTPUT: Need.LEGRAD,
    BIASES_OUTPUT: Need.BIASES,
}


def further_outputs(metadata: ExportMetadata) -> dict[str, Need]:
    """Return the outputs of this kind that a file has, and the need that each serves."""
    return {name: need for name, need in _NEEDS.items() if name in metadata.outputs}


def further_given(
    metadata: ExportMetadata,
    outputs: Mapping[str, NDArray[Any]],
    several: int,
    layers: Sequence[int],
) -> Mapping[Need, Any]:
    """Return what methods take, a row for each map.

    Args:
        metadata: of the file.
        outputs: of a run, by name.
        several: maps per image where one run gives several, else 0.
        layers: the target layers that are looked at; second derivatives are those of the first one
            of the file.
    """
    given: dict[Need, Any] = {
        need: _rows(outputs[name], several) for name, need in further_outputs(metadata).items()
    }
    if metadata.attention is not None:
        meta = AttentionMetadata(**metadata.attention)
        places = tuple(meta.grid), tuple(meta.cells), tuple(meta.read), meta.pooled
        for need in {Need.ATTENTION, Need.LEGRAD} & set(given):
            given[need] = TokenMaps(given[need], *places)
    if Need.BIASES in given:  # one output for each size of the maps
        sizes = (value for name, value in outputs.items() if name.startswith(BIASES_OUTPUT))
        given[Need.BIASES] = [_rows(value[:, 0], several) for value in sizes]
    if tuple(layers) != (0,):
        given.pop(Need.CURVATURE, None)
    return given


def _rows(value: NDArray[Any], several: int) -> NDArray[np.float32]:
    floats = value.astype(np.float32, copy=False)
    return np.repeat(floats, several, axis=0) if several > 1 else floats
