"""Quantized models are proven on every CPU, and what kernels that saturate change is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

import onnx_gradcam
from onnx_gradcam.export.verification import int8_kernels
from onnx_gradcam.export.verification.compare_outputs import Difference
from onnx_gradcam.export.verification.int8_kernels import exact_here, saturates, saturation_check

QLINEAR = """
<ir_version: 8, opset_import: ["" : 13]>
integers (float[N,8,6,6] image) => (float[N,5] y)
<float s = {0.01}, uint8 z = {128}, int8 zw = {0}, float sw = {0.01}, float sr = {0.04},
 uint8 zr = {3}, float sc = {0.1}> {
  q = QuantizeLinear(image, s, z)
  first = QLinearConv(q, s, z, w, sw, zw, sr, zr)
  second = QLinearConv(first, sr, zr, v, sw, zw, sc, zr)
  d = DequantizeLinear(second, sc, zr)
  pooled = GlobalAveragePool(d)
  flat = Flatten(pooled)
  y = Gemm(flat, u)
}"""

DYNAMIC = """
<ir_version: 8, opset_import: ["" : 13]>
dynamic (float[N,8,6,6] image) => (float[N,5] y)
<float sw = {0.01}, int8 zw = {0}> {
  c = Conv(image, f)
  a = Relu(c)
  pooled = GlobalAveragePool(a)
  flat = Flatten(pooled)
  q, s, z = DynamicQuantizeLinear(flat)
  product = MatMulInteger(q, p, z, zw)
  number = Cast<to=1>(product)
  factor = Mul(s, sw)
  y = Mul(number, factor)
}"""

TO_FLOATS = """
<ir_version: 8, opset_import: ["" : 13, "com.microsoft" : 1]>
gemm (float[N,8,6,6] image) => (float[N,5] y)
<float s = {0.02}, uint8 z = {0}, int8 zw = {0}, float sw = {0.01}> {
  c = Conv(image, f)
  a = Relu(c)
  pooled = GlobalAveragePool(a)
  flat = Flatten(pooled)
  q = QuantizeLinear(flat, s, z)
  y = com.microsoft.QGemm(q, s, z, p, sw, zw)
}"""

MODELS = {"QLinearConv": QLINEAR, "MatMulInteger": DYNAMIC, "QGemm to floats": TO_FLOATS}


def model_of(text: str, largest: int = 127) -> onnx.ModelProto:
    """Return a model with weights whose products saturate by far, or up to another size."""
    model = parser.parse_model(text)
    rng = np.random.default_rng(5)
    for name, shape in {"w": (8, 8, 1, 1), "v": (8, 8, 1, 1), "p": (8, 5)}.items():
        signs = np.where(rng.random(shape) < 0.7, 1, -1)
        numbers = signs * rng.integers(largest - 20, largest + 1, shape)
        model.graph.initializer.append(numpy_helper.from_array(numbers.astype(np.int8), name))
    for name, shape in {"u": (8, 5), "f": (8, 8, 3, 3)}.items():
        drawn = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(drawn, name))
    return model


def export(model: onnx.ModelProto, path: Path) -> onnx_gradcam.ExportReport:
    return onnx_gradcam.export_model(model, path, layer=0, gradient_builder="reverse", force=True)


def test_the_probe_says_what_a_session_does() -> None:
    model = model_of(TO_FLOATS)
    del model.graph.node[:5]
    model.graph.input[0].CopyFrom(
        onnx.helper.make_tensor_value_info("q", onnx.TensorProto.UINT8, [1, 8])
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"q": np.full((1, 8), 255, np.uint8)})
    weights = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "p")
    expected = weights.astype(np.float64).sum(axis=0) * 255 * 0.02 * 0.01
    assert saturates() == (not np.allclose(found[0], expected, rtol=1e-5))


@pytest.mark.parametrize("name", MODELS)
def test_an_export_is_proven_on_every_cpu(name: str, tmp_path: Path) -> None:
    report = export(model_of(MODELS[name]), tmp_path / "m.onnx")
    assert report.verification is not None
    assert report.verification.passed
    checks = {check.name: check for check in report.verification.checks}
    assert "central differences agree" in checks["gradient"].detail
    about = [text for text in report.warnings if text.startswith("int8 kernels")]
    assert len(about) == saturates(), "a warning where, and only where, scores are others"
    assert ("int8 kernels" in checks) == saturates()
    for text in about:
        assert "'y' differs by" in text
        assert "reduce_range" in text


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_seven_bits_need_no_word(name: str, tmp_path: Path) -> None:
    report = export(model_of(MODELS[name], 64), tmp_path / "m.onnx")
    assert report.verification is not None
    assert report.verification.passed
    assert "int8 kernels" not in {check.name for check in report.verification.checks}


@pytest.mark.parametrize("name", MODELS)
def test_exact_products_prove_an_export_as_well(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as on a CPU that saturates, whatever this one does
    really = saturates()
    monkeypatch.setattr(int8_kernels, "saturates", lambda: True)
    report = export(model_of(MODELS[name]), tmp_path / "m.onnx")
    assert report.verification is not None
    (check,) = (c for c in report.verification.checks if c.name == "int8 kernels")
    assert check.warning == really
    assert really or check.detail.endswith("changes no output here")
    again = onnx_gradcam.check_export(tmp_path / "m.onnx")
    assert again.passed


def test_a_wrong_gradient_is_found_with_exact_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_kernels, "saturates", lambda: True)
    source = model_of(QLINEAR)
    export(source, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    (last,) = (node for node in model.graph.node if "cam_gradients" in node.output)
    last.output[0] = "onnx_gradcam/right"
    factor = numpy_helper.from_array(np.float32(0.9), "onnx_gradcam/factor")
    model.graph.initializer.append(factor)
    names = ["onnx_gradcam/right", "onnx_gradcam/factor"]
    model.graph.node.append(
        onnx.helper.make_node("Mul", names, ["cam_gradients"], "onnx_gradcam/x")
    )
    onnx.save(model, tmp_path / "wrong.onnx")
    onnx.save(source, tmp_path / "source.onnx")
    report = onnx_gradcam.check_export(tmp_path / "wrong.onnx", tmp_path / "source.onnx")
    assert [check.name for check in report.failures] == ["gradient"]


def test_models_stay_as_they_are_where_products_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(QLINEAR)
    monkeypatch.setattr(int8_kernels, "saturates", lambda: False)
    assert exact_here(model, numpy_helper.to_array) is model
    monkeypatch.setattr(int8_kernels, "saturates", lambda: True)
    assert exact_here(model, numpy_helper.to_array) is not model


def test_what_is_said() -> None:
    same = Difference("y", True, True)
    other = Difference("y", False, False, 0.5, 0.07)
    quiet = saturation_check([same], "")
    assert quiet.passed
    assert not quiet.warning
    assert quiet.detail == (
        "this CPU's kernels for uint8 times int8 saturate at 16 bits, which changes no output here"
    )
    said = saturation_check([same, other], "")
    assert said.passed
    assert said.warning
    assert said.value == 0.07
    assert "'y' differs by 5.0e-01 (relative 7.0e-02)" in said.detail
    apart = saturation_check([same], "'y' differs by 2.0e+00 (relative 2.7e-01)")
    assert apart.warning
    assert "fused otherwise than in the original, 'y' differs by 2.0e+00" in apart.detail
