"""Measure which of onnxruntime's integer products saturate on this CPU, and what that changes.

    python tools/int8_kernels.py

Prints the two tables of docs/quantization.md, "CPUs whose products saturate". First: operators and
operand types, with operands close to their largest values, against the same sums in floats. Second:
quantized models of `quantized_agreement` (which says where they and the photos lie), exported, as
they are and with products by another way that is exact. Needs the package with its extras ``cpu``
and ``export``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

# run as a script, Python has put tools/ on the path, not the repository
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnx_gradcam
from onnx_gradcam.export.sessions import open_session, runtime_version
from onnx_gradcam.export.verification.exact_products import with_exact_products
from onnx_gradcam.export.verification.int8_kernels import saturates
from tools.quantized_agreement import SHARED, WAYS, Network, networks, opened, prepared, spearman

Array = np.ndarray[Any, np.dtype[Any]]

MEASURED_WAYS = ("QDQ", "QDQ, per channel", "QDQ, int8", "QOperator")
TYPES = ((np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8))
NEAR = 20
"""Operands are drawn from so many of the largest values of their type."""


@dataclass(frozen=True)
class Form:
    """A product of two quantized tensors: as an integer operator, and in floats.

    Attributes:
        name: for the table.
        left: shape of the first operand.
        right: shape of the second one, a constant.
        float_form: the operator on floats.
        integer_form: the operator on integers, "" for what onnxruntime fuses.
        axis: of the second operand, along which its scales differ; None for a single scale.
        attributes: of the operator.
        to_floats: whether the result is not quantized.
    """

    name: str
    left: tuple[int, ...]
    right: tuple[int, ...]
    float_form: str
    integer_form: str = ""
    axis: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    to_floats: bool = False


IMAGE, SQUARE, COLUMN = (2, 16, 6, 6), (16, 16, 3, 3), {"pads": [1, 1, 1, 1]}
DEEP, MATRIX = (5, 24), (24, 6)
FORMS = (
    Form("MatMulInteger", DEEP, MATRIX, "MatMul", "MatMulInteger", to_floats=True),
    Form("ConvInteger", IMAGE, SQUARE, "Conv", "ConvInteger", None, COLUMN, True),
    Form("QLinearMatMul", DEEP, MATRIX, "MatMul", "QLinearMatMul"),
    Form("QLinearMatMul, per column", DEEP, MATRIX, "MatMul", "QLinearMatMul", 1),
    Form("QLinearConv", IMAGE, SQUARE, "Conv", "QLinearConv", None, COLUMN),
    Form("QLinearConv, per channel", IMAGE, SQUARE, "Conv", "QLinearConv", 0, COLUMN),
    Form("QLinearConv, 1x1", IMAGE, (8, 16, 1, 1), "Conv", "QLinearConv"),
    Form("QLinearConv, two groups", IMAGE, (16, 8, 3, 3), "Conv", "QLinearConv", None,
         {**COLUMN, "group": 2}),
    Form("QLinearConv, depthwise", IMAGE, (16, 1, 3, 3), "Conv", "QLinearConv", None,
         {**COLUMN, "group": 16}),
    Form("QGemm", DEEP, MATRIX, "Gemm", "QGemm"),
    Form("QGemm, per column", DEEP, MATRIX, "Gemm", "QGemm", 1),
    Form("MatMulIntegerToFloat", DEEP, MATRIX, "MatMul", "MatMulIntegerToFloat", to_floats=True),
    Form("DynamicQuantizeMatMul", DEEP, MATRIX, "MatMul", "DynamicQuantizeMatMul", to_floats=True),
    Form("QDQ: Conv", IMAGE, SQUARE, "Conv", attributes=COLUMN),
    Form("QDQ: Conv, per channel", IMAGE, SQUARE, "Conv", axis=0, attributes=COLUMN),
    Form("QDQ: MatMul", DEEP, MATRIX, "MatMul"),
    Form("QDQ: MatMul to floats", DEEP, MATRIX, "MatMul", to_floats=True),
    Form("QDQ: Gemm", DEEP, MATRIX, "Gemm"),
)  # fmt: skip

_INPUTS = {
    "ConvInteger": "qa w za zw",
    "DynamicQuantizeMatMul": "x w sw zw",
    "MatMulInteger": "qa w za zw",
    "MatMulIntegerToFloat": "qa w sa sw za zw",
    "QGemm": "qa sa za w sw zw  so zo",
    "QLinearConv": "qa sa za w sw zw so zo",
    "QLinearMatMul": "qa sa za w sw zw so zo",
}


# -- operators -------------------------------------------------------------------------------------


def model_of(form: Form, left: type, right: type, *, integers: bool) -> tuple[ModelProto, Array]:
    """Return x ── QuantizeLinear ── product ── y, and x."""
    rng = np.random.default_rng(0)
    top = np.iinfo(left).max
    x = rng.integers(top - NEAR, top + 1, form.left).astype(np.float32)
    x.reshape(-1)[0] = 0 if left is np.uint8 else -128  # the range of DynamicQuantizeLinear
    largest = np.iinfo(right).max
    w: Array = rng.integers(largest - NEAR, largest + 1, form.right).astype(right)
    count = 1 if form.axis is None else form.right[form.axis]
    per = () if form.axis is None else (count,)
    depth = int(np.prod(form.right)) // max(form.right[0 if len(form.right) > 2 else 1], 1)
    constants = {
        "sa": np.float32(1),
        "za": np.zeros((), left),
        "w": w,
        "sw": np.resize(np.array([1, 0.5, 0.75], np.float32), per),
        "zw": np.zeros(per, right),
        "so": np.float32(depth * largest),  # results are about as large as the operand
        "zo": np.zeros((), left),
    }
    made = "p" if not form.to_floats else "y"
    axis = {} if form.axis is None else {"axis": form.axis}
    nodes = [
        node("QuantizeLinear", "x sa za", "qa"),
        node("DequantizeLinear", "qa sa za", "a"),
        node("DequantizeLinear", "w sw zw", "f", **axis),
        node(form.float_form, "a f", made, **form.attributes),
        node("QuantizeLinear", "p so zo", "q"),
        node("DequantizeLinear", "q so zo", "y"),
    ]
    if form.to_floats:
        del nodes[4:]
    if integers and form.integer_form:
        result = "q" if not form.to_floats else "y"
        plain = form.integer_form in {"ConvInteger", "MatMulInteger"}
        product = node(
            form.integer_form, _INPUTS[form.integer_form], "i" if plain else result,
            **form.attributes
        )  # fmt: skip
        cast = [node("Cast", "i", "y", to=TensorProto.FLOAT)] if plain else []
        dequantize = [] if form.to_floats else nodes[-1:]
        nodes = [nodes[0], product, *cast, *dequantize]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, form.left)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), x


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    """Return a node; two spaces stand for an absent input."""
    own = {*_INPUTS} - {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
    domain = "com.microsoft" if op_type in own else ""
    return helper.make_node(op_type, inputs.split(" "), [output], domain=domain, **attributes)


def result(model: ModelProto, x: Array, *, optimise: bool) -> Array:
    """Return y."""
    session = open_session(model.SerializeToString(), optimise=optimise)
    return np.asarray(session.run(None, {"x": x})[0])


def verdict(form: Form, left: type, right: type) -> str:
    """Return ``exact`` or ``saturates``, or nothing where there is no kernel."""
    floats, x = model_of(form, left, right, integers=False)
    model, _ = model_of(form, left, right, integers=True)
    expected = result(floats, x, optimise=False)
    wrong = []
    for optimise in (False, True):
        try:
            found = result(model, x, optimise=optimise)
        except Exception:  # onnxruntime's exceptions share no base class
            return ""
        step = np.abs(expected).max() / 100  # roundings move far less, saturation half of it
        wrong.append(bool(np.abs(found - expected).max() > step))
    return {
        (False, False): "exact",
        (True, True): "saturates",
        (False, True): "saturates when optimised",
        (True, False): "saturates when not optimised",
    }[(wrong[0], wrong[1])]


def kernel_rows() -> Iterator[str]:
    """Yield the table of operators."""
    yield "| operator | uint8 x int8 | uint8 x uint8 | int8 x int8 |"
    yield "|---|---|---|---|"
    for form in FORMS:
        cells = [verdict(form, left, right) for left, right in TYPES]
        if form.integer_form == "DynamicQuantizeMatMul":
            cells[2] = ""  # it quantizes to uint8
        yield f"| {form.name} | {' | '.join(cells)} |"


# -- models ----------------------------------------------------------------------------------------


def model_rows(network: Network, folder: Path) -> Iterator[str]:
    """Yield what exact products change in the explanations of a network, quantized."""
    photos = sorted(p for p in network.photos.iterdir() if p.suffix != ".txt")
    source = prepared(network.model, folder)
    for way in MEASURED_WAYS:
        quantize = WAYS[way]
        assert not isinstance(quantize, Path)
        quantize(source, folder / "quantized.onnx", network, photos[::2])
        here = opened(folder / "quantized.onnx", folder, network)
        exact = with_exact_products(onnx.load(folder / "exported.onnx"))
        onnx.save(exact, folder / "exact.onnx")
        elsewhere = onnx_gradcam.load(folder / "exact.onnx", device="cpu")
        same, scores, maps = [], [], []
        for photo in photos[1::2]:
            expected = elsewhere.explain_image(photo)
            found = here.explain_image(photo, [-1, int(expected.classes[0])])
            same.append(found.classes[0] == expected.classes[0])
            apart = np.abs(found.scores - expected.scores).max()
            scores.append(apart / np.abs(expected.scores).max())
            maps.append(spearman(found.raw_maps[1], expected.raw_maps[0]))
        yield (
            f"| {network.name} | {way} | {sum(same)} of {len(same)} | {np.mean(scores):.1%}"
            f" ({np.max(scores):.1%}) | {np.mean(maps):.3f} ({np.min(maps):.2f}) |"
        )


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description="Measure products of int8 on this CPU.")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of models and photos")
    arguments = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # advice to optimise the models first
    kind = "saturate" if saturates() else "are exact"
    print(f"onnxruntime {runtime_version()}; products of uint8 and int8 {kind} on this CPU\n")
    for row in kernel_rows():
        print(row, flush=True)
    print("\n| model | quantization | same first class | scores | Spearman |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for network in networks(arguments.shared):
            if network.ways is WAYS:
                for row in model_rows(network, Path(scratch)):
                    print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
