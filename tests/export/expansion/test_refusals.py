"""What an expansion does not cover is refused with the reason; the node stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_gradcam.errors import InvalidModelError, VerificationError
from onnx_gradcam.export.expansion import expand, registry
from onnx_gradcam.export.expansion.activations import silu
from onnx_gradcam.export.expansion.foreign import as_checked
from onnx_gradcam.export.files.model_file import load_model
from onnx_gradcam.export.pipeline import export_model
from onnx_gradcam.gradients.registry import MICROSOFT, Context
from tests.export.expansion.case import Case
from tests.export.expansion.cases import CONV, MAP, TOKENS
from tests.export.expansion.recurrent_cases import recurrent
from tests.export.expansion.test_expand import FUSED, WEIGHTS, optimised
from tests.export.networks import network

HEADS = {"num_heads": 2}
PAST = (2, 2, 2, 1, 4)

REFUSED = (
    (
        Case("mode", "GridSample", (MAP, (2, 3, 3, 2)), {"mode": "cubic"}, domain="", opset=20),
        "mode=cubic is not covered",
    ),
    (
        Case("opset", "GridSample", (MAP, (2, 3, 3, 2)), opset=15),
        "its gradient, which adds up elements, needs opset 16",
    ),
    (
        Case("size", "AffineGrid", ((2, 2, 3), np.array([2, 3, 4, 5])), domain="", opset=20,
             variable=(0, 1)),
        "its size must be constant",
    ),
    *(
        (recurrent(op_type, reason, **more), reason)
        for op_type, reason, more in (
            ("LSTM", "its gates look at the cell", {"peepholes": True}),
            ("LSTM", "its gates are clipped", {"clip": 1.0}),
            ("GRU", "129 steps, and no more than 128 are written out", {"steps": 129}),
            (
                "RNN",
                "its sequences are of different length",
                {"lengths": np.array([4, 3], np.int32)},
            ),
            ("RNN", "its activation 'Affine' is not known", {"activations": ["Affine"]}),
            (
                "RNN",
                "its directions have different activations",
                {"activations": ["Tanh", "Relu"], "direction": "bidirectional"},
            ),
        )
    ),
    (Case("activation", "FusedConv", CONV, {"activation": "Mystery"}), "'Mystery' is not known"),
    (
        Case("parameters", "FusedConv", CONV, {"activation": "LeakyRelu"}),
        "LeakyRelu takes 1 activation_params, not 0",
    ),
    (Case("Erf", "Gelu", (TOKENS,), opset=8), "it needs Erf, which opset 9 brought"),
    (
        Case("mean", "SkipLayerNormalization", (TOKENS, TOKENS, (8,)), outputs=(True, True)),
        "its mean and deviation are outputs",
    ),
    (
        Case("past", "Attention", (TOKENS, (8, 12), (12,), None, PAST), HEADS),
        "it keeps keys and values of former calls",
    ),
    (
        Case("rotary", "Attention", (TOKENS, (8, 12), (12,)), {**HEADS, "do_rotary": 1}),
        "its embeddings are rotary",
    ),
    (
        Case("lengths", "Attention", (TOKENS, (8, 12), (12,), np.array([5, 3], np.int32)), HEADS),
        r"its mask is not \(N, keys\)",
    ),
    (
        Case("present", "Attention", (TOKENS, (8, 12), (12,)), HEADS, outputs=(True, True)),
        "its output 1 is not covered",
    ),
    (
        Case("past keys", "MultiHeadAttention", (TOKENS,) * 3 + (None,) * 3 + ((2, 2, 1, 4),) * 2,
             HEADS),
        "it keeps keys and values of former calls",
    ),
    (
        Case("axes", "BiasSoftmax", (TOKENS, TOKENS), {"axis": 1, "is_inner_broadcast": 0}),
        "it normalises over several axes",
    ),
    (
        Case("training", "BitmaskDropout", (TOKENS, np.array(0.5, "f"), np.array(True))),
        "it is in training mode",
    ),
    (
        Case("axis", "ExpandDims", (TOKENS, np.array(1, np.int32)), variable=(0, 1)),
        "its axis must be constant",
    ),
    (Case("Trilu", "Trilu", (TOKENS,), opset=13), "Trilu needs opset 14"),
    (Case("alpha", "ScaledTanh", (MAP,), domain="", opset=9), "it has no attribute beta"),
)  # fmt: skip


@pytest.mark.parametrize(("case", "reason"), REFUSED, ids=lambda v: getattr(v, "name", ""))
def test_the_node_stays_with_the_reason(case: Case, reason: str) -> None:
    symbolic = case.name != "axis"
    graph = expand(case.model(symbolic=symbolic))
    assert [node.op_type for node in graph.nodes] == [case.op_type]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(graph.unexpanded["y0"])


def test_a_sequence_of_unknown_length_is_refused() -> None:
    model = recurrent("GRU").model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "T"
    assert expand(model).unexpanded == {"y0": "the length of its sequence is not known at export"}


def test_an_expansion_that_computes_something_else_fails_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(ctx: Context) -> list[str]:
        return [silu(ctx.emit, ctx.inputs[0], 1.05)]

    model = optimised(network(FUSED, WEIGHTS), tmp_path)
    assert "QuickGelu" in {node.op_type for node in model.graph.node}
    export_model(model, tmp_path / "right.onnx", layer="b", gradient_builder="reverse")
    monkeypatch.setitem(registry._RULES, (MICROSOFT, "QuickGelu"), wrong)
    with pytest.raises(VerificationError, match="not a function of the layer and the input alone"):
        export_model(model, tmp_path / "wrong.onnx", layer="b", gradient_builder="reverse")


def test_an_operator_is_registered_once() -> None:
    with pytest.raises(ValueError, match=r"an expansion of com\.microsoft::Gelu exists already"):
        registry.expansion("Gelu")(lambda ctx: [])


# -- operators that onnxruntime has in the default domain ------------------------------------------


def normalised(opset: int = 13, op_type: str = "LayerNormalization") -> onnx.ModelProto:
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        g (float[N,3,8,8] image) => (float[N,5] logits) {{
        a = Conv(image, w) b = Relu(a) c = Transpose<perm=[0,2,3,1]>(b)
        d = {op_type}<axis=-1, epsilon=0.001>(c, scale)
        e = Transpose<perm=[0,3,1,2]>(d) f = GlobalAveragePool(e) g = Flatten(f)
        logits = Gemm(g, fc) }}"""
    )
    rng = np.random.default_rng(3)
    for name, shape in {"w": (6, 3, 3, 3), "scale": (6,), "fc": (6, 5)}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


@pytest.mark.parametrize("op_type", ["LayerNormalization", "SimplifiedLayerNormalization"])
@pytest.mark.parametrize("external", [False, True])
def test_the_checker_passes_them(tmp_path: Path, op_type: str, external: bool) -> None:
    model = normalised(op_type=op_type)
    with pytest.raises(onnx.checker.ValidationError, match="No Op registered"):
        onnx.checker.check_model(model)
    onnx.save_model(
        model, tmp_path / "m.onnx", save_as_external_data=external, size_threshold=16, location="d"
    )
    report = export_model(
        tmp_path / "m.onnx", tmp_path / "out.onnx", layer="b", gradient_builder="reverse"
    )
    assert report.verification is not None
    assert report.verification.passed


def test_the_rest_is_still_checked() -> None:
    model = normalised()
    model.graph.node[1].input[0] = "nobody"
    with pytest.raises(InvalidModelError, match="nobody"):
        load_model(model)
    unknown = normalised(op_type="Mystery")
    assert as_checked(unknown) is None
    with pytest.raises(InvalidModelError, match="Mystery"):
        load_model(unknown)
