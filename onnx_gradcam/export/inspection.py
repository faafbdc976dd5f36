"""`inspect_model`: what a model offers to explain, without changing it.

In: a model. Out: a `ModelReport`: inputs, scores, candidate layers, the recommended one and why,
and for the operators between it and the score which gradient builder can differentiate them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from onnx_gradcam.contract import GATE_INPUT, METADATA_PREFIX, ExportMetadata
from onnx_gradcam.errors import UnsupportedModelError
from onnx_gradcam.export.builders.operators import training_can_differentiate
from onnx_gradcam.export.expansion import expand
from onnx_gradcam.export.files.model_file import load_model
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.image_choice import choose_image
from onnx_gradcam.export.objective import Objective, check_objective, parse_channels
from onnx_gradcam.export.score import Score, format_shape
from onnx_gradcam.export.score_map import find_objective
from onnx_gradcam.export.tail import cut_tail
from onnx_gradcam.export.target_layer import Layer, choose_layer, find_candidates
from onnx_gradcam.export.zip_map import is_zip_map
from onnx_gradcam.gradients.emitter import Dim
from onnx_gradcam.gradients.registry import find_gradient


@dataclass(frozen=True)
class TensorInfo:
    """A graph input or output: name, element type (e.g. ``FLOAT``), shape."""

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None


@dataclass(frozen=True)
class ScoreInfo:
    """An output that can be explained, or why it cannot."""

    output: str
    tensor: str | None
    num_classes: int | None
    activation: str
    problem: str | None


@dataclass(frozen=True)
class OperatorInfo:
    """An operator between the layer and the score, and who can differentiate it."""

    operator: str
    count: int
    reverse: bool
    onnxruntime_training: bool


@dataclass(frozen=True)
class ExplanationInfo:
    """What a file explains that was exported before.

    Attributes:
        layers: target layers.
        objective: what y is.
        inputs: the added inputs that say which y.
        outputs: the added outputs.
        gate: whether the input `GATE_INPUT` switches it on and off.
    """

    layers: tuple[str, ...]
    objective: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    gate: bool


@dataclass(frozen=True)
class ModelReport:
    """What `inspect_model` found.

    Attributes:
        opset: version of the default operator domain.
        ir_version: version of the file format.
        inputs: graph inputs without initializers.
        scores: every float output: the score it belongs to, or the problem.
        image_input: the input that is explained, None without a score.
        candidates: layers in order of depth; their index serves as ``--layer``.
        recommended: index of the recommended candidate, None where there is none.
        reason: why that one, or why none.
        operators: the operators between the recommended layer and the score.
        explanation: what the file explains already, None where it was not exported.
    """

    opset: int
    ir_version: int
    inputs: tuple[TensorInfo, ...]
    scores: tuple[ScoreInfo, ...]
    image_input: str | None
    candidates: tuple[Layer, ...]
    recommended: int | None
    reason: str
    operators: tuple[OperatorInfo, ...]
    explanation: ExplanationInfo | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        values = asdict(self)
        for key in ("inputs", "scores", "candidates", "operators"):
            values[key] = [
                {k: list(v) if isinstance(v, tuple) else v for k, v in row.items()}
                for row in values[key]
            ]
        for index, row in enumerate(values["candidates"]):
            del row["reason"]
            row["index"] = index
        return values

    def summary(self) -> str:
        """Return the report as text."""
        lines = [f"opset {self.opset}, IR {self.ir_version}", ""]
        if self.explanation is not None:
            lines += [*_explanation_lines(self.explanation), ""]
        lines += ["inputs"]
        lines += [
            f"  {i.name}  {i.dtype.lower()} {format_shape(i.shape) if i.shape else '?'}"
            for i in self.inputs
        ]
        lines += ["", "scores"]
        lines += [f"  {_score_line(s)}" for s in self.scores] or ["  none"]
        lines += ["", "candidate layers (--layer takes the index or the name)"]
        width = max((len(str(format_shape(c.channels_first))) for c in self.candidates), default=0)
        for index, layer in enumerate(self.candidates):
            mark = "*" if index == self.recommended else " "
            shape = format_shape(layer.channels_first)
            lines.append(f"{mark}{index:4d}  {shape:{width}}  {layer.op_type:12} {layer.tensor}")
        if not self.candidates:
            lines.append("  none")
        heading = "recommended" if self.recommended is not None else "no recommendation"
        lines += ["", f"{heading}: {self.reason}"]
        if self.operators:
            lines += [
                "",
                f"{'operators between it and the score':38} reverse  onnxruntime-training",
            ]
            lines += [
                f"  {o.operator + ' x ' + str(o.count):36} {_yes(o.reverse):8}"
                f" {_yes(o.onnxruntime_training)}"
                for o in self.operators
            ]
        return "\n".join(lines)


def _explanation_lines(found: ExplanationInfo) -> list[str]:
    gate = [f"{GATE_INPUT}, a gate: false leaves all of this out"] if found.gate else []
    return [
        f"an exported file: it explains {found.objective} at {' and '.join(found.layers)}",
        f"  takes  {', '.join([*found.inputs, *gate]) or 'nothing'}",
        f"  gives  {', '.join(found.outputs)}",
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _score_line(score: ScoreInfo) -> str:
    if score.problem is not None:
        return f"{score.output}: not a score: {score.problem}"
    before = f", before {score.activation}" if score.activation else ""
    return f"{score.output}: {score.num_classes} classes, score {score.tensor}{before}"


def inspect_model(
    model: str | Path | bytes | onnx.ModelProto,
    score: str | None = None,
    image_input: str | None = None,
    *,
    objective: str = "class",
    class_axis: int | None = None,
    class_channels: str | Sequence[int | None] | None = None,
) -> ModelReport:
    """Return what a model offers to explain.

    Args:
        model: path, serialised bytes or `onnx.ModelProto`.
        score: output or tensor that holds the class scores; None finds it.
        image_input: the input to explain; None takes the first one that looks like an image.
        objective: what is to be explained, as for `export_model`.
        class_axis: likewise.
        class_channels: likewise.

    Raises:
        OnnxGradCamError: `InvalidModelError` for an unreadable model, `NotExportedError` for an
            exported one whose metadata are damaged, `ScoreNotFoundError` for an unknown score,
            `UsageError` for an unknown input. A model that cannot be explained
            is reported, not refused.
    """
    asked = check_objective(
        Objective(objective, False, False, class_axis, parse_channels(class_channels)), "optional"
    )
    loaded = load_model(model, weights=False)
    explanation = _explanation(loaded.model)
    graph = expand(loaded.model, loaded.tensor_values)
    candidates: list[Layer] = []
    image = recommended = None
    operators: tuple[OperatorInfo, ...] = ()
    try:
        chosen = find_objective(graph, score, asked)
        image = choose_image(graph, chosen, image_input)
        candidates = find_candidates(graph, image, chosen)
        layer = choose_layer(graph, image, chosen)
        recommended = [c.tensor for c in candidates].index(layer.tensor)
        reason = layer.reason
        operators = _operators(graph, layer, chosen)
    except UnsupportedModelError as error:
        reason = str(error)
    return ModelReport(
        opset=graph.opset(),
        ir_version=loaded.model.ir_version,
        inputs=tuple(_tensor_info(graph, i.name) for i in graph.inputs),
        scores=tuple(
            _score_info(graph, name, asked)
            for name in graph.outputs
            if not (explanation and name in explanation.outputs)
            if graph.is_float(name) or is_zip_map(graph, name)
        ),
        image_input=image,
        candidates=tuple(candidates),
        recommended=recommended,
        reason=reason,
        operators=operators,
        explanation=explanation,
    )


def _explanation(model: onnx.ModelProto) -> ExplanationInfo | None:
    """Return what a file explains already.

    Raises:
        NotExportedError: damaged metadata.
    """
    props = {prop.key: prop.value for prop in model.metadata_props}
    if not any(key.startswith(METADATA_PREFIX) for key in props):
        return None
    found = ExportMetadata.from_props(props)
    return ExplanationInfo(
        layers=tuple(layer.target for layer in found.layers),
        objective=found.objective,
        inputs=tuple(found.fed_inputs),
        outputs=tuple(found.outputs),
        gate=found.gate,
    )


def _tensor_info(graph: Graph, name: str) -> TensorInfo:
    known = graph.type_of(name)
    if known is None:
        return TensorInfo(name, "UNDEFINED", None)
    return TensorInfo(name, onnx.TensorProto.DataType.Name(known.dtype), known.shape)


def _score_info(graph: Graph, output: str, asked: Objective) -> ScoreInfo:
    try:
        found = find_objective(graph, output, asked)
    except UnsupportedModelError as error:
        return ScoreInfo(output, None, None, "", str(error))
    return ScoreInfo(output, found.tensor, found.num_classes, found.activation, None)


def _operators(graph: Graph, layer: Layer, score: Score) -> tuple[OperatorInfo, ...]:
    tail = cut_tail(graph, layer.tensor, score.tensor)
    counts = Counter((node.domain, node.op_type) for node in tail.nodes)
    rows = []
    for (domain, op_type), count in sorted(counts.items()):
        opset = graph.opset(domain)
        rows.append(
            OperatorInfo(
                f"{domain or 'ai.onnx'}::{op_type}-{opset}",
                count,
                find_gradient(domain, op_type, opset) is not None,
                training_can_differentiate(domain, op_type),
            )
        )
    return tuple(rows)
