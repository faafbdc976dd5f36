"""The score as a function of A: the model cut open at the target layer.

In: a model, the name of A and of the score tensor. Out: `ScoreFunction`, which evaluates the
scores for a perturbed A with stock onnxruntime. It shares no code with the gradient builders: it
is the second opinion that their result is measured against. Half-precision models are evaluated
in float32, and a bias added last is left out, so that differences stand out from rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_gradcam.arrangement import Arrangement
from onnx_gradcam.export.attach import without_explanation
from onnx_gradcam.export.expansion import expand
from onnx_gradcam.export.files.external_data import with_values
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.precision import HALVES, TYPE_ATTRIBUTES
from onnx_gradcam.export.sessions import open_session
from onnx_gradcam.export.verification.surrogate import surrogate

Array = np.ndarray[Any, Any]

_SINGLES = (*HALVES, TensorProto.FLOAT)
_FINE = frozenset(
    {
        *(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL),
        *(TensorProto.INT32, TensorProto.INT64),
    }
)
_SAME = 1e-3  # of the largest score: what two implementations may differ by
_MIN_IR = 4  # from here on initializers need not be graph inputs
_ZEROS = "score_function/zeros"
_BIAS_POSITIONS = {"Gemm": (2,), "Conv": (2,), "Add": (0, 1)}
_RANDOM = frozenset({"RandomNormal", "RandomUniform"})


def with_outputs(model: onnx.ModelProto, names: list[str]) -> bytes:
    """Return the model, serialised, with further tensors as its only outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    data: bytes = copy.SerializeToString()
    return data


