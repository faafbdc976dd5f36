"""Gemm and MatMul."""

from __future__ import annotations

from tests.gradients.case import Case, weights

_GEMM = [
    Case(
        f"Gemm transA={a} transB={b} by {wanted}",
        f"y = Gemm<transA={a}, transB={b}, alpha=0.7, beta=1.3>({operands})",
        shape,
        constants=constants,
        symbolic=(),
        images=False,
    )
    for a in (0, 1)
    for b in (0, 1)
    for wanted, operands, shape, constants in (
        (
            "the left operand",
            "A, k, c",
            (4, 3) if a else (3, 4),
            {"k": weights(5, 4) if b else weights(4, 5), "c": weights(5)},
        ),
        (
            "the right operand",
            "k, A, c",
            (5, 4) if b else (4, 5),
            {"k": weights(4, 3) if a else weights(3, 4), "c": weights(3, 1)},
        ),
    )
]

CASES = [
    *_GEMM,
    Case(
        "Gemm of features",
        "y = Gemm(A, k, c)",
        (3, 4),
        constants={"k": weights(4, 5), "c": weights(5)},
    ),
    Case("Gemm without bias", "y = Gemm<alpha=-2.0>(A, k)", (3, 4), (11, 26), {"k": weights(4, 5)}),
    *(
        Case(
            f"Gemm by its bias {shape}",
            "y = Gemm<beta=0.5>(k, m, A)",
            shape,
            constants={"k": weights(3, 4), "m": weights(4, 5)},
            symbolic=(),
            images=False,
        )
        for shape in ((3, 5), (5,), (1, 5), (3, 1), (1,))
    ),
    Case(
        "Gemm by its bias, twice",
        "s = Mul(A, A)\n y = Gemm(A, k, s)",
        (3, 4),
        constants={"k": weights(4, 4)},
    ),
    Case("MatMul of features", "y = MatMul(A, k)", (3, 4), constants={"k": weights(4, 5)}),
    Case(
        "MatMul of tokens",
        "y = MatMul(A, k)",
        (2, 3, 4),
        constants={"k": weights(4, 5)},
        symbolic=(0, 1),
    ),
    Case("MatMul, rank 4", "y = MatMul(A, k)", (2, 3, 4, 5), constants={"k": weights(5, 2)}),
    Case("MatMul from the right", "y = MatMul(k, A)", (2, 3, 4), constants={"k": weights(5, 3)}),
    Case("MatMul, right, rank 4", "y = MatMul(k, A)", (2, 3, 4, 5), constants={"k": weights(6, 4)}),
    Case("MatMul with heads", "y = MatMul(A, k)", (2, 3, 4, 5), constants={"k": weights(3, 5, 2)}),
    Case("MatMul of one head", "y = MatMul(A, k)", (2, 1, 4, 5), constants={"k": weights(3, 5, 2)}),
    Case(
        "MatMul of a matrix with a batch",
        "y = MatMul(A, k)",
        (4, 5),
        constants={"k": weights(2, 3, 5, 2)},
        symbolic=(),
        images=False,
    ),
    Case(
        "MatMul of a batch with a matrix",
        "y = MatMul(k, A)",
        (4, 5),
        constants={"k": weights(2, 3, 6, 4)},
        symbolic=(),
        images=False,
    ),
    Case(
        "MatMul of a batch of one",
        "y = MatMul(A, k)",
        (1, 4, 5),
        constants={"k": weights(3, 5, 2)},
        symbolic=(),
        images=False,
    ),
    Case(
        "MatMul of tokens with themselves",
        "t = Transpose<perm=[0, 2, 1]>(A)\n y = MatMul(A, t)",
        (2, 3, 4),
        symbolic=(0, 1),
    ),
    # vectors
    Case("MatMul by a vector", "y = MatMul(A, k)", (3, 4), constants={"k": weights(4)}),
    Case(
        "MatMul of tokens by a vector",
        "y = MatMul(A, k)",
        (2, 3, 4),
        constants={"k": weights(4)},
        symbolic=(0, 1),
    ),
    Case(
        "MatMul of a vector by tokens", "y = MatMul(k, A)", (2, 3, 4), constants={"k": weights(3)}
    ),
    Case(
        "MatMul of a vector, rank 4", "y = MatMul(k, A)", (2, 3, 4, 5), constants={"k": weights(4)}
    ),
    *(
        Case(
            f"MatMul: A a vector, {what}",
            f"y = MatMul({operands})",
            (4,),
            constants={"k": value},
            symbolic=(),
            images=False,
        )
        for what, operands, value in (
            ("times a matrix", "A, k", weights(4, 5)),
            ("times matrices", "A, k", weights(2, 3, 4, 5)),
            ("a matrix times it", "k, A", weights(5, 4)),
            ("matrices times it", "k, A", weights(2, 3, 5, 4)),
            ("times a vector", "A, k", weights(4)),
            ("a vector times it", "k, A", weights(4)),
        )
    ),
    Case(
        "MatMul: A a vector, times itself",
        "y = MatMul(A, A)",
        (4,),
        symbolic=(),
        images=False,
    ),
    # batches whose size is known at run time alone
    Case(
        "MatMul of heads of an unknown number",
        "y = MatMul(A, w)",
        (2, 1, 4, 5),
        (13, 26),
        inputs={"w": (0, 3, 5, 2)},
        symbolic=(0, 1, 2),
        training="takes an unknown size for that which it is multiplied with",
    ),
    Case(
        "MatMul with as many unknown heads",
        "h = Mul(A, A)\n t = Transpose<perm=[0, 1, 3, 2]>(h)\n y = MatMul(A, t)",
        (2, 3, 4, 5),
        symbolic=(0, 1, 2),
    ),
    Case("MatMul with an input", "y = MatMul(A, w)", (2, 3, 4), inputs={"w": (0, 4, 5)}),
]
