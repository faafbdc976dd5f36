"""config.pbtxt: what Triton is told of an exported file.

In: its inputs and outputs, its metadata, and the largest batch. Out: the text of a `ModelConfig`.

Source: triton-inference-server/common, protobuf/model_config.proto; what is checked at load:
core, src/model_config_utils.cc (ValidateModelConfig, ValidateIOShape).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from onnx_gradcam.contract import METADATA_PREFIX, ExportMetadata
from onnx_gradcam.export.triton.tensors import Signature, Tensor
from onnx_gradcam.export.triton.text import Word, to_text

BACKEND = "onnxruntime"
MODEL_FILE = "model.onnx"
LABELS_FILE = "labels.txt"

_NOTHING = frozenset({"null", "false", '""', "[]"})
"""Values, as JSON, of what a file does not have; they go without saying."""


def config_text(name: str, found: Signature, metadata: ExportMetadata, max_batch_size: int) -> str:
    """Return the text of config.pbtxt.

    Args:
        name: of the model, that of its folder.
        found: inputs and outputs of the file.
        metadata: what the file says about itself; becomes `parameters`, but for the labels, which
            have a file of their own.
        max_batch_size: 0 where requests cannot be put together.
    """
    labelled = metadata.score_output if has_labels(found, metadata) else None
    message: dict[str, Any] = {
        "name": name,
        "backend": BACKEND,
        "default_model_filename": MODEL_FILE,
        "max_batch_size": max_batch_size,
        "input": [_input(tensor, max_batch_size) for tensor in found.inputs],
        "output": [
            _declared(tensor, max_batch_size)
            | ({"label_filename": LABELS_FILE} if tensor.name == labelled else {})
            for tensor in found.outputs
        ],
        "version_policy": {"latest": {"num_versions": 1}},
    }
    if max_batch_size:
        message["dynamic_batching"] = {}
    message["parameters"] = _parameters(metadata)
    return to_text(message)


def has_labels(found: Signature, metadata: ExportMetadata) -> bool:
    """Return whether the scores of an image are one for each label, as Triton counts them."""
    scores = next(t for t in found.outputs if t.name == metadata.score_output)
    of_image = math.prod(scores.shape[1:])
    return metadata.labels is not None and of_image == len(metadata.labels)


def labels_text(labels: Sequence[str]) -> str:
    """Return the labels, one a line; line breaks within one become spaces."""
    return "".join(" ".join(label.split()) + "\n" for label in labels)


def _input(tensor: Tensor, max_batch_size: int) -> dict[str, Any]:
    declared = _declared(tensor, max_batch_size)
    return declared | ({"optional": True} if tensor.optional else {})


def _declared(tensor: Tensor, max_batch_size: int) -> dict[str, Any]:
    """Return the fields that inputs and outputs share.

    With a largest batch the axis of images goes without saying. Triton knows no tensor without
    axes: one number an image is a vector of one there, and a reshape says that it is none here.
    """
    axes = tensor.shape[1:] if max_batch_size else tensor.shape
    fields: dict[str, Any] = {
        "name": tensor.name,
        "data_type": Word(tensor.data_type),
        "dims": list(axes or (1,)),
    }
    if max_batch_size and not axes:
        fields["reshape"] = {"shape": []}
    return fields


def _parameters(metadata: ExportMetadata) -> list[Mapping[str, Any]]:
    return [
        {"key": key, "value": {"string_value": value}}
        for key, value in metadata.to_props().items()
        if value not in _NOTHING and key != METADATA_PREFIX + "labels"
    ]
