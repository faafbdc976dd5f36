"""Resizing maps in the graph: linear, half-pixel centres, as `onnx_gradcam.cam.resize_linear`.

Between sizes that are known at export an axis is multiplied with a constant matrix: every opset
and runtime has that, and the matrix is made by the NumPy function itself. Sizes known at run time
only, and long sounds, whose matrices would be large, need the operator Resize of opset 11.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_gradcam.cam import resize_linear
from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.sizes import Size, sizes_of, vector

RESIZE_OPSET = 11
"""From this opset on Resize has half-pixel centres, and takes sizes."""

LARGEST_MATRIX = 2**20
"""Elements of the largest matrix that is stored: 4 MiB."""

_LEADING = 2
"""Axes of maps before the spatial ones: images, classes."""


def resize(emit: Emitter, maps: str, former: Sequence[Size], wanted: Sequence[Size]) -> str:
    """Return maps ``(N, T, *former)`` at another size.

    Args:
        emit: where to write nodes.
        maps: the maps, float32.
        former: their spatial extents.
        wanted: the new ones.

    Raises:
        UnsupportedModelError: a size is open or large, and the opset has no Resize.
    """
    known = [size for size in (*former, *wanted) if isinstance(size, int)]
    fixed = len(known) == len(former) + len(wanted)
    before, after = known[: len(former)], known[len(former) :]
    if fixed and all(b * a <= LARGEST_MATRIX for b, a in zip(before, after, strict=True)):
        return _by_matrices(emit, maps, before, after)
    if emit.opset < RESIZE_OPSET:
        reason = "large" if fixed else "known at run time only"
        raise UnsupportedModelError(
            f"the CAM cannot be resized in the graph: its sizes are {reason}, and opset"
            f" {emit.opset} has no Resize with half-pixel centres (opset {RESIZE_OPSET} has); take"
            " the size of the layer (cam_size map), fix the sizes of the model, or convert it with"
            " onnx.version_converter"
        )
    return _by_operator(emit, maps, former, wanted)


def _by_matrices(emit: Emitter, maps: str, former: Sequence[int], wanted: Sequence[int]) -> str:
    sizes = list(former)
    for axis, (before, after) in enumerate(zip(former, wanted, strict=True)):
        if before == after:
            continue
        matrix = resize_linear(np.eye(before, dtype=np.float32), (after,))
        sizes[axis] = after
        if axis == len(sizes) - 1:
            maps = emit.matmul(maps, emit.constant(matrix, "interpolation"))
            continue
        left = emit.constant(np.ascontiguousarray(matrix.T), "interpolation")
        if axis == len(sizes) - 2:
            maps = emit.matmul(left, maps)
            continue
        rows = emit.matmul(left, emit.reshape(maps, [0, 0, before, -1]))
        maps = emit.reshape(rows, [0, 0, *sizes])
    return maps


def _by_operator(emit: Emitter, maps: str, former: Sequence[Size], wanted: Sequence[Size]) -> str:
    if len(wanted) == 1:  # not every runtime resizes three axes
        two = _by_operator(emit, emit.unsqueeze(maps, [_LEADING]), [1, *former], [1, *wanted])
        return emit.squeeze(two, [_LEADING])
    sizes = vector(emit, [*sizes_of(emit, maps, range(_LEADING)), *wanted])
    nothing = "" if emit.opset >= 13 else emit.constant(np.zeros(0, np.float32), "nothing")
    inputs = [maps, nothing, nothing, sizes]
    return emit.node("Resize", inputs, coordinate_transformation_mode="half_pixel", mode="linear")
