"""`export_model`: from a model file to the same model that also explains itself.

The steps, in order: load, find the score, choose the layer, cut the tail, build the gradient,
attach it, write to a staging file, verify that file, move it into place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from onnx_gradcam import __version__
from onnx_gradcam.contract import (
    ACTIVATIONS_OUTPUT,
    BOXES_OUTPUT,
    CLASSES_OUTPUT,
    GRADIENTS_OUTPUT,
    PREFIX,
    SCORE_OUTPUT,
    ExportMetadata,
)
from onnx_gradcam.errors import (
    ClassNotFoundError,
    UnsupportedModelError,
    UsageError,
    VerificationError,
)
from onnx_gradcam.export.attach import (
    AddedOutput,
    ClassInput,
    attach,
    emit_activations,
    emit_gradients,
    output_shape,
    refuse_exported,
)
from onnx_gradcam.export.builders.environment import BuilderStatus
from onnx_gradcam.export.builders.select import REVERSE, Built, build_gradient, check_builder
from onnx_gradcam.export.expansion import expand
from onnx_gradcam.export.files.model_file import LoadedModel, load_model
from onnx_gradcam.export.files.model_output import check_output, staged_model
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.image_choice import choose_image
from onnx_gradcam.export.objective import Objective, check_objective, parse_channels
from onnx_gradcam.export.precision import (
    compute_again,
    float32_view,
    gradient_emitter,
    refuse_invalid_halves,
)
from onnx_gradcam.export.quantized.score import integer_grid
from onnx_gradcam.export.report import ExportReport
from onnx_gradcam.export.score import Score
from onnx_gradcam.export.score_map import find_objective
from onnx_gradcam.export.seed import Seed, emit_seed
from onnx_gradcam.export.seed_inputs import SEVERAL, declare_inputs, seed_inputs
from onnx_gradcam.export.several import (
    ONE_GRADIENT,
    check_several,
    one_seed,
    repeat_for_seeds,
)
from onnx_gradcam.export.tail import Tail, cut_tail
from onnx_gradcam.export.target_layer import Layer, choose_layer, nearest_layer
from onnx_gradcam.export.verification.report import VerificationReport
from onnx_gradcam.export.verification.verify import verify_export
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.quantization import straight_through
from onnx_gradcam.gradients.registry import NEWEST_OPSET
from onnx_gradcam.preprocessing import Preprocessing, resolve_preprocessing

OLDEST_OPSET = 7
"""Lowest opset that is read: before it broadcasting was a different one."""


def export_model(
    model: str | Path | bytes | onnx.ModelProto,
    output: str | Path,
    *,
    layer: str | int = "auto",
    score: str | None = None,
    image_input: str | None = None,
    gradient_builder: str = "auto",
    class_input: str = "optional",
    objective: str = "class",
    weights: bool = False,
    several: bool = False,
    class_axis: int | None = None,
    class_channels: str | Sequence[int | None] | None = None,
    preprocess: Preprocessing | Mapping[str, Any] | str | Path | None = None,
    labels: Sequence[str] | str | Path | None = None,
    force: bool = False,
    verify: bool = True,
    inputs: Mapping[str, NDArray[Any]] | None = None,
) -> ExportReport:
    """Write a copy of the model that also outputs A and dy^c/dA, and report what was done.

    Grad-CAM (Selvaraju et al., arXiv 1610.02391, equations 1 and 2) needs the activations A of a
    feature map and the gradient of the class score y^c with respect to them; both become outputs
    of the exported file, computed by standard ONNX operators only.

    Args:
        model: path, serialised bytes or `onnx.ModelProto` of a classifier, opset 7 or later.
        output: file to write.
        layer: ``auto`` for the penultimate feature map, or a tensor name, node name or index.
        score: output or tensor that holds the class scores; None finds it.
        image_input: the input to explain; None takes the first one that looks like an image.
        gradient_builder: ``auto``, ``onnxruntime-training`` or ``reverse``.
        class_input: ``optional``, ``required`` or ``fixed:K``.
        objective: what y is, one of `objective.KINDS`: ``class``, ``softmax``, ``sigmoid``,
            ``binary``, ``segmentation``, ``detection``, ``similarity``.
        weights: also take ``cam_weights``: any weighted sum over the classes.
        several: take T classes per image and give T gradients from one run of the backbone.
        class_axis: axis of the classes in the score of a segmenter or detector; None finds it.
        class_channels: which channels of a detector's score are classes, ``4:`` or ``(5, 85)``.
        preprocess: preset name, JSON file, mapping or recipe, stored in the file.
        labels: class names, or a text file with one per line, stored in the file.
        force: replace an existing output.
        verify: prove the file before it appears under its name.
        inputs: values for inputs of the model to prove it with, in place of random ones.

    Returns:
        The report.

    Raises:
        OnnxGradCamError: `UsageError` (arguments, output), `ModelError` (the model),
            `UnavailableError` (builder) or `WriteError`.
        VerificationError: the exported model did not prove right. No file is left.
    """
    recipe = resolve_preprocessing(preprocess)
    mode = ClassInput.parse(class_input)
    asked = check_objective(
        Objective(objective, weights, several, class_axis, parse_channels(class_channels)),
        class_input,
    )
    status = check_builder(gradient_builder)
    source_path = Path(model) if isinstance(model, (str, Path)) else None
    check_output(output, force, source=source_path)
    loaded = load_model(model)
    graph = _checked_graph(loaded)
    if several:
        check_several(graph.opset())
    scores = find_objective(graph, score, asked)
    _check_class(mode, scores)
    image = choose_image(graph, scores, image_input)
    target = choose_layer(graph, image, scores, layer)
    forward = float32_view(graph)
    job = _Job(
        loaded=loaded,
        graph=graph,
        forward=forward,
        scores=scores,
        image=image,
        target=target,
        tail=cut_tail(forward, target.tensor, scores.tensor),
        class_input=mode,
        objective=asked,
        preprocessing=recipe,
        labels=_read_labels(labels, scores),
        source=source_path,
        output=Path(output),
        force=force,
        verify=verify,
        inputs=inputs,
    )
    try:
        return _export(job, gradient_builder, status)
    except VerificationError as error:
        builder = error.builder if isinstance(error, _UnprovenError) else REVERSE
        if gradient_builder != "auto" or builder == REVERSE:
            raise
        report = _export(job, REVERSE, None)
        return replace(report, builder_reason=f"that of {builder} was wrong: {error}")


class _UnprovenError(VerificationError):
    """The verification failed of what a builder had built."""

    def __init__(self, message: str, builder: str) -> None:
        super().__init__(message)
        self.builder = builder


@dataclass(frozen=True)
class _Job:
    """What is exported, and where to; everything but the gradient.

    `forward` is the graph as the gradient sees it, without half precision.
    """

    loaded: LoadedModel
    graph: Graph
    forward: Graph
    scores: Score
    image: str
    target: Layer
    tail: Tail
    class_input: ClassInput
    objective: Objective
    preprocessing: Preprocessing | None
    labels: list[str] | None
    source: Path | None
    output: Path
    force: bool
    verify: bool
    inputs: Mapping[str, NDArray[Any]] | None


def _export(job: _Job, builder: str, status: BuilderStatus | None) -> ExportReport:
    """Build the gradient, attach it, write, verify, and move the file into place.

    Raises:
        _UnprovenError: the verification failed.
    """
    graph, target, scores = job.graph, job.target, job.scores
    seeds: list[Seed] = []

    def seeded_emitter() -> tuple[Emitter, str]:
        emit = gradient_emitter(job.forward, PREFIX)
        emit.nodes.extend(graph.expansion_nodes)
        emit.initializers.extend(graph.expansion_initializers)
        emit_activations(emit, graph, target)
        declare_inputs(emit, job.objective)
        seed = emit_seed(emit, scores, job.class_input.fixed, job.objective)
        seeds[:] = [seed]
        compute_again(emit, job.tail)
        return emit, one_seed(emit, seed) if job.objective.several else seed.seed

    built = build_gradient(job.forward, job.tail, seeded_emitter, builder, status)
    (seed,) = seeds
    _emit_results(job, built, seed)
    outputs = _outputs(job, built.emit, seed)
    inputs = seed_inputs(job.objective, job.class_input, scores, graph)
    metadata = _metadata(job, built, [output.name for output in outputs])
    exported, warnings = attach(graph, built.emit, inputs, outputs, metadata)
    verification = None
    with staged_model(
        exported,
        job.output,
        base_dir=job.loaded.base_dir,
        external=job.loaded.has_external_data,
        force=job.force,
        source=job.source,
    ) as staged:
        if job.verify:
            verification = verify_export(staged.path, job.loaded, metadata, inputs=job.inputs)
            if not verification.passed:
                raise _UnprovenError(
                    f"the export of {target.tensor!r} failed verification:"
                    f" {'; '.join(f'{c.name}: {c.detail}' for c in verification.failures)};"
                    " nothing was written",
                    built.builder,
                )
            _refuse_zero(job, verification)
        staged.commit()
        written = staged.bytes_written
    return ExportReport(
        output=job.output,
        builder=built.builder,
        builder_version=built.version,
        builder_reason=built.reason,
        target=target.tensor,
        target_reason=target.reason,
        target_shape=tuple(output_shape(graph, target, job.image)),
        score=scores.tensor,
        num_classes=scores.num_classes,
        opset=graph.opset(),
        nodes_added=len(exported.graph.node) - len(graph.original.graph.node),
        bytes_written=written,
        verification=verification,
        warnings=(*warnings, *(verification.warnings if verification else ())),
    )


def _refuse_zero(job: _Job, verification: VerificationReport) -> None:
    """Refuse a layer that the score does not depend on, though a path leads from it to the score.

    Raises:
        UnsupportedModelError: with the nearest layer that works.
    """
    if verification.is_zero:
        layer, score = job.target.tensor, job.scores.tensor
        raise UnsupportedModelError(
            f"the gradient of {score!r} at layer {layer!r} is zero for all inputs tried, and so are"
            " central differences: its heat maps would be empty"
            + nearest_layer(job.graph, job.image, job.scores, layer)
            + "; --no-verify exports it all the same"
        )


def _emit_results(job: _Job, built: Built, seed: Seed) -> None:
    """Emit the gradient and what it is the gradient of, as outputs."""
    emit = built.emit
    if job.objective.several:
        emit_gradients(emit, built.gradient, job.target, ONE_GRADIENT)
        repeat_for_seeds(emit, seed.seed, {ONE_GRADIENT: GRADIENTS_OUTPUT})
    else:
        emit_gradients(emit, built.gradient, job.target)
    for name, output in _described(seed).items():
        emit.node("Identity", [name], output=output)


def _described(seed: Seed) -> dict[str, str]:
    """Return what is said of the seed: tensor -> output."""
    outputs = {CLASSES_OUTPUT: seed.classes, SCORE_OUTPUT: seed.score, BOXES_OUTPUT: seed.boxes}
    return {name: output for output, name in outputs.items() if name}


def _outputs(job: _Job, emit: Emitter, seed: Seed) -> list[AddedOutput]:
    """Return the added outputs, in order."""
    dtype = emit.dtype(job.target.tensor)
    shape = output_shape(job.graph, job.target, job.image)
    several = [SEVERAL] if job.objective.several else []
    of_image = [*shape[:1], *several]
    return [
        AddedOutput(ACTIVATIONS_OUTPUT, dtype, shape),
        AddedOutput(GRADIENTS_OUTPUT, dtype, [*of_image, *shape[1:]]),
        *(AddedOutput(o, emit.dtype(o), of_image) for o in _described(seed).values()),
    ]


def _metadata(job: _Job, built: Built, outputs: list[str]) -> ExportMetadata:
    recipe = job.preprocessing
    arrangement = job.target.arrangement
    scale, zero_point = integer_grid(job.graph, job.scores.output)
    return ExportMetadata(
        tool_version=__version__,
        gradient_builder=built.builder,
        gradient_builder_version=built.version,
        image_input=job.image,
        target=job.target.tensor,
        target_layout=arrangement.layout,
        token_grid=list(arrangement.grid) or None,
        token_order=arrangement.token_order,
        token_rows=arrangement.rows,
        token_source=arrangement.source,
        token_source_layout=arrangement.source_layout,
        score_tensor=job.scores.tensor,
        score_output=job.scores.output,
        class_axis=job.scores.class_axis,
        num_classes=job.scores.num_classes,
        class_input=str(job.class_input),
        source_sha256=job.loaded.sha256,
        score_scale=scale,
        score_zero_point=zero_point,
        preprocessing=None if recipe is None else recipe.to_dict(),
        labels=job.labels,
        straight_through=straight_through(job.tail.nodes),
        outputs=outputs,
        activation=job.scores.activation,
        objective=job.objective.kind,
        seed_inputs=list(job.objective.inputs),
        several=job.objective.several,
        places=list(job.scores.places),
        channels=job.scores.channels,
        first_channel=job.scores.first_channel,
        output_axis=job.scores.output_axis,
        output_channel=job.scores.output_channel,
    )


def _checked_graph(loaded: LoadedModel) -> Graph:
    refuse_exported(loaded.model)
    graph = expand(loaded.model, loaded.tensor_values)
    opset = graph.opset()
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise UnsupportedModelError(
            f"opset {opset} of the model is not covered ({OLDEST_OPSET} to {NEWEST_OPSET});"
            " convert the model with onnx.version_converter"
        )
    refuse_invalid_halves(graph)
    return graph


def _check_class(mode: ClassInput, scores: Score) -> None:
    count = scores.num_classes
    if mode.fixed is not None and not -count <= mode.fixed < count:
        raise ClassNotFoundError(f"class {mode.fixed} is out of range: 0 to {count - 1}")


def _read_labels(labels: Sequence[str] | str | Path | None, scores: Score) -> list[str] | None:
    """Return the class names; from a file, one per line.

    Raises:
        UsageError: the file cannot be read, or the number of names is not that of the classes.
    """
    if labels is None:
        return None
    if isinstance(labels, (str, Path)):
        try:
            text = Path(labels).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read labels from {labels}: {error}") from error
        labels = text.rstrip("\n").split("\n")
    names = [str(name).strip() for name in labels]
    if len(names) != scores.num_classes:
        raise UsageError(f"{len(names)} labels for {scores.num_classes} classes")
    return names
