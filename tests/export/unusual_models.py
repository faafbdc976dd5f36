"""Small models of unusual shapes, sizes and structure, written as ONNX text.

What is usual is in `networks`. Each model here has one peculiarity that exporters, converters and
optimisers really produce; all can be run with onnxruntime but those with a custom operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, helper, numpy_helper, parser

HEAD = """
    pooled = GlobalAveragePool(A)
    flat = Flatten(pooled)
    logits = Gemm<transB=1>(flat, w9, b9)
"""
"""From a feature map ``A`` of four channels to the scores of five classes."""

WEIGHTS = {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w9": (5, 4), "b9": (5,)}


@dataclass(frozen=True)
class Unusual:
    """A model, how to export and how to feed it.

    Attributes:
        inputs: the declared inputs.
        body: its nodes.
        image: the shape of a batch to explain.
        target: the layer that is found.
        size: the heat map's size, where it is not that of the image's last axes.
        outputs: the declared outputs.
        weights: shapes of the weights.
        integers: int64 constants.
        extra: shapes of the other inputs.
        options: for `export_model`.
        imports: further operator sets.
        functions: model-local functions, as text.
        opset: of the model.
        ir_version: of the model.
    """

    body: str
    inputs: str = "float[N, 3, 8, 8] image"
    image: tuple[int, ...] = (3, 3, 8, 8)
    target: str = "A"
    size: tuple[int, ...] = (8, 8)
    outputs: str = "float[N, 5] logits"
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: WEIGHTS)
    integers: Mapping[str, list[int]] = field(default_factory=dict)
    extra: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    imports: str = ""
    functions: str = ""
    opset: int = 17
    ir_version: int = 8

    def model(self) -> ModelProto:
        """Return the model, with the same random weights each time."""
        text = f"""<ir_version: {self.ir_version}, opset_import: ["" : {self.opset}{self.imports}]>
            unusual ({self.inputs}) => ({self.outputs}) {{ {self.body} }} {self.functions}"""
        model = parser.parse_model(text)
        random = np.random.default_rng(11)
        used = {name for node in model.graph.node for name in _reads(node)}
        for name, shape in self.weights.items():
            if name in used:
                values = random.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 1))
                tensor = numpy_helper.from_array(values.astype(np.float32), name)
                model.graph.initializer.append(tensor)
        for name, numbers in self.integers.items():
            tensor = numpy_helper.from_array(np.asarray(numbers, np.int64), name)
            model.graph.initializer.append(tensor)
        if self.ir_version < 4:  # there weights are inputs with a default
            for tensor in model.graph.initializer:
                model.graph.input.append(
                    helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                )
        return model

    def feeds(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return images and the other inputs."""
        random = np.random.default_rng(12)
        images = random.standard_normal(self.image).astype(np.float32)
        extra = {n: random.standard_normal(s).astype(np.float32) for n, s in self.extra.items()}
        return images, extra


def _reads(node: object) -> list[str]:
    names = list(node.input)  # type: ignore[attr-defined]
    for attribute in node.attribute:  # type: ignore[attr-defined]
        names += [name for inner in attribute.g.node for name in _reads(inner)]
    return names


CONV = "c = Conv<pads=[1,1,1,1]>(image, w1) A = Relu(c)"

