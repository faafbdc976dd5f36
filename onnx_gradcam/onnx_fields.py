"""Numbers of the fields of a serialised ONNX model that are read or written without onnx.

Source: onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

from enum import IntEnum


class InModel(IntEnum):
    """Fields of ``ModelProto``."""

    IR_VERSION = 1
    GRAPH = 7
    METADATA = 14
    TRAINING = 20


class InGraph(IntEnum):
    """Fields of ``GraphProto``."""

    NODE = 1
    INITIALIZER = 5
    INPUT = 11
    OUTPUT = 12
    VALUE_INFO = 13
    QUANTIZATION = 14
    SPARSE_INITIALIZER = 15


class InNode(IntEnum):
    """Fields of ``NodeProto``."""

    INPUT = 1
    OUTPUT = 2
    OP_TYPE = 4
    ATTRIBUTE = 5
    DOMAIN = 7


class InAttribute(IntEnum):
    """Fields of ``AttributeProto`` that hold graphs."""

    GRAPH = 6
    GRAPHS = 11


NAME_IN_TENSOR = 8
RAW_DATA_IN_TENSOR = 9
NAME_IN_VALUE_INFO = 1
NAME_IN_ANNOTATION = 1
VALUES_IN_SPARSE_TENSOR = 1
