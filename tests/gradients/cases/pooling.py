"""MaxPool and AveragePool."""

from __future__ import annotations

from typing import Any

from tests.gradients.case import Case


def _pool(op_type: str, name: str, attributes: str, shape: tuple[int, ...], **more: Any) -> Case:
    more["ad"] = _onnx_ad(op_type, attributes)
    return Case(f"{op_type} {name}", f"y = {op_type}<{attributes}>(A)", shape, **more)


def _onnx_ad(op_type: str, attributes: str) -> str:
    """Return why onnx-ad is not asked for a case."""
    if "auto_pad" in attributes:
        return "refuses auto_pad"
    if op_type == "MaxPool":
        return ""
    if "ceil_mode" in attributes:
        return "refuses ceil_mode"
    return "splits uneven paddings in halves" if any(u in attributes for u in _UNEVEN) else ""


_UNEVEN = (
    "pads=[0, 1, 2",
    "pads=[0, 0, 2",
    "pads=[1, 0, 0",
    "pads=[2, 1, 1",
    "kernel_shape=[3, 2], strides=[2, 3]",
)


def _both(op_type: str) -> list[Case]:
    """Return the cases that both poolings have, from the first opset on."""

    def pool(
        name: str, attributes: str, shape: tuple[int, ...] = (2, 2, 6, 5), **more: Any
    ) -> Case:
        return _pool(op_type, name, attributes, shape, **more)

    return [
        pool("2 x 2", "kernel_shape=[2, 2], strides=[2, 2]"),
        pool("2 x 2, odd size", "kernel_shape=[2, 2], strides=[2, 2]", (2, 2, 7, 5)),
        pool("of stride one", "kernel_shape=[2, 3]"),
        pool("overlapping", "kernel_shape=[3, 3], strides=[2, 2]", (2, 2, 7, 5)),
        pool("overlapping, padded", "kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]"),
        pool("overlapping, longer", "kernel_shape=[3, 2], strides=[2, 3]", (2, 2, 8, 7)),
        pool("stride beyond the kernel", "kernel_shape=[2, 1], strides=[3, 2]", (2, 2, 8, 6)),
        pool(
            "stride beyond the kernel, padded",
            "kernel_shape=[2, 2], strides=[3, 4], pads=[1, 0, 1, 1]",
            (2, 2, 7, 7),
        ),
        pool("padded unevenly", "kernel_shape=[3, 3], strides=[2, 1], pads=[0, 1, 2, 2]"),
        pool("padded at the end", "kernel_shape=[3, 2], strides=[1, 2], pads=[0, 0, 2, 1]"),
        pool("of one element", "kernel_shape=[1, 1], strides=[2, 2]", (2, 2, 5, 4)),
        pool("of the whole map", "kernel_shape=[4, 3]", (2, 3, 4, 3)),
        pool("of the whole map, strided", "kernel_shape=[4, 3], strides=[4, 3]", (2, 3, 4, 3)),
        pool("of one element, stride one", "kernel_shape=[1, 1]", (2, 2, 3, 4)),
        pool("5 x 5, stride one", "kernel_shape=[5, 5], pads=[2, 2, 2, 2]", (1, 2, 4, 6)),
        pool("6, stride 4, 1-D", "kernel_shape=[6], strides=[4], pads=[3, 2]", (1, 2, 13)),
        pool(
            "side by side, of unknown size",
            "kernel_shape=[2, 3], strides=[2, 3]",
            (2, 2, 5, 7),
            opsets=(10, 26),
            symbolic=(0, 2, 3),
        ),
        pool(
            "3-D, side by side",
            "kernel_shape=[2, 2, 1], strides=[2, 2, 1]",
            (1, 2, 4, 5, 2),
        ),
        pool("1-D", "kernel_shape=[3], strides=[2], pads=[1, 0]", (2, 3, 8)),
        pool(
            "3-D",
            "kernel_shape=[2, 1, 2], strides=[1, 2, 2], pads=[1, 0, 0, 0, 0, 1]",
            (1, 2, 3, 3, 4),
        ),
        *(
            pool(
                f"{auto}, stride {s}, size {h}",
                f'kernel_shape=[3, 2], auto_pad="{auto}", strides=[{s}, {s}]',
                (1, 2, h, h + 1),
            )
            for auto in ("SAME_UPPER", "SAME_LOWER")
            for s in (1, 2, 3)
            for h in (6, 7)
        ),
        pool("SAME_UPPER, even", 'kernel_shape=[2, 4], auto_pad="SAME_UPPER"'),
        pool("VALID", 'kernel_shape=[3, 2], auto_pad="VALID", strides=[2, 2]'),
        pool("NOTSET", 'kernel_shape=[3, 2], auto_pad="NOTSET", strides=[2, 2], pads=[1, 0, 0, 1]'),
        # rounding up, since opset 10; the last window may start in the map, not in the padding
        *(
            pool(
                f"ceil, kernel {k}, stride {s}, size {h}, pads {p} and {q}",
                f"kernel_shape=[{k}, {k}], strides=[{s}, {s}], pads=[{p}, {q}], ceil_mode=1",
                (1, 2, h, h + 1),
                opsets=(10, 26),
            )
            for k, s, h, p, q in (
                (2, 2, 5, "0, 0", "0, 0"),
                (3, 2, 6, "0, 0", "0, 0"),
                (3, 2, 5, "1, 1", "1, 1"),
                (3, 2, 6, "1, 1", "1, 1"),
                (3, 2, 6, "0, 0", "1, 1"),
                (2, 3, 6, "1, 1", "0, 0"),
                (3, 3, 7, "1, 1", "0, 0"),
            )
        ),
        pool(
            "ceil, nothing to round",
            "kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1",
            (1, 2, 6, 4),
            opsets=(10, 26),
        ),
        pool(
            "ceil, VALID",
            'kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, auto_pad="VALID"',
            (1, 2, 5, 6),
            opsets=(10, 26),
        ),
        pool(
            "ceil, SAME_UPPER",
            'kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, auto_pad="SAME_UPPER"',
            (1, 2, 5, 6),
            opsets=(10, 26),
        ),
        pool("ceil, 1-D", "kernel_shape=[3], strides=[2], ceil_mode=1", (2, 3, 6), opsets=(10, 26)),
    ]