UNUSUAL = {
    # -- batch, height and width -----------------------------------------------------------------
    "every size open": Unusual(
        CONV + HEAD,
        inputs="float[N, 3, H, W] image",
        image=(2, 3, 9, 7),
        size=(9, 7),
    ),
    "sizes without names": Unusual(
        CONV + HEAD,
        inputs="float[?, 3, ?, ?] image",
        image=(2, 3, 9, 7),
        size=(9, 7),
        outputs="float[?, 5] logits",
    ),
    "a fixed batch of four": Unusual(
        CONV + HEAD,
        inputs="float[4, 3, 8, 8] image",
        outputs="float[4, 5] logits",
    ),
    "scores without a batch axis": Unusual(
        CONV
        + "pooled = GlobalAveragePool(A) flat = Flatten(pooled) g = Gemm<transB=1>(flat, w9, b9)"
        " logits = Squeeze(g, first)",
        inputs="float[1, 3, 8, 8] image",
        outputs="float[5] logits",
        integers={"first": [0]},
    ),
    # -- inputs ----------------------------------------------------------------------------------
    "a vector beside the image": Unusual(
        CONV
        + """pooled = GlobalAveragePool(A) flat = Flatten(pooled)
        both = Concat<axis=1>(flat, facts) logits = Gemm<transB=1>(both, w8, b9)""",
        inputs="float[N, 3, 8, 8] image, float[N, 2] facts",
        weights=WEIGHTS | {"w8": (5, 6)},
        extra={"facts": (3, 2)},
    ),
    "a scalar beside the image": Unusual(
        "warm = Mul(image, gain) c = Conv<pads=[1,1,1,1]>(warm, w1) A = Relu(c)" + HEAD,
        inputs="float[N, 3, 8, 8] image, float gain",
        extra={"gain": ()},
    ),
    "two images that meet": Unusual(
        """a = Conv<pads=[1,1,1,1]>(image, w1) b = Conv<pads=[1,1,1,1]>(depth, w3)
        s = Add(a, b) A = Relu(s)"""
        + HEAD,
        inputs="float[N, 3, 8, 8] image, float[N, 1, 8, 8] depth",
        weights=WEIGHTS | {"w3": (4, 1, 3, 3)},
        extra={"depth": (3, 1, 8, 8)},
    ),
    "two images of two sizes": Unusual(
        """a = Conv<pads=[1,1,1,1]>(other, w1) p = GlobalAveragePool(a)
        c = Conv<pads=[1,1,1,1]>(image, w1) r = Relu(c) A = Add(r, p)"""
        + HEAD,
        inputs="float[N, 3, 4, 4] other, float[N, 3, 8, 8] image",
        extra={"other": (3, 3, 4, 4)},
        options={"image_input": "image"},
    ),
    # -- outputs ---------------------------------------------------------------------------------
    "two heads": Unusual(
        CONV + HEAD + "makes = Gemm<transB=1>(flat, w8)",
        outputs="float[N, 5] logits, float[N, 7] makes",
        weights=WEIGHTS | {"w8": (7, 4)},
        options={"score": "logits"},
    ),
    "features beside the scores": Unusual(
        CONV + HEAD + "features = Identity(A)",
        outputs="float[N, 5] logits, float[N, 4, 8, 8] features",
    ),
    # -- one and three spatial axes --------------------------------------------------------------
    "sound": Unusual(
        "c = Conv<strides=[2]>(sound, w3) A = Relu(c)" + HEAD,
        inputs="float[N, 1, 33] sound",
        image=(3, 1, 33),
        size=(33,),
        weights=WEIGHTS | {"w3": (4, 1, 5)},
    ),
    "sound without a channel axis": Unusual(
        "x = Unsqueeze(sound, one) c = Conv<strides=[2]>(x, w3) A = Relu(c)" + HEAD,
        inputs="float[N, L] sound",
        image=(3, 33),
        size=(33,),
        weights=WEIGHTS | {"w3": (4, 1, 5)},
        integers={"one": [1]},
    ),
    "grey pictures without a channel axis": Unusual(
        "x = Unsqueeze(image, one) c = Conv<pads=[1,1,1,1]>(x, w3) A = Relu(c)" + HEAD,
        inputs="float[N, 8, 8] image",
        image=(3, 8, 8),
        weights=WEIGHTS | {"w3": (4, 1, 3, 3)},
        integers={"one": [1]},
    ),
    "a volume": Unusual(
        "c = Conv<strides=[1,2,2]>(volume, w3) A = Relu(c)" + HEAD,
        inputs="float[N, 1, 5, 8, 9] volume",
        image=(2, 1, 5, 8, 9),
        size=(5, 8, 9),
        weights=WEIGHTS | {"w3": (4, 1, 3, 3, 3)},
    ),
    "video, channels last": Unusual(
        """t = Transpose<perm=[0, 4, 1, 2, 3]>(video) c = Conv(t, w3) A = Relu(c)""" + HEAD,
        inputs="float[N, 5, 8, 9, 3] video",
        image=(2, 5, 8, 9, 3),
        size=(5, 8, 9),
        weights=WEIGHTS | {"w3": (4, 3, 3, 3, 3)},
    ),
    # -- how it is written -----------------------------------------------------------------------
    "IR 3, weights are inputs": Unusual(CONV + HEAD, ir_version=3, opset=8),
    "weights in Constant nodes": Unusual(
        """k = Constant<value = float[4,3,1,1] {
        1,2,3, -1,2,-2, 0.5,1,0.25, -0.5,-1,2}>() c = Conv(image, k) A = Relu(c)"""
        + HEAD,
    ),
    "outputs without a type": Unusual(CONV + HEAD, outputs="logits"),
    "an output without a shape": Unusual(CONV + HEAD, outputs="float[] logits"),
    "an input without a shape": Unusual(
        "s = Sub(image, m) c = Conv<pads=[1,1,1,1]>(s, w1) A = Relu(c)" + HEAD,
        inputs="float[] image",
        weights=WEIGHTS | {"m": (1, 3, 1, 1)},
    ),
    "stale shapes": Unusual(
        CONV + "pooled = GlobalAveragePool(A) flat = Reshape(pooled, row)"
        " logits = Gemm<transB=1>(flat, w9, b9)",
        outputs="float[1, 5] logits",
        integers={"row": [-1, 4]},
    ),
    "sizes by arithmetic": Unusual(
        CONV
        + """n = Shape(A) zero = Constant<value_int=0>() batch = Gather(n, zero)
        axis = Constant<value_ints=[0]>() b = Unsqueeze(batch, axis)
        row = Constant<value_ints=[4, -1]>() to = Concat<axis=0>(b, row) flat = Reshape(A, to)
        last = Constant<value_ints=[2]>() mean = ReduceMean<axes=[2], keepdims=0>(flat)
        logits = Gemm<transB=1>(mean, w9, b9)""",
        inputs="float[N, 3, H, W] image",
        size=(8, 8),
    ),
    # -- what nobody can look into ---------------------------------------------------------------
    "If upstream": Unusual(
        """total = ReduceSum<keepdims=0>(image) zero = Constant<value_float=0.0>()
        bright = Greater(total, zero)
        x = If (bright) <then_branch = t () => (float[] a) { a = Neg(image) },
                         else_branch = e () => (float[] b) { b = Identity(image) }>
        c = Conv<pads=[1,1,1,1]>(x, w1) A = Relu(c)"""
        + HEAD,
    ),
    "Loop upstream": Unusual(
        """times = Constant<value_int=2>() go = Constant<value = bool {1}>()
        x = Loop (times, go, image) <body = b (int64 i, bool on, float[] v) =>
            (bool still, float[] w) { still = Identity(on) w = Tanh(v) }>
        c = Conv<pads=[1,1,1,1]>(x, w1) A = Relu(c)"""
        + HEAD,
    ),
    "Scan upstream": Unusual(
        """x = Scan<num_scan_inputs=1, scan_input_axes=[2], scan_output_axes=[2],
            body = b (float[N, 3, 8] v) => (float[N, 3, 8] w) { w = Tanh(v) }>(image)
        c = Conv<pads=[1,1,1,1]>(x, w1) A = Relu(c)"""
        + HEAD,
    ),
    "a sequence upstream": Unusual(
        """parts = SplitToSequence<axis=1, keepdims=1>(image) x = ConcatFromSequence<axis=1>(parts)
        c = Conv<pads=[1,1,1,1]>(x, w1) A = Relu(c)"""
        + HEAD,
    ),
    "an operator of onnxruntime upstream": Unusual(
        """x = com.microsoft.QuickGelu<alpha=1.7>(image)
        c = Conv<pads=[1,1,1,1]>(x, w1) A = Relu(c)"""
        + HEAD,
        imports=', "com.microsoft" : 1',
    ),
    "an operator of onnxruntime without a rule": Unusual(
        """x = com.microsoft.Pad(image, pads) c = Conv(x, w1) A = Relu(c)""" + HEAD,
        imports=', "com.microsoft" : 1',
        integers={"pads": [0, 0, 1, 1, 0, 0, 1, 1]},
    ),
    "a function of the model": Unusual(
        "x = local.Twice(image) c = Conv<pads=[1,1,1,1]>(x, w1) A = Relu(c)" + HEAD,
        imports=', "local" : 1',
        functions="""<domain: "local", opset_import: ["" : 17]>
        Twice (a) => (b) { b = Add(a, a) }""",
    ),
}


