"""What the formulas of operators that move, pick, pool and resize do not cover."""

from __future__ import annotations

import numpy as np

from tests.gradients.case import Case, weights

_MAP = (2, 3, 6, 5)
_UNKNOWN = (0, 2, 3)

LAYOUT_REFUSALS = [
    # opsets that cannot compute bounds
    *(
        (
            Case(
                f"{op_type} of unknown size in opset 9",
                f"y = {op_type}<kernel_shape=[3, 3], strides=[2, 2]>(A)",
                _MAP,
                (7, 9),
                symbolic=_UNKNOWN,
            ),
            "a Slice of a size known at run time only needs opset 10",
        )
        for op_type in ("MaxPool", "AveragePool")
    ),
    (
        Case(
            "Concat of unknown sizes in opset 9",
            "n = Neg(A)\n y = Concat<axis=1>(n, A)",
            (2, 3),
            (7, 9),
            symbolic=(0, 1),
        ),
        "a Slice of a size known at run time only needs opset 10",
    ),
    (
        Case(
            "Gather of unknown size in opset 8",
            "y = Gather<axis=1>(A, k)",
            (2, 3),
            (7, 8),
            {"k": [1, 0]},
            symbolic=(0, 1),
        ),
        "a size known at run time only needs opset 9",
    ),
    # what has to be constant
    (
        Case(
            "Slice of computed axes",
            "z = Shape<end=1>(A)\n y = Slice(A, k, k, z)",
            (1, 3),
            (15, 26),
            {"k": [1]},
        ),
        "its axis must be constant",
    ),
    (
        Case(
            "Pad by reflection, computed",
            'z = Shape(A)\n c = Concat<axis=0>(z, z)\n y = Pad<mode="reflect">(A, c)',
            (2, 3),
            (13, 26),
        ),
        "its padding must be constant in mode 'reflect'",
    ),
    (
        Case(
            "Resize by computed scales",
            "z = Shape(A)\n f = Cast<to=1>(z)\n y = Resize(A, , f)",
            (2, 3, 4, 5),
            (13, 26),
        ),
        "its scales must be constant",
    ),
    (
        Case(
            "CenterCropPad of unknown size",
            "y = CenterCropPad<axes=[1]>(A, k)",
            (2, 3),
            (18, 26),
            {"k": [4]},
            symbolic=(0, 1),
        ),
        "the size of axis 1 is not known at export",
    ),
    (
        Case(
            "ConvTranspose to a shape, of unknown size",
            "y = ConvTranspose<strides=[2, 2], output_shape=[12, 10]>(A, w)",
            _MAP,
            constants={"w": weights(3, 2, 3, 3)},
            symbolic=_UNKNOWN,
        ),
        "a spatial size is not known at export",
    ),
    # modes
    (
        Case(
            "Resize keeping its aspect ratio",
            'y = Resize<axes=[2, 3], keep_aspect_ratio_policy="not_larger">(A, , , k)',
            _MAP,
            (18, 26),
            {"k": [9, 9]},
        ),
        "a kept aspect ratio is not covered",
    ),
    (
        Case(
            "Pad by more than there is",
            'y = Pad<mode="reflect">(A, k)',
            (2, 3),
            (11, 26),
            {"k": [0, 3, 0, 0]},
        ),
        "a padding of 3 repeats more than there is",
    ),
    (
        Case(
            "ScatterND, maximum",
            'y = ScatterND<reduction="max">(A, k, u)',
            (2, 3),
            (18, 26),
            {"k": np.array([[0]]), "u": weights(1, 3)},
        ),
        "reduction=max is not covered",
    ),
    (
        Case(
            "MaxUnpool to a shape",
            "p, i = MaxPool<kernel_shape=[2], strides=[2]>(A)\n"
            " y = MaxUnpool<kernel_shape=[2], strides=[2]>(p, i, k)",
            (2, 3, 4),
            (9, 26),
            {"k": [2, 3, 4]},
            symbolic=(),
        ),
        "its output_shape is not covered",
    ),
    (
        Case(
            "ConvTranspose, longer than its stride",
            "y = ConvTranspose<strides=[1, 1], dilations=[3, 3], output_padding=[2, 2]>(A, w)",
            _MAP,
            constants={"w": weights(3, 2, 3, 3)},
        ),
        "an output_padding of a stride or more is not covered",
    ),
    (
        Case("TopK without its indices", "y, = TopK(A, k)", (2, 3), (11, 26), {"k": [2]}),
        "it does not return its indices",
    ),
    # too many indices that are known at run time only
    (
        Case(
            "Gather of too many computed indices",
            "i = ArgMax<axis=1, keepdims=0>(w)\n y = Gather<axis=1>(A, i)",
            (2, 5000),
            (13, 26),
            inputs={"w": (5000, 2)},
        ),
        "its indices are not constant, and too many: 25000000 pairs",
    ),
    (
        Case(
            "GatherElements of fewer, before opset 16",
            "y = GatherElements<axis=1>(A, k)",
            (2, 3, 4),
            (11, 15),
            {"k": np.zeros((2, 3, 2), np.int64)},
        ),
        "indices in another shape than the data need a later opset",
    ),
]