CASES = [
    *_both("MaxPool"),
    _pool(
        "MaxPool", "dilated", "kernel_shape=[2, 3], dilations=[2, 1]", (2, 2, 6, 5), opsets=(10, 26)
    ),
    _pool(
        "MaxPool",
        "dilated, strided, padded",
        "kernel_shape=[3, 2], dilations=[2, 3], strides=[2, 2], pads=[2, 1, 1, 1]",
        (1, 2, 7, 6),
        opsets=(10, 26),
    ),
    _pool(
        "MaxPool",
        "dilated, stride 3",
        "kernel_shape=[2, 2], dilations=[2, 2], strides=[3, 3]",
        (1, 2, 8, 9),
        opsets=(10, 26),
    ),
    _pool(
        "MaxPool",
        "dilated, ceil",
        "kernel_shape=[2, 2], dilations=[2, 2], strides=[2, 2], ceil_mode=1",
        (1, 2, 6, 7),
        opsets=(10, 26),
    ),
    *(
        Case(
            f"MaxPool with indices, storage_order {order}",
            f"y, i = MaxPool<kernel_shape=[2, 2], strides=[2, 2], storage_order={order}>(A)",
            (2, 2, 6, 4),
            (8, 26),
        )
        for order in (0, 1)
    ),
    Case(
        "MaxPool of negative values",
        "n = Sub(A, c)\n y = MaxPool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(n)",
        (2, 2, 5, 5),
        constants={"c": 10.0},
    ),
    *_both("AveragePool"),
    *(
        _pool(
            "AveragePool",
            f"with its padding counted, {name}",
            f"{attributes}, count_include_pad=1",
            shape,
            **more,
        )
        for name, attributes, shape, more in (
            ("stride 1", "kernel_shape=[3, 3], pads=[1, 1, 1, 1]", (2, 2, 4, 5), {}),
            (
                "stride 2",
                "kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]",
                (2, 2, 6, 5),
                {},
            ),
            ("uneven", "kernel_shape=[3, 2], strides=[2, 2], pads=[0, 1, 2, 0]", (2, 2, 6, 5), {}),
            ("1-D", "kernel_shape=[3], strides=[2], pads=[1, 1]", (2, 2, 6), {}),
            ("3-D", "kernel_shape=[2, 2, 2], pads=[1, 0, 0, 0, 1, 1]", (1, 2, 3, 2, 3), {}),
            ("SAME_UPPER", 'kernel_shape=[3, 2], auto_pad="SAME_UPPER"', (1, 2, 5, 5), {}),
            ("SAME_LOWER", 'kernel_shape=[3, 2], auto_pad="SAME_LOWER"', (1, 2, 5, 5), {}),
            (
                "dilated",
                "kernel_shape=[3, 2], dilations=[2, 2], strides=[2, 1], pads=[2, 1, 1, 1]",
                (1, 2, 7, 6),
                {"opsets": (19, 26)},
            ),
            # before opset 19 versions of onnxruntime differ in what they divide by
            (
                "ceil, VALID",
                'kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, auto_pad="VALID"',
                (1, 2, 6, 7),
                {"opsets": (10, 26)},
            ),
            *(
                (
                    f"ceil, stride {s}, size {h}",
                    f"kernel_shape=[3, 3], strides=[{s}, {s}], pads=[1, 1, 1, 1], ceil_mode=1",
                    (1, 2, h, h + 1),
                    {"opsets": (10, 26)},
                )
                for s, h in ((2, 5), (2, 6), (2, 7), (3, 6))
            ),
        )
    ),
    _pool(
        "AveragePool",
        "dilated",
        "kernel_shape=[2, 3], dilations=[2, 1]",
        (2, 2, 6, 5),
        opsets=(19, 26),
    ),
    _pool(
        "AveragePool",
        "dilated, strided, padded",
        "kernel_shape=[3, 2], dilations=[2, 3], strides=[2, 2], pads=[2, 1, 1, 1]",
        (1, 2, 7, 6),
        opsets=(19, 26),
    ),
    _pool(
        "AveragePool",
        "dilated, ceil",
        "kernel_shape=[2, 2], dilations=[2, 2], strides=[2, 2], ceil_mode=1",
        (1, 2, 6, 7),
        opsets=(19, 26),
    ),
    _pool(
        "AveragePool", "of unknown size", "kernel_shape=[3, 2]", (2, 2, 6, 5), symbolic=(0, 2, 3)
    ),
]
