"""Conv with respect to its input."""

from __future__ import annotations

from typing import Any

from tests.gradients.case import Case, weights


def _conv(
    name: str,
    attributes: str,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    **more: Any,
) -> Case:
    options = f"<{attributes}>" if attributes else ""
    return Case(
        f"Conv {name}", f"y = Conv{options}(A, w)", shape, constants={"w": weights(*weight)}, **more
    )


_AUTO_PAD = "refuses auto_pad"
_UNEVEN = "splits uneven paddings in halves"
_MAP = (2, 3, 6, 5)
_DENSE = (4, 3, 3, 3)

CASES = [
    _conv("1 x 1", "", _MAP, (4, 3, 1, 1), symbolic=(0, 2, 3)),
    _conv("3 x 3", "", _MAP, _DENSE, symbolic=(0, 2, 3)),
    _conv("3 x 2", "kernel_shape=[3, 2]", _MAP, (4, 3, 3, 2)),
    _conv("3 x 3 padded", "pads=[1, 1, 1, 1]", _MAP, _DENSE, symbolic=(0, 2, 3)),
    _conv("padded unevenly", "pads=[0, 1, 2, 0]", _MAP, _DENSE, symbolic=(0, 2, 3), ad=_UNEVEN),
    _conv(
        "padded beyond its reach", "pads=[3, 4, 5, 3]", _MAP, _DENSE, symbolic=(0, 2, 3), ad=_UNEVEN
    ),
    _conv("1 x 1 padded", "pads=[1, 0, 0, 2]", _MAP, (4, 3, 1, 1), ad=_UNEVEN),
    Case(
        "Conv with bias",
        "c = Conv<pads=[1, 1, 1, 1]>(A, w, b)\n y = Relu(c)",
        _MAP,
        constants={"w": weights(*_DENSE), "b": weights(4)},
    ),
    # strides
    *(
        _conv(
            f"stride {s}, pad {p}, size {h}",
            f"strides=[{s}, {s}], pads=[{p}, {p}, {p}, {p}]",
            (1, 2, h, h + 1),
            (3, 2, 3, 3),
            ad=_UNEVEN if s == 3 else "",
        )
        for s in (2, 3)
        for p in (0, 1)
        for h in (5, 6, 7)
    ),
    _conv("strides 2 and 1", "strides=[2, 1], pads=[1, 1, 1, 1]", _MAP, _DENSE),
    _conv("stride beyond the kernel", "strides=[3, 4]", (1, 3, 8, 9), (4, 3, 2, 2), ad=_UNEVEN),
    _conv("1 x 1, stride 2", "strides=[2, 2]", _MAP, (4, 3, 1, 1)),
    _conv("1 x 1, stride 2, even", "strides=[2, 2]", (2, 3, 6, 4), (4, 3, 1, 1)),
    _conv(
        "1 x 1, stride 3 and 2, longer", "strides=[3, 2]", (1, 3, 6, 5), (4, 3, 1, 1), ad=_UNEVEN
    ),
    _conv("1 x 1, stride 2, padded", "strides=[2, 2], pads=[1, 1, 1, 1]", _MAP, (4, 3, 1, 1)),
    _conv(
        "1 x 1, stride 2, padded at the end",
        "strides=[2, 2], pads=[0, 0, 1, 2]",
        _MAP,
        (4, 3, 1, 1),
        ad=_UNEVEN,
    ),
    _conv(
        "strided, padded beyond its reach",
        "strides=[2, 2], pads=[3, 4, 4, 3]",
        (1, 3, 6, 5),
        _DENSE,
        ad=_UNEVEN,
    ),
    _conv(
        "strided, padded unevenly",
        "strides=[2, 3], pads=[0, 2, 1, 0]",
        (1, 3, 7, 6),
        _DENSE,
        ad=_UNEVEN,
    ),
    _conv(
        "strided, of unknown size",
        "strides=[2, 2], pads=[1, 1, 1, 1]",
        (1, 3, 6, 5),
        _DENSE,
        symbolic=(0, 2, 3),
        opsets=(10, 26),
    ),
    _conv(
        "strided 1 x 1, of unknown size",
        "strides=[2, 2]",
        (1, 3, 6, 5),
        (4, 3, 1, 1),
        symbolic=(0, 2, 3),
        opsets=(10, 26),
    ),
    _conv(
        "strided 3, of unknown size",
        "strides=[3, 3], pads=[0, 2, 0, 1]",
        (1, 3, 8, 7),
        _DENSE,
        symbolic=(0, 2, 3),
        ad=_UNEVEN,
        opsets=(10, 26),
    ),
    _conv(
        "depthwise strided, of unknown size",
        "strides=[2, 2], group=3",
        (1, 3, 6, 5),
        (3, 1, 3, 3),
        symbolic=(0, 2, 3),
        opsets=(10, 26),
    ),
    # dilations
    _conv("dilated", "dilations=[2, 1]", _MAP, _DENSE, symbolic=(0, 2, 3)),
    _conv("dilated, padded", "dilations=[2, 2], pads=[2, 2, 2, 2]", _MAP, _DENSE),
    _conv(
        "dilated, strided",
        "dilations=[2, 2], strides=[2, 3], pads=[1, 2, 0, 2]",
        (1, 3, 7, 7),
        _DENSE,
        ad=_UNEVEN,
    ),
    # groups
    _conv("of groups", "group=2, pads=[1, 1, 1, 1]", (2, 4, 4, 3), (6, 2, 3, 3)),
    _conv("of groups, strided", "group=2, strides=[2, 2]", (1, 4, 5, 6), (6, 2, 3, 3)),
    _conv("of groups, 1 x 1, strided", "group=2, strides=[2, 2]", (1, 4, 5, 6), (6, 2, 1, 1)),
    _conv("depthwise", "group=3, pads=[1, 1, 1, 1]", _MAP, (3, 1, 3, 3), symbolic=(0, 2, 3)),
    _conv("depthwise, strided", "group=3, strides=[2, 2], pads=[1, 1, 1, 1]", _MAP, (3, 1, 3, 3)),
    _conv(
        "depthwise, strided, even",
        "group=3, strides=[2, 2], pads=[1, 1, 1, 1]",
        (2, 3, 6, 6),
        (3, 1, 3, 3),
    ),
    _conv(
        "depthwise, strided, dilated",
        "group=3, strides=[2, 3], dilations=[2, 1], pads=[0, 1, 2, 0]",
        (1, 3, 8, 7),
        (3, 1, 3, 3),
        ad=_UNEVEN,
    ),
    _conv(
        "depthwise, padded beyond its reach",
        "group=3, strides=[2, 2], pads=[3, 3, 4, 3]",
        (1, 3, 5, 5),
        (3, 1, 2, 2),
        ad=_UNEVEN,
    ),
    _conv("depthwise with a multiplier", "group=3", _MAP, (6, 1, 3, 3)),
    _conv(
        "depthwise with a multiplier, strided",
        "group=3, strides=[2, 2], pads=[0, 1, 1, 0]",
        _MAP,
        (6, 1, 3, 3),
        ad=_UNEVEN,
    ),
    # automatic padding
    *(
        _conv(
            f"{auto}, stride {s}, size {h}",
            f'auto_pad="{auto}", strides=[{s}, {s}]',
            (1, 2, h, h + 1),
            (3, 2, 3, 2),
            ad=_AUTO_PAD,
        )
        for auto in ("SAME_UPPER", "SAME_LOWER")
        for s in (1, 2, 3)
        for h in (5, 6)
    ),
    _conv(
        "SAME_UPPER of unknown size",
        'auto_pad="SAME_UPPER"',
        _MAP,
        _DENSE,
        symbolic=(0, 2, 3),
        ad=_AUTO_PAD,
    ),
    _conv("SAME_LOWER, even kernel", 'auto_pad="SAME_LOWER"', _MAP, (4, 3, 2, 4), ad=_AUTO_PAD),
    _conv(
        "SAME_UPPER, 1 x 1, stride 2",
        'auto_pad="SAME_UPPER", strides=[2, 2]',
        _MAP,
        (4, 3, 1, 1),
        ad=_AUTO_PAD,
    ),
    _conv(
        "SAME_LOWER, depthwise, stride 2",
        'auto_pad="SAME_LOWER", strides=[2, 2], group=3',
        _MAP,
        (3, 1, 3, 3),
        ad=_AUTO_PAD,
    ),
    _conv("VALID, strided", 'auto_pad="VALID", strides=[2, 2]', _MAP, _DENSE),
    _conv(
        "VALID, of unknown size",
        'auto_pad="VALID", strides=[2, 2]',
        _MAP,
        _DENSE,
        symbolic=(0, 2, 3),
        opsets=(10, 26),
    ),
    _conv("NOTSET", 'auto_pad="NOTSET", strides=[2, 2], pads=[1, 1, 1, 1]', _MAP, _DENSE),
    # other ranks
    _conv("1-D", "pads=[1, 0]", (2, 3, 7), (4, 3, 3), symbolic=(0, 2)),
    _conv("1-D, strided", "strides=[3], pads=[1, 1]", (2, 3, 8), (4, 3, 3)),
    _conv("1-D, depthwise, strided", "strides=[2], group=3", (2, 3, 8), (3, 1, 3)),
    _conv("3-D", "pads=[1, 0, 1, 0, 1, 1]", (1, 2, 3, 4, 3), (3, 2, 3, 2, 3), ad=_UNEVEN),
    _conv(
        "3-D, strided",
        "strides=[2, 1, 2], pads=[1, 1, 1, 1, 1, 1]",
        (1, 2, 4, 3, 5),
        (3, 2, 3, 3, 3),
    ),
    _conv("3-D, 1 x 1 x 1, strided", "strides=[2, 2, 2]", (1, 2, 4, 3, 5), (3, 2, 1, 1, 1)),
    _conv(
        "3-D, depthwise, strided", "strides=[1, 2, 2], group=2", (1, 2, 4, 3, 5), (2, 1, 2, 2, 2)
    ),
]
