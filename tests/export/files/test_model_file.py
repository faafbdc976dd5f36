"""Reading model files: what is accepted, and the one line that says what is wrong."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_gradcam.errors import InvalidModelError, UsageError
from onnx_gradcam.export.files.model_file import load_model, structural_problem

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
tiny (float[N,3,8,8] image) => (float[N,4] logits)
<float[4,3,3,3] w, float[4] b> {
  conv = Conv<pads=[1,1,1,1]>(image, w, b)
  pooled = GlobalAveragePool(conv)
  logits = Flatten(pooled)
}"""


def tiny_model(seed: int = 0) -> onnx.ModelProto:
    model = parser.parse_model(TEXT)
    rng = np.random.default_rng(seed)
    del model.graph.initializer[:]
    for name, shape in (("w", (4, 3, 3, 3)), ("b", (4,))):
        values = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def save_with_external_data(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return path.with_name("weights.bin")


@pytest.fixture
def model() -> onnx.ModelProto:
    return tiny_model()


@pytest.fixture
def path(tmp_path: Path, model: onnx.ModelProto) -> Path:
    file = tmp_path / "tiny.onnx"
    file.write_bytes(model.SerializeToString(deterministic=True))
    return file


def test_path_bytes_and_proto_give_the_same_model(path: Path, model: onnx.ModelProto) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for given in (path, str(path), path.read_bytes(), model):
        loaded = load_model(given)
        assert loaded.model == model
        assert loaded.sha256 == digest
        assert not loaded.has_external_data
    assert load_model(path).path == path
    assert load_model(path).base_dir == path.parent
    assert load_model(path.read_bytes()).base_dir is None


def test_external_data_is_fetched_one_tensor_at_a_time(
    tmp_path: Path, model: onnx.ModelProto
) -> None:
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    save_with_external_data(model, tmp_path / "m.onnx")
    loaded = load_model(tmp_path / "m.onnx")
    assert loaded.has_external_data
    assert not any(t.raw_data for t in loaded.model.graph.initializer)
    for tensor in loaded.model.graph.initializer:
        np.testing.assert_array_equal(loaded.tensor_values(tensor), values[tensor.name])


def test_ir_3_with_weights_as_graph_inputs_and_opset_7_passes(model: onnx.ModelProto) -> None:
    model.ir_version = 3
    model.opset_import[0].version = 7
    for tensor in model.graph.initializer:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    assert load_model(model.SerializeToString()).model.ir_version == 3


def test_operators_of_other_domains_pass(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="com.example", version=1)
    model.graph.node[1].op_type = "MyPool"
    model.graph.node[1].domain = "com.example"
    assert load_model(model).model.graph.node[1].op_type == "MyPool"


def test_an_output_without_a_shape_passes_as_onnxruntime_runs_it(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert structural_problem(model) is None
    assert load_model(model).path is None


def test_missing_file_and_folder_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^no model file .*absent\.onnx$"):
        load_model(tmp_path / "absent.onnx")
    with pytest.raises(UsageError, match="is a folder, not a model file"):
        load_model(tmp_path)


def zip_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", "x")
    return buffer.getvalue()


FOREIGN = {
    "PNG": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
    "JPEG": (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image"),
    "text": ("Grüße\n".encode(), "a text file"),
    "long text": (b"word " * 5000, "a text file"),
    "HTML": (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
    "zip": (zip_bytes(), r"a zip archive \(a PyTorch"),
    "TFLite": (b"\x1c\0\0\0TFL3" + bytes(40), "a TensorFlow Lite model"),
    "ORT": (b"\x1c\0\0\0ORTM" + bytes(40), r"\.ort format"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file"),
    "pickle": (b"\x80\x02\x8a\nl\xfc\x9cF", "a Python pickle"),
    "safetensors": (b"\x40\0\0\0\0\0\0\0" + b'{"w":{"dtype"', "a safetensors file"),
    "ONNX text": (TEXT.encode(), "an ONNX model in a text form"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_recognised(kind: str, tmp_path: Path) -> None:
    content, expected = FOREIGN[kind]
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(InvalidModelError, match=f"is no ONNX model: it looks like .*{expected}"):
        load_model(file)


def test_empty_file() -> None:
    with pytest.raises(InvalidModelError, match=r"^the model is empty$"):
        load_model(b"")


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.999])
def test_truncated_file_says_how_much_is_missing(path: Path, fraction: float) -> None:
    data = path.read_bytes()
    with pytest.raises(InvalidModelError, match=r"is truncated: at least \d+ bytes are missing"):
        load_model(data[: int(len(data) * fraction)])


def test_every_truncation_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for length in range(len(data) - 1):
        with pytest.raises(InvalidModelError) as caught:
            load_model(data[:length])
        assert "\n" not in str(caught.value)


def test_corrupt_bytes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[2:40] = b"\xff" * 38
    with pytest.raises(InvalidModelError, match="no ONNX model, or is corrupt"):
        load_model(bytes(data))


def test_no_graph_and_no_operators(model: onnx.ModelProto) -> None:
    empty = onnx.ModelProto(ir_version=8, opset_import=model.opset_import)
    with pytest.raises(InvalidModelError, match="it has no graph"):
        load_model(empty)
    del model.graph.node[:]
    with pytest.raises(InvalidModelError, match="no operators"):
        load_model(model)


def test_structural_errors_are_one_line_and_name_the_problem(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "GlobalAveragePooling"
    with pytest.raises(InvalidModelError, match="GlobalAveragePooling") as caught:
        load_model(model)
    assert "\n" not in str(caught.value)


def test_external_data_missing_names_file_and_tensors(
    tmp_path: Path, model: onnx.ModelProto
) -> None:
    save_with_external_data(model, tmp_path / "m.onnx").unlink()
    with pytest.raises(InvalidModelError, match=r"'weights\.bin' \(for tensors 'w', 'b'\) is miss"):
        load_model(tmp_path / "m.onnx")


def test_external_data_too_short_names_the_tensors_that_lack_bytes(
    tmp_path: Path, model: onnx.ModelProto
) -> None:
    weights = save_with_external_data(model, tmp_path / "m.onnx")
    weights.write_bytes(weights.read_bytes()[:-3])
    with pytest.raises(InvalidModelError, match=r"\(for tensor 'b'\) is too short: \d+ of \d+"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "a/../../w.bin", r"..\w.bin"])
def test_external_data_outside_the_folder_is_refused(
    tmp_path: Path, model: onnx.ModelProto, location: str
) -> None:
    save_with_external_data(model, tmp_path / "m.onnx")
    skeleton = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    entries = skeleton.graph.initializer[0].external_data
    next(e for e in entries if e.key == "location").value = location
    (tmp_path / "m.onnx").write_bytes(skeleton.SerializeToString())
    with pytest.raises(InvalidModelError, match="outside the model's folder"):
        load_model(tmp_path / "m.onnx")


def test_external_data_behind_a_symbolic_link_is_refused(
    tmp_path: Path, model: onnx.ModelProto
) -> None:
    weights = save_with_external_data(model, tmp_path / "m.onnx")
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidModelError, match="is a symbolic link"):
        load_model(tmp_path / "m.onnx")


def test_external_length_that_does_not_fit_the_shape_is_refused(
    tmp_path: Path, model: onnx.ModelProto
) -> None:
    save_with_external_data(model, tmp_path / "m.onnx")
    skeleton = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    skeleton.graph.initializer[0].dims[0] = 400
    (tmp_path / "m.onnx").write_bytes(skeleton.SerializeToString())
    with pytest.raises(InvalidModelError, match=r"'w' needs 43200 bytes .* says 432 bytes"):
        load_model(tmp_path / "m.onnx")


def test_bytes_and_proto_with_external_data_ask_for_a_path(
    tmp_path: Path, model: onnx.ModelProto
) -> None:
    save_with_external_data(model, tmp_path / "m.onnx")
    with pytest.raises(InvalidModelError, match="give the path of the model file"):
        load_model((tmp_path / "m.onnx").read_bytes())
    with pytest.raises(InvalidModelError, match="give the path of the model file"):
        load_model(onnx.load(tmp_path / "m.onnx", load_external_data=False))
