"""What a formula does not cover is refused, by a message that names the node and the reason."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.errors import UnsupportedModelError
from tests.gradients.case import Case, Constant, weights
from tests.gradients.cases.refused_layouts import LAYOUT_REFUSALS
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
            "r = Squeeze(A)\n y = Mul(r, r)",
            (2, 3, 4),
            (7, 9),
            symbolic=(0, 1, 2),
        ),
        "Mul-9 .node 'y'.: the rank of 'r' is unknown",
    ),
    # inputs without a formula
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
            "LpPool, dilated",
            "y = LpPool<kernel_shape=[2], dilations=[2]>(A)",
            (2, 3, 7),
            (18, 18),
        ),
        "LpPool-18 .node 'y'.: with dilations it needs opset 19",
    ),
    *(
        (
            Case(f"Attention: {reason}", f"y = Attention({operands})", shape, (24, 26), constants),
            reason,
        )
        for operands, shape, constants, reason in (
            (
                "A, A, A, , k, k",
                (2, 2, 3, 4),
                {"k": weights(2, 2, 3, 4)},
                "its input past_key is not covered",
            ),
            (
                "A, A, A, , , , n",
                (2, 2, 3, 4),
                {"n": [3, 2]},
                "its input nonpad_kv_seqlen is not covered",
            ),
            (
                "A, A, A, m",
                (2, 2, 3, 4),
                {"m": weights(3, 2)},
                "a mask that is shorter than the keys is not covered",
            ),
        )
    ),
    (
        Case(
            "Attention of unknown heads",
            "y = Attention(A, A, A)",
            (2, 2, 3, 4),
            (23, 26),
            symbolic=(1,),
        ),
        "the number of heads is not known at export",
    ),
    (
        Case(
            "Attention of unknown size",
            "y = Attention(A, A, A)",
            (2, 2, 3, 4),
            (23, 26),
            symbolic=(3,),
        ),
        "the size of a head is not known at export",
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
        "a Slice of a size known at run time only needs opset 10",
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
            "Conv by its weights, padded by an unknown size",
            'z = Reshape(x, k)\ny = Conv<auto_pad="SAME_UPPER", strides=[2, 2]>(z, A)',
            (4, 3, 3, 3),
            constants={"k": [1, 3, -1, 5]},
            inputs={"x": (0, 45)},
        ),
        "a spatial size is not known at export; fix the input's size",
    ),
    (
        Case("LRN of unknown channels", "y = LRN<size=3>(A)", MAP, symbolic=(0, 1)),
        "the number of channels is not known",
    ),
    *LAYOUT_REFUSALS,
]


@pytest.mark.parametrize(("case", "reason"), REFUSALS, ids=lambda value: getattr(value, "name", ""))
def test_refusal(case: Case, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason) as caught:
        gradient_model(case, np.float32, case.main_opset)
    assert "between 'A' and 'y'; choose a later layer" in str(caught.value)
