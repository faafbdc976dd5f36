"""The contract of an exported file: names, metadata keys, version.

This module and `preprocessing` are all that export and runtime share. The export writes
`ExportMetadata.to_props()` into ``metadata_props``; the loader reads it with `from_props()`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from onnx_gradcam.errors import NotExportedError

CONTRACT_VERSION = 1

PREFIX = "onnx_gradcam/"
"""Every node, tensor and initializer that the export adds starts with this."""

CLASS_INPUT = "cam_class"
"""int64 ``(N,)`` or ``(1,)``: class to explain; -1 the highest score, -k the k-th highest."""

ACTIVATIONS_OUTPUT = "cam_activations"
"""float ``(N, C, *spatial)``: the activations A of the target layer, channels first."""

GRADIENTS_OUTPUT = "cam_gradients"
"""float ``(N, C, *spatial)``: dy^c/dA for the class of each image."""

CLASSES_OUTPUT = "cam_classes"
"""int64 ``(N,)``: the class that was explained."""

ADDED_OUTPUTS = (ACTIVATIONS_OUTPUT, GRADIENTS_OUTPUT, CLASSES_OUTPUT)
METADATA_PREFIX = "onnx_gradcam."


@dataclass(frozen=True)
class ExportMetadata:
    """What an exported file says about itself, one JSON value per ``metadata_props`` entry.

    Attributes:
        tool_version: version of onnx_gradcam that wrote the file.
        gradient_builder: ``onnxruntime-training`` or ``reverse``.
        gradient_builder_version: version of that builder.
        image_input: name of the graph input that holds the image.
        target: name of the tensor A in the graph.
        target_layout: axes of that tensor in the graph, e.g. ``NCHW``, ``NHWC``, ``NTC`` (tokens)
            or ``BTC`` (batch and windows on one axis).
        score_tensor: name of the tensor that holds y, the score before softmax.
        score_output: name of the original graph output that the scores belong to.
        class_axis: axis of the classes in `score_tensor`.
        num_classes: number of classes K.
        class_input: ``optional``, ``required`` or ``fixed:K``.
        source_sha256: SHA-256 (hex) of the source model file.
        token_grid: ``[h, w]`` for token layouts, else None.
        token_order: for tokens: which row of an image lies in each cell, row by row of the grid;
            only the first where they are consecutive.
        token_rows: for tokens: rows per image, class and register tokens included.
        token_source: where the number of tokens depends on the size of the image: the tensor whose
            spatial axes are their grid; `token_grid` and `token_rows` are then an example.
        token_source_layout: axes of that tensor, e.g. ``NCHW``.
        score_scale: step of `score_output` where that is quantized to integers, else 1.
        score_zero_point: the integer that stands for 0 there.
        preprocessing: `Preprocessing.to_dict()`, or None when none was given.
        labels: K class names, or None.
        straight_through: operators differentiated by a straight-through estimate.
        contract_version: version of this contract.
    """

    tool_version: str
    gradient_builder: str
    gradient_builder_version: str
    image_input: str
    target: str
    target_layout: str
    score_tensor: str
    score_output: str
    class_axis: int
    num_classes: int
    class_input: str
    source_sha256: str
    token_grid: list[int] | None = None
    token_order: list[int] = field(default_factory=list)
    token_rows: int = 0
    token_source: str = ""
    token_source_layout: str = ""
    score_scale: float = 1.0
    score_zero_point: float = 0.0
    preprocessing: dict[str, Any] | None = None
    labels: list[str] | None = None
    straight_through: list[str] = field(default_factory=list)
    contract_version: int = CONTRACT_VERSION

    @property
    def spatial_axes(self) -> int:
        """The number of spatial axes of the target, and so of the image."""
        return len(self.token_grid) if self.token_grid else len(self.target_layout) - 2

    def to_props(self) -> dict[str, str]:
        """Return ``metadata_props`` entries, sorted by key, values as JSON."""
        return {
            METADATA_PREFIX + name: json.dumps(value, ensure_ascii=False)
            for name, value in sorted(asdict(self).items())
        }

    @classmethod
    def from_props(cls, props: Mapping[str, str], source: str = "the model") -> ExportMetadata:
        """Read the metadata of an exported file back.

        Args:
            props: the model's ``metadata_props`` as a mapping.
            source: how to call the model in errors.

        Raises:
            NotExportedError: no metadata of ours, unreadable, or of a newer contract.
        """
        version = props.get(METADATA_PREFIX + "contract_version")
        if version is None:
            raise NotExportedError(
                f"{source} carries no explanation; write one with: onnx-gradcam export MODEL -o OUT"
            )
        try:
            if int(version) > CONTRACT_VERSION:
                raise NotExportedError(
                    f"{source} has contract version {version}, this package reads up to"
                    f" {CONTRACT_VERSION}; upgrade onnx-gradcam"
                )
            known = {
                f.name: json.loads(props[METADATA_PREFIX + f.name])
                for f in fields(cls)
                if METADATA_PREFIX + f.name in props
            }
            return cls(**known)
        except (ValueError, TypeError) as error:
            raise NotExportedError(
                f"{source} has damaged onnx_gradcam metadata ({error}); export it again"
            ) from error
