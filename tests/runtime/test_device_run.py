"""Runs on a device, with the CPU provider in its place."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_gradcam import export_model, load
from onnx_gradcam.cam.registry import evaluate
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.runtime import Explainer, Explanation
from onnx_gradcam.runtime.device_maps import METHODS, DeviceMaps, serialised
from onnx_gradcam.runtime.device_run import Device, DeviceRun
from onnx_gradcam.runtime.graph_run import GraphRun, device_run
from onnx_gradcam.runtime.on_device import OnDevice, joined
from onnx_gradcam.runtime.session import CPU, ProviderRequest, _explain_failure
from tests.contract_models import CHANNELS, contract_model, images
from tests.end_to_end.small_model import small_model
from tests.runtime.devices import SessionOnCuda, nodes, on_stand_in, stays

FIXED = "2, 3, 8, 10"


@pytest.fixture(scope="module")
def host() -> Explainer:
    return load(contract_model(), device="cpu")


@pytest.fixture(scope="module")
def device() -> Explainer:
    return on_stand_in(load(contract_model(), device="cpu"))


def fetched_already(explanation: Explanation) -> bool:
    held = vars(explanation)["activations"]
    return not isinstance(held, OnDevice) or held.pieces is None


def values(array: Any) -> OnDevice:
    """Return values that lie on the stand-in."""
    value = onnxruntime.OrtValue.ortvalue_from_numpy(np.array(array))
    run = DeviceRun(load(contract_model(), device="cpu")._session, Device("cpu"), [])
    return OnDevice([(value, len(array))], np.asarray(array).dtype, run)


def assert_same(found: Explanation, expected: Explanation, atol: float = 0) -> None:
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.raw_maps, expected.raw_maps, atol=atol)
    np.testing.assert_allclose(found.cams, expected.cams, atol=10 * atol)
    assert found.notes == expected.notes
    np.testing.assert_array_equal(found.activations, expected.activations)
    np.testing.assert_array_equal(found.gradients, expected.gradients)


@pytest.mark.parametrize("method", METHODS)
def test_the_map_is_made_on_the_device_and_nothing_else_comes_back(
    host: Explainer, device: Explainer, method: str
) -> None:
    x = images(5)
    found = device.explain(x, [0, 1, -2, 3, 4], method)
    assert not fetched_already(found)
    assert np.abs(found.raw_maps).max() > 0.1
    assert not fetched_already(found)
    assert_same(found, host.explain(x, [0, 1, -2, 3, 4], method), 1e-6)
    assert fetched_already(found)
    assert isinstance(found.activations, np.ndarray)
    assert found.activations is found.activations, "fetched once"


@pytest.mark.parametrize("method", ["gradcam++", "eigencam", "randomcam", "activationmap"])
def test_other_methods_fetch_what_they_need(
    host: Explainer, device: Explainer, method: str
) -> None:
    found = device.explain(images(2), 3, method)
    assert fetched_already(found)
    assert_same(found, host.explain(images(2), 3, method))


@pytest.mark.parametrize("options", [{"eigen_smooth": True}, {"aug_smooth": True}])
def test_smoothing(host: Explainer, device: Explainer, options: dict[str, Any]) -> None:
    found = device.explain(images(2), 3, **options)
    assert_same(found, host.explain(images(2), 3, **options), 1e-6)


def test_another_method_on_the_same_explanation(host: Explainer, device: Explainer) -> None:
    found = device.explain(images(2), 3).with_method("hirescam")
    assert_same(found, host.explain(images(2), 3, "hirescam"))
    assert found.method == "hirescam"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_fixed_batch_stays_in_pieces(count: int) -> None:
    fixed = on_stand_in(load(contract_model(image=FIXED), device="cpu"))
    x, classes = images(count), [i % 5 for i in range(count)]
    found = fixed.explain(x, classes)
    assert not fetched_already(found)
    held = vars(found)["activations"]
    assert [kept for _, kept in held.pieces] == {1: [1], 2: [2], 5: [2, 2, 1]}[count]
    assert_same(found, load(contract_model(image=FIXED), device="cpu").explain(x, classes), 1e-6)


def test_no_images(device: Explainer) -> None:
    found = device.explain(images(0))
    assert found.cams.shape == (0, 8, 10)
    assert found.activations.shape == (0, CHANNELS, 4, 5)


@pytest.mark.parametrize("kind", ["float16", "float"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_half_precision_and_channels_last(kind: str, channels_last: bool) -> None:
    shape = "n, 8, 10, 3" if channels_last else "n, 3, 8, 10"
    model = contract_model(kind=kind, channels_last=channels_last, image=shape)
    found = on_stand_in(load(model, device="cpu")).explain(images(3), 2)
    assert fetched_already(found) == (kind == "float16"), "float16 A is widened on the host"
    assert_same(found, load(model, device="cpu").explain(images(3), 2), 1e-6)


def test_extra_inputs_and_a_fixed_class() -> None:
    model = contract_model(extra_input=True, class_input="fixed:2")
    x, extra = images(2), {"gain": np.array([0.5], np.float32)}
    found = on_stand_in(load(model, device="cpu")).explain(x, extra_inputs=extra)
    assert_same(found, load(model, device="cpu").explain(x, extra_inputs=extra), 1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_maps_that_are_not_finite_are_explained_as_on_the_host(method: str, bad: float) -> None:
    random = np.random.default_rng(0)
    for where in ("A", "G"):
        a, g = (random.normal(size=(2, 3, 4, 5)).astype(np.float32) for _ in range(2))
        (a if where == "A" else g)[1, 2, 3, 4] = -bad
        lying = values(a), values(g)
        assert lying[0].home.maps.raw(method, *lying) is None
        good = values(a[:1]), values(g[:1])
        raw = good[0].home.maps.raw(method, *good)
        np.testing.assert_allclose(raw, evaluate(method, a[:1], g[:1]), atol=1e-5)


@pytest.mark.parametrize("places", [(7,), (4, 5), (3, 4, 2)])
@pytest.mark.parametrize("method", METHODS)
def test_one_to_three_spatial_axes(method: str, places: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    a, g = (random.normal(size=(2, 6, *places)).astype(np.float32) for _ in range(2))
    a = np.abs(a)
    raw = DeviceMaps((CPU, {}), ("cpu", 0)).raw(method, values(a), values(g))
    assert raw is not None
    np.testing.assert_allclose(raw, evaluate(method, a, g), rtol=1e-5, atol=1e-6)


def test_the_graphs_are_valid_onnx() -> None:
    for method, steps in METHODS.items():
        model = onnx.load_from_string(serialised(("A", "G"), "summands", steps))
        onnx.shape_inference.infer_shapes(model, strict_mode=True)
        assert [node.op_type for node in model.graph.node] == [step.operator for step in steps]
        assert model.opset_import[0].version == 11, method
    read = {name for steps in METHODS.values() for step in steps for name in step.inputs}
    assert "MatMul" not in {step.operator for steps in METHODS.values() for step in steps}
    assert {"A", "G", "epsilon"} < read


def test_several_layers_and_head_runs(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export_model(small_model(), path, layer=["first_map", "auto"], gradient_builder="reverse",
                 verify=False)  # fmt: skip
    x = np.random.default_rng(5).standard_normal((3, 3, 16, 16)).astype(np.float32)
    device, host = on_stand_in(load(path, device="cpu")), load(path, device="cpu")
    found, expected = device.explain(x, 1), host.explain(x, 1)
    assert not fetched_already(found)
    assert_same(found, expected, 1e-6)
    for own, other in zip(found.layers, expected.layers, strict=True):
        np.testing.assert_array_equal(own.activations, other.activations)
        np.testing.assert_allclose(own.raw_maps, other.raw_maps, atol=1e-6)
    found = device.explain(x, 1, "ablationcam", layers=0)
    assert_same(found, host.explain(x, 1, "ablationcam", layers=0))
    found = device.explain(x, 1, "smoothgradcam++", layers=0)
    assert_same(found, host.explain(x, 1, "smoothgradcam++", layers=0))


def test_several_classes_in_one_run(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export_model(small_model(), path, gradient_builder="reverse", several=True, verify=False)
    x = np.random.default_rng(5).standard_normal((1, 3, 16, 16)).astype(np.float32)
    device, host = on_stand_in(load(path, device="cpu")), load(path, device="cpu")
    assert_same(device.explain_classes(x, [0, 1]), host.explain_classes(x, [0, 1]))


def test_errors_of_a_run_are_those_of_the_host(device: Explainer) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        device.explain(images(1, 3, 8, 11))
    with_gain = on_stand_in(load(contract_model(extra_input=True), device="cpu"))
    with pytest.raises(UsageError, match=r"cannot run on .*gain \(2, 2\)"):
        with_gain.explain(images(2), extra_inputs={"gain": np.ones((2, 2), np.float32)})


def test_explanations_can_be_copied_pickled_and_shared(device: Explainer, host: Explainer) -> None:
    expected = host.explain(images(2), 3)
    assert_same(copy.deepcopy(device.explain(images(2), 3)), expected, 1e-6)
    assert_same(pickle.loads(pickle.dumps(device.explain(images(2), 3))), expected, 1e-6)
    renamed = replace(device.explain(images(2), 3), labels=("a", "b", "c", "d", "e"))
    assert renamed.class_names == ("d", "d")
    assert_same(renamed, expected, 1e-6)
    found = device.explain(images(2), 3)
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda _: found.activations, range(32)))
    assert {id(array) for array in read} == {id(found.activations)}


def test_a_value_on_a_device_is_an_array_to_whoever_asks() -> None:
    array = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    there = values(array)
    assert (there.shape, there.ndim, len(there), there.pieces is None) == ((2, 3, 2), 3, 2, False)
    assert there.astype(np.float32, copy=False) is there
    assert there.pieces is not None
    np.testing.assert_array_equal(there[1], array[1])
    np.testing.assert_array_equal(np.concatenate([values(array)] * 2), np.concatenate([array] * 2))
    np.testing.assert_array_equal(array * values(array), array**2)
    np.testing.assert_array_equal(np.repeat(values(array), 2, axis=0), np.repeat(array, 2, axis=0))
    np.testing.assert_array_equal(values(array).reshape(6, 2), array.reshape(6, 2))
    np.testing.assert_array_equal(values(array).astype(np.float64), array)
    np.testing.assert_array_equal(joined([values(array), array]), np.concatenate([array] * 2))
    with pytest.raises(AttributeError, match="colour"):
        values(array).colour  # noqa: B018


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (SessionOnCuda(None), Device("cuda", 0)),
        (SessionOnCuda(None, "2"), Device("cuda", 2)),
        (SessionOnCuda(None, enable_cuda_graph="1"), Device("cuda", 0, graphs=True)),
        (SessionOnCuda(None, enable_cuda_graph="0"), Device("cuda", 0)),
        (load(contract_model(), device="cpu")._session, None),
    ],
)
def test_where_a_session_works(session: Any, expected: Device | None) -> None:
    assert Device.of(session) == expected


def test_what_is_bound_where(host: Explainer) -> None:
    run = device_run(SessionOnCuda(host._session, "1"), stays(host))
    assert run is not None
    assert run._place("cam_activations") == ("cuda", 1)
    assert run._place("cam_gradients") == ("cuda", 1)
    assert run._place("logits") == run._place("cam_classes") == ("cpu", 0)
    name, options = run.device.provider
    assert (name, options["device_id"]) == ("CUDAExecutionProvider", "1")
    assert options["use_tf32"] == "0"
    assert device_run(host._session, stays(host)) is None


class WithInputs(SessionOnCuda):
    """A session with other inputs than it has."""

    def __init__(self, session: Any, inputs: list[Any], **options: str) -> None:
        super().__init__(session, **options)
        self.get_inputs = lambda: inputs


@pytest.mark.parametrize("kind", ["tensor(bfloat16)", "tensor(string)", "seq(map(int64,float))"])
def test_special_types_run_on_the_host_and_are_refused_for_graphs(
    host: Explainer, kind: str
) -> None:
    special = nodes((1, 3), kind=kind)
    assert device_run(WithInputs(host._session, special), []) is None
    with pytest.raises(UnsupportedModelError, match=r"load the file without enable_cuda_graph"):
        device_run(WithInputs(host._session, special, enable_cuda_graph="1"), [])


# CUDA graphs


def test_graphs_need_fixed_shapes(host: Explainer) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        device_run(SessionOnCuda(host._session, enable_cuda_graph="1"), stays(host))
    message = str(caught.value)
    assert "input 'image' is (n, 3, 8, 10); fix 'n'" in message
    assert "add_free_dimension_override_by_name" in message


def test_a_free_extent_can_be_fixed_at_load() -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_free_dimension_override_by_name("n", 2)
    explainer = load(contract_model(), device="cpu", session_options=options)
    found = on_stand_in(explainer, GraphRun).explain(images(3), [0, 1, 2])
    assert_same(found, load(contract_model(image=FIXED)).explain(images(3), [0, 1, 2]), 1e-6)


def test_parts_of_a_file_whose_batch_is_fixed_at_load(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export_model(small_model(), path, gradient_builder="reverse", verify=False)
    options = onnxruntime.SessionOptions()
    options.add_free_dimension_override_by_name("n", 2)
    x = np.random.default_rng(5).standard_normal((3, 3, 16, 16)).astype(np.float32)
    graphs = on_stand_in(load(path, device="cpu", session_options=options), GraphRun)
    plain = load(path, device="cpu")
    np.testing.assert_allclose(graphs.predict(x), plain.predict(x), atol=1e-6)
    for method in ("ablationcam", "reciprocam", "scorecam"):
        found, expected = graphs.explain(x, 1, method), plain.explain(x, 1, method)
        np.testing.assert_allclose(found.raw_maps, expected.raw_maps, atol=1e-5)
        assert np.ptp(expected.raw_maps) > 1e-3


def test_replays_give_what_plain_runs_give() -> None:
    model = contract_model(image=FIXED)
    graphs, plain = on_stand_in(load(model, device="cpu"), GraphRun), load(model, device="cpu")
    run = graphs._runner.device
    assert isinstance(run, GraphRun)
    found = [graphs.explain(images(2, seed=s), s % 5) for s in range(6)]
    assert len(run._recorded) == 1
    for seed, one in enumerate(found):  # after all runs: none wrote over what another had given
        assert not fetched_already(one)
        assert_same(one, plain.explain(images(2, seed=seed), seed % 5), 1e-6)


def test_threads_take_turns_with_a_graph() -> None:
    model = contract_model(image=FIXED)
    graphs, plain = on_stand_in(load(model, device="cpu"), GraphRun), load(model, device="cpu")
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda s: graphs.explain(images(2, seed=s), s % 5), range(64)))
    for seed, one in enumerate(found):
        assert_same(one, plain.explain(images(2, seed=seed), seed % 5), 1e-6)


class Frozen:
    """A session whose replays do not read one of the inputs again, as one read on the host."""

    def __init__(self, session: Any, frozen: str) -> None:
        self._session, self._frozen, self._at_record = session, frozen, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        number = options.get_run_config_entry("gpu_graph_id")
        if number != "-1":
            value = binding._bound_inputs[self._frozen]
            if self._at_record is None:
                self._at_record = np.array(value.numpy())
            value.update_inplace(self._at_record)
        self._session.run_with_iobinding(binding, options)


@pytest.mark.parametrize("frozen", ["image", "cam_class"])
def test_a_replay_that_does_not_follow_its_inputs_is_refused(frozen: str) -> None:
    explainer = load(contract_model(image=FIXED), device="cpu")
    explainer._session = Frozen(explainer._session, frozen)
    with pytest.raises(UnsupportedModelError, match=r"replayed as a CUDA graph .* another"):
        on_stand_in(explainer, GraphRun).explain(images(2), 1)


def test_parts_of_a_file_run_without_graphs() -> None:
    own = {"enable_cuda_graph": True, "device_id": "1"}
    request = ProviderRequest(("a", "b"), (own, {"trt_cuda_graph_enable": "1"}), True)
    assert request.without_graphs().options == ({"device_id": "1"}, {})
    assert request.without_graphs().names == ("a", "b")


def test_a_model_that_cannot_be_recorded_is_told_so() -> None:
    failure = RuntimeError(
        "This session cannot use the graph capture feature as requested by the user as all compute"
        " graph nodes have not been partitioned to the CUDAExecutionProvider"
    )
    request = ProviderRequest(("CUDAExecutionProvider",), ({},), True)
    error = _explain_failure(failure, "m.onnx", request)
    assert isinstance(error, UnsupportedModelError)
    assert "m.onnx cannot run as a CUDA graph; load it without enable_cuda_graph" in str(error)
