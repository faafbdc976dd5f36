from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import onnxruntime
import pytest

from onnx_gradcam import load
from onnx_gradcam.errors import (
    InvalidModelError,
    MissingDependencyError,
    NotExportedError,
    ProviderError,
    UnsupportedModelError,
    UsageError,
)
from onnx_gradcam.runtime import session
from onnx_gradcam.runtime.session import CPU, CUDA, open_session, request_providers
from tests.contract_models import contract_model

WITH_CUDA = ["TensorrtExecutionProvider", CUDA, CPU]
WITHOUT_CUDA = ["AzureExecutionProvider", CPU]


@pytest.mark.parametrize(
    ("device", "available", "names", "options", "strict"),
    [
        ("auto", WITHOUT_CUDA, (CPU,), ({},), True),
        ("auto", WITH_CUDA, (CUDA, CPU), ({}, {}), False),
        ("cpu", WITH_CUDA, (CPU,), ({},), True),
        ("cuda", WITH_CUDA, (CUDA, CPU), ({}, {}), True),
        ("cuda:3", WITH_CUDA, (CUDA, CPU), ({"device_id": "3"}, {}), True),
    ],
)
def test_devices(
    device: str, available: list[str], names: tuple[str], options: tuple[Any], strict: bool
) -> None:
    request = request_providers(device, None, None, available)
    assert (request.names, request.options, request.strict) == (names, options, strict)


def test_options_of_a_device_and_of_a_list() -> None:
    limit = {"gpu_mem_limit": "1000"}
    request = request_providers("cuda:1", None, limit, WITH_CUDA)
    assert request.options == ({"gpu_mem_limit": "1000", "device_id": "1"}, {})
    request = request_providers("auto", [(CUDA, {"a": "1"}), CPU], [{"b": "2"}, {}], WITH_CUDA)
    assert request.names == (CUDA, CPU)
    assert request.options == ({"a": "1", "b": "2"}, {})


@pytest.mark.parametrize(
    ("device", "providers", "options", "message"),
    [
        ("tpu", None, None, "unknown device 'tpu'"),
        ("cuda:x", None, None, "unknown device"),
        ("cpu", [CPU], None, "either device or providers"),
        ("auto", [], None, "non-empty list"),
        ("auto", CPU, None, "non-empty list"),
        ("auto", [CPU], [{}, {}], "2 entries for 1 providers"),
        ("cpu", None, [{}], "one mapping"),
    ],
)
def test_arguments_without_meaning(device: str, providers: Any, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        request_providers(device, providers, options, WITH_CUDA)


@pytest.mark.parametrize("arguments", [{"device": "cuda"}, {"providers": [CUDA]}])
def test_a_provider_that_is_not_there_is_an_error(arguments: dict[str, Any]) -> None:
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(ProviderError, match=r"onnx-gradcam\[gpu\]"):
        load(contract_model(), **arguments)


class FakeRuntime:
    """An onnxruntime whose CUDA provider is listed but does not come up."""

    SessionOptions = SimpleNamespace

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure

    def get_available_providers(self) -> list[str]:
        return WITH_CUDA

    def InferenceSession(self, *_: Any, enable_fallback: int, **__: Any) -> Any:  # noqa: N802
        assert enable_fallback == 0
        if self.failure:
            raise self.failure
        return SimpleNamespace(get_providers=lambda: [CPU])


@pytest.mark.parametrize("arguments", [{"device": "cuda"}, {"providers": [CUDA, CPU]}])
def test_a_provider_that_does_not_come_up_is_an_error(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]
) -> None:
    monkeypatch.setattr(session, "import_onnxruntime", FakeRuntime)
    with pytest.raises(ProviderError, match="did not come up"):
        open_session(b"model", **arguments)


def test_auto_may_fall_back_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "import_onnxruntime", FakeRuntime)
    assert open_session(b"model").get_providers() == [CPU]