CUSTOM = Unusual(
    "x = custom.Mystery(image) c = Conv<pads=[1,1,1,1]>(x, w1) A = Relu(c)" + HEAD,
    imports=', "custom" : 1',
)
"""An operator that only a library of the user's own can run."""

WITHOUT_HEAT_MAP = {
    "a perceptron": Unusual(
        """flat = Flatten(image) h = Gemm<transB=1>(flat, w7) r = Relu(h)
        logits = Gemm<transB=1>(r, w9, b9)""",
        weights=WEIGHTS | {"w7": (4, 192)},
    ),
    "a score without the image": Unusual(
        CONV + "pooled = GlobalAveragePool(A) s = Shape(image) n = ConstantOfShape(s)"
        " p = GlobalAveragePool(n) q = Flatten(p) logits = Gemm<transB=1>(q, w6, b9)",
        weights=WEIGHTS | {"w6": (5, 3)},
    ),
    "indices in place of scores": Unusual(
        CONV + "pooled = GlobalAveragePool(A) flat = Flatten(pooled)"
        " best = ArgMax<axis=1, keepdims=0>(flat)",
        outputs="int64[N] best",
    ),
    "an image without a batch axis": Unusual(
        """x = Unsqueeze(image, first) c = Conv<pads=[1,1,1,1]>(x, w1) A = Relu(c)
        pooled = GlobalAveragePool(A) flat = Flatten(pooled) g = Gemm<transB=1>(flat, w9, b9)
        logits = Squeeze(g, first)""",
        inputs="float[3, 8, 8] image",
        outputs="float[5] logits",
        integers={"first": [0]},
    ),
    "frames in the batch": Unusual(
        """frames = Reshape(video, apart) c = Conv<pads=[1,1,1,1]>(frames, w1) A = Relu(c)
        pooled = GlobalAveragePool(A) flat = Flatten(pooled) g = Gemm<transB=1>(flat, w9, b9)
        each = Reshape(g, together) logits = ReduceMean<axes=[1], keepdims=0>(each)""",
        inputs="float[N, 4, 3, 8, 8] video",
        integers={"apart": [-1, 3, 8, 8], "together": [-1, 4, 5]},
    ),
    "a map in place of scores": Unusual(
        "logits = Conv<pads=[1,1,1,1]>(image, w1)", outputs="float[N, 4, 8, 8] logits"
    ),
    "a table in place of an image": Unusual(
        "logits = Gemm<transB=1>(table, w6, b9)",
        inputs="float[N, 3] table",
        weights=WEIGHTS | {"w6": (5, 3)},
    ),
}
"""No heat map can be had from these."""
