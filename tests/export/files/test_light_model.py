"""Models whose large weights stay in the file: nothing but memory tells them from whole ones."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from onnx_gradcam import export_model, inspect_model
from onnx_gradcam.errors import InvalidModelError
from onnx_gradcam.export.files.light_model import UNREAD_FROM, read_light
from onnx_gradcam.export.files.model_file import load_model
from onnx_gradcam.export.files.model_output import data_path, save_model
from onnx_gradcam.export.files.unread import is_unread
from onnx_gradcam.wire import bytes_field, number_field

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,8,8] image) => (float[N,10] logits)
<float[64,3,3,3] w, float[64,64,5,5] v, float[64,10] h> {
  a = Conv<pads=[1,1,1,1]>(image, w)
  b = Relu(a)
  c = Conv<pads=[2,2,2,2]>(b, v)
  d = Relu(c)
  e = GlobalAveragePool(d)
  f = Flatten(e)
  logits = MatMul(f, h)
}"""
LARGE, SMALL = ["v"], ["w", "h"]


def network() -> ModelProto:
    model = onnx.parser.parse_model(TEXT)
    random = np.random.default_rng(0)
    del model.graph.initializer[:]
    for name, shape in (("w", (64, 3, 3, 3)), ("v", (64, 64, 5, 5)), ("h", (64, 10))):
        values = random.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def written(model: ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(network(), tmp_path / "net.onnx")


def unread_names(model: ModelProto) -> list[str]:
    return [tensor.name for tensor in model.graph.initializer if is_unread(tensor)]


def test_large_weights_stay_in_the_file_until_they_are_asked_for(path: Path) -> None:
    loaded = load_model(path, weights=False)
    assert unread_names(loaded.model) == LARGE
    assert loaded.model.ByteSize() < 20_000 < 400_000 < path.stat().st_size
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not loaded.has_external_data
    for tensor, original in zip(
        loaded.model.graph.initializer, network().graph.initializer, strict=True
    ):
        values = loaded.tensor_values(tensor)
        np.testing.assert_array_equal(values, numpy_helper.to_array(original))


def test_the_whole_of_it_is_the_model_in_the_file(path: Path) -> None:
    loaded = load_model(path, weights=False)
    assert loaded.whole().model == load_model(path).model == network()
    assert unread_names(loaded.model) == LARGE, "it is a copy"
    assert loaded.whole().whole().model == network()


def test_bytes_and_protos_are_taken_as_they_are(path: Path) -> None:
    assert load_model(path.read_bytes(), weights=False).model == network()
    assert load_model(network(), weights=False).model == network()


@pytest.mark.parametrize("location", [None, TensorProto.DEFAULT])
@pytest.mark.parametrize("length", [UNREAD_FROM + 4, 2**21 - 4, 2**21, 2**21 + 40])
def test_written_again_it_is_the_same_to_the_byte(
    length: int, location: int | None, tmp_path: Path
) -> None:
    model = network()
    tensor = numpy_helper.from_array(np.arange(length // 4, dtype=np.float32), "long")
    tensor.doc_string = "behind the values"
    if location is not None:
        tensor.data_location = location
    model.graph.initializer.insert(1, tensor)
    model.metadata_props.add(key="behind", value="the graph")
    path = written(model, tmp_path / "net.onnx")
    light = load_model(path, weights=False).model
    assert unread_names(light) == ["long", *LARGE]
    size = save_model(light, tmp_path / "copy.onnx")
    assert (tmp_path / "copy.onnx").read_bytes() == path.read_bytes()
    assert size == path.stat().st_size


def test_fields_that_this_onnx_does_not_know_survive(path: Path, tmp_path: Path) -> None:
    path.write_bytes(path.read_bytes() + number_field(99, 5) + bytes_field(98, b"unknown"))
    light = load_model(path, weights=False).model
    assert unread_names(light) == LARGE
    save_model(light, tmp_path / "light.onnx")
    save_model(load_model(path).model, tmp_path / "whole.onnx")
    assert (tmp_path / "light.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    assert b"unknown" in (tmp_path / "light.onnx").read_bytes()


def test_as_external_data_it_is_the_same_as_from_the_whole(path: Path, tmp_path: Path) -> None:
    models = {"light": load_model(path, weights=False).model, "whole": load_model(path).model}
    for name, model in models.items():
        (tmp_path / name).mkdir()
        save_model(model, tmp_path / name / "m.onnx", external=True)
    light, whole = (tmp_path / name / "m.onnx" for name in models)
    assert light.read_bytes() == whole.read_bytes()
    assert data_path(light).read_bytes() == data_path(whole).read_bytes()


@pytest.mark.parametrize("external", [False, True])
def test_the_export_of_a_path_is_that_of_its_bytes(
    external: bool, path: Path, tmp_path: Path
) -> None:
    report = export_model(path, tmp_path / "light.onnx", gradient_builder="reverse")
    assert report.verification is not None
    assert report.verification.passed
    export_model(
        path.read_bytes(), tmp_path / "whole.onnx", gradient_builder="reverse", verify=False
    )
    assert (tmp_path / "light.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    assert b"unread" not in (tmp_path / "light.onnx").read_bytes()
    if external:  # small and large weights of either kind in one model
        mixed = onnx.load(path)
        onnx.external_data_helper.set_external_data(mixed.graph.initializer[0], "w.bin")
        (tmp_path / "w.bin").write_bytes(network().graph.initializer[0].raw_data)
        mixed.graph.initializer[0].ClearField("raw_data")
        written(mixed, tmp_path / "mixed.onnx")
        export_model(tmp_path / "mixed.onnx", tmp_path / "mixed.cam.onnx", verify=False)
        export = load_model(tmp_path / "mixed.cam.onnx")
        by_name = {t.name: t for t in export.model.graph.initializer}
        for tensor in network().graph.initializer:
            np.testing.assert_array_equal(
                export.tensor_values(by_name[tensor.name]), numpy_helper.to_array(tensor)
            )
            assert by_name[tensor.name].data_location == TensorProto.EXTERNAL
            assert by_name[tensor.name].external_data[0].value == "mixed.cam.onnx.data"


def test_inspection_finds_what_it_finds_in_the_whole(path: Path) -> None:
    assert inspect_model(path).to_dict() == inspect_model(network()).to_dict()


def test_links_and_odd_names_are_no_obstacle(path: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b'/n\xff\n{}".onnx'))
    path.rename(odd)
    (tmp_path / "symbolic.onnx").symlink_to(odd)
    (tmp_path / "hard.onnx").hardlink_to(odd)
    for file in (odd, tmp_path / "symbolic.onnx", tmp_path / "hard.onnx"):
        loaded = load_model(file, weights=False)
        assert unread_names(loaded.model) == LARGE
        assert loaded.whole().model == network()


def test_a_relative_path_is_found_from_another_folder(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load_model("net.onnx", weights=False)
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert loaded.whole().model == network()


def test_a_file_that_changes_meanwhile_is_refused(path: Path) -> None:
    loaded = load_model(path, weights=False)
    os.utime(path, ns=(0, 0))
    with pytest.raises(InvalidModelError, match=r"net\.onnx has changed while it was being read"):
        loaded.whole()
    path.unlink()
    with pytest.raises(InvalidModelError, match=r"cannot read .*net\.onnx again: No such file"):
        loaded.whole()


def test_a_file_cannot_claim_to_have_unread_weights(path: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(64 * 64 * 25 * 4))
    light = load_model(path, weights=False).model
    (entry,) = next(t for t in light.graph.initializer if is_unread(t)).external_data
    entry.key = entry.key[:-1] + ("0" if entry.key[-1] != "0" else "1")
    entry.value = entry.value.replace("net.onnx", "secret")
    written(light, tmp_path / "forged.onnx")
    with pytest.raises(InvalidModelError, match="'v' names no file for its external data"):
        load_model(tmp_path / "forged.onnx", weights=False)


def changed(change: str) -> ModelProto:
    model = network()
    large = next(t for t in model.graph.initializer if t.name == "v")
    if change == "no raw data":
        values = numpy_helper.to_array(large).reshape(-1)
        large.ClearField("raw_data")
        large.float_data.extend(values)
    elif change == "too few bytes":
        large.raw_data = large.raw_data[:-4]
    elif change == "two kinds of data":
        large.float_data.append(1.0)
    elif change == "no type":
        large.data_type = TensorProto.UNDEFINED
    elif change == "strings":
        large.data_type = TensorProto.STRING
    return model


@pytest.mark.parametrize(
    "change", ["no raw data", "too few bytes", "two kinds of data", "no type", "strings"]
)
def test_what_is_not_plain_raw_data_is_read(change: str, tmp_path: Path) -> None:
    path = written(changed(change), tmp_path / "net.onnx")
    assert load_model(path, check=False, weights=False).model == changed(change)


def test_a_structural_error_reads_as_that_of_the_whole(tmp_path: Path) -> None:
    model = network()
    model.graph.initializer.append(model.graph.initializer[1])
    model.graph.node[1].op_type = "Relo"
    path = written(model, tmp_path / "net.onnx")
    messages = []
    for weights in (False, True):
        with pytest.raises(InvalidModelError) as caught:
            load_model(path, weights=weights)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "net.onnx is not a valid ONNX model" in messages[0]


def test_weights_that_are_listed_as_inputs_pass_at_ir_3(tmp_path: Path) -> None:
    model = network()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    path = written(model, tmp_path / "net.onnx")
    assert unread_names(load_model(path, weights=False).model) == LARGE


@pytest.mark.parametrize("kind", ["two graphs", "no graph", "empty", "text", "a group"])
def test_other_files_are_left_to_the_reader_of_whole_ones(kind: str, tmp_path: Path) -> None:
    data = network().SerializeToString()
    content = {
        "two graphs": data + bytes_field(7, b""),
        "no graph": number_field(1, 8),
        "empty": b"",
        "text": b"not a model at all\n" * 9,
        "a group": data + b"\x1b\x1c",
    }[kind]
    (tmp_path / "net.onnx").write_bytes(content)
    assert read_light(tmp_path / "net.onnx") is None


def test_no_truncated_file_is_taken_for_a_model(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    for length in [*range(0, 300, 7), *range(300, len(data) - 1, 9973), len(data) - 1]:
        (tmp_path / "short.onnx").write_bytes(data[:length])
        with pytest.raises(InvalidModelError):
            load_model(tmp_path / "short.onnx", weights=False)


def test_missing_files_and_folders_are_reported_as_ever(tmp_path: Path) -> None:
    for missing in (tmp_path / "absent.onnx", tmp_path):
        assert read_light(missing) is None