def test_a_cuda_failure_is_a_provider_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = FakeRuntime(RuntimeError("CUDA failure 101: invalid device\nordinal"))
    monkeypatch.setattr(session, "import_onnxruntime", lambda: failing)
    with pytest.raises(ProviderError, match="CUDA failure 101: invalid device ordinal"):
        open_session(b"model", "cuda:7")


def test_the_session_runs_where_it_was_asked_to() -> None:
    assert load(contract_model(), device="cpu").providers == (CPU,)
    assert load(contract_model(), providers=[CPU]).providers == (CPU,)


def test_session_options_are_used_as_they_are() -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    explainer = load(contract_model(), device="cpu", session_options=options)
    assert options.log_severity_level == 4
    assert explainer.num_classes == 5


def test_loading_leaves_reading_the_file_to_onnxruntime(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(contract_model())
    script = """
import sys
import onnx_gradcam
onnx_gradcam.load(sys.argv[1], device="cpu")  # imports what it needs
opened = []
def note(event, arguments):
    if event in {"open", "os.open", "mmap.__new__"}:
        opened.append(str(arguments[0]))
sys.addaudithook(note)
with open(sys.argv[1], "rb"):
    pass
before = set(sys.modules)
onnx_gradcam.load(sys.argv[1], device="cpu")
print(opened == [sys.argv[1]], set(sys.modules) == before)
"""
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\n", "")


def test_loading_prints_nothing_and_imports_little(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(contract_model())
    script = """
import sys
import numpy as np
import onnx_gradcam
explainer = onnx_gradcam.load(sys.argv[1], device="cpu")
explainer.explain(np.zeros((1, 3, 8, 10), np.float32), 0)
loaded = {"cv2", "onnx", "torch", "click"} & set(sys.modules)
assert not loaded, loaded
"""
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("content", [b"", b"hello", contract_model()[:200]])
def test_files_that_are_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    for source in (path, str(path), content):
        with pytest.raises(InvalidModelError) as caught:
            load(source)
        assert "\n" not in str(caught.value)
        assert isinstance(source, bytes) or "broken.onnx" in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load(tmp_path / "none.onnx")
    with pytest.raises(UsageError, match="is a folder"):
        load(tmp_path)


def test_external_data(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = onnx.load_from_string(contract_model())
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=100)
    assert load(path).num_classes == 5
    with pytest.raises(InvalidModelError, match="load it by its path"):
        load(path.read_bytes())
    (tmp_path / "w.data").unlink()
    with pytest.raises(InvalidModelError, match="external data is missing"):
        load(path)


def test_an_operator_without_implementation() -> None:
    with pytest.raises(UnsupportedModelError, match="Conv"):
        load(contract_model(kind="double"), device="cpu")


def test_a_message_has_no_source_location_of_onnxruntime() -> None:
    model = onnx.load_from_string(contract_model())
    model.opset_import[0].version = 99
    with pytest.raises(InvalidModelError, match="load: ONNX Runtime only"):
        load(model.SerializeToString())


def test_a_model_that_was_not_exported() -> None:
    model = onnx.load_from_string(contract_model())
    del model.metadata_props[:]
    with pytest.raises(NotExportedError, match="carries no explanation"):
        load(model.SerializeToString())


def test_a_file_that_lost_an_output_or_its_class_input() -> None:
    model = onnx.load_from_string(contract_model())
    del model.graph.output[2]
    with pytest.raises(NotExportedError, match="lost cam_gradients"):
        load(model.SerializeToString())
    with pytest.raises(NotExportedError, match="ir_version"):
        load(contract_model(ir=3))
    with pytest.raises(NotExportedError, match="lost picture"):
        load(contract_model(image_input="picture"))


def test_onnxruntime_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"onnx-gradcam\[cpu\]"):
        load(contract_model())


def test_onnxruntime_half_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())
    with pytest.raises(MissingDependencyError, match="force-reinstall"):
        load(contract_model())
