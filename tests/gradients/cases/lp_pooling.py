"""LpPool."""

from __future__ import annotations

from typing import Any

from tests.gradients.case import Case

_UNKNOWN = "has no gradient of it"


def _pool(name: str, attributes: str, shape: tuple[int, ...] = (2, 2, 6, 5), **more: Any) -> Case:
    more.setdefault(
        "ad",
        "pads and rounds in ways of its own" if "pad" in attributes or "ceil" in attributes else "",
    )
    return Case(f"LpPool {name}", f"y = LpPool<{attributes}>(A)", shape, training=_UNKNOWN, **more)


CASES = [
    *(_pool(f"of {p}", f"kernel_shape=[2, 2], strides=[2, 2], p={p}") for p in (1, 2, 3)),
    _pool("by default", "kernel_shape=[2, 3]", symbolic=(0, 2, 3)),
    _pool("1-D", "kernel_shape=[3], strides=[2], p=1", (2, 3, 7)),
    _pool("3-D", "kernel_shape=[2, 2, 2], strides=[1, 2, 2]", (1, 2, 3, 4, 4)),
    _pool("padded", "kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], p=3"),
    _pool("padded unevenly", "kernel_shape=[3, 3], strides=[2, 1], pads=[0, 1, 2, 2]"),
    _pool("SAME_UPPER", 'kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"', (2, 2, 7, 5)),
    _pool("dilated", "kernel_shape=[2, 2], dilations=[2, 3], p=3", opsets=(19, 26)),
    _pool(
        "ceil", "kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1", (2, 2, 7, 5), opsets=(18, 26)
    ),
]
