"""The attention outputs of an export: ``cam_attention`` (rollout) and ``cam_legrad``.

In: what is asked for. Out: `AttentionOutputs`, which adds the nodes to an emitter, names the
outputs, and says in the metadata what they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnx_gradcam.contract import ATTENTION_OUTPUT, LEGRAD_OUTPUT, AttentionMetadata
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.export.attach import AddedOutput
from onnx_gradcam.export.attention.blocks import Blocks, find_blocks
from onnx_gradcam.export.attention.copies import with_block_scores
from onnx_gradcam.export.attention.maps import AttentionMap
from onnx_gradcam.export.builders.reverse import build_reverse
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.objective import Objective
from onnx_gradcam.export.score import Score
from onnx_gradcam.export.tail import cut_tail
from onnx_gradcam.gradients.attention import emit_weights, emit_weights_gradient
from onnx_gradcam.gradients.emitter import Dim, Emitter
from onnx_gradcam.gradients.registry import Context, FormulaError

ROLLOUT, LEGRAD = "rollout", "legrad"
CHOICES = {ROLLOUT: (ROLLOUT,), LEGRAD: (LEGRAD,), "both": (ROLLOUT, LEGRAD)}
"""What ``--attention`` takes, and the methods that the file then serves."""


@dataclass(frozen=True)
class Emitted:
    """The added outputs and what the file says about them; None where there are none."""

    outputs: tuple[AddedOutput, ...] = ()
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class AttentionOutputs:
    """What is added.

    Attributes:
        graph: the analysis graph, with the copies of the head that LeGrad needs.
        warnings: one line each.
        methods: of `ROLLOUT` and `LEGRAD`; none where nothing is added.
        blocks: whose attention it is.
        scored: LeGrad: for each block, the attention whose gradient is taken, and the score.
    """

    graph: Graph
    warnings: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    blocks: Blocks | None = None
    scored: tuple[tuple[AttentionMap, str], ...] = ()

    def emit(self, emit: Emitter, forward: Graph, seed: str, batch: Dim) -> Emitted:
        """Emit the outputs.

        Args:
            emit: where to write nodes.
            forward: the graph as gradients see it.
            seed: dL/d(score), in the shape of the score.
            batch: the first size of the outputs.

        Raises:
            UnsupportedModelError: a block's score cannot be differentiated.
        """
        if self.blocks is None:
            return Emitted()
        blocks, rows = self.blocks, self.blocks.tokens.rows
        maps = [*blocks.maps, *([blocks.pooling] if blocks.pooling else [])]
        outputs: list[AddedOutput] = []
        gradients: list[str] = []
        if ROLLOUT in self.methods:
            dtype = _emit_rollout(emit, forward, maps, rows)
            shape = [batch, len(maps), rows, rows]
            outputs.append(AddedOutput(ATTENTION_OUTPUT, dtype, shape))
        if LEGRAD in self.methods:
            gradients = [
                _emit_gradient(emit, forward, seed, number, *pair)
                for number, pair in enumerate(self.scored, 1)
            ]
            dtype = _emit_legrad(emit, gradients)
            outputs.append(AddedOutput(LEGRAD_OUTPUT, dtype, [batch, len(gradients), rows]))
        metadata = AttentionMetadata(
            blocks=[m.name for m in maps],
            heads=[m.heads for m in maps],
            mixed=[m.mixed for m in maps],
            values=[m.values for m in maps],
            outputs=list(blocks.outputs) if gradients else [],
            explained=[attention.mixed for attention, _ in self.scored],
            gradients=gradients,
            grid=list(blocks.tokens.grid),
            order=blocks.tokens.token_order,
            rows=rows,
            read=list(blocks.read),
            pooled=blocks.pooling is not None,
        )
        return Emitted(tuple(outputs), asdict(metadata))


def plan_attention(
    graph: Graph,
    image: str,
    score: Score,
    objective: Objective,
    asked: str | None,
    count: int | None,
) -> AttentionOutputs:
    """Return what to add for ``--attention`` and ``--attention-blocks``.

    Args:
        graph: the model.
        image: its image input.
        score: its score.
        objective: what is explained of it.
        asked: one of `CHOICES`, or None for nothing.
        count: so many of the last blocks; None for all.

    Raises:
        UsageError: none of the choices; LeGrad of anything but the score of one class.
        UnsupportedModelError: the model has no such attention, or rollout not of all its blocks.
    """
    if asked is None:
        if count is not None:
            raise UsageError("attention blocks are counted, but no attention is asked for")
        return AttentionOutputs(graph)
    if asked not in CHOICES:
        raise UsageError(f"attention {asked!r} is none of {', '.join(CHOICES)}")
    methods = CHOICES[asked]
    if LEGRAD in methods and (objective.kind != "class" or objective.several):
        raise UsageError(
            "LeGrad asks how each block scores one class: leave out --several and --objective, or"
            " take --attention rollout"
        )
    blocks = find_blocks(graph, image, score, count)
    used, others = len(blocks.maps), len(blocks.left_out)
    warnings = []
    if others and count is None:
        last = blocks.left_out[-1]
        reason = f"{last.name!r} {last.reason}"
        if ROLLOUT in methods:
            raise UnsupportedModelError(
                f"rollout follows attention through all blocks, and {others} of {used + others}"
                f" are not between the same tokens of the whole image: {reason}; --attention-blocks"
                f" {used} takes the last ones alone"
            )
        warnings.append(f"LeGrad of the last {used} of {used + others} blocks alone: {reason}")
    scored: list[tuple[AttentionMap, str]] = []
    if LEGRAD in methods:
        if not blocks.outputs:
            raise UnsupportedModelError(
                f"the blocks from attention {blocks.maps[0].name!r} on do not all hand on the same"
                " tokens in the same way, so that LeGrad has no score of each; --attention-blocks 1"
                " takes the last one, whose score is that of the model"
            )
        graph, copies = with_block_scores(graph, blocks.outputs, score.tensor)
        for own, names in zip(blocks.maps, copies, strict=True):
            attention = own if blocks.pooling is None else blocks.pooling.renamed(names)
            scored.append((attention, names.get(score.tensor, score.tensor)))
    return AttentionOutputs(graph, tuple(warnings), methods, blocks, tuple(scored))


def _emit_rollout(emit: Emitter, forward: Graph, maps: Sequence[AttentionMap], rows: int) -> int:
    """Emit the attention of all maps, averaged over heads; return its element type."""
    averaged = []
    for number, attention in enumerate(maps, 1):
        with emit.scope(f"attention/block_{number}"):
            mean = emit.reduce_mean(_weights(emit, forward, attention), [1], keepdims=False)
            if attention.pooling:
                mean = emit.expand(mean, emit.ints([1, rows, 1]))
            averaged.append(emit.unsqueeze(mean, [1]))
    return emit.dtype(emit.node("Concat", averaged, axis=1, output=ATTENTION_OUTPUT))


def _emit_gradient(
    emit: Emitter, forward: Graph, seed: str, number: int, attention: AttentionMap, score: str
) -> str:
    """Emit ds/dA of one block, ``(N, heads, queries, R)``: from ds/dO, which is all that A meets.

    Raises:
        UnsupportedModelError: the score cannot be differentiated.
    """
    try:
        mixed = build_reverse(forward, cut_tail(forward, attention.mixed, score), emit, seed)
    except UnsupportedModelError as error:
        reason = str(error).partition("; choose ")[0]  # another layer would not help
        raise UnsupportedModelError(
            f"no LeGrad of block {number}: {reason}; --attention-blocks takes later ones alone"
        ) from error
    with emit.scope(f"legrad/block_{number}"):
        if not attention.weights:
            context = _context(emit, forward, attention)
            return _covered(attention, lambda: emit_weights_gradient(context, mixed))
        rank = len(forward.shape(attention.values) or ())
        turned = emit.transpose(attention.values, [*range(rank - 2), rank - 1, rank - 2])
        return _heads_apart(emit, emit.matmul(mixed, turned), attention)


def _emit_legrad(emit: Emitter, gradients: Sequence[str]) -> int:
    """Emit relu(ds/dA), averaged over heads and queries; return its element type."""
    averaged = []
    for number, gradient in enumerate(gradients, 1):
        with emit.scope(f"legrad/block_{number}"):
            mean = emit.reduce_mean(emit.unary("Relu", gradient), [1, 2], keepdims=False)
            averaged.append(emit.unsqueeze(mean, [1]))
    return emit.dtype(emit.node("Concat", averaged, axis=1, output=LEGRAD_OUTPUT))


def _weights(emit: Emitter, forward: Graph, attention: AttentionMap) -> str:
    """Return A, ``(N, heads, queries, R)``."""
    if attention.weights:
        return _heads_apart(emit, attention.weights, attention)
    context = _context(emit, forward, attention)
    return _covered(attention, lambda: emit_weights(context))


def _heads_apart(emit: Emitter, weights: str, attention: AttentionMap) -> str:
    if not attention.joined:
        return weights
    rows = attention.tokens.rows
    return emit.reshape(weights, [-1, attention.heads, 1 if attention.pooling else rows, rows])


def _context(emit: Emitter, forward: Graph, attention: AttentionMap) -> Context:
    node = forward.producer_of(attention.mixed)
    assert node is not None, "an operator Attention gives it"
    return Context(emit, node, list(node.input), list(node.output), forward.opset())


def _covered(attention: AttentionMap, emitted: Callable[[], str]) -> str:
    """Return what a formula emits.

    Raises:
        UnsupportedModelError: it does not cover the operator.
    """
    try:
        return emitted()
    except FormulaError as error:
        raise UnsupportedModelError(
            f"no weights of Attention {attention.name!r}: {error}"
        ) from error
