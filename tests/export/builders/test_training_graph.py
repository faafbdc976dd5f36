from __future__ import annotations

import sys
from pathlib import Path

import pytest
from onnx import ModelProto, parser

from onnx_gradcam.errors import BuilderUnavailableError, UnsupportedModelError
from onnx_gradcam.export.builders.environment import BUILDER_VERSION, BuilderStatus
from onnx_gradcam.export.builders.training_graph import GradientGraphError, build_gradient_graph
from tests.export.builders.fake_training import ECHO, unpack, write_wheel
from tests.export.builders.training_oracle import require_builder

UNREGISTERED = (
    "/onnxruntime_src/orttraining/orttraining/core/graph/gradient_builder_registry.cc:29"
    " onnxruntime::training::GradientDef GetGradientForOp(const onnxruntime::Node*)"
    " gradient_builder != nullptr was false. The gradient builder has not been registered:"
    " Floor for node /head/floor\n"
)
CONSTANT_ONLY = (
    "/onnxruntime_src/orttraining/orttraining/core/graph/gradient_builder.cc:1959 virtual"
    " std::vector<NodeDef> onnxruntime::training::GetPadGradient::GetGradientDefsImpl() const"
    " Pad gradient currently supports constant mode only.\n"
)


def tail(body: str = "y = Relu(A)", opset: int = 17) -> ModelProto:
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        tail (float[N, 4] A, float[N, 4] seed, float[4] w) => (float loss) {{
            {body}
            weighted = Mul(y, seed)
            loss = ReduceSum<keepdims=0>(weighted)
        }}"""
    )


def fake(folder: Path, build: str = "pass", model: str = "self.model") -> BuilderStatus:
    """A builder whose `build` runs this statement and whose model is this expression."""
    source = ECHO.replace('print("noise on stdout")', build).replace(
        "self.model\n\n", f"{model}\n\n"
    )
    installed = unpack(write_wheel(folder, source), folder / "builder")
    return BuilderStatus(True, BUILDER_VERSION, installed, Path(sys.executable))


def refuse(folder: Path, message: str) -> BuilderStatus:
    return fake(folder, f"raise RuntimeError({message!r})")


# -- with a stand-in ------------------------------------------------------------------------------


def test_an_operator_without_gradient_is_named_with_its_node(tmp_path: Path) -> None:
    with pytest.raises(GradientGraphError) as caught:
        build_gradient_graph(tail(), ["A"], "loss", refuse(tmp_path, UNREGISTERED))
    message = str(caught.value)
    assert message.startswith("onnxruntime-training has no gradient for Floor (node '/head/floor')")
    assert "--gradient-builder reverse" in message
    assert isinstance(caught.value, UnsupportedModelError)


def test_a_form_without_gradient_is_named_with_the_nodes_it_may_be(tmp_path: Path) -> None:
    model = tail('y = Pad<mode="edge">(A, w)')
    with pytest.raises(GradientGraphError, match=r"Pad \(node 'y'\): Pad gradient currently"):
        build_gradient_graph(model, ["A"], "loss", refuse(tmp_path, CONSTANT_ONLY))


def test_a_path_without_gradient_is_told(tmp_path: Path) -> None:
    said = "Cannot compute the partial derivative for 'A' as it's unreachable from the output"
    with pytest.raises(GradientGraphError, match="no differentiable path leads from 'A'"):
        build_gradient_graph(tail(), ["A"], "loss", refuse(tmp_path, said))


def test_any_other_refusal_is_one_line(tmp_path: Path) -> None:
    status = refuse(tmp_path, "/onnxruntime_src/a.cc:1 void f(int) const first\nsecond")
    with pytest.raises(GradientGraphError, match="cannot differentiate the tail: first second;"):
        build_gradient_graph(tail(), ["A"], "loss", status)


@pytest.mark.skipif(sys.platform == "win32", reason="ends with a status, not by a signal")
def test_a_crash_is_told_with_its_signal_and_last_words(tmp_path: Path) -> None:
    dying = "import os, sys; print('[I:onnxruntime: x', file=sys.stderr); os.abort()"
    with pytest.raises(GradientGraphError, match="was killed by SIGABRT") as caught:
        build_gradient_graph(tail(), ["A"], "loss", fake(tmp_path, dying))
    assert "[I:onnxruntime" not in str(caught.value)


def test_an_exit_is_told_with_what_it_said(tmp_path: Path) -> None:
    leaving = "import os, sys; sys.stderr.write('no more memory'); sys.stderr.flush(); os._exit(3)"
    with pytest.raises(GradientGraphError, match=r"ended with status 3 \(no more memory\)"):
        build_gradient_graph(tail(), ["A"], "loss", fake(tmp_path, leaving))


def test_a_builder_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    status = fake(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(GradientGraphError, match="no answer within 1 s"):
        build_gradient_graph(tail(), ["A"], "loss", status, timeout=1)


def test_noise_on_both_channels_does_not_reach_the_model(tmp_path: Path) -> None:
    noise = "import sys; print('{' * 10**6); print('x' * 10**6, file=sys.stderr)"
    model = tail("A_grad = Relu(A)\n y = Relu(A)")
    built = build_gradient_graph(model, ["A"], "loss", fake(tmp_path, noise))
    assert [node.op_type for node in built.graph.node] == ["Relu", "Relu", "Mul", "ReduceSum"]


def test_a_result_without_the_gradient_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GradientGraphError, match="built no gradient of 'A'"):
        build_gradient_graph(tail(), ["A"], "loss", fake(tmp_path))


def test_a_result_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GradientGraphError, match="no readable model"):
        build_gradient_graph(tail(), ["A"], "loss", fake(tmp_path, model="b'nonsense'"))


def test_a_builder_that_does_not_load_is_unavailable(tmp_path: Path) -> None:
    installed = unpack(write_wheel(tmp_path, "raise ImportError('bad symbol')"), tmp_path / "b")
    status = BuilderStatus(True, BUILDER_VERSION, installed, Path(sys.executable))
    with pytest.raises(BuilderUnavailableError, match=r"bad symbol.*setup-builder --force"):
        build_gradient_graph(tail(), ["A"], "loss", status)


def test_an_inference_build_is_unavailable(tmp_path: Path) -> None:
    source = ECHO.replace("class GradientGraphBuilder", "class InferenceSession")
    installed = unpack(write_wheel(tmp_path, source), tmp_path / "b")
    status = BuilderStatus(True, BUILDER_VERSION, installed, Path(sys.executable))
    with pytest.raises(BuilderUnavailableError, match="GradientGraphBuilder"):
        build_gradient_graph(tail(), ["A"], "loss", status)


def test_a_python_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    status = BuilderStatus(True, BUILDER_VERSION, tmp_path, tmp_path / "python")
    with pytest.raises(GradientGraphError, match="cannot be started"):
        build_gradient_graph(tail(), ["A"], "loss", status)


def test_a_builder_that_is_not_there_is_told_with_the_fix(tmp_path: Path) -> None:
    status = BuilderStatus(False, "", tmp_path, None, "it is not there", "run: this")
    with pytest.raises(BuilderUnavailableError, match=r"^it is not there; run: this$"):
        build_gradient_graph(tail(), ["A"], "loss", status)


@pytest.mark.parametrize("opset", [12, 22])
def test_an_unprepared_tail_is_refused(tmp_path: Path, opset: int) -> None:
    with pytest.raises(GradientGraphError, match=f"opset {opset} .* takes opset 13 to 21"):
        build_gradient_graph(tail(opset=opset), ["A"], "loss", fake(tmp_path))


# -- with onnxruntime-training --------------------------------------------------------------------


def test_the_gradient_is_built_and_forward_tensors_keep_their_names() -> None:
    model = tail("z = Add(A, w)\n y = Relu(z)")
    before = model.SerializeToString()
    built = build_gradient_graph(model, ["A"], "loss", require_builder())
    assert model.SerializeToString() == before
    made = {name: node for node in built.graph.node for name in node.output}
    assert {"z", "y", "weighted", "loss"} <= set(made)
    assert (made["z_grad"].domain, made["z_grad"].op_type) == ("com.microsoft", "ReluGrad")
    assert [info.name for info in built.graph.output] == ["loss", "A_grad"]
    assert "loss_grad" in {tensor.name for tensor in built.graph.initializer}


def test_a_refusal_of_the_real_one_names_a_node_without_a_name() -> None:
    model = tail("z = Floor(A)\n y = Mul(z, A)")
    with pytest.raises(GradientGraphError, match=r"no gradient for Floor \(node 'z'\)"):
        build_gradient_graph(model, ["A"], "loss", require_builder())


def test_a_path_of_integers_is_told_by_the_real_one() -> None:
    model = tail("i = Cast<to=7>(A)\n y = Cast<to=1>(i)")
    with pytest.raises(GradientGraphError):
        build_gradient_graph(model, ["A"], "loss", require_builder())


def test_nodes_of_one_name_are_told_apart() -> None:
    model = tail("z = Add(A, w)\n y = Relu(z)")
    for node in model.graph.node:
        node.name = "same"
    assert build_gradient_graph(model, ["A"], "loss", require_builder()).graph.node
