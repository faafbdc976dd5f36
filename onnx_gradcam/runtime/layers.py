"""The target layers of a file: which of them a call takes, and what each of them shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.cam import Painted
from onnx_gradcam.contract import (
    ACTIVATIONS_OUTPUT,
    GRADIENTS_OUTPUT,
    layer_output,
)
from onnx_gradcam.errors import UsageError, nearest_names
from onnx_gradcam.runtime.on_device import reads_late

FloatArray = NDArray[np.float32]

LayerPair = tuple[FloatArray, FloatArray]
"""Activations and gradients of a layer, each ``(N, C, *spatial)``."""

LayerIds = str | int | Sequence[str | int]
"""A target layer's tensor or number, counted from 0 in the order of the file; or several."""


@reads_late("activations", "gradients")
@dataclass(frozen=True, eq=False)
class LayerMaps:
    """What one target layer shows of N images.

    Attributes:
        name: its tensor in the graph.
        activations: float32 ``(N, C, h, w)``.
        gradients: float32 ``(N, C, h, w)``, dy^c/dA.
        raw_maps: float32 ``(N, h, w)``, before ReLU, normalisation and resize.
        notes: N texts: why a map shows nothing, else empty.
    """

    name: str
    activations: FloatArray
    gradients: FloatArray
    raw_maps: FloatArray
    notes: tuple[str, ...]


def chosen_layers(names: Sequence[str], asked: LayerIds | None) -> tuple[int, ...]:
    """Return the numbers of the layers to take, counted from 0; all of the file for None.

    Args:
        names: the tensors of the file's target layers.
        asked: what the call says.

    Raises:
        UsageError: the file has no such layer, or one is asked for twice.
    """
    if asked is None:
        return tuple(range(len(names)))
    ids = [asked] if isinstance(asked, (str, int)) else list(asked)
    if not ids:
        raise UsageError("no target layer is asked for; leave layers out to take all of the file")
    found = tuple(_number(names, one) for one in ids)
    twice = [names[n] for n in found if found.count(n) > 1]
    if twice:
        raise UsageError(f"layer {twice[0]!r} is asked for twice")
    return found


def _number(names: Sequence[str], asked: str | int) -> int:
    if asked in names:
        return names.index(str(asked))
    number = int(asked) if isinstance(asked, int) or asked.removeprefix("-").isdecimal() else None
    if number is None or not -len(names) <= number < len(names):
        near = nearest_names(asked, names) if isinstance(asked, str) else ""
        raise UsageError(
            f"the file has no target layer {asked!r}{near} (it has"
            f" {', '.join(f'{i}: {name}' for i, name in enumerate(names))}); export the model with"
            " --layer to add one"
        )
    return number % len(names)


def layer_maps(
    names: Sequence[str],
    numbers: Sequence[int],
    layers: Sequence[LayerPair],
    painted: Sequence[Painted],
) -> tuple[LayerMaps, ...]:
    """Return what each layer shows, from its name and number, its arrays, and its maps.

    Nothing of a file that has a CAM in their place.
    """
    taken = [names[number] for number in numbers]
    rows = zip(taken, layers, painted, strict=True) if layers else ()
    return tuple(LayerMaps(name, *pair, one.raw, one.notes) for name, pair, one in rows)


def layer_outputs(layers: Sequence[int]) -> list[str]:
    """Return the outputs of some layers: activations and gradients of each."""
    names = (ACTIVATIONS_OUTPUT, GRADIENTS_OUTPUT)
    return [layer_output(name, layer) for layer in layers for name in names]
