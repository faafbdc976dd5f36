"""The part of Triton's ModelConfig that an export writes, as a protobuf message class.

The whole schema comes with tritonclient, which needs gRPC; `protobuf` comes with onnx. So the tests
read config.pbtxt with protobuf's own parser and these fields; tests/serving compares with the
whole schema. Source: triton-inference-server/common, protobuf/model_config.proto.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

PACKAGE = "onnx_gradcam_tests"

TYPES = (
    "INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64", "STRING", "BF16",
)  # fmt: skip

ONE, MANY = (
    descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
)

MESSAGES: dict[str, dict[str, tuple[int, str, int]]] = {
    "Reshape": {"shape": (1, "INT64", MANY)},
    "Input": {
        "name": (1, "STRING", ONE),
        "data_type": (2, "DataType", ONE),
        "dims": (4, "INT64", MANY),
        "reshape": (5, "Reshape", ONE),
        "optional": (8, "BOOL", ONE),
    },
    "Output": {
        "name": (1, "STRING", ONE),
        "data_type": (2, "DataType", ONE),
        "dims": (3, "INT64", MANY),
        "label_filename": (4, "STRING", ONE),
        "reshape": (5, "Reshape", ONE),
    },
    "Latest": {"num_versions": (1, "UINT32", ONE)},
    "VersionPolicy": {"latest": (1, "Latest", ONE)},
    "DynamicBatching": {},
    "Parameter": {"string_value": (1, "STRING", ONE)},
    "Entry": {"key": (1, "STRING", ONE), "value": (2, "Parameter", ONE)},
    "ModelConfig": {
        "name": (1, "STRING", ONE),
        "version_policy": (3, "VersionPolicy", ONE),
        "max_batch_size": (4, "INT32", ONE),
        "input": (5, "Input", MANY),
        "output": (6, "Output", MANY),
        "default_model_filename": (8, "STRING", ONE),
        "dynamic_batching": (11, "DynamicBatching", ONE),
        "parameters": (14, "Entry", MANY),
        "backend": (17, "STRING", ONE),
    },
}
"""Message -> field -> number, type, how many."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{PACKAGE}.proto", package=PACKAGE, syntax="proto3"
    )
    kinds = file.enum_type.add(name="DataType")
    for number, name in enumerate(TYPES):
        kinds.value.add(name=f"TYPE_{name}", number=number)
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, kind, label) in fields.items():
            field = described.field.add(name=name, number=number, label=label)
            if kind in MESSAGES or kind == "DataType":
                field.type_name = f".{PACKAGE}.{kind}"
                field.type = field.TYPE_ENUM if kind == "DataType" else field.TYPE_MESSAGE
            else:
                field.type = getattr(field, f"TYPE_{kind}")
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())
_ModelConfig = message_factory.GetMessageClass(
    _pool.FindMessageTypeByName(f"{PACKAGE}.ModelConfig")
)


def parsed(text: str) -> Any:
    """Return a ModelConfig.

    Raises:
        google.protobuf.text_format.ParseError: not the text of one, or fields not listed here.
    """
    return text_format.Parse(text, _ModelConfig())
