"""What a formula does not cover is refused, by a message that names the node and the reason."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.errors import UnsupportedModelError
from tests.gradients.case import Case, Constant, weights
from tests.gradients.checks import gradient_model

MAP = (2, 3, 6, 5)
WEIGHT: dict[str, Constant] = {"w": weights(4, 3, 3, 3)}
NORM: dict[str, Constant] = {name: weights(3) for name in "sbmv"}

REFUSALS = [
    # the whole model
    (
        Case(
            "a second output alone",
            "z, y = LayerNormalization(A, s)",
            (2, 3, 4),
            (17, 26),
            {"s": weights(4)},
        ),
        "LayerNormalization-21 .node 'z'.: only the gradient of the first output is known",
    ),
    (
        Case(
            "a second output, too",
            "z, m = LayerNormalization(A, s)\n y = Add(z, m)",
            (2, 3, 4),
            (17, 26),
            {"s": weights(4)},
        ),
        "the score depends on a second output",
    ),
    (
        Case(
            "an unknown rank",
            "n = Shape(w)\n f = Cast<to=1>(n)\n s = Cast<to=7>(f)\n"
            " r = Reshape(A, s)\n y = Mul(r, r)",
            (2, 3, 4),
            (7, 9),
            inputs={"w": (0, 12)},
        ),
        "Mul-9 .node 'y'.: the rank of 'r' is unknown",
    ),
    # inputs without a formula
    (
        Case(
            "Conv by its weights",
            "y = Conv(k, A)",
            (4, 3, 3, 3),
            constants={"k": weights(1, 3, 6, 5)},
            symbolic=(),
        ),
        "Conv-21 .node 'y'.: no formula for the gradient of its input 1",
    ),
    (
        Case(
            "Clip by its bound", "y = Clip(k, A)", (), (11, 26), {"k": weights(2, 3)}, symbolic=()
        ),
        "no formula for the gradient of its input 1",
    ),
    (
        Case(
            "BatchNormalization by its scale",
            "y = BatchNormalization(k, A, b, m, v)",
            (3,),
            constants={**NORM, "k": weights(2, 3)},
            symbolic=(),
        ),
        "no formula for the gradient of its input 1",
    ),
    (
        Case(
            "LayerNormalization by its bias",
            "y = LayerNormalization(k, s, A)",
            (4,),
            (17, 26),
            {"k": weights(2, 3, 4), "s": weights(4)},
            symbolic=(),
        ),
        "no formula for the gradient of its input 2",
    ),
    # modes
    (
        Case(
            "Dropout in training",
            "y = Dropout(A, r, t)",
            MAP,
            (12, 26),
            {"r": 0.4, "t": np.array(True)},
        ),
        "Dropout-21 .node 'y'.: it is in training mode",
    ),
    (
        Case(
            "BatchNormalization in training",
            "y, r, u = BatchNormalization<training_mode=1>(A, s, b, m, v)",
            MAP,
            (14, 26),
            NORM,
        ),
        "it is in training mode",
    ),
    (
        Case(
            "Pad by reflection",
            'y = Pad<mode="reflect">(A, k)',
            MAP,
            (11, 26),
            {"k": [0, 0, 1, 1, 0, 0, 1, 1]},
        ),
        "padding mode 'reflect' is not covered",
    ),
    (
        Case(
            "Pad-2 by its edge",
            'y = Pad<mode="edge", pads=[0, 0, 1, 1, 0, 0, 1, 1]>(A)',
            MAP,
            (7, 10),
        ),
        "padding mode 'edge' is not covered",
    ),
    (
        Case("Einsum of a diagonal", 'y = Einsum<equation="bii->bi">(A)', (2, 3, 3), (12, 26)),
        "Einsum-21 .node 'y'.: a diagonal, as in 'bii->bi', is not covered",
    ),
    (
        Case(
            "Einsum of an ellipsis of unknown sizes",
            'y = Einsum<equation="...i,...i->...i">(A, w)',
            (2, 3, 4),
            (12, 26),
            inputs={"w": (0, 3, 4)},
            symbolic=(0, 1),
        ),
        "what its ellipsis stretches is only known at run time",
    ),
    # what has to be constant
    (
        Case("Gather of a matrix", "y = Gather(A, k)", (3, 4), (7, 15), {"k": np.array([[0, 1]])}),
        "its index is not a constant .from opset 16 on it need not be",
    ),
    (
        Case("Gather of unknown size", "y = Gather(A, k)", (2, 3), (7, 15), {"k": [1, 0]}),
        "its index is not a constant .from opset 16 on it need not be",
    ),
    (
        Case(
            "Slice from a computed start",
            "z = Shape<end=1>(A)\n y = Slice(A, z, k)",
            (2, 3),
            (15, 26),
            {"k": [2]},
        ),
        "its start must be constant",
    ),
    (
        Case(
            "Slice to a computed end",
            "z = Shape<end=1>(A)\n y = Slice(A, k, z)",
            (2, 3),
            (15, 26),
            {"k": [0]},
        ),
        "its end must be constant",
    ),
    (
        Case(
            "Pad by computed sizes",
            "z = Shape(A)\n c = Concat<axis=0>(z, z)\n y = Pad(A, c)",
            (2, 3),
            (13, 26),
        ),
        "its padding must be constant",
    ),
    (
        Case(
            "ReduceSum of computed axes",
            "z = Shape<end=1>(A)\n y = ReduceSum(A, z)",
            (1, 3),
            (15, 26),
        ),
        "its axes must be constant",
    ),
    # sizes that have to be known
    (
        Case(
            "strided Conv of unknown size in opset 9",
            "y = Conv<strides=[2, 2]>(A, w)",
            MAP,
            (7, 9),
            WEIGHT,
            symbolic=(0, 2, 3),
        ),
        "a strided convolution of unknown size needs opset 10",
    ),
    (
        Case(
            "Conv with weights of unknown size",
            "z = Reshape(w, k)\n y = Conv(A, z)",
            MAP,
            constants={"k": [4, 3, -1, 3]},
            inputs={"w": (0, 54)},
        ),
        r"the size .* of 'z' is not known at export",
    ),
    (
        Case(
            "Conv, SAME, strided, of unknown size",
            'y = Conv<auto_pad="SAME_UPPER", strides=[2, 2]>(A, w)',
            MAP,
            constants=WEIGHT,
            symbolic=(0, 2, 3),
        ),
        "auto_pad=SAME_UPPER with a stride needs a size known at export",
    ),
    (
        Case(
            "MaxPool of unknown size",
            "y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(A)",
            MAP,
            symbolic=(0, 2, 3),
        ),
        "a spatial size is not known at export; fix the input's size",
    ),
    (
        Case(
            "MaxPool of unknown channels",
            "y = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(A)",
            MAP,
            symbolic=(0, 1),
        ),
        "the number of channels is not known at export",
    ),
    (
        Case(
            "AveragePool of unknown size",
            "y = AveragePool<kernel_shape=[2, 2], strides=[2, 2]>(A)",
            MAP,
            symbolic=(0, 2, 3),
        ),
        "the size of axis 2 is not known at export",
    ),
    (
        Case(
            "AveragePool of unknown size, padded",
            "y = AveragePool<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(A)",
            MAP,
            symbolic=(0, 2, 3),
        ),
        "a spatial size is not known at export; fix the input's size",
    ),
    (
        Case("LRN of unknown channels", "y = LRN<size=3>(A)", MAP, symbolic=(0, 1)),
        "the number of channels is not known",
    ),
    (
        Case("Slice of unknown size", "y = Slice(A, k, m)", (2, 3), (10, 26), {"k": [1], "m": [2]}),
        "the size of the sliced axis 0 is not known at export",
    ),
    (
        Case(
            "Slice in steps beside unknown sizes",
            "y = Slice(A, k, m, x, t)",
            (2, 3, 4, 5),
            (10, 26),
            {"k": [0], "m": [9], "x": [1], "t": [2]},
            symbolic=(0, 2),
        ),
        "the size of axis 2 is not known at export",
    ),
    (
        Case("Concat of unknown size", "n = Neg(A)\n y = Concat<axis=0>(A, n)", (2, 3)),
        "the size of 'A' along the joined axis is not known at export",
    ),
    (
        Case(
            "Add of sizes known at run time", "y = Add(A, w)", (1, 3), (7, 12), inputs={"w": (2, 3)}
        ),
        "whether 'A' is broadcast is only known at run time",
    ),
    *(
        (
            Case(
                f"{op_type} with a last window in the padding",
                f"y = {op_type}<kernel_shape=[2], strides=[3], pads=[1, 1], ceil_mode=1>(A)",
                (2, 3, 7),
                (10, 26),
            ),
            "with ceil_mode its output is 3 long, but 4 for ONNX's shape inference",
        )
        for op_type in ("MaxPool", "AveragePool")
    ),
]


@pytest.mark.parametrize(("case", "reason"), REFUSALS, ids=lambda value: getattr(value, "name", ""))
def test_refusal(case: Case, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason) as caught:
        gradient_model(case, np.float32, case.main_opset)
    assert "between 'A' and 'y'; choose a later layer" in str(caught.value)