class ScoreFunction:
    """The sub-graph from A to the score, as a function of a perturbation of A.

    Args:
        model: the model; external data may stay in its files.
        base_dir: where these lie.
        target: the tensor A.
        arrangement: how A is a feature map.
        score: the score tensor.
        class_axis: axis of the classes in it.
        graph: the expanded model, where another function of it has it.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        base_dir: Path | None,
        target: str,
        arrangement: Arrangement,
        score: str,
        class_axis: int,
        graph: Graph | None = None,
    ) -> None:
        """Find the nodes between A and the score, and the tensors that by-pass A."""
        self.target = target
        self.score = score
        self._class_axis = class_axis
        self._arrangement = arrangement
        self._base_dir = base_dir
        graph = graph or expand(
            without_explanation(model),
            lambda tensor: numpy_helper.to_array(with_values(tensor, base_dir)),
        )
        self.graph = graph
        self._model = graph.model
        nodes, self._initializers, self.bypassing = cut_between(graph, target, {score})
        nodes, zeros, self._offset = _without_bias(graph, nodes, score)
        self._smooth = surrogate(graph, nodes, target)
        self._nodes = self._smooth.nodes
        self._initializers += [*zeros, *self._smooth.initializers]
        self.rough = _is_rough(graph, nodes)
        """Whether it computes in half precision or quantized: one ulp or step moves the scores."""
        self._session: Any = None
        self._feeds: dict[str, Array] = {}

    @property
    def needed(self) -> list[str]:
        """The tensors of the whole model whose values `set_point` takes."""
        source = [self._arrangement.source] if self._arrangement.source else []
        needed = [self.target, self.score, *self.bypassing, *self._smooth.needed, *source]
        return list(dict.fromkeys(needed))

    def measure(self, values: Mapping[str, Array]) -> None:
        """Take the grid of tokens from the size of the map that they came from."""
        if self._arrangement.source:
            self._arrangement = self._arrangement.sized(values[self._arrangement.source].shape)

    def rows(self, scores: Array) -> Array:
        """Return a score tensor as ``(N, K)``, or ``(N, K P)`` where there are P places."""
        moved = np.moveaxis(scores, self._class_axis, 1)
        return moved.reshape(len(moved), -1)

    def complete(self, rows: Array) -> Array:
        """Return rows with what calls leave out of them: the bias of the classifier."""
        complete: Array = rows + np.repeat(self._offset, rows.shape[1] // self._offset.size)
        return complete

    def activations(self, target: Array) -> Array:
        """Return a value of A as ``(N, C, *spatial)``."""
        return self._arrangement.to_map(target)

    def set_point(self, values: Mapping[str, Array], activations: Array | None = None) -> None:
        """Fix the point around which A is perturbed.

        Args:
            values: of all `needed` tensors, from one run of the whole model.
            activations: A as ``(N, C, *spatial)``, where it is known without the rounding to
                half precision.
        """
        names = [self.target, *self.bypassing]
        self._feeds = {name: at_least_float32(values[name]) for name in names}
        self._feeds |= self._smooth.feeds(values)
        if activations is not None:
            rounded = self._feeds[self.target]
            shift = self._in_graph_layout(activations - self.activations(rounded))
            self._feeds[self.target] = rounded + shift
        if self._session is None:
            self._session = open_session(self._build().SerializeToString(), optimise=True)

    def __call__(self, perturbation: Array) -> Array:
        """Return the scores ``(N, K)``, less the bias (`complete`), at A plus a perturbation.

        Args:
            perturbation: ``(N, C, *spatial)``.
        """
        base = self._feeds[self.target]
        moved = base + self._in_graph_layout(perturbation).astype(base.dtype)
        return self.rows(self._session.run([self.score], {**self._feeds, self.target: moved})[0])

    def in_float64(self) -> Callable[[Array], Array] | None:
        """Return the same function, slow but without rounding: the reference implementation.

        None where that cannot evaluate the sub-graph, or gets other scores at the point.
        """
        from onnx_gradcam.export.reference.operators import evaluator  # slow, rarely needed

        model = self._build()
        widen(model.graph, _SINGLES, TensorProto.DOUBLE)
        for value in model.graph.input:
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
        feeds = {
            k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in self._feeds.items()
        }

        def precise(perturbation: Array) -> Array:
            moved = feeds[self.target] + self._in_graph_layout(perturbation)
            (scores,) = reference.run([self.score], {**feeds, self.target: moved})
            return self.rows(np.asarray(scores))

        at_point = np.zeros_like(self.activations(feeds[self.target]))
        try:
            reference = evaluator(model)
            found, expected = precise(at_point), self(at_point)
        except Exception:  # whatever it cannot do gives no second opinion
            return None
        size = max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
        equal = found.shape == expected.shape and np.abs(found - expected).max() <= _SAME * size
        return precise if equal else None

    def _in_graph_layout(self, perturbation: Array) -> Array:
        return self._arrangement.from_map(perturbation, self._feeds[self.target].shape)

    def _build(self) -> onnx.ModelProto:
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), _declared(value)
            )
            for name, value in self._feeds.items()
        ]
        model = onnx.ModelProto(
            ir_version=max(self._model.ir_version, _MIN_IR),
            opset_import=self._model.opset_import,
            functions=self._model.functions,
        )
        model.graph.name = "score_function"
        model.graph.node.extend(self._nodes)
        model.graph.input.extend(inputs)
        model.graph.output.append(onnx.ValueInfoProto(name=self.score))
        for tensor in self._initializers:
            model.graph.initializer.append(with_values(tensor, self._base_dir))
        widen(model.graph, HALVES, TensorProto.FLOAT)
        return model


def _declared(value: Array) -> list[int | None]:
    """Return the shape to declare: open, but for sizes, of which Resize must know how many."""
    return list(value.shape) if value.dtype.kind == "i" else [None] * value.ndim


def cut_between(
    graph: Graph, target: str, goals: Collection[str]
) -> tuple[list[onnx.NodeProto], list[TensorProto], list[str]]:
    """Return nodes and initializers between A and the goals, and the tensors that by-pass A."""
    wanted = set(goals)
    for node in reversed(graph.nodes):
        if any(o in wanted for o in node.output) and target not in node.output:
            wanted.update(graph.reads(node))
    varying = {i.name for i in graph.inputs}  # depends on an input of the model
    moved = {target}  # depends on A
    for node in graph.nodes:
        reads = graph.reads(node)
        if any(name in varying for name in reads) or node.op_type in _RANDOM:
            varying.update(node.output)
        if any(name in moved for name in reads):
            moved.update(node.output)
    nodes = [
        node
        for node in graph.nodes
        if any(o in wanted for o in node.output)
        and target not in node.output
        and any(o in moved or o not in varying for o in node.output)
    ]
    made = {o for node in nodes for o in node.output}
    read = [name for node in nodes for name in graph.reads(node)]
    initializers = [graph.initializers[n] for n in dict.fromkeys(read) if n in graph.initializers]
    known = made | set(graph.initializers) | {target}
    return nodes, initializers, [name for name in dict.fromkeys(read) if name not in known]


def _is_rough(graph: Graph, nodes: list[onnx.NodeProto]) -> bool:
    types = [graph.type_of(name) for node in nodes for name in (*node.input, *node.output)]
    return any(known is not None and known.dtype not in _FINE for known in types)


def _without_bias(
    graph: Graph, nodes: list[onnx.NodeProto], score: str
) -> tuple[list[onnx.NodeProto], list[TensorProto], Array]:
    """Return the nodes with zeros for a constant bias that is added last, and that bias.

    Beside a large bias small changes of a score drown in rounding.
    """
    (last,) = (node for node in nodes if score in node.output)
    for position in _BIAS_POSITIONS.get(last.op_type, ()):
        bias = graph.constant(last.input[position]) if position < len(last.input) else None
        if bias is None or bias.size != max(bias.shape, default=1):
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(last)
        copy.input[position] = _ZEROS
        zeros = numpy_helper.from_array(np.zeros_like(bias), _ZEROS)
        factor = next((a.f for a in last.attribute if a.name == "beta"), 1.0)
        kept = [copy if node is last else node for node in nodes]
        return kept, [zeros], factor * bias.astype(np.float64).reshape(-1)
    return nodes, [], np.zeros(1)


def at_least_float32(value: Array) -> Array:
    """Return half precision as float32, all else as it is."""
    if value.dtype.kind == "f" and value.dtype.itemsize < np.dtype(np.float32).itemsize:
        return value.astype(np.float32)
    return np.asarray(value)


def widen(graph: onnx.GraphProto, narrow: Collection[int], wide: int) -> None:
    """Turn constants and casts of the narrow types into the wide one."""
    for tensor in graph.initializer:
        _widen_tensor(tensor, narrow, wide)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen_tensor(attribute.t, narrow, wide)
            if attribute.name in TYPE_ATTRIBUTES and attribute.i in narrow:
                attribute.i = wide
            if attribute.HasField("g"):
                widen(attribute.g, narrow, wide)


def _widen_tensor(tensor: TensorProto, narrow: Collection[int], wide: int) -> None:
    if tensor.data_type in narrow:
        dtype = helper.tensor_dtype_to_np_dtype(wide)
        values = numpy_helper.to_array(tensor).astype(dtype)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
