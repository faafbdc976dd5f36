"""Small tails, one per rule and form of an operator, written as ONNX text with ``T`` for float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, numpy_helper, parser

Array = np.ndarray[Any, np.dtype[Any]]
Constant = float | list[int] | tuple[str, Sequence[int]] | Array


def weights(*shape: int) -> tuple[str, Sequence[int]]:
    """A constant of random values."""
    return ("random", shape)


@dataclass(frozen=True)
class Case:
    """A tail whose output is ``y``.

    Attributes:
        name: what it shows.
        body: its nodes; A is the target.
        shape: shape of A.
        opset: its opset.
        constants: floats are scalars, sequences int64, else random weights (positive).
        inputs: by-passing tensors: shapes of random values.
        evaluated: whether onnxruntime-training has kernels for its gradient.
    """

    name: str
    body: str
    shape: tuple[int, ...] = (2, 4, 3, 3)
    opset: int = 17
    constants: Mapping[str, Constant] = field(default_factory=dict)
    inputs: Mapping[str, Sequence[int]] = field(default_factory=dict)
    evaluated: bool = True

    def model(self, dtype: str = "float", *, symbolic: bool = False) -> ModelProto:
        """Return the tail with loss = sum of sin(y) times a seed.

        The sine keeps the gradient of a normalization, whose results have a fixed sum, from
        vanishing.
        """
        sizes = ["N" if symbolic and axis == 0 else str(d) for axis, d in enumerate(self.shape)]
        others = "".join(f", T[{','.join(map(str, s))}] {n}" for n, s in self.inputs.items())
        text = f"""<ir_version: 8, opset_import: ["" : {self.opset}]>
            tail (T[{",".join(sizes)}] A{others}) => ({dtype} loss) {{
            {self.body}
            bent = Sin(y)
            weighted = Mul(bent, seed)
            loss = ReduceSum<keepdims=0>(weighted)
        }}"""
        model = parser.parse_model(text.replace("T[", f"{dtype}["))
        element = {"double": np.float64, "float16": np.float16}.get(dtype, np.float32)
        for name, value in self.values(element).items():
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        return model

    def values(self, dtype: Any) -> dict[str, Array]:
        """Return the constants, the seed (a scalar) among them."""
        rng = np.random.default_rng(7)
        values: dict[str, Array] = {"seed": np.asarray(1.7, dtype)}
        for name, value in self.constants.items():
            if isinstance(value, tuple):
                values[name] = rng.uniform(0.3, 1.5, value[1]).astype(dtype)
            elif isinstance(value, float):
                values[name] = np.asarray(value, dtype)
            elif isinstance(value, np.ndarray):
                values[name] = value.astype(dtype) if value.dtype.kind == "f" else value
            else:
                values[name] = np.asarray(value, np.int64)
        return values

    def feeds(self, dtype: Any) -> dict[str, Array]:
        """Return values for A, away from 0 and from each other, and for by-passing tensors."""
        rng = np.random.default_rng(11)
        count = int(np.prod(self.shape))
        # distinct multiples of a step: no two within it, none at a kink
        values = (rng.permutation(count) - count // 2 + 0.37) * (8.0 / count)
        feeds = {"A": values.reshape(self.shape).astype(dtype)}
        for name, shape in self.inputs.items():
            feeds[name] = rng.uniform(0.5, 1.5, shape).astype(dtype)
        return feeds


C4 = {"s": weights(4), "b": weights(4), "m": weights(4), "v": weights(4)}

CASES = [
    # activations
    Case("HardSigmoid", "y = HardSigmoid<alpha=0.25, beta=0.4>(A)"),
    Case("HardSwish", "y = HardSwish(A)"),
    Case("Elu", "y = Elu<alpha=0.7>(A)"),
    Case("Celu", "y = Celu<alpha=0.7>(A)"),
    Case("Selu", "y = Selu(A)"),
    Case("PRelu", "y = PRelu(A, k)", constants={"k": weights(4, 1, 1)}),
    Case("ThresholdedRelu", "y = ThresholdedRelu<alpha=0.7>(A)"),
    Case("Shrink", "y = Shrink<lambd=0.7, bias=0.2>(A)"),
    Case("Softplus", "y = Softplus(A)"),
    Case("Mish", "y = Mish(A)", opset=18),
    Case("Softsign", "y = Softsign(A)"),
    Case("Gelu tanh", 'y = Gelu<approximate="tanh">(A)', opset=20),
    # arithmetic
    Case("Sum of one", "y = Sum(A)"),
    Case("Sum", "r = Sigmoid(A)\n t = Tanh(A)\n y = Sum(A, r, t)"),
    Case("Sum broadcast", "g = GlobalAveragePool(A)\n y = Sum(A, g)"),
    Case("Mean", "r = Sigmoid(A)\n t = Tanh(A)\n y = Mean(A, r, t)"),
    Case("Div", "p = Exp(A)\n g = GlobalAveragePool(p)\n y = Div(A, g)"),
    Case("Div by itself", "p = Exp(A)\n q = Add(p, c)\n y = Div(p, q)", constants={"c": 1.0}),
    Case("Pow integer", "y = Pow(A, k)", constants={"k": np.asarray(3)}),
    Case("CastLike", "q = Exp(A)\n y = CastLike(q, k)", opset=15, constants={"k": 1.0}),
    Case("MatMul vector", "y = MatMul(A, k)", (2, 3, 4), constants={"k": weights(4)}),
    Case("MatMul by vector", "y = MatMul(k, A)", (2, 3, 4), constants={"k": weights(3)}),
    Case("MatMul of vectors", "y = MatMul(A, k)", (4,), constants={"k": weights(4)}),
    Case("Mul by itself", "y = Mul(A, A)"),
    Case("Concat with itself", "z = Concat<axis=1>(A, A)\n y = Exp(z)"),
    # normalization
    Case("BatchNormalization", "y = BatchNormalization(A, s, b, m, v)", constants=C4),
    Case("BatchNormalization 2-D", "y = BatchNormalization(A, s, b, m, v)", (3, 4), constants=C4),
    Case("BatchNormalization 1-D", "y = BatchNormalization(A, s, b, m, v)", (2, 4, 5), 9, C4),
    Case(
        "BatchNormalization of inputs",
        "y = BatchNormalization<epsilon=0.01>(A, s, b, m, v)",
        inputs={name: (4,) for name in "sbmv"},
    ),
    Case(
        "LayerNormalization",
        "y = LayerNormalization<axis=-1>(A, s, b)",
        (2, 3, 4),
        constants={"s": weights(4), "b": weights(4)},
    ),
    Case(
        "LayerNormalization without bias",
        "y = LayerNormalization<axis=-1>(A, s)",
        (2, 3, 4),
        constants={"s": weights(4)},
    ),
    Case(
        "LayerNormalization over two axes",
        "y = LayerNormalization<axis=1>(A, s)",
        (2, 3, 4),
        constants={"s": weights(3, 4)},
    ),
    Case(
        "RMSNormalization",
        "y = RMSNormalization<axis=-2, epsilon=0.1>(A, s)",
        (2, 3, 4),
        23,
        {"s": weights(3, 4)},
    ),
    Case("InstanceNormalization", "y = InstanceNormalization(A, s, b)", constants=C4),
    Case("InstanceNormalization 1-D", "y = InstanceNormalization(A, s, b)", (2, 4, 5), 12, C4),
    Case(
        "GroupNormalization-18",
        "y = GroupNormalization<num_groups=2>(A, s, b)",
        opset=18,
        constants={"s": weights(2), "b": weights(2)},
    ),
    Case(
        "GroupNormalization-21",
        "y = GroupNormalization<num_groups=2>(A, s, b)",
        opset=21,
        constants=C4,
    ),
    Case("LRN", "y = LRN<size=3, alpha=0.5, beta=0.6, bias=1.3>(A)", (2, 5, 3, 2)),
    # reductions
    Case("ReduceMax", "y = ReduceMax<axes=[1], keepdims=0>(A)"),
    Case("ReduceMax all", "y = ReduceMax<keepdims=1>(A)"),
    Case("ReduceMax-18", "y = ReduceMax<keepdims=1>(A, k)", opset=18, constants={"k": [2, 3]}),
    Case("ReduceMin", "y = ReduceMin<axes=[-1]>(A)", opset=12),
    Case("GlobalMaxPool", "y = GlobalMaxPool(A)"),
    Case("ReduceL1", "y = ReduceL1<axes=[1], keepdims=0>(A)"),
    Case("ReduceSumSquare", "y = ReduceSumSquare<axes=[1, 2]>(A)"),
    Case("ReduceSumSquare-18", "y = ReduceSumSquare(A, k)", opset=18, constants={"k": [1]}),
    Case("ReduceLogSum", "p = Exp(A)\n y = ReduceLogSum<axes=[1]>(p)"),
    # layout
    Case("Dropout", "y = Dropout(A)"),
    Case("Dropout with ratio", "y = Dropout(A, k)", constants={"k": 0.3}),
    Case("Split, all used", "p, q = Split<axis=1>(A, k)\n y = Mul(p, q)", constants={"k": [2, 2]}),
    Case("Split, one used", "p, q, r = Split<axis=1>(A, k)\n y = Exp(q)",
         constants={"k": [1, 2, 1]}),
    Case("Split-12, one used", "p, q = Split<axis=-1, split=[1, 2]>(A)\n y = Exp(p)", opset=12),
    Case("Split-18 uneven", "p, q, r = Split<axis=1, num_outputs=3>(A)\n y = Exp(r)", (2, 7), 18),
    Case("Split used by Shape", "p, q = Split<axis=1>(A, k)\n h = Shape(p)\n y = Expand(q, h)",
         constants={"k": [2, 2]}),
    Case("Pad-18 axes", "y = Pad(A, k,, a)", opset=18, constants={"k": [1, 2], "a": [-1]}),
    Case("Pad-18 axes, value", "y = Pad(A, k, f, a)", opset=18,
         constants={"k": [1, 2], "a": [1], "f": 0.5}),
    Case("Pad reflect", 'y = Pad<mode="reflect">(A, k)', constants={"k": [0, 0, 1, 2, 0, 0, 2, 0]}),
    Case("Pad edge", 'y = Pad<mode="edge">(A, k)', constants={"k": [0, 0, 1, 2, 0, 0, 2, 0]}),
    Case("Where broadcast", "g = GlobalAveragePool(A)\n c = Less(A, k)\n y = Where(c, g, A)",
         constants={"k": 0.1}),
    Case("Where of a constant", "c = Less(A, k)\n y = Where(c, A, k)", constants={"k": 0.1}),
    Case("DepthToSpace", "y0 = DepthToSpace<blocksize=2>(A)\n y = Exp(y0)"),
    Case("DepthToSpace CRD", 'y0 = DepthToSpace<blocksize=2, mode="CRD">(A)\n y = Mul(y0, k)',
         constants={"k": weights(6, 6)}),
    Case("SpaceToDepth", "y0 = SpaceToDepth<blocksize=2>(A)\n y = Mul(y0, k)", (1, 2, 4, 4),
         constants={"k": weights(8, 2, 2)}),
    Case("Resize axes", 'y = Resize<mode="linear", axes=[2, 3]>(A,, k)', opset=18,
         constants={"k": np.asarray([2.0, 2.0], np.float32)}, evaluated=False),
    Case("ScatterElements", "y = ScatterElements<axis=1>(A, i, u)", (2, 3),
         constants={"i": np.array([[0, 2], [1, 0]]), "u": weights(2, 2)}),
    Case("ScatterND", "y = ScatterND(A, i, u)", (2, 3),
         constants={"i": np.array([[1]]), "u": weights(1, 3)}),
    # Einsum
    Case("Einsum of matrices", 'y = Einsum<equation="bik,bkj->bij">(A, k)', (2, 3, 4),
         constants={"k": weights(2, 4, 5)}),
    Case("Einsum of channels", 'y = Einsum<equation="nchw, cd -> ndhw">(A, k)',
         constants={"k": weights(4, 3)}),
    Case("Einsum with itself", 'y = Einsum<equation="bqd,bkd->bqk">(A, A)', (2, 3, 4)),
    Case("Einsum of a vector", 'y = Einsum<equation="bik,k->bi">(A, k)', (2, 3, 4),
         constants={"k": weights(4)}),
    Case("Einsum elementwise", 'y = Einsum<equation="bik,bk->bik">(A, k)', (2, 3, 4),
         constants={"k": weights(2, 4)}),
    Case("Einsum of one", 'y0 = Einsum<equation="bik->kb">(A)\n y = Exp(y0)', (2, 3, 4)),
    # opsets below 13
    Case("Clip-6", "y = Clip<min=-1.0, max=2.0>(A)", opset=7),
    Case("Softmax-1", "y = Softmax<axis=1>(A)", opset=9),
    Case("LogSoftmax-1", "y = LogSoftmax<axis=2>(A)", opset=12),
    Case("Upsample-7", 'y = Upsample<mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]>(A)', opset=7,
         evaluated=False),
    Case("Slice-1", "y = Slice<axes=[1, 2], starts=[1, 0], ends=[3, 2]>(A)", opset=9),
    Case("Pad-2", "y = Pad<pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.5>(A)", opset=9),
    Case("Dropout-7", "y = Dropout<ratio=0.5>(A)", opset=7),
    Case("Split-2, one used", "p, q = Split<axis=1, split=[1, 3]>(A)\n y = Exp(q)", opset=7),
    Case("BatchNormalization-7", "y = BatchNormalization(A, s, b, m, v)", opset=7, constants=C4),
    Case("Pooling-7", "p = MaxPool<kernel_shape=[2, 2], strides=[1, 1]>(A)\n"
         "y = AveragePool<kernel_shape=[2, 2], pads=[1, 1, 1, 1], strides=[1, 1]>(p)", opset=7),
    Case("Gemm-7", "f = Flatten(A)\n y = Gemm<transB=1>(f, w, b)", opset=7,
         constants={"w": weights(5, 36), "b": weights(5)}),
    Case("Concat-4", "r = Sigmoid(A)\n y = Concat<axis=1>(A, r)", opset=9),
    Case("Squeeze-1", "g = GlobalAveragePool(A)\n s = Squeeze<axes=[2, 3]>(g)\n"
         "y = Unsqueeze<axes=[1]>(s)", opset=8),
    Case("ReduceSum-1", "y = ReduceSum<axes=[1], keepdims=0>(A)", opset=9),
    Case("Sum and Max-8", "r = Sigmoid(A)\n t = Sum(A, r)\n y = Max(t, r)", opset=8),
    # opsets above 21
    Case("Conv-22", "y0 = Conv(A, w)\n y = GlobalAveragePool(y0)", opset=22,
         constants={"w": weights(2, 4, 2, 2)}),
    Case("HardSwish-22", "p = HardSwish(A)\n y = MaxPool<kernel_shape=[2, 2]>(p)", opset=22),
    Case("Swish-24", "y = Swish<alpha=1.5>(A)", opset=24),
    Case("Reshape-25", "s = Shape(A)\n p = Reshape(A, k)\n y = Reshape(p, s)", opset=25,
         constants={"k": [0, -1]}),
]  # fmt: skip
