"""Einsum."""

from __future__ import annotations

from typing import Any

from tests.gradients.case import Case, weights

_TWO = "is written in others for two operands, without an ellipsis and with a result"


def _einsum(
    equation: str,
    shape: tuple[int, ...],
    *others: tuple[int, ...],
    operands: str = "",
    **more: Any,
) -> Case:
    names = "kmn"[: len(others)]
    operands = operands or ", ".join("A" + names)
    what = more.pop("what", "")
    return Case(
        f"Einsum {equation}{what}",
        f'y = Einsum<equation="{equation}">({operands})',
        shape,
        (12, 26),
        {name: weights(*sizes) for name, sizes in zip(names, others, strict=True)},
        **more,
    )


CASES = [
    # one operand
    _einsum("bij->bji", (2, 3, 4), symbolic=(0, 1, 2)),
    _einsum("bij->bi", (2, 3, 4)),
    _einsum("bij->j", (2, 3, 4), images=False),
    _einsum("bchw->bc", (2, 3, 2, 4), symbolic=(0, 2, 3)),
    _einsum("bij->", (2, 3, 4), images=False),
    # two, as matrices
    _einsum("bij,jk->bik", (2, 3, 4), (4, 5), symbolic=(0, 1)),
    _einsum(" b i j , j k -> b i k ", (2, 3, 4), (4, 5)),
    _einsum("ij,jk", (3, 4), (4, 5), training=_TWO),
    _einsum("ba,cb", (3, 4), (5, 3), images=False, symbolic=(), training=_TWO),
    _einsum("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 2, 5), symbolic=(), images=False),
    _einsum("bqhd,bkhd->bhqk", (2, 4, 3, 5), operands="A, A", symbolic=(0, 1)),
    _einsum("bhqk,bkhd->bqhd", (2, 3, 4, 5), (2, 5, 3, 2), symbolic=(), images=False),
    _einsum("nhwc,hkc->nhwk", (2, 3, 4, 5), (3, 2, 5), symbolic=(0, 2)),
    _einsum("nhwc,ck->nkhw", (2, 3, 4, 5), (5, 2)),
    _einsum("nhwc,ck->nkhw", (2, 3, 4, 5), (5, 2), symbolic=(0, 1, 2), what=", sizes unknown"),
    _einsum("bijk,jkl->bil", (2, 3, 4, 5), (4, 5, 2)),
    _einsum("bj,ijk->bik", (2, 3), (4, 3, 5)),
    _einsum("ijk,bj->bik", (2, 3), (4, 3, 5), operands="k, A"),
    # without a matrix
    _einsum("bi,bi->b", (2, 3), (2, 3), symbolic=(), images=False),
    _einsum("bi,j->bij", (2, 3), (4,)),
    _einsum("bi,bi->bi", (2, 3), operands="A, A"),
    _einsum("bij,j->bi", (2, 3, 4), (4,)),
    _einsum("i,bij->bj", (2, 3, 4), (3,), operands="k, A"),
    _einsum("bij,kl->bi", (2, 3, 4), (4, 2)),
    _einsum("bij,ik->bk", (2, 3, 4), (3, 5)),
    _einsum("i,i->", (4,), (4,), images=False, symbolic=()),
    _einsum("bij,jk->bik", (2, 3, 1), (1, 5), what=" over one"),
    # ellipses
    _einsum("...ij,jk->...ik", (2, 3, 4, 5), (5, 2), training=_TWO),
    _einsum("b...,...->b...", (2, 3, 4), (3, 4), training=_TWO, ad="wants the ellipsis first"),
    _einsum("...ij,...jk", (2, 3, 4, 5), (2, 3, 5, 2), training=_TWO, images=False, symbolic=()),
    *(
        _einsum(
            "...ij,...jk->...ik",
            shape,
            (1, 3, 5, 2),
            training=_TWO,
            what=f", {what} stretched",
        )
        for shape, what in (((2, 3, 4, 5), "the other"), ((2, 1, 4, 5), "both"))
    ),
    _einsum("...i,...i->...", (2, 3, 4), operands="A, A", training=_TWO),
    _einsum("...c,kc->...k", (2, 4), (3, 4), training=_TWO, what=" of no more axes"),
    # three and more
    _einsum("bi,ij,jk->bk", (2, 3), (3, 4), (4, 5), training=_TWO),
    _einsum("bi,bj,ijk->bk", (2, 3), (3, 3, 4), operands="A, A, k", training=_TWO),
    _einsum("bi,i,j,jk->bk", (2, 3), (3,), (4,), (4, 5), training=_TWO),
    _einsum("i,bij,j->b", (2, 3, 4), (3,), (4,), operands="k, A, m", training=_TWO),
]
