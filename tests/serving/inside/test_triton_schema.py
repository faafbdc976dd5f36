"""config.pbtxt against Triton's own schema, which comes with its client."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from onnx_gradcam.export.triton.repository import write_triton
from tests.export.triton.schema import MESSAGES, TYPES, parsed
from tests.export.triton.test_repository import FILES, exported

NAMES = {
    "Reshape": "ModelTensorReshape",
    "Input": "ModelInput",
    "Output": "ModelOutput",
    "VersionPolicy": "ModelVersionPolicy",
    "Latest": "ModelVersionPolicy.Latest",
    "DynamicBatching": "ModelDynamicBatching",
    "Parameter": "ModelParameter",
    "Entry": "ModelConfig.ParametersEntry",
    "ModelConfig": "ModelConfig",
}


@pytest.mark.parametrize("kind", FILES)
def test_triton_s_schema_reads_what_the_tests_read(kind: str, tmp_path: Path) -> None:
    made, max_batch_size = FILES[kind]
    written = write_triton(exported(tmp_path, **made), tmp_path / "models")
    text = (written.folder / "config.pbtxt").read_text(encoding="utf-8")
    whole = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert whole.max_batch_size == max_batch_size
    assert whole.backend == "onnxruntime"
    assert whole.version_policy.latest.num_versions == 1
    ours = parsed(text)
    again = model_config_pb2.ModelConfig.FromString(ours.SerializeToString())
    assert again == whole
    assert len(whole.parameters) > 10


@pytest.mark.parametrize("message", MESSAGES)
def test_the_fields_have_triton_s_numbers(message: str) -> None:
    file = model_config_pb2.DESCRIPTOR
    outer, _, inner = NAMES[message].partition(".")
    described = file.message_types_by_name[outer]
    if inner:
        described = described.nested_types_by_name[inner]
    for name, (number, kind, _) in MESSAGES[message].items():
        field = described.fields_by_name[name]
        assert field.number == number
        if kind not in MESSAGES and kind != "DataType":
            assert field.type == getattr(field, f"TYPE_{kind}")


def test_the_types_have_triton_s_numbers() -> None:
    values = model_config_pb2.DataType.DESCRIPTOR.values_by_name
    assert {name: v.number for name, v in values.items()} == {
        f"TYPE_{name}": number for number, name in enumerate(TYPES)
    }
