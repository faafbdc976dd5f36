"""`simplify`: the passes over the nodes of a gradient, in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.simplify.added import Added, Rule, rewrite
from onnx_gradcam.export.simplify.one_hot import take_class
from onnx_gradcam.export.simplify.same import skip_same
from onnx_gradcam.export.simplify.scales import fold_scale
from onnx_gradcam.export.simplify.steps import step_mask
from onnx_gradcam.export.simplify.stretches import skip_expand
from onnx_gradcam.export.simplify.swish import join_swish
from onnx_gradcam.export.simplify.zero_rows import keep_zeros_apart
from onnx_gradcam.gradients.emitter import Dim, Emitter

_RULES: tuple[Rule, ...] = (skip_same, step_mask, join_swish, skip_expand, fold_scale)


def simplify(
    emit: Emitter,
    forward: Graph,
    shapes: Mapping[str, tuple[Dim, ...]],
    wanted: Collection[str],
    one_hot: tuple[str, str] | None = None,
) -> None:
    """Rewrite the nodes in an emitter so that they cost less and give the same.

    Args:
        emit: holds the nodes of the gradient.
        forward: the model as the gradient sees it.
        shapes: of tensors that inference would know less about: the seed.
        wanted: results that are read elsewhere; they keep their names.
        one_hot: a seed ``(N, K)`` that is 1 at a class and 0 elsewhere, and these classes.
    """
    added = Added(emit, forward, shapes, wanted)
    of_seed = () if one_hot is None else (take_class(*one_hot),)
    for rule in (*of_seed, *_RULES):
        rewrite(added, rule)
    keep_zeros_apart(added)
    added.refresh()
    for name, kind in added.types.items():
        emit.declare(name, kind.dtype, kind.shape)
