"""Normalisations and softmax."""

from __future__ import annotations

import numpy as np

from tests.gradients.case import Case, positive, weights

_STATISTICS = {"s": weights(3), "b": weights(3), "m": weights(3), "v": positive(3)}
_FLAT = "refuses Softmax before opset 13"
_X_ALONE = "differentiates by x alone"
_UNKNOWN = "has no gradient of it"
_ROUNDS = "computes in float32, as stash_type asks"
_BATCH = "y = BatchNormalization(A, s, b, m, v)"

CASES = [
    Case("BatchNormalization", _BATCH, (2, 3, 2, 4), constants=_STATISTICS, symbolic=(0, 2, 3)),
    Case("BatchNormalization, rank 2", _BATCH, (4, 3), constants=_STATISTICS),
    Case("BatchNormalization, rank 3", _BATCH, (2, 3, 4), constants=_STATISTICS),
    Case("BatchNormalization, rank 5", _BATCH, (2, 3, 2, 1, 2), constants=_STATISTICS),
    Case(
        "BatchNormalization, epsilon",
        "y = BatchNormalization<epsilon=0.3, momentum=0.5>(A, s, b, m, v)",
        (2, 3, 2, 4),
        constants=_STATISTICS,
    ),
    Case("BatchNormalization of inputs", _BATCH, (2, 3, 2, 4), inputs={n: (3,) for n in "sbmv"}),
    Case(
        "BatchNormalization, spatial",
        "y = BatchNormalization<spatial=1>(A, s, b, m, v)",
        (2, 3, 2, 4),
        (7, 8),
        _STATISTICS,
    ),
    Case(
        "BatchNormalization per element",
        "y = BatchNormalization<spatial=0>(A, s, b, m, v)",
        (2, 3, 2),
        (7, 8),
        {"s": weights(3, 2), "b": weights(3, 2), "m": weights(3, 2), "v": positive(3, 2)},
        ad="takes all for one value per channel",
        training="cannot be had in a newer opset",
    ),
    Case(
        "BatchNormalization, rank 1",
        _BATCH,
        (3,),
        constants={name: positive(1) for name in "sbmv"},
        ad="adds an axis",
        training="has no gradient of it, and the preparation none for this rank",
    ),
    *(
        Case(
            f"InstanceNormalization, rank {len(shape)}",
            "y = InstanceNormalization(A, s, b)",
            shape,
            constants={"s": weights(3), "b": weights(3)},
            symbolic=symbolic,
        )
        for shape, symbolic in (
            ((2, 3, 2, 4), (0, 2, 3)),
            ((2, 3, 5), (0,)),
            ((2, 3, 2, 2, 3), (0, 4)),
        )
    ),
    Case(
        "InstanceNormalization, epsilon",
        "y = InstanceNormalization<epsilon=0.3>(A, s, b)",
        (2, 3, 2, 4),
        constants={"s": weights(3), "b": weights(3)},
    ),
    *(
        Case(
            f"GroupNormalization-{since} {groups}{what}",
            f"y = GroupNormalization<num_groups={groups}{epsilon}>(A, s, b)",
            shape,
            (since, last),
            {"s": weights(sizes), "b": weights(sizes)},
            symbolic=symbolic,
            ad=_ROUNDS,
        )
        for since, last in ((18, 20), (21, 26))
        for groups, what, epsilon, shape, symbolic in (
            (2, "", "", (2, 6, 2, 4), (0, 2, 3)),
            (3, ", epsilon", ", epsilon=0.3", (2, 6, 2, 4), (0,)),
            (1, ", rank 3", "", (2, 3, 5), (0, 2)),
            (4, ", rank 5", "", (2, 4, 2, 2, 3), (0,)),
        )
        for sizes in (groups if since == 18 else shape[1],)
    ),
    Case(
        "MeanVarianceNormalization over images, too",
        # by default these are the axes, but then onnx's checker objects to its own function
        "y = MeanVarianceNormalization<axes=[0, 2, 3]>(A)",
        (2, 3, 2, 4),
        (9, 26),
        images=False,
        half=False,
        training=_UNKNOWN,
    ),
    *(
        Case(
            f"MeanVarianceNormalization over {axes}",
            f"y = MeanVarianceNormalization<axes={axes}>(A)",
            (2, 3, 2, 4),
            (9, 26),
            symbolic=(0, 2, 3),
            half=False,
            training=_UNKNOWN,
        )
        for axes in ([2, 3], [1, 2, 3], [3])
    ),
    *(
        Case(
            f"LpNormalization of {p}, axis {axis}",
            f"y = LpNormalization<p={p}, axis={axis}>(A)",
            (2, 3, 2, 4),
            symbolic=(0, 2, 3),
            training=_UNKNOWN,
        )
        for p in (1, 2)
        for axis in (1, -1)
    ),
    Case("LpNormalization", "y = LpNormalization(A)", (2, 5), training=_UNKNOWN),
    *(
        Case(
            f"RMSNormalization{name}",
            f"y = RMSNormalization{attributes}(A, s)",
            (2, 3, 4),
            (23, 26),
            {"s": scale},
            symbolic=(0, 1),
            ad=_ROUNDS,
        )
        for name, attributes, scale in (
            ("", "", weights(4)),
            (", axis 1", "<axis=1>", weights(3, 4)),
            (", axis -2, scale of the last", "<axis=-2, epsilon=0.3>", weights(4)),
            (", one scale", "<stash_type=1>", weights(1)),
        )
    ),
    # by scale and bias
    *(
        Case(
            f"{op_type} by its {what}, {first} to {last}",
            f"y = {op_type}{attributes}({operands})",
            shape,
            (first, last),
            {"k": weights(2, 4, 2, 3), "s": weights(*shape)},
            symbolic=(),
            images=False,
            ad=_X_ALONE,
            training=_X_ALONE if op_type == "LayerNormalization" else "",
        )
        for op_type, first, last, attributes, shape, biased in (
            ("LayerNormalization", 17, 26, "<axis=2>", (2, 3), True),
            ("RMSNormalization", 23, 26, "", (3,), False),
            ("InstanceNormalization", 7, 26, "", (4,), True),
            ("GroupNormalization", 21, 26, "<num_groups=2>", (4,), True),
        )
        for what, operands in (
            ("scale", "k, A, s" if biased else "k, A"),
            *([("bias", "k, s, A")] if biased else []),
        )
    ),
    *(
        Case(
            f"LRN of {size}",
            f"y = LRN<size={size}, alpha=0.9, beta=0.6, bias=1.3>(A)",
            (2, 5, 2, 3),
            runtime="" if size % 2 else "takes odd sizes only",
        )
        for size in (1, 2, 3, 4, 5, 7)
    ),
    Case("LRN of unknown size", "y = LRN<size=3, alpha=0.9>(A)", (2, 5, 2, 3), symbolic=(0, 2, 3)),
    Case(
        "LRN, alpha and beta by default",
        "s = Mul(A, c)\n y = LRN<size=3>(s)",
        (2, 5, 2, 3),
        constants={"c": 20.0},
    ),
    Case(
        "LayerNormalization",
        "y = LayerNormalization(A, s, b)",
        (2, 3, 4),
        (17, 26),
        {"s": weights(4), "b": weights(4)},
        symbolic=(0, 1),
    ),
    Case(
        "LayerNormalization without bias",
        "y = LayerNormalization(A, s)",
        (2, 3, 4),
        (17, 26),
        {"s": weights(4)},
    ),
    Case(
        "LayerNormalization of two axes",
        "y = LayerNormalization<axis=1>(A, s, b)",
        (2, 3, 4),
        (17, 26),
        {"s": weights(3, 4), "b": weights(3, 4)},
    ),
    Case(
        "LayerNormalization, axis -2",
        "y = LayerNormalization<axis=-2, epsilon=0.2>(A, s)",
        (2, 3, 4),
        (17, 26),
        {"s": weights(3, 4)},
    ),
    Case(
        "LayerNormalization, rank 4",
        "y = LayerNormalization<axis=3>(A, s, b)",
        (2, 2, 3, 4),
        (17, 26),
        {"s": weights(4), "b": weights(4)},
    ),
    Case(
        "LayerNormalization with statistics",
        "y, mean, deviation = LayerNormalization(A, s)",
        (2, 3, 4),
        (17, 26),
        {"s": weights(4)},
    ),
    Case(
        "LayerNormalization written out",
        """m = ReduceMean<axes=[-1]>(A)
        d = Sub(A, m)
        q = Pow(d, two)
        v = ReduceMean<axes=[-1]>(q)
        e = Add(v, epsilon)
        r = Sqrt(e)
        n = Div(d, r)
        p = Mul(n, s)
        y = Add(p, b)""",
        (2, 3, 4),
        (11, 17),
        {"two": 2.0, "epsilon": 1e-5, "s": weights(4), "b": weights(4)},
    ),
    *(
        case
        for op_type in ("Softmax", "LogSoftmax")
        for case in (
            # up to opset 12 all axes from `axis` on, 1 by default, are normalised together
            Case(f"{op_type}-1", f"y = {op_type}(A)", (2, 5), (7, 12), ad=_FLAT),
            Case(f"{op_type}-1 of a map", f"y = {op_type}(A)", (2, 3, 2, 2), (7, 12), ad=_FLAT),
            Case(
                f"{op_type}-1, axis 2", f"y = {op_type}<axis=2>(A)", (2, 3, 2, 2), (7, 12), ad=_FLAT
            ),
            Case(
                f"{op_type}-1, axis 0",
                f"y = {op_type}<axis=0>(A)",
                (2, 3),
                (7, 12),
                images=False,
                ad=_FLAT,
            ),
            Case(
                f"{op_type}-11, axis -2",
                f"y = {op_type}<axis=-2>(A)",
                (2, 3, 2, 2),
                (11, 12),
                ad=_FLAT,
            ),
            Case(f"{op_type}-13", f"y = {op_type}(A)", (2, 3, 4), (13, 26), symbolic=(0, 1)),
            Case(
                f"{op_type}-13, axis 1",
                f"y = {op_type}<axis=1>(A)",
                (2, 3, 2, 2),
                (13, 26),
                symbolic=(0, 2, 3),
            ),
            Case(f"{op_type}-13, axis -2", f"y = {op_type}<axis=-2>(A)", (2, 3, 4), (13, 26)),
            Case(
                f"{op_type}-13, axis 0", f"y = {op_type}<axis=0>(A)", (2, 3), (13, 26), images=False
            ),
        )
    ),
    Case(
        "Attention",
        """q = MatMul(A, wq)
        k = MatMul(A, wk)
        t = Transpose<perm=[0, 2, 1]>(k)
        s = MatMul(q, t)
        p = Softmax<axis=-1>(s)
        y = MatMul(p, A)""",
        (2, 3, 4),
        (13, 26),
        {"wq": weights(4, 4), "wk": weights(4, 4)},
        symbolic=(0, 1),
    ),
    Case(
        "BatchNormalization, training_mode=0",
        "y = BatchNormalization<training_mode=0>(A, s, b, m, v)",
        (2, 3, 2, 4),
        (14, 26),
        {**_STATISTICS, "b": np.array([0.1, 0.2, 0.3])},
    ),
]
