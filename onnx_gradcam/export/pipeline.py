"""`export_model`: from a model file to the same model that also explains itself.

The steps, in order: load, find the score, choose the layer, cut the tail, build the gradient,
attach it, write to a staging file, verify that file, move it into place; then, where it is asked
for, the folder that Triton serves it from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from onnx_gradcam.contract import PREFIX, is_reserved
from onnx_gradcam.errors import (
    ClassNotFoundError,
    OnnxGradCamError,
    UnsupportedModelError,
    UsageError,
    VerificationError,
)
from onnx_gradcam.export.attach import (
    ClassInput,
    attach,
    emit_activations,
    output_shape,
    refuse_exported,
)
from onnx_gradcam.export.attention.outputs import plan_attention
from onnx_gradcam.export.builders.environment import BuilderStatus
from onnx_gradcam.export.builders.select import REVERSE, Built, build_gradient, check_builder
from onnx_gradcam.export.curvature import check_curvature
from onnx_gradcam.export.expansion import expand
from onnx_gradcam.export.files.model_file import LoadedModel, load_model
from onnx_gradcam.export.files.model_output import check_output, staged_model
from onnx_gradcam.export.full_gradient.outputs import plan_full_gradient
from onnx_gradcam.export.fuse import Fusion
from onnx_gradcam.export.gate import add_gate, gate_input
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.image_choice import choose_image
from onnx_gradcam.export.job import Job
from onnx_gradcam.export.objective import Objective, check_objective, parse_channels
from onnx_gradcam.export.precision import (
    compute_again,
    float32_view,
    gradient_emitter,
    refuse_invalid_halves,
)
from onnx_gradcam.export.report import ExportReport, LayerReport
from onnx_gradcam.export.results import emit_results, metadata_of
from onnx_gradcam.export.score import Score
from onnx_gradcam.export.score_map import find_objective
from onnx_gradcam.export.seed import Seed, emit_seed
from onnx_gradcam.export.seed_inputs import declare_inputs, seed_inputs
from onnx_gradcam.export.several import ONE_SEED, check_several, one_seed
from onnx_gradcam.export.simplify.simplify import simplify
from onnx_gradcam.export.tail import cut_tail
from onnx_gradcam.export.target_layer import nearest_layer
from onnx_gradcam.export.target_layers import LayerChoice, choose_layers
from onnx_gradcam.export.triton.repository import triton_folder, write_triton
from onnx_gradcam.export.verification.report import VerificationReport
from onnx_gradcam.export.verification.verify import verify_export
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import NEWEST_OPSET
from onnx_gradcam.preprocessing import Preprocessing, resolve_preprocessing

OLDEST_OPSET = 7
"""Lowest opset that is read: before it broadcasting was a different one."""


def export_model(
    model: str | Path | bytes | onnx.ModelProto,
    output: str | Path,
    *,
    layer: LayerChoice = "auto",
    score: str | None = None,
    image_input: str | None = None,
    gradient_builder: str = "auto",
    class_input: str = "optional",
    objective: str = "class",
    weights: bool = False,
    several: bool = False,
    class_axis: int | None = None,
    class_channels: str | Sequence[int | None] | None = None,
    second_order: bool = False,
    full_gradient: bool = False,
    preprocess: Preprocessing | Mapping[str, Any] | str | Path | None = None,
    labels: Sequence[str] | str | Path | None = None,
    attention: str | None = None,
    attention_blocks: int | None = None,
    force: bool = False,
    verify: bool = True,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    fuse_cam: str | None = None,
    cam_size: str | Sequence[int] = "map",
    cam_normalise: bool = False,
    outputs: str = "all",
    gate: bool = False,
    emit_triton: str | Path | None = None,
) -> ExportReport:
    """Write a copy of the model that also outputs A and dy^c/dA, and report what was done.

    Grad-CAM (Selvaraju et al., arXiv 1610.02391, equations 1 and 2) needs the activations A of a
    feature map and the gradient of the class score y^c with respect to them; both become outputs
    of the exported file, computed by standard ONNX operators only.

    Args:
        model: path, serialised bytes or `onnx.ModelProto` of a classifier, opset 7 or later.
        output: file to write.
        layer: ``auto`` for the penultimate feature map, or a tensor name, node name or index; or
            several of these, each of which is a target layer.
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
        second_order: also output H A, with H = d2y/dA2, which ShapleyCAM needs; of the first layer.
        full_gradient: also output what FullGrad needs: maps of all biases.
        preprocess: preset name, JSON file, mapping or recipe, stored in the file.
        labels: class names, or a text file with one per line, stored in the file.
        attention: what vision transformers give beside it: ``rollout``, ``legrad`` or ``both``.
        attention_blocks: of so many blocks, the last ones; None for all.
        force: replace an existing output.
        verify: prove the file before it appears under its name.
        inputs: values for inputs of the model to prove it with, in place of random ones.
        fuse_cam: name of a CAM method to compute in the graph, as the output ``cam``.
        cam_size: size of that map: ``map`` (that of the layer), ``input`` (that of the image) or
            extents, ``(H, W)`` or ``"HxW"``.
        cam_normalise: stretch it to [0, 1], and give its scale as the output ``cam_scales``.
        outputs: ``all``, or ``cam`` to leave out activations and gradients.
        gate: also take ``cam_explain``, a switch: off, the file costs what the model costs.
        emit_triton: folder of a Triton model repository, for a model folder of the exported file.

    Returns:
        The report.

    Raises:
        OnnxGradCamError: `UsageError` (arguments, output), `ModelError` (the model),
            `UnavailableError` (builder) or `WriteError`.
        VerificationError: the exported model did not prove right. No file is left.
    """
    further = {
        "second_order": second_order,
        "full_gradient": full_gradient,
        "attention": attention is not None,
    }
    fusion = Fusion.parse(fuse_cam, cam_size, cam_normalise, outputs, further=further)
    recipe = resolve_preprocessing(preprocess)
    mode = ClassInput.parse(class_input)
    asked = check_objective(
        Objective(objective, weights, several, class_axis, parse_channels(class_channels)),
        class_input,
    )
    status = check_builder(gradient_builder)
    source_path = Path(model) if isinstance(model, (str, Path)) else None
    check_output(output, force, source=source_path)
    if emit_triton is not None:
        triton_folder(Path(output), emit_triton, force=force)
    loaded = load_model(model, weights=False)
    graph = _checked_graph(loaded)
    if several:
        check_several(graph.opset())
    scores = find_objective(graph, score, asked)
    _check_class(mode, scores)
    image = choose_image(graph, scores, image_input)
    targets = choose_layers(graph, image, scores, layer, fused=fusion is not None)
    if second_order:
        check_curvature(graph, targets[0], asked)
    added = plan_attention(graph, image, scores, asked, attention, attention_blocks)
    graph, forward = added.graph, float32_view(added.graph)
    full = plan_full_gradient(forward, image, scores.tensor, asked) if full_gradient else None
    differentiated = [*(target.tensor for target in targets), *(full.targets if full else ())]
    job = Job(
        loaded=loaded,
        graph=graph,
        forward=forward,
        scores=scores,
        image=image,
        targets=targets,
        tail=cut_tail(forward, list(dict.fromkeys(differentiated)), scores.tensor),
        attention=added,
        class_input=mode,
        objective=asked,
        second_order=second_order,
        full=full,
        preprocessing=recipe,
        labels=_read_labels(labels, scores),
        source=source_path,
        output=Path(output),
        force=force,
        verify=verify,
        inputs=inputs,
        fusion=fusion,
        gate=gate,
    )
    try:
        report = _export(job, gradient_builder, status)
    except VerificationError as error:
        builder = error.builder if isinstance(error, _UnprovenError) else REVERSE
        if gradient_builder != "auto" or builder == REVERSE:
            raise
        report = _export(job, REVERSE, None)
        report = replace(report, builder_reason=f"that of {builder} was wrong: {error}")
    if emit_triton is None:
        return report
    try:
        written = write_triton(job.output, emit_triton, force=force, inputs=inputs)
    except OnnxGradCamError as error:
        raise type(error)(f"{error}; {job.output} itself is written") from error
    return replace(report, triton=str(written))


class _UnprovenError(VerificationError):
    """The verification failed of what a builder had built."""

    def __init__(self, message: str, builder: str) -> None:
        super().__init__(message)
        self.builder = builder


def _export(job: Job, builder: str, status: BuilderStatus | None) -> ExportReport:
    """Build the gradient, attach it, write, verify, and move the file into place.

    Raises:
        _UnprovenError: the verification failed.
    """
    graph, scores = job.graph, job.scores
    seeds: list[Seed] = []

    def seeded_emitter() -> tuple[Emitter, str]:
        emit = gradient_emitter(job.forward, PREFIX)
        emit.nodes.extend(graph.expansion_nodes)
        emit.initializers.extend(graph.expansion_initializers)
        for index, target in enumerate(job.targets):
            emit_activations(emit, graph, target, index)
        declare_inputs(emit, job.objective)
        seed = emit_seed(emit, scores, job.class_input.fixed, job.objective)
        seeds[:] = [seed]
        compute_again(emit, job.tail)
        return emit, one_seed(emit, seed) if job.objective.several else seed.seed

    built = build_gradient(job.forward, job.tail, seeded_emitter, builder, status)
    (seed,) = seeds
    _simplify(job, built, seed)
    outputs = emit_results(job, built, seed)
    emitted = job.attention.emit(built.emit, job.forward, seed.seed, outputs[0].shape[0])
    outputs += emitted.outputs
    inputs = seed_inputs(job.objective, job.class_input, scores, graph)
    metadata = metadata_of(job, built, [output.name for output in outputs])
    metadata = replace(metadata, attention=emitted.metadata)
    if job.gate:
        inputs.append(gate_input(job.class_input))
    exported, warnings = attach(graph, built.emit, inputs, outputs, metadata)
    nodes_added = len(exported.graph.node) - len(graph.original.graph.node)
    if job.gate:
        add_gate(exported, graph, metadata.outputs)
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
            verification = verify_export(
                staged.path, job.loaded.whole(), metadata, inputs=job.inputs
            )
            if not verification.passed:
                layers = " and ".join(repr(target.tensor) for target in job.targets)
                raise _UnprovenError(
                    f"the export of {layers} failed verification:"
                    f" {'; '.join(f'{c.name}: {c.detail}' for c in verification.failures)};"
                    " nothing was written",
                    built.builder,
                )
            _refuse_zero(job, verification)
        staged.commit()
        written = staged.bytes_written
    targets = [
        LayerReport(t.tensor, t.reason, tuple(output_shape(graph, t, job.image)))
        for t in job.targets
    ]
    return ExportReport(
        output=job.output,
        builder=built.builder,
        builder_version=built.version,
        builder_reason=built.reason,
        **vars(targets[0]),
        score=scores.tensor,
        num_classes=scores.num_classes,
        opset=graph.opset(),
        fused="" if job.fusion is None else str(job.fusion),
        nodes_added=nodes_added,
        bytes_written=written,
        verification=verification,
        warnings=(
            *job.attention.warnings,
            *warnings,
            *(verification.warnings if verification else ()),
        ),
        further_layers=tuple(targets[1:]),
    )


def _simplify(job: Job, built: Built, seed: Seed) -> None:
    """Make the gradient cheaper; names of its results stay."""
    made = [o for node in built.emit.nodes for o in node.output if is_reserved(o)]
    described = [name for name in (seed.seed, seed.classes, seed.score, seed.boxes) if name]
    shape = job.forward.shape(job.scores.tensor)
    start = ONE_SEED if job.objective.several else seed.seed
    outputs = [name for name in made if not name.startswith(PREFIX)]
    shapes = {} if shape is None else {start: shape}
    if shape and seed.one_hot:
        shapes.setdefault(seed.one_hot, (shape[0], job.scores.num_classes))
    simplify(
        built.emit,
        job.forward,
        shapes,
        [*built.gradients, *described, *outputs],
        one_hot=(seed.one_hot, seed.classes) if seed.one_hot else None,
    )


def _refuse_zero(job: Job, verification: VerificationReport) -> None:
    """Refuse a layer that the score does not depend on, though a path leads from it to the score.

    Raises:
        UnsupportedModelError: with the nearest layer that works.
    """
    if verification.zero_layers:
        layer, score = job.targets[verification.zero_layers[0]].tensor, job.scores.tensor
        raise UnsupportedModelError(
            f"the gradient of {score!r} at layer {layer!r} is zero for all inputs tried, and so are"
            " central differences: its heat maps would be empty"
            + nearest_layer(job.graph, job.image, job.scores, layer)
            + "; --no-verify exports it all the same"
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
