"""Attention and RotaryEmbedding."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradients.case import Case, Constant, weights

_NO_RULE = "has no rule for it"
_TOO_NEW = "has no opset of it"
_BARRED = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)


def _case(name: str, body: str, shape: tuple[int, ...], **more: Any) -> Case:
    more.setdefault("opsets", (23, 26))
    return Case(name, body, shape, ad=_NO_RULE, training=_TOO_NEW, **more)


def _attention(
    name: str, attributes: str, by: str = "Q", mask: Constant | None = None, **more: Any
) -> Case:
    """Return attention of 4 query heads over 2 heads of keys and values, A being one of them."""
    shapes = {"Q": (2, 4, 4, 6), "K": (2, 2, 5, 6), "V": (2, 2, 5, 3)}
    operands = ", ".join("A" if n == by else n.lower() for n in shapes)
    constants: dict[str, Constant] = {
        n.lower(): weights(1, *shape[1:]) for n, shape in shapes.items() if n != by
    }
    # one image: the others are constants
    shape = (1, *shapes[by][1:])
    if mask is not None:
        operands += ", mask"
        constants["mask"] = mask
    more.setdefault("symbolic", (2,))
    body = f"y = Attention{attributes}({operands})"
    return _case(
        f"Attention {name} by {by}", body, shape, constants=constants, images=False, **more
    )


CASES = [
    *(_attention("of shared heads", "", by) for by in "QKV"),
    *(_attention("scaled, capped", "<scale=0.7, softcap=1.3>", by) for by in "QK"),
    *(_attention("causal", "<is_causal=1>", by, symbolic=()) for by in "QV"),
    _attention("causal, unknown sizes", "<is_causal=1>"),
    _attention("with a mask", "<softcap=1.3>", "K", weights(4, 5), symbolic=()),
    _attention("with a mask per head", "", "Q", weights(1, 4, 4, 5)),
    _attention("barred", "<is_causal=1>", "Q", _BARRED),
    *(_attention("barred, capped", "<softcap=1.3>", by, _BARRED, symbolic=()) for by in "KV"),
    _attention("barred by infinity", "", "Q", np.where(_BARRED, 0.3, -np.inf), symbolic=()),
    *(
        _attention(
            f"in windows {left}, {right}, causal={causal}",
            f"<left_window_size={left}, right_window_size={right}, is_causal={causal}>",
            opsets=(25, 26),
        )
        for left, right, causal in ((1, -1, 0), (-1, 1, 0), (1, 2, 0), (1, 2, 1))
    ),
    _case(
        "Attention by its mask",
        "y = Attention(q, k, v, A)",
        (1, 4, 3, 5),
        constants={"q": weights(2, 4, 3, 6), "k": weights(2, 2, 5, 6), "v": weights(2, 2, 5, 3)},
        symbolic=(),
        images=False,
    ),
    _case(
        "Attention of tokens with themselves",
        "y = Attention<q_num_heads=2, kv_num_heads=2>(A, A, A)",
        (2, 3, 8),
        symbolic=(0, 1),
    ),
    _case(
        "Attention of projected tokens",
        """q = MatMul(A, wq)
        k = MatMul(A, wk)
        v = MatMul(A, wv)
        y = Attention<q_num_heads=4, kv_num_heads=2, is_causal=1>(q, k, v)""",
        (2, 3, 4),
        constants={"wq": weights(4, 12), "wk": weights(4, 6), "wv": weights(4, 10)},
        symbolic=(0, 1),
    ),
    # RotaryEmbedding
    *(
        _case(
            f"RotaryEmbedding{what}",
            f"y = RotaryEmbedding{attributes}(A, c, s, p)",
            shape,
            constants={
                "c": weights(5, half),
                "s": weights(5, half),
                "p": np.array([[0, 3, 2], [4, 4, 1]]),
            },
            symbolic=(),
            images=False,
        )
        for what, attributes, shape, half in (
            ("", "", (2, 2, 3, 4), 2),
            (", interleaved", "<interleaved=1>", (2, 2, 3, 4), 2),
            (" of a part", "<rotary_embedding_dim=4>", (2, 2, 3, 6), 2),
            (" of joined heads", "<num_heads=2>", (2, 3, 8), 2),
        )
    ),
    _case(
        "RotaryEmbedding without positions",
        "y = RotaryEmbedding(A, w, z)",
        (2, 2, 3, 4),
        inputs={"w": (0, 3, 2), "z": (0, 3, 2)},
    ),
]
