"""What the attention outputs hold: the model's own attention, and LeGrad of each block.

In: the running exported file and the model. Out: one `Check` per output. The attention is computed
again in NumPy from the model's own tensors. The gradient is compared with central differences of
each block's score, for which the model is cut open: from O = A V to the block's output, and from
there through the last block's tail. Nothing that the export added takes part in that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator

from onnx_gradcam.contract import (
    ATTENTION_OUTPUT,
    CLASSES_OUTPUT,
    LEGRAD_OUTPUT,
    AttentionMetadata,
)
from onnx_gradcam.export.attach import without_explanation
from onnx_gradcam.export.expansion import expand, with_expansions
from onnx_gradcam.export.precision import holds_half
from onnx_gradcam.export.sessions import open_session
from onnx_gradcam.export.verification.central_differences import (
    OTHER_TOLERANCE,
    TOLERANCE,
    Agreement,
    compare,
)
from onnx_gradcam.export.verification.cuts import Cut
from onnx_gradcam.export.verification.report import Check
from onnx_gradcam.export.verification.score_function import at_least_float32, with_outputs
from onnx_gradcam.export.verification.subject import Array, Feeds, Subject, input_names, run

SUM_TOLERANCE = 1e-4
"""By how much the sum of a row of attention may differ from 1."""

OWN_TOLERANCE = 1e-4
"""Accepted difference between an output and its definition in NumPy, of the largest value."""

HALF_TOLERANCE = 5e-3
"""Both of these for models of half precision."""

_AFTER_SOFTMAX = 3
"""Of an operator Attention, ``qk_matmul_output_mode``: give the weights as they are applied."""


def check_attention(subject: Subject, session: Any) -> Iterator[Check]:
    """Yield the checks of the attention outputs; none where the file has none.

    Args:
        subject: what is verified.
        session: the exported file at the default optimisation level.
    """
    if subject.metadata.attention is None:
        return
    blocks = _Blocks(subject, AttentionMetadata(**subject.metadata.attention))
    feeds = subject.inputs()
    found = run(session, feeds | subject.class_feed(None))
    half = holds_half(subject.reference.model)
    if ATTENTION_OUTPUT in subject.metadata.outputs:
        yield _rollout(blocks, found[ATTENTION_OUTPUT], blocks.values(feeds), half=half)
    if LEGRAD_OUTPUT in subject.metadata.outputs:
        yield _legrad(subject, blocks, found[LEGRAD_OUTPUT], half=half)


class _Blocks:
    """The blocks of a model, from its own tensors.

    Args:
        subject: what is verified.
        meta: what the file says about its attention.
    """

    def __init__(self, subject: Subject, meta: AttentionMetadata) -> None:
        """Expand the model and cut it open."""
        self.meta = meta
        self.score = subject.metadata.score_tensor
        self._class_axis = subject.metadata.class_axis
        reference = subject.reference
        self._base_dir = reference.base_dir
        self.graph = expand(without_explanation(reference.model), reference.tensor_values)
        self.count = len(meta.outputs)

    # -- the model's own values ------------------------------------------------------------------

    @cached_property
    def _needed(self) -> list[str]:
        names = [*self.meta.blocks, *self.meta.mixed, *self.meta.values, *self.meta.outputs]
        for mixed in self.meta.mixed:
            node = self._operator(mixed)
            names += [] if node is None else [name for name in node.input if name]
        cuts = [*self._to_output, *([self._to_score, self._pooling] if self.count else [])]
        names += [name for cut in cuts if cut is not None for name in cut.bypassing]
        constant = set(self.graph.initializers)
        return [name for name in dict.fromkeys(names) if name not in constant]

    @cached_property
    def _probe(self) -> Any:
        model = with_expansions(self.graph, self._needed)
        return open_session(
            with_outputs(model, self._needed), optimise=False, base_dir=self._base_dir
        )

    def values(self, feeds: Feeds) -> dict[str, Array]:
        """Return the tensors that everything here is computed from."""
        given = {k: v for k, v in feeds.items() if k in input_names(self._probe)}
        found = {k: at_least_float32(v) for k, v in run(self._probe, given).items()}
        return found | {
            name: at_least_float32(np.asarray(self.graph.constant(name)))
            for mixed in self.meta.mixed
            for name in (getattr(self._operator(mixed), "input", ()))
            if name in self.graph.initializers
        }

    def _operator(self, mixed: str) -> NodeProto | None:
        """Return the node of an operator Attention; None for a product."""
        node = self.graph.producer_of(mixed)
        return node if node is not None and node.op_type == "Attention" else None

    def weights(self, index: int, values: Mapping[str, Array]) -> Array:
        """Return A of one block, ``(N, heads, queries, R)``."""
        name, mixed = self.meta.blocks[index], self.meta.mixed[index]
        node = self._operator(mixed)
        weights = values[name] if node is None else self._of_operator(node, values)
        heads, rows = self.meta.heads[index], self.meta.rows
        return weights.reshape(-1, heads, weights.shape[-2], rows)

    def _of_operator(self, node: NodeProto, values: Mapping[str, Array]) -> Array:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.output[:] = ["mixed", "", "", "weights"]
        copy.attribute.append(onnx.helper.make_attribute("qk_matmul_output_mode", _AFTER_SOFTMAX))
        inputs = [n for n in dict.fromkeys(node.input) if n]
        graph = onnx.helper.make_graph(
            [copy],
            "attention",
            [_declared(name, values[name]) for name in inputs],
            [onnx.ValueInfoProto(name="weights")],
        )
        model = onnx.helper.make_model(graph, opset_imports=self.graph.model.opset_import)
        (found,) = ReferenceEvaluator(model).run(None, {name: values[name] for name in inputs})
        return np.asarray(found)

    def mixed_by(self, weights: Array, index: int, values: Mapping[str, Array]) -> Array:
        """Return A V of one block in the layout of its O, for any A ``(N, heads, queries, R)``."""
        v, o = values[self.meta.values[index]], values[self.meta.mixed[index]]
        if self._operator(self.meta.mixed[index]) is None:
            return _product(weights.reshape(*o.shape[:-1], -1), v)
        heads = weights.shape[1]
        if o.ndim == 3:
            width = o.shape[-1] // heads
            v = v.reshape(*v.shape[:2], -1, width).transpose(0, 2, 1, 3)
        product = _product(weights, v.repeat(heads // v.shape[1], axis=1))
        return product if o.ndim == 4 else product.transpose(0, 2, 1, 3).reshape(o.shape)

    # -- the score of a block --------------------------------------------------------------------

    @cached_property
    def _to_output(self) -> list[Cut | None]:
        """From O of each block to its output; nothing where a pooling is explained."""
        pairs = zip(self.meta.mixed, self.meta.outputs, strict=False)
        if self.meta.pooled:
            return [None] * self.count
        return [Cut(self.graph, self._base_dir, mixed, [output]) for mixed, output in pairs]

    @cached_property
    def _to_score(self) -> Cut:
        """From the last block's output to the score, or to all that the pooling's score needs."""
        goals = [self.score]
        if self._pooling is not None:
            goals += [self.meta.blocks[-1], self.meta.mixed[-1], self.meta.values[-1]]
            goals += self._pooling.bypassing
        return Cut(self.graph, self._base_dir, self.meta.outputs[-1], list(dict.fromkeys(goals)))

    @cached_property
    def _pooling(self) -> Cut | None:
        """From O of the pooling to the score."""
        if not self.meta.pooled:
            return None
        return Cut(self.graph, self._base_dir, self.meta.mixed[-1], [self.score])

    def point(self, number: int, values: Mapping[str, Array]) -> tuple[int, dict[str, Array]]:
        """Return the index of the attention that LeGrad explains in a block, and the values there.

        A pooling reads each block's output in place of the last one's.
        """
        if self._pooling is None:
            return number, dict(values)
        there = self._to_score(values[self.meta.outputs[number]], values)
        return len(self.meta.blocks) - 1, {**values, **there}

    def scores(self, number: int, change: Array, point: Mapping[str, Array]) -> Array:
        """Return the scores ``(N, K)`` of a block whose attention changes.

        Args:
            number: of the block, from 0.
            change: of A, ``(N, heads, queries, R)``.
            point: what `point` returned.
        """
        index = len(self.meta.blocks) - 1 if self._pooling else number
        mixed = self.meta.mixed[index]
        moved = point[mixed] + self.mixed_by(change, index, point).astype(point[mixed].dtype)
        cut = self._pooling or self._to_output[number]
        assert cut is not None, "there is one without a pooling"
        found = cut(moved, point)
        if self._pooling is None:
            found = self._to_score(found[self.meta.outputs[number]], point)
        scores = np.moveaxis(found[self.score], self._class_axis, -1)
        return scores.reshape(-1, scores.shape[-1])


def _product(a: Array, b: Array) -> Array:
    """Return a b; for many small matrices the threads of a BLAS cost more than they save."""
    return np.asarray(np.einsum("...ij,...jk->...ik", a.astype(b.dtype), b))


def _declared(name: str, value: Array) -> onnx.ValueInfoProto:
    dtype = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnx.helper.make_tensor_value_info(name, dtype, value.shape)


def _rollout(blocks: _Blocks, found: Array, values: Mapping[str, Array], *, half: bool) -> Check:
    name = "attention"
    own = [blocks.weights(i, values).mean(axis=1) for i in range(len(blocks.meta.blocks))]
    rows = blocks.meta.rows
    expected = np.stack([np.broadcast_to(a, (len(a), rows, rows)) for a in own], axis=1)
    if found.shape != expected.shape:
        return Check(name, False, f"of shape {found.shape}, the model's own of {expected.shape}")
    sums = float(np.abs(found.astype(np.float64).sum(axis=-1) - 1).max())
    apart = _relative(found, expected)
    detail = (
        f"of {found.shape[1]} layers, averaged over heads: {apart:.1e} from the model's own, rows"
        f" sum to 1 within {sums:.1e}"
    )
    limits = (HALF_TOLERANCE, HALF_TOLERANCE) if half else (SUM_TOLERANCE, OWN_TOLERANCE)
    return Check(name, sums <= limits[0] and apart <= limits[1], detail, max(sums, apart))


def _legrad(subject: Subject, blocks: _Blocks, found: Array, *, half: bool) -> Check:
    name, meta = "LeGrad", blocks.meta
    names = [*meta.gradients, LEGRAD_OUTPUT, CLASSES_OUTPUT]
    exported = subject.exported
    session = open_session(
        with_outputs(exported.model, names), optimise=True, base_dir=exported.base_dir
    )
    worst: dict[int, Agreement] = {}
    for attempt in range(subject.attempts):
        feeds = subject.inputs(attempt)
        values = blocks.values(feeds)
        runs = [run(session, feeds | subject.class_feed(None))]
        if not attempt:
            expected = np.stack(
                [np.maximum(runs[0][g], 0).mean(axis=(1, 2)) for g in meta.gradients], axis=1
            )
            apart = _relative(found, expected) if found.shape == expected.shape else np.inf
            if not apart <= (HALF_TOLERANCE if half else OWN_TOLERANCE):
                return Check(name, False, f"{apart:.1e} from the mean of relu of its gradients")
        if not subject.fixed and subject.metadata.num_classes > 1:
            top = runs[0][CLASSES_OUTPUT]
            other = (top + 1 + np.arange(len(top))) % subject.metadata.num_classes
            runs.append(run(session, feeds | subject.class_feed(other)))
        for number in range(blocks.count):
            agreement = _agreement(blocks, number, values, runs, subject.seed)
            if not agreement.agrees:
                return _disagreement(name, number, agreement)
            former = worst.get(number)
            if former is None or agreement.measured > former.measured:
                worst[number] = agreement
        if not any(agreement.lost for agreement in worst.values()):
            break
    lost = [number + 1 for number, agreement in worst.items() if agreement.lost]
    error = max(agreement.error for agreement in worst.values())
    others = max(agreement.other_error for agreement in worst.values())
    detail = (
        f"central differences of the scores of {blocks.count} blocks agree to {error:.1e} along"
        f" the gradient (tolerance {TOLERANCE:.0e}), {others:.1e} along others (tolerance"
        f" {OTHER_TOLERANCE:.0e})"
    )
    if lost:
        detail += f"; of block {', '.join(map(str, lost))} they are lost in rounding"
    return Check(name, True, detail, error, warning=bool(lost))


def _agreement(
    blocks: _Blocks,
    number: int,
    values: Mapping[str, Array],
    runs: list[dict[str, Array]],
    seed: int,
) -> Agreement:
    """Compare the gradients of one block with central differences of its score."""
    index, point = blocks.point(number, values)
    gradient = blocks.meta.gradients[number]
    return compare(
        lambda change: blocks.scores(number, change, point),
        blocks.weights(index, point),
        [found[gradient].astype(np.float64) for found in runs],
        [found[CLASSES_OUTPUT] for found in runs],
        seed=seed,
        quick=True,
    )


def _disagreement(name: str, number: int, found: Agreement) -> Check:
    error = max(found.error, found.other_error)
    if not np.isfinite(error) or error <= TOLERANCE:
        detail = f"of block {number + 1} could not be confirmed: differences do not settle"
    else:
        detail = f"of block {number + 1}: central differences differ by {error:.1%}"
    return Check(name, False, detail, error)


def _relative(found: Array, expected: Array) -> float:
    largest = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
    return float(np.abs(found.astype(np.float64) - expected).max()) / largest
