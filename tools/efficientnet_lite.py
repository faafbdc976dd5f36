"""Write EfficientNet-Lite0 as an ONNX model from the arrays of its PyTorch state dict.

In: name -> array, as `torch_checkpoint.read_checkpoint` returns. Out: an `onnx.ModelProto`, opset
17, IR 8, input ``image`` float32 ``(N, 3, 224, 224)``, output ``logits`` float32 ``(N, 1000)``.

BatchNormalization stays a node of its own: the weights in the file are then bit for bit those of
the checkpoint, and onnxruntime folds them into the convolutions at load anyway.

Source: arXiv 1905.11946 (EfficientNet); the Lite variants drop squeeze-and-excite and replace
swish by ReLU6. Kernel sizes and widths are read from the weights; the strides cannot be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
IMAGE_SIZE = 224
STEM_STRIDE = 2
STRIDE_2_BLOCKS = frozenset({1, 3, 5, 11})
"""The first block of the stages that halve the resolution, of 16 blocks (0 to 15)."""
BATCH_NORM_EPSILON = 1e-3

StateDict = Mapping[str, npt.NDArray[Any]]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the zeros before and after one axis so that the output has ``ceil(size / stride)``.

    The odd one goes to the end, as in TensorFlow's ``SAME`` where the weights come from.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class _Graph:
    """Nodes and initializers in order; every method appends and returns the new tensor's name."""

    def __init__(self, state: StateDict) -> None:
        self.state = state
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, npt.NDArray[Any]] = {}
        self.size = IMAGE_SIZE

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Add an initializer, or take the one of that name."""
        self.initializers[name] = value
        return name

    def weight(self, name: str) -> str:
        """Take a tensor of the checkpoint; ``_blocks.0._bn1.bias`` becomes ``blocks.0.bn1.bias``.

        Raises:
            KeyError: the checkpoint lacks it.
        """
        return self.constant(
            ".".join(p.removeprefix("_") for p in name.split(".")), self.state[name]
        )

    def node(self, op_type: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node with one output, called ``NAME/output``."""
        output = f"{name}/output"
        node = helper.make_node(op_type, inputs, [output], name=name, **attributes)
        # make_node follows keyword order; sorted, the bytes do not depend on how this was called
        node.attribute.sort(key=lambda attribute: attribute.name)
        self.nodes.append(node)
        return output

    def conv_norm(
        self, x: str, scope: str, conv: str, norm: str, *, stride: int = 1, activate: bool = True
    ) -> str:
        """Append convolution, batch normalisation and, unless told not to, ReLU6.

        Args:
            x: float32 ``(N, C, self.size, self.size)``.
            scope: path of the block, such as ``blocks/0``; empty at the top.
            conv: name of the convolution in the checkpoint, without the underscore.
            norm: name of the normalisation, likewise.
            stride: of the convolution, on both axes.
            activate: end with ReLU6.
        """
        source = f"_{scope.replace('/', '.')}." if scope else ""
        path = f"{scope}/" if scope else ""
        weight = f"{source}_{conv}.weight"
        out_channels, in_per_group, kernel, _ = self.state[weight].shape
        depthwise = in_per_group == 1
        begin, end = same_padding(self.size, kernel, stride)
        x = self.node(
            "Conv",
            path + conv,
            [x, self.weight(weight)],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[begin, begin, end, end],
            group=out_channels if depthwise else 1,
        )
        self.size = -(-self.size // stride)
        fields = ("weight", "bias", "running_mean", "running_var")
        weights = [self.weight(f"{source}_{norm}.{field}") for field in fields]
        x = self.node("BatchNormalization", path + norm, [x, *weights], epsilon=BATCH_NORM_EPSILON)
        return self.relu6(x, f"{path}{conv}/relu6") if activate else x

    def relu6(self, x: str, name: str) -> str:
        """Append ``min(max(x, 0), 6)``."""
        low = self.constant("relu6.min", np.array(0, np.float32))
        high = self.constant("relu6.max", np.array(6, np.float32))
        return self.node("Clip", name, [x, low, high])

    def inverted_residual(self, x: str, index: int) -> str:
        """Append block ``index``: expand, depthwise, project, and the residual where shapes allow.

        Source: arXiv 1801.04381, figure 3b.
        """
        scope = f"blocks/{index}"
        source = f"_blocks.{index}."
        stride = 2 if index in STRIDE_2_BLOCKS else 1
        y, channels_in = x, self.state[f"{source}_depthwise_conv.weight"].shape[0]
        if f"{source}_expand_conv.weight" in self.state:
            channels_in = self.state[f"{source}_expand_conv.weight"].shape[1]
            y = self.conv_norm(y, scope, "expand_conv", "bn0")
        y = self.conv_norm(y, scope, "depthwise_conv", "bn1", stride=stride)
        y = self.conv_norm(y, scope, "project_conv", "bn2", activate=False)
        channels_out = self.state[f"{source}_project_conv.weight"].shape[0]
        if stride == 1 and channels_in == channels_out:
            y = self.node("Add", f"{scope}/residual", [y, x])
        return y


def build_efficientnet_lite0(state: StateDict) -> onnx.ModelProto:
    """Return the classifier; the same arrays give the same bytes.

    Raises:
        KeyError: the state dict lacks a tensor of the architecture.
        ValueError: the state dict holds a tensor that the architecture has no place for.
    """
    graph = _Graph(state)
    x = graph.conv_norm("image", "", "conv_stem", "bn0", stride=STEM_STRIDE)
    for index in range(1 + max(int(k.split(".")[1]) for k in state if k.startswith("_blocks."))):
        x = graph.inverted_residual(x, index)
    x = graph.conv_norm(x, "", "conv_head", "bn1")
    x = graph.node("GlobalAveragePool", "pool", [x])
    x = graph.node("Flatten", "flatten", [x], axis=1)
    weights = [graph.weight("_fc.weight"), graph.weight("_fc.bias")]
    graph.node("Gemm", "fc", [x, *weights], transB=1)
    graph.nodes[-1].output[0] = "logits"

    used = sum(name not in {"relu6.min", "relu6.max"} for name in graph.initializers)
    wanted = sum(not name.endswith(".num_batches_tracked") for name in state)
    if used != wanted:
        raise ValueError(f"the checkpoint has {wanted} weights, EfficientNet-Lite0 uses {used}")

    image: list[str | int | None] = ["N", 3, IMAGE_SIZE, IMAGE_SIZE]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "efficientnet_lite0",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)],
            [
                helper.make_tensor_value_info(
                    "logits", TensorProto.FLOAT, ["N", len(state["_fc.bias"])]
                )
            ],
            [numpy_helper.from_array(value, name) for name, value in graph.initializers.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="onnx_gradcam tools/make_models.py",
    )
    onnx.checker.check_model(model, full_check=True)
    return model
