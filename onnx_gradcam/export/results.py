"""What the export adds to a model: nodes that produce the outputs, the outputs, the metadata.

In: the job, the gradient that was built, its seed. Out: nodes in the emitter, `AddedOutput`s and
`ExportMetadata`.
"""

from __future__ import annotations

from dataclasses import replace

from onnx_gradcam import __version__
from onnx_gradcam.contract import (
    ACTIVATIONS_OUTPUT,
    BOXES_OUTPUT,
    CLASSES_OUTPUT,
    CURVATURE_OUTPUT,
    GRADIENTS_OUTPUT,
    SCORE_OUTPUT,
    ExportMetadata,
    layer_output,
)
from onnx_gradcam.export.attach import AddedOutput, emit_gradients, output_shape
from onnx_gradcam.export.builders.select import Built
from onnx_gradcam.export.curvature import emit_curvature
from onnx_gradcam.export.full_gradient.outputs import emit_full_gradient
from onnx_gradcam.export.fuse import Image, emit_cam
from onnx_gradcam.export.job import Job
from onnx_gradcam.export.quantized.score import integer_grid
from onnx_gradcam.export.seed import Seed
from onnx_gradcam.export.seed_inputs import SEVERAL, seed_inputs
from onnx_gradcam.export.several import ONE_GRADIENT, repeat_for_seeds
from onnx_gradcam.export.simplify.spread import multiply_out
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.quantization import straight_through


def emit_results(job: Job, built: Built, seed: Seed) -> list[AddedOutput]:
    """Emit the gradients and what they are the gradients of, as outputs; return all, in order."""
    emit = built.emit
    gradients = dict(zip(job.tail.targets, built.gradients, strict=True))
    several = job.objective.several
    given = {}
    for index, target in enumerate(job.targets):
        output = layer_output(GRADIENTS_OUTPUT, index)
        one = layer_output(ONE_GRADIENT, index) if several else output
        given[emit_gradients(emit, gradients[target.tensor], target, one)] = output
    if several:
        repeat_for_seeds(emit, seed.seed, job.graph.shape(job.scores.tensor), given)
    if job.second_order:
        inputs = seed_inputs(job.objective, job.class_input, job.scores, job.graph)
        emit_curvature(emit, job.forward, job.target, gradients[job.target.tensor], inputs)
    for name, output in _described(seed).items():
        emit.node("Identity", [name], output=output)
    outputs = _declared(job, emit, seed, _emit_fused(job, emit))
    if job.full:
        outputs += emit_full_gradient(emit, job.full, gradients, outputs[0].shape[0])
    multiply_out(emit, [output.name for output in outputs])
    return outputs


def _described(seed: Seed) -> dict[str, str]:
    """Return what is said of the seed: tensor -> output."""
    outputs = {CLASSES_OUTPUT: seed.classes, SCORE_OUTPUT: seed.score, BOXES_OUTPUT: seed.boxes}
    return {name: output for output, name in outputs.items() if name}


def _emit_fused(job: Job, emit: Emitter) -> list[AddedOutput]:
    """Emit the CAM where one is asked for, and return the outputs that it adds."""
    if job.fusion is None:
        return []
    layout = job.preprocessing.layout if job.preprocessing else None
    image = Image.of(job.graph, job.image, job.target, layout)
    shape = output_shape(job.graph, job.target, job.image)
    several = [SEVERAL] if job.objective.several else []
    return emit_cam(emit, job.fusion, shape, image, classes=several)


def _declared(job: Job, emit: Emitter, seed: Seed, fused: list[AddedOutput]) -> list[AddedOutput]:
    """Return the outputs of layers, CAM (`fused`) and seed; those of further layers come last."""
    of_layers = []
    several = [SEVERAL] if job.objective.several else []
    for index, target in enumerate(job.targets):
        dtype = emit.dtype(target.tensor)
        shape = output_shape(job.graph, target, job.image)
        of_image = [*shape[:1], *several]
        of_layers += [
            AddedOutput(layer_output(ACTIVATIONS_OUTPUT, index), dtype, shape),
            AddedOutput(layer_output(GRADIENTS_OUTPUT, index), dtype, [*of_image, *shape[1:]]),
        ]
    first = of_layers[0]
    of_image = [*first.shape[:1], *several]
    return [
        *(() if job.fusion and job.fusion.alone else of_layers[:2]),
        *fused,
        *(AddedOutput(o, emit.dtype(o), of_image) for o in _described(seed).values()),
        *([replace(first, name=CURVATURE_OUTPUT)] if job.second_order else []),
        *of_layers[2:],
    ]


def metadata_of(job: Job, built: Built, outputs: list[str]) -> ExportMetadata:
    """Return what the file says about itself."""
    recipe = job.preprocessing
    first, *further = [target.arrangement.to_metadata(target.tensor) for target in job.targets]
    scale, zero_point = integer_grid(job.graph, job.scores.output)
    return ExportMetadata(
        tool_version=__version__,
        gradient_builder=built.builder,
        gradient_builder_version=built.version,
        image_input=job.image,
        **vars(first),
        further_layers=further,
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
        fused=None if job.fusion is None else job.fusion.to_dict(),
        activation=job.scores.activation,
        objective=job.objective.kind,
        seed_inputs=list(job.objective.inputs),
        several=job.objective.several,
        places=list(job.scores.places),
        channels=job.scores.channels,
        first_channel=job.scores.first_channel,
        output_axis=job.scores.output_axis,
        output_channel=job.scores.output_channel,
        gate=job.gate,
    )
