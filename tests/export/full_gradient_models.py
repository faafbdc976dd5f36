"""Networks that are piecewise linear in the image, operator by operator, and some that are not."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnx import ModelProto

from tests.export.networks import Shapes, network


@dataclass(frozen=True)
class Body:
    """A network from an image ``(N, 3, 8, 8)`` to five scores, and its map ``a`` before the head.

    Attributes:
        nodes: from ``image`` to ``a``, four channels.
        weights: what they take.
        integers: int64 constants.
        opset: of the model.
    """

    nodes: str
    weights: Shapes = field(default_factory=dict)
    integers: dict[str, list[int]] = field(default_factory=dict)
    opset: int = 17

    def model(self) -> ModelProto:
        nodes = f"""{self.nodes}
            pooled = GlobalAveragePool(a)
            flat = Flatten(pooled)
            logits = Gemm<transB=1>(flat, w9, b9)"""
        shapes = dict(self.weights) | {"w9": (5, 4), "b9": (5,)}
        return network(nodes, shapes, integers=self.integers, opset=self.opset)


_CONV = {"w1": (4, 3, 3, 3), "b1": (4,)}
_FIRST = "c = Conv<pads=[1,1,1,1]>(image, w1, b1)\n"
_NORM = {"s": (4,), "b": (4,), "m": (4,), "var": (4,)}

LINEAR = {
    "Conv": Body("a = Conv<pads=[1,1,1,1]>(image, w1, b1)", _CONV),
    "Relu": Body(f"{_FIRST} a = Relu(c)", _CONV),
    "LeakyRelu": Body(f"{_FIRST} a = LeakyRelu<alpha=0.2>(c)", _CONV),
    "PRelu": Body(f"{_FIRST} a = PRelu(c, slope)", {**_CONV, "slope": (4, 1, 1)}),
    "Abs and Neg": Body(f"{_FIRST} d = Abs(c)\n a = Neg(d)", _CONV),
    "ConvTranspose": Body(
        f"{_FIRST} r = Relu(c)\n a = ConvTranspose(r, w2, b2)",
        {**_CONV, "w2": (4, 4, 3, 3), "b2": (4,)},
    ),
    "BatchNormalization": Body(
        f"{_FIRST} n = BatchNormalization<epsilon=0.01>(c, s, b, m, var)\n a = Relu(n)",
        {**_CONV, **_NORM},
    ),
    "depthwise": Body(
        f"{_FIRST} r = Relu(c)\n a = Conv<group=4>(r, w2, b2)",
        {**_CONV, "w2": (4, 1, 3, 3), "b2": (4,)},
    ),
    "Add of a constant": Body(
        "p = Conv(image, w1)\n q = Add(p, k)\n a = Relu(q)", {"w1": (4, 3, 1, 1), "k": (4, 1, 1)}
    ),
    "Sub both ways": Body(
        "p = Conv(image, w1)\n q = Sub(p, k)\n r = Sub(k, q)\n a = Relu(r)",
        {"w1": (4, 3, 1, 1), "k": (4, 1, 1)},
    ),
    "Sum": Body(
        f"{_FIRST} r = Relu(c)\n a = Sum(r, k, c, k)", {**_CONV, "k": (1, 4, 1, 1)}
    ),
    "constants as factors": Body(
        f"{_FIRST} p = Mul(c, k)\n q = Div(p, k2)\n a = Relu(q)",
        {**_CONV, "k": (4, 1, 1), "k2": (1,)},
    ),
    "ReLU6": Body(
        f"{_FIRST} t = Constant<value_float=10.0>()\n e = Mul(c, t)\n"
        "z = Constant<value_float=0.0>()\n six = Constant<value_float=6.0>()\n a = Clip(e, z, six)",
        _CONV,
    ),
    "ReLU6 of opset 7": Body(
        f"{_FIRST} e = Mul(c, t)\n a = Clip<min=0.0, max=0.5>(e)", {**_CONV, "t": (1,)}, opset=7
    ),
    "hard tanh": Body(
        f"{_FIRST} z = Constant<value_float=-0.2>()\n o = Constant<value_float=0.3>()\n"
        "a = Clip(c, z, o)",
        _CONV,
    ),
    "Max and Min with a constant": Body(
        f"{_FIRST} d = Max(c, low)\n a = Min(high, d)", {**_CONV, "low": (1,), "high": (4, 1, 1)}
    ),
    "Max of two maps": Body(f"{_FIRST} d = Neg(c)\n e = Relu(d)\n a = Max(c, e)", _CONV),
    "pooling": Body(
        f"{_FIRST} d = MaxPool<kernel_shape=[2,2]>(c)\n"
        "e = AveragePool<kernel_shape=[2,2], strides=[2,2]>(d)\n a = Relu(e)",
        _CONV,
    ),
    "Pad, Slice, Concat, Transpose": Body(
        f"""{_FIRST} d = Pad(c, pads)
        e = Slice(d, start, end, axes)
        f = Concat<axis=1>(e, e)
        g = Transpose<perm=[0,2,3,1]>(f)
        h = MatMul(g, w2)
        i = Add(h, b2)
        j = Relu(i)
        a = Transpose<perm=[0,3,1,2]>(j)""",
        {**_CONV, "w2": (8, 4), "b2": (4,)},
        {"pads": [0, 0, 1, 1, 0, 0, 1, 1], "start": [1], "end": [7], "axes": [2]},
    ),
    "residual": Body(
        f"""{_FIRST} r = Relu(c)
        d = Conv<pads=[1,1,1,1]>(r, w2, b2)
        e = Add(d, r)
        a = Relu(e)""",
        {**_CONV, "w2": (4, 4, 3, 3), "b2": (4,)},
    ),
    "mean and scale in the graph": Body(
        "p = Sub(image, mean)\n q = Div(p, std)\n c = Conv(q, w1, b1)\n a = Relu(c)",
        {**_CONV, "mean": (3, 1, 1), "std": (1,)},
    ),
    "Gemm with beta": Body(
        f"""{_FIRST} f = Flatten(c)
        g = Gemm<transB=1, alpha=0.5, beta=2.0>(f, w2, b2)
        h = Relu(g)
        a = Reshape(h, shape)""",
        {**_CONV, "w2": (36, 256), "b2": (36,)},
        {"shape": [-1, 4, 3, 3]},
    ),
}  # fmt: skip
"""What is in it -> the network."""

BENT = {
    "Sigmoid": (
        Body(f"{_FIRST} a = Sigmoid(c)", _CONV),
        "ai.onnx::Sigmoid-17 (node 'a')",
    ),
    "a gate": (
        Body(f"{_FIRST} r = Relu(c)\n a = Mul(r, c)", _CONV),
        "ai.onnx::Mul-17 (node 'a') of several tensors that depend on the image",
    ),
    "a square": (
        Body(f"{_FIRST} a = Mul(c, c)", _CONV),
        "ai.onnx::Mul-17 (node 'a') of several tensors that depend on the image",
    ),
    "a quotient": (
        Body(f"{_FIRST} a = Div(k, c)", {**_CONV, "k": (1,)}),
        "ai.onnx::Div-17 (node 'a') of several tensors that depend on the image",
    ),
    "LayerNormalization": (
        Body(f"{_FIRST} a = LayerNormalization(c, s)", {**_CONV, "s": (8,)}),
        "ai.onnx::LayerNormalization-17 (node 'a')",
    ),
    "training": (
        Body(
            f"{_FIRST} a, m2, v2 = BatchNormalization<training_mode=1>(c, s, b, m, var)",
            {**_CONV, **_NORM},
        ),
        "ai.onnx::BatchNormalization-17 (node 'a') in training mode",
    ),
    "a padding of ones": (
        Body(
            f"{_FIRST} one = Constant<value_float=1.0>()\n a = Pad(c, pads, one)",
            _CONV,
            {"pads": [0, 0, 1, 1, 0, 0, 1, 1]},
        ),
        "ai.onnx::Pad-17 (node 'a') with a constant other than zero",
    ),
    "a joined constant": (
        Body(
            f"""{_FIRST} z = Constant<value = float[1] {{1.0}}>()
            s = Shape(c)
            k = Expand(z, s)
            f = Concat<axis=1>(c, k)
            a = Conv(f, w2)""",
            {**_CONV, "w2": (4, 8, 1, 1)},
        ),
        "ai.onnx::Concat-17 (node 'f') with a constant among its inputs",
    ),
    "a constant among maxima": (
        Body(f"{_FIRST} d = Neg(c)\n a = Max(c, d, k)", {**_CONV, "k": (1,)}),
        "ai.onnx::Max-17 (node 'a') of a constant and several tensors that depend on the image",
    ),
    "a product of maps": (
        Body(f"{_FIRST} a = MatMul(c, c)", _CONV),
        "ai.onnx::MatMul-17 (node 'a') of several tensors that depend on the image",
    ),
}
"""What is wrong -> the network, and how it is named."""
