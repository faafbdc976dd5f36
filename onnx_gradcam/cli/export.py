"""`onnx-gradcam export`: a model with its explanation inside."""

from __future__ import annotations

from pathlib import Path

import click

from onnx_gradcam.cli.arrays import input_option, read_inputs
from onnx_gradcam.cli.objective import objective_options
from onnx_gradcam.cli.output import examples, show_report
from onnx_gradcam.preprocessing import PRESETS


@click.command(
    "export",
    short_help="Write MODEL with its explanation inside.",
    epilog=examples(
        "onnx-gradcam export model.onnx -o model.cam.onnx --preprocess imagenet",
        "onnx-gradcam export model.onnx -o model.cam.onnx --layer /layer4/Relu_output_0",
        "onnx-gradcam export model.onnx -o model.cam.onnx --fuse-cam gradcam --outputs cam",
        "onnx-gradcam export yolo.onnx -o yolo.cam.onnx --objective detection --class-channels 4:",
        "onnx-gradcam export model.onnx -o model.cam.onnx --layer auto --layer 5",
        "onnx-gradcam export model.onnx -o model.cam.onnx --class-input required"
        " --emit-triton models",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The file to write.",
)
@click.option(
    "--layer",
    "layers",
    default=["auto"],
    show_default="auto",
    multiple=True,
    metavar="auto|NAME|INDEX",
    help="Target layer: a tensor, a node, or an index from `inspect`; repeat it for several.",
)
@click.option(
    "--score", metavar="NAME", help="Output or tensor to explain, instead of the one found."
)
@click.option(
    "--image-input",
    metavar="NAME",
    help="Input to explain, instead of the first that looks like an image.",
)
@click.option(
    "--full-gradient",
    is_flag=True,
    help="Also output what FullGrad needs: maps of all biases; takes a whole backward pass.",
)
@click.option(
    "--gradient-builder",
    type=click.Choice(["auto", "onnxruntime-training", "reverse"]),
    default="auto",
    show_default=True,
    help="Who builds the gradient; auto takes onnxruntime-training when it is there and able.",
)
@click.option(
    "--class-input",
    default="optional",
    show_default=True,
    metavar="optional|required|fixed:K",
    help="How the exported file takes the class: an input with a default, a plain input"
    " (onnxruntime-web needs that), or none.",
)
@objective_options
@click.option(
    "--weights", is_flag=True, help="Also explain weighted sums of classes, such as contrasts."
)
@click.option(
    "--several", is_flag=True, help="Explain several classes of an image in one run of the model."
)
@click.option(
    "--second-order", is_flag=True, help="Also output second derivatives, for --method shapleycam."
)
@click.option(
    "--preprocess",
    metavar="PRESET|FILE",
    help=f"How a photo becomes the input: a JSON file, or one of {', '.join(PRESETS)}.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Class names, one a line; stored in the file.",
)
@click.option(
    "--fuse-cam",
    metavar="METHOD",
    help="Compute the heat map in the graph, by a method of plain tensor algebra, as the output"
    " `cam`: for C++, C#, Java, JavaScript, Triton.",
)
@click.option(
    "--cam-size",
    default="map",
    show_default=True,
    metavar="map|input|HxW",
    help="Size of that map: of the layer, of the image, or any other; bilinear.",
)
@click.option(
    "--cam-normalise",
    is_flag=True,
    help="Stretch that map to [0, 1]; `cam_scales` says what 0 and 1 stand for.",
)
@click.option(
    "--outputs",
    type=click.Choice(["all", "cam"]),
    default="all",
    show_default=True,
    help="cam leaves out activations and gradients, the large ones.",
)
@click.option(
    "--attention",
    type=click.Choice(["rollout", "legrad", "both"]),
    help="Vision transformers: add what the CAM methods rollout and legrad need.",
)
@click.option(
    "--attention-blocks",
    type=int,
    metavar="K",
    help="Of the last K blocks alone, instead of all.",
)
@click.option(
    "--gate",
    is_flag=True,
    help="Also take `cam_explain`: false, the file costs what MODEL costs and explains nothing.",
)
@click.option(
    "--emit-triton",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write a model folder for Triton Inference Server: DIR/NAME.",
)
@click.option("--force", is_flag=True, help="Overwrite the output.")
@click.option(
    "--no-verify", is_flag=True, help="Skip the proof that outputs and gradient are right."
)
@input_option("Values to prove it with, for an input that random ones do not do for.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    model: Path,
    output: Path,
    layers: tuple[str, ...],
    score: str | None,
    image_input: str | None,
    full_gradient: bool,
    gradient_builder: str,
    class_input: str,
    objective: str,
    weights: bool,
    several: bool,
    class_axis: int | None,
    class_channels: str | None,
    second_order: bool,
    preprocess: str | None,
    labels: Path | None,
    fuse_cam: str | None,
    cam_size: str,
    cam_normalise: bool,
    outputs: str,
    attention: str | None,
    attention_blocks: int | None,
    gate: bool,
    emit_triton: Path | None,
    force: bool,
    no_verify: bool,
    inputs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write MODEL anew with the activations and gradients of its target layers as extra outputs.

    The written file is a drop-in replacement: same inputs, same outputs, standard operators only.
    """
    from onnx_gradcam import export_model

    report = export_model(
        model,
        output,
        layer=[int(layer) if layer.isdecimal() else layer for layer in layers],
        score=score,
        image_input=image_input,
        full_gradient=full_gradient,
        gradient_builder=gradient_builder,
        class_input=class_input,
        objective=objective,
        weights=weights,
        several=several,
        class_axis=class_axis,
        class_channels=class_channels,
        second_order=second_order,
        preprocess=preprocess,
        labels=labels,
        attention=attention,
        attention_blocks=attention_blocks,
        force=force,
        verify=not no_verify,
        inputs=read_inputs(inputs) or None,
        fuse_cam=fuse_cam,
        cam_size=cam_size,
        cam_normalise=cam_normalise,
        outputs=outputs,
        gate=gate,
        emit_triton=emit_triton,
    )
    show_report(report, as_json=as_json)
