"""Classifiers in miniature, one per family of architectures, written as ONNX text.

Weights are the tensors that no node computes; their shapes are given, their values drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper, parser

IMAGE = "float[N, 3, 8, 8] image"
SCORES = "float[N, 5] logits"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Network:
    """A network and what is to be found in it.

    Attributes:
        body: its nodes.
        weights: their shapes.
        target: the penultimate feature map.
        candidates: the feature maps that all of the score passes through, in order.
        score: the tensor before softmax.
        image: the declared input.
        scores: the declared output.
        integers: int64 constants.
        layout: of the target.
        opset: of the model.
    """

    body: str
    weights: Shapes
    target: str
    candidates: tuple[str, ...]
    score: str = "logits"
    image: str = IMAGE
    scores: str = SCORES
    integers: Mapping[str, list[int]] = field(default_factory=dict)
    layout: str = "NCHW"
    opset: int = 17

    def model(self, **changes: object) -> ModelProto:
        return network(
            self.body,
            self.weights,
            image=self.image,
            scores=self.scores,
            integers=self.integers,
            opset=int(str(changes.get("opset", self.opset))),
        )


def network(
    body: str,
    weights: Shapes,
    *,
    image: str = IMAGE,
    scores: str = SCORES,
    integers: Mapping[str, list[int]] | None = None,
    opset: int = 17,
    ir_version: int = 8,
) -> ModelProto:
    """Return a model with random weights; the same ones each time."""
    text = f"""<ir_version: {ir_version}, opset_import: ["" : {opset}]>
        network ({image}) => ({scores}) {{
        {body}
    }}"""
    model = parser.parse_model(text)
    rng = np.random.default_rng(3)
    for name, shape in weights.items():
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        values = rng.standard_normal(shape) / np.sqrt(max(fan_in, 1))
        if name.startswith("var"):
            values = np.abs(values) + 0.5
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    for name, numbers in (integers or {}).items():
        array = np.asarray(numbers, np.int64)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    if ir_version < 4:  # there weights are inputs with a default
        for tensor in model.graph.initializer:
            model.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    checker.check_model(model, full_check=True)
    assert all(t.data_type != TensorProto.UNDEFINED for t in model.graph.initializer)
    return model


NETWORKS = {
    "VGG": Network(
        """conv1 = Conv<pads=[1,1,1,1]>(image, w1)
        relu1 = Relu(conv1)
        pool1 = MaxPool<kernel_shape=[2,2], strides=[2,2]>(relu1)
        conv5 = Conv<pads=[1,1,1,1]>(pool1, w5)
        relu5 = Relu(conv5)
        pool5 = MaxPool<kernel_shape=[2,2], strides=[2,2]>(relu5)
        flat = Flatten(pool5)
        fc6 = Gemm<transB=1>(flat, w6, b6)
        relu6 = Relu(fc6)
        drop6 = Dropout(relu6)
        logits = Gemm<transB=1>(drop6, w8, b8)""",
        {"w1": (4, 3, 3, 3), "w5": (6, 4, 3, 3), "w6": (7, 24), "b6": (7,), "w8": (5, 7),
         "b8": (5,)},
        "relu5",
        ("conv1", "relu1", "pool1", "conv5", "relu5", "pool5"),
    ),
    "ResNet": Network(
        """conv1 = Conv<pads=[1,1,1,1], strides=[2,2]>(image, w1)
        bn1 = BatchNormalization(conv1, s, b, m, var)
        relu1 = Relu(bn1)
        conv2 = Conv<pads=[1,1,1,1]>(relu1, w2)
        relu2 = Relu(conv2)
        conv3 = Conv<pads=[1,1,1,1]>(relu2, w3)
        sum = Add(conv3, relu1)
        relu3 = Relu(sum)
        pooled = GlobalAveragePool(relu3)
        flat = Flatten(pooled)
        logits = Gemm<transB=1>(flat, w4, b4)""",
        {"w1": (4, 3, 3, 3), "s": (4,), "b": (4,), "m": (4,), "var": (4,), "w2": (6, 4, 3, 3),
         "w3": (4, 6, 3, 3), "w4": (5, 4), "b4": (5,)},
        "relu3",
        ("conv1", "bn1", "relu1", "sum", "relu3"),
    ),
    "DenseNet": Network(
        """conv1 = Conv<pads=[1,1,1,1]>(image, w1)
        bn1 = BatchNormalization(conv1, s, b, m, var)
        relu1 = Relu(bn1)
        conv2 = Conv<pads=[1,1,1,1]>(relu1, w2)
        dense = Concat<axis=1>(conv1, conv2)
        bn2 = BatchNormalization(dense, s2, b2, m2, var2)
        relu2 = Relu(bn2)
        pooled = GlobalAveragePool(relu2)
        flat = Flatten(pooled)
        logits = Gemm<transB=1>(flat, w3, b3)
        probabilities = Softmax(logits)""",
        {"w1": (4, 3, 3, 3), "s": (4,), "b": (4,), "m": (4,), "var": (4,), "w2": (2, 4, 3, 3),
         "s2": (6,), "b2": (6,), "m2": (6,), "var2": (6,), "w3": (5, 6), "b3": (5,)},
        "relu2",
        ("conv1", "dense", "bn2", "relu2"),
        scores="float[N, 5] probabilities",
    ),
    "SqueezeNet": Network(
        """conv1 = Conv<strides=[2,2]>(image, w1)
        relu1 = Relu(conv1)
        squeeze = Conv(relu1, w2)
        squeezed = Relu(squeeze)
        left = Conv(squeezed, w3)
        left_relu = Relu(left)
        right = Conv<pads=[1,1,1,1]>(squeezed, w4)
        right_relu = Relu(right)
        fire = Concat<axis=1>(left_relu, right_relu)
        dropped = Dropout(fire)
        classifier = Conv(dropped, w5, b5)
        scores = Relu(classifier)
        pooled = GlobalAveragePool(scores)
        logits = Flatten(pooled)
        probabilities = Softmax(logits)""",
        {"w1": (4, 3, 3, 3), "w2": (2, 4, 1, 1), "w3": (3, 2, 1, 1), "w4": (3, 2, 3, 3),
         "w5": (5, 6, 1, 1), "b5": (5,)},
        "fire",
        ("conv1", "relu1", "squeeze", "squeezed", "fire", "dropped"),
        scores="float[N, 5] probabilities",
    ),
    "MobileNetV3": Network(
        """conv1 = Conv<pads=[1,1,1,1], strides=[2,2]>(image, w1)
        act1 = HardSwish(conv1)
        depthwise = Conv<pads=[1,1,1,1], group=4>(act1, w2)
        pool2 = GlobalAveragePool(depthwise)
        reduce = Conv(pool2, w3, b3)
        reduced = Relu(reduce)
        expand = Conv(reduced, w4, b4)
        gate = HardSigmoid<alpha=0.1666667>(expand)
        excited = Mul(depthwise, gate)
        conv5 = Conv(excited, w5)
        act5 = HardSwish(conv5)
        pool5 = GlobalAveragePool(act5)
        conv6 = Conv(pool5, w6, b6)
        act6 = HardSwish(conv6)
        flat = Flatten(act6)
        logits = Gemm<transB=1>(flat, w7, b7)""",
        {"w1": (4, 3, 3, 3), "w2": (4, 1, 3, 3), "w3": (2, 4, 1, 1), "b3": (2,),
         "w4": (4, 2, 1, 1), "b4": (4,),
         "w5": (6, 4, 1, 1), "w6": (7, 6, 1, 1), "b6": (7,), "w7": (5, 7), "b7": (5,)},
        "act5",
        ("conv1", "act1", "depthwise", "excited", "conv5", "act5"),
    ),
    "EfficientNet": Network(
        """conv1 = Conv<pads=[1,1,1,1], strides=[2,2]>(image, w1, b1)
        sigmoid = Sigmoid(conv1)
        silu = Mul(conv1, sigmoid)
        pooled = ReduceMean<axes=[2, 3], keepdims=0>(silu)
        logits = Gemm<transB=1>(pooled, w2, b2)""",
        {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (5, 4), "b2": (5,)},
        "silu",
        ("conv1", "silu"),
    ),
    "ConvNeXt": Network(
        """stem = Conv<strides=[2,2]>(image, w1, b1)
        depthwise = Conv<pads=[1,1,1,1], group=4>(stem, w2)
        last = Transpose<perm=[0, 2, 3, 1]>(depthwise)
        normal = LayerNormalization(last, s, b)
        wide = MatMul(normal, w3)
        active = Relu(wide)
        narrow = MatMul(active, w4)
        first = Transpose<perm=[0, 3, 1, 2]>(narrow)
        scaled = Mul(first, gamma)
        block = Add(stem, scaled)
        pooled = GlobalAveragePool(block)
        flat = Flatten(pooled)
        head = LayerNormalization(flat, s2, b2)
        logits = Gemm<transB=1>(head, w5, b5)""",
        {"w1": (4, 3, 2, 2), "b1": (4,), "w2": (4, 1, 3, 3), "s": (4,), "b": (4,), "w3": (4, 8),
         "w4": (8, 4), "gamma": (4, 1, 1), "s2": (4,), "b2": (4,), "w5": (5, 4), "b5": (5,)},
        "block",
        ("stem", "block"),
    ),
    "channels last": Network(
        """first = Transpose<perm=[0, 3, 1, 2]>(image)
        conv1 = Conv<pads=[1,1,1,1], strides=[2,2]>(first, w1, b1)
        relu1 = Relu(conv1)
        last = Transpose<perm=[0, 2, 3, 1]>(relu1)
        gate = Sigmoid(last)
        act = Mul(last, gate)
        pooled = ReduceMean<axes=[1, 2], keepdims=0>(act)
        product = MatMul(pooled, w2)
        logits = Add(product, b2)
        probabilities = Softmax(logits)""",
        {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 5), "b2": (5,)},
        "act",
        ("first", "conv1", "relu1", "last", "act"),
        image="float[N, 8, 8, 3] image",
        scores="float[N, 5] probabilities",
        layout="NHWC",
    ),
    "Inception": Network(
        """conv1 = Conv<pads=[1,1,1,1]>(image, w1)
        relu1 = Relu(conv1)
        left = Conv(relu1, w2)
        left_relu = Relu(left)
        pool = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(relu1)
        right = Conv(pool, w3)
        right_relu = Relu(right)
        mixed = Concat<axis=1>(left_relu, right_relu)
        pooled = AveragePool<kernel_shape=[8,8]>(mixed)
        dropped = Dropout(pooled)
        flat = Reshape(dropped, shape)
        logits = Gemm<transB=1>(flat, w4, b4)""",
        {"w1": (4, 3, 3, 3), "w2": (3, 4, 1, 1), "w3": (2, 4, 1, 1), "w4": (5, 5), "b4": (5,)},
        "mixed",
        ("conv1", "relu1", "mixed"),
        integers={"shape": [-1, 5]},
    ),
    "fully convolutional": Network(
        """conv1 = Conv<pads=[1,1,1,1]>(image, w1)
        relu1 = Relu(conv1)
        pooled = GlobalAveragePool(relu1)
        logits = Conv(pooled, w2, b2)""",
        {"w1": (4, 3, 3, 3), "w2": (5, 4, 1, 1), "b2": (5,)},
        "relu1",
        ("conv1", "relu1"),
        scores="float[N, 5, 1, 1] logits",
    ),
    "1-D": Network(
        """conv1 = Conv<strides=[2]>(sound, w1)
        relu1 = Relu(conv1)
        pooled = GlobalMaxPool(relu1)
        flat = Flatten(pooled)
        logits = Gemm<transB=1>(flat, w2, b2)""",
        {"w1": (4, 1, 5), "w2": (5, 4), "b2": (5,)},
        "relu1",
        ("conv1", "relu1"),
        image="float[N, 1, 33] sound",
        layout="NCW",
    ),
    "3-D": Network(
        """conv1 = Conv(volume, w1)
        relu1 = Relu(conv1)
        pooled = GlobalAveragePool(relu1)
        flat = Flatten(pooled)
        logits = Gemm<transB=1>(flat, w2, b2)""",
        {"w1": (4, 1, 3, 3, 3), "w2": (5, 4), "b2": (5,)},
        "relu1",
        ("conv1", "relu1"),
        image="float[N, 1, 5, 6, 7] volume",
        layout="NCDHW",
    ),
}  # fmt: skip
