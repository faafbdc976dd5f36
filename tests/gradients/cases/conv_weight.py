"""Conv and ConvTranspose with respect to their weights and bias."""

from __future__ import annotations

from tests.gradients.case import Case, weights


def _by_weight(
    name: str,
    attributes: str,
    weight: tuple[int, ...],
    x: tuple[int, ...],
    op_type: str = "Conv",
) -> Case:
    """Return a case whose A is the weight."""
    options = f"<{attributes}>" if attributes else ""
    plain = op_type == "Conv" and "group" not in attributes and "SAME" not in attributes
    return Case(
        f"{op_type} by its weights, {name}",
        f"y = {op_type}{options}(x, A)",
        weight,
        constants={"x": weights(*x)},
        symbolic=(),
        images=False,
        ad="" if plain else "has no rule for it",
    )


_X = (2, 3, 7, 6)
_DENSE = (4, 3, 3, 2)

_CONV = [
    _by_weight("plain", "", _DENSE, _X),
    _by_weight("1 x 1", "", (4, 3, 1, 1), _X),
    _by_weight("1 x 1 of groups", "group=3", (6, 2, 1, 1), (2, 6, 3, 4)),
    _by_weight("1 x 1, stride 2", "strides=[2, 2]", (4, 3, 1, 1), _X),
    _by_weight("1 x 1, padded", "pads=[1, 0, 0, 2]", (4, 3, 1, 1), _X),
    _by_weight("padded unevenly", "pads=[0, 1, 2, 0]", _DENSE, _X),
    _by_weight("padded beyond its reach", "pads=[3, 4, 5, 3]", _DENSE, _X),
    *(
        _by_weight(
            f"stride {s}, pad {p}",
            f"strides=[{s}, 2], pads=[{p}, {p}, 0, {p}], kernel_shape=[3, 2]",
            _DENSE,
            _X,
        )
        for s in (1, 2, 3)
        for p in (0, 1)
    ),
    _by_weight("stride beyond the kernel", "strides=[3, 4]", _DENSE, (2, 3, 8, 9)),
    _by_weight("dilated", "dilations=[2, 3], pads=[1, 1, 1, 1]", _DENSE, _X),
    _by_weight(
        "dilated, strided", "dilations=[2, 1], strides=[2, 3], pads=[1, 1, 2, 0]", _DENSE, _X
    ),
    *(
        _by_weight(f"{auto}, stride {s}", f'auto_pad="{auto}", strides=[{s}, 2]', _DENSE, _X)
        for auto in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for s in (1, 3)
    ),
    _by_weight("groups", "group=2, pads=[1, 1, 1, 1]", (4, 3, 3, 3), (2, 6, 4, 5)),
    _by_weight("groups, strided", "group=2, strides=[2, 2]", (6, 2, 3, 2), (3, 4, 6, 5)),
    _by_weight("depthwise", "group=3, pads=[1, 1, 1, 1]", (3, 1, 3, 3), _X),
    _by_weight("1-D", "strides=[2], pads=[1, 0]", (4, 3, 3), (2, 3, 8)),
    _by_weight(
        "3-D",
        "group=2, strides=[2, 1, 1], pads=[1, 0, 1, 0, 1, 0]",
        (2, 2, 2, 3, 2),
        (2, 4, 3, 4, 3),
    ),
]

_TRANSPOSED = [
    _by_weight(name, attributes, weight, x, "ConvTranspose")
    for name, attributes, weight, x in (
        ("plain", "", (3, 4, 3, 2), _X),
        ("1 x 1", "", (3, 4, 1, 1), _X),
        ("strided, padded", "strides=[2, 3], pads=[1, 0, 0, 1]", (3, 4, 3, 3), (2, 3, 4, 3)),
        (
            "longer",
            "strides=[2, 3], pads=[1, 0, 1, 1], output_padding=[1, 2]",
            (3, 2, 3, 2),
            (2, 3, 4, 3),
        ),
        (
            "groups, dilated",
            "group=2, dilations=[2, 1], strides=[2, 2]",
            (4, 3, 2, 3),
            (2, 4, 3, 4),
        ),
        ("SAME_UPPER", 'auto_pad="SAME_UPPER", strides=[2, 2]', (3, 2, 3, 3), (2, 3, 4, 3)),
        ("to a shape", "strides=[2, 2], output_shape=[6, 7]", (3, 2, 3, 2), (2, 3, 3, 4)),
        ("1-D", "strides=[2], pads=[1, 1]", (3, 2, 4), (2, 3, 5)),
    )
]

_WHOLE = [
    *(
        Case(
            f"{op_type} by its bias",
            f"c = {op_type}<strides=[2, 1]>(x, w, A)\n y = Mul(c, c)",
            (4,),
            constants={"x": weights(2, 3, 5, 4), "w": weights(*shape)},
            symbolic=(),
            images=False,
        )
        for op_type, shape in (("Conv", (4, 3, 3, 2)), ("ConvTranspose", (3, 4, 3, 2)))
    ),
    Case(
        "Conv by everything",
        "w = Mul(A, k)\n b = ReduceMax<keepdims=0>(A)\n c = Unsqueeze(b, zero)"
        "\n y = Conv<strides=[2, 1], pads=[1, 0, 1, 0]>(A, w, c)",
        (1, 3, 5, 4),
        (13, 17),
        {"k": weights(1, 3, 5, 4), "zero": [0]},
        symbolic=(),
        images=False,
    ),
    Case(
        "Conv of weights per image, the batch in the channels",
        # CondConv: each image has weights of its own, mixed from experts by what is in the image
        "m = ReduceMean<axes=[2, 3], keepdims=0>(A)\n r = Sigmoid(m)\n f = MatMul(r, experts)"
        "\n w = Reshape(f, kernels)\n x = Reshape(A, folded)"
        "\n c = Conv<group=2, pads=[1, 1, 1, 1]>(x, w)\n y = Reshape(c, maps)",
        (2, 3, 4, 5),
        (7, 17),
        {
            "experts": weights(3, 4 * 3 * 9),
            "kernels": [8, 3, 3, 3],
            "folded": [1, 6, 4, 5],
            "maps": [2, 4, 4, 5],
        },
        symbolic=(),
        images=False,
        ad="has no rule for groups",
    ),
    Case(
        "Conv of unknown size by its weights",
        "w = ReduceMean<axes=[0], keepdims=1>(A)\n y = Conv<strides=[2, 2]>(x, w)",
        (2, 3, 3, 2),
        (7, 17),
        inputs={"x": (0, 3, 6, 5)},
        images=False,
    ),
]

CASES = [*_CONV, *_TRANSPOSED, *_WHOLE]
