"""``python -m onnx_gradcam``: the command line."""

from onnx_gradcam.cli.main import main

main(prog_name="onnx-gradcam")
