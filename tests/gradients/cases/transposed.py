"""ConvTranspose and Col2Im."""

from __future__ import annotations

from typing import Any

from tests.gradients.case import Case, weights

_MAP = (2, 4, 3, 4)
_DENSE = (4, 3, 3, 2)


def _conv(
    name: str,
    attributes: str,
    shape: tuple[int, ...] = _MAP,
    weight: tuple[int, ...] = _DENSE,
    **more: Any,
) -> Case:
    more.setdefault("ad", "refuses auto_pad" if "SAME" in attributes else "")
    options = f"<{attributes}>" if attributes else ""
    return Case(
        f"ConvTranspose {name}",
        f"y = ConvTranspose{options}(A, w)",
        shape,
        constants={"w": weights(*weight)},
        **more,
    )


_UNKNOWN = {"symbolic": (0, 2, 3)}

_TRANSPOSED = [
    _conv("plain", "", **_UNKNOWN),
    _conv("strided", "strides=[2, 3]", **_UNKNOWN),
    _conv("padded unevenly", "strides=[2, 2], pads=[1, 0, 0, 1]", **_UNKNOWN),
    _conv("padded more than its kernel", "pads=[2, 2, 3, 2]", (1, 4, 5, 6)),
    _conv("longer", "strides=[2, 3], pads=[1, 0, 1, 1], output_padding=[1, 2]", **_UNKNOWN),
    _conv("longer, unpadded", "strides=[2, 2], output_padding=[1, 1]", **_UNKNOWN),
    _conv("dilated", "dilations=[2, 3], strides=[2, 1], pads=[1, 2, 2, 0]", **_UNKNOWN),
    _conv("of groups", "group=2, strides=[2, 2], pads=[1, 1, 1, 1]", _MAP, (4, 3, 3, 3)),
    _conv("depthwise", "group=4, strides=[2, 2]", _MAP, (4, 1, 2, 2)),
    _conv("2 x 2, stride 2", "kernel_shape=[2, 2], strides=[2, 2]", _MAP, (4, 3, 2, 2)),
    _conv("NOTSET", 'auto_pad="NOTSET", strides=[2, 2], pads=[1, 0, 1, 0]'),
    _conv("VALID", 'auto_pad="VALID", strides=[2, 2]'),
    *(
        _conv(f"{auto}, stride {s}", f'auto_pad="{auto}", strides=[{s}, 2]', **_UNKNOWN)
        for auto in ("SAME_UPPER", "SAME_LOWER")
        for s in (1, 2, 3)
    ),
    _conv("to a shape", "strides=[2, 2], output_shape=[6, 7]"),
    _conv("to a shape, SAME_UPPER", 'strides=[2, 2], output_shape=[6, 7], auto_pad="SAME_UPPER"'),
    _conv("to a shape, SAME_LOWER", 'strides=[2, 2], output_shape=[6, 8], auto_pad="SAME_LOWER"'),
    _conv("1-D", "strides=[2], pads=[1, 1]", (2, 4, 5), (4, 3, 4)),
    _conv("3-D", "strides=[2, 1, 1], pads=[1, 0, 0, 0, 1, 1]", (1, 2, 3, 2, 3), (2, 3, 3, 2, 2)),
    Case(
        "ConvTranspose with bias",
        "c = ConvTranspose<strides=[2, 2]>(A, w, b)\n y = Mul(c, c)",
        _MAP,
        constants={"w": weights(*_DENSE), "b": weights(3)},
    ),
]


def _col2im(name: str, attributes: str, blocks: int, block: list[int], image: list[int]) -> Case:
    options = f"<{attributes}>" if attributes else ""
    size = 1
    for length in block:
        size *= length
    return Case(
        f"Col2Im {name}",
        f"c = Col2Im{options}(A, image, block)\n y = Mul(c, c)",
        (2, 2 * size, blocks),
        (18, 26),
        {"image": image, "block": block},
        training="has no gradient for it",
    )


_BLOCKS = [
    _col2im("of tiles", "strides=[2, 2]", 6, [2, 2], [4, 6]),
    _col2im("overlapping", "", 12, [2, 3], [5, 5]),
    _col2im(
        "padded, dilated", "pads=[1, 0, 2, 1], dilations=[2, 1], strides=[2, 2]", 9, [3, 2], [6, 5]
    ),
    _col2im("1-D", "strides=[2]", 3, [3], [7]),
]

CASES = [*_TRANSPOSED, *_BLOCKS]
