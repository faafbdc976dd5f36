"""The contract of an exported file: names, metadata keys, version.

This module and `preprocessing` are all that export and runtime share. The export writes
`ExportMetadata.to_props()` into ``metadata_props``; the loader reads it with `from_props()`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from onnx_gradcam.errors import NotExportedError

CONTRACT_VERSION = 1

PREFIX = "onnx_gradcam/"
"""Every node, tensor and initializer that the export adds starts with this."""

CLASS_INPUT = "cam_class"
"""int64 ``(N,)`` or ``(1,)``: class to explain; -1 the highest score, -k the k-th highest."""

WEIGHTS_INPUT = "cam_weights"
"""float ``(N, K)`` or ``(1, K)``: y = sum_k w_k y_k in place of a class, where one is not zero."""

MASK_INPUT = "cam_mask"
"""float ``(N, *places)`` or ``(1, *places)``: where in the score map y is summed (segmentation);
where it is all zero, over the region that the model gives to the class."""

BOX_INPUT = "cam_box"
"""int64 ``(N,)`` or ``(1,)``: the box (detection); -1 the highest score, -k the k-th highest."""

EMBEDDING_INPUT = "cam_embedding"
"""float ``(N, D)`` or ``(1, D)``: what the model's embedding is compared with (similarity)."""

SEED_INPUTS = (CLASS_INPUT, WEIGHTS_INPUT, MASK_INPUT, BOX_INPUT, EMBEDDING_INPUT)
"""Inputs that say what y is; a file has those that its target takes."""

GATE_INPUT = "cam_explain"
"""bool ``(1,)``: whether to explain; where it is false, the added outputs are of no images."""

ADDED_INPUTS = (*SEED_INPUTS, GATE_INPUT)
"""All inputs that an export may add."""

ACTIVATIONS_OUTPUT = "cam_activations"
"""float ``(N, C, *spatial)``: the activations A of the target layer, channels first."""

GRADIENTS_OUTPUT = "cam_gradients"
"""float ``(N, C, *spatial)``: dy/dA of each image; ``(N, T, C, *spatial)`` for T classes."""

CLASSES_OUTPUT = "cam_classes"
"""int64 ``(N,)``: the class that was explained, -1 where weights were; ``(N, T)`` for T classes."""

SCORE_OUTPUT = "cam_score"
"""float ``(N,)``: y itself; ``(N, T)`` for T classes."""

BOXES_OUTPUT = "cam_boxes"
"""int64 ``(N,)``: the box that was explained; ``(N, T)`` for T of them."""

CURVATURE_OUTPUT = "cam_curvature"
"""float ``(N, C, *spatial)``: H A, with H the second derivative of y by A."""

ATTENTION_OUTPUT = "cam_attention"
"""float ``(N, L, R, R)``: attention of L blocks between R rows (tokens), averaged over heads."""

LEGRAD_OUTPUT = "cam_legrad"
"""float ``(N, L, R)``: how much attention to each of R rows raises y in L blocks (LeGrad)."""

BIASES_OUTPUT = "cam_biases"
"""float ``(N, 1, *spatial)``: how much the score owes to each place of the image and to the biases
there, at the image's size; ``cam_biases_2`` and so on likewise at other sizes (FullGrad)."""

ACCOUNTED_OUTPUT = "cam_accounted"
"""float ``(N,)``: x . dy/dx + sum b . dy/db over the image and all biases; equals y."""

CAM_OUTPUT = "cam"
"""float32 ``(N, 1, *spatial)``: the heat map, computed in the graph; ``(N, T, *spatial)``."""

SCALES_OUTPUT = "cam_scales"
"""float32 ``(N, 1, 2)``: the values of the map that 0 and 1 of a normalised ``cam`` stand for."""

ADDED_OUTPUTS = (ACTIVATIONS_OUTPUT, GRADIENTS_OUTPUT, CLASSES_OUTPUT)
"""What an export adds unless it is asked for more or less."""

OBJECTIVES = (
    "class",
    "softmax",
    "sigmoid",
    "binary",
    "segmentation",
    "detection",
    "similarity",
)
"""What y can be, the default first; see docs/objectives.md."""

_RESERVED = frozenset(
    {
        *(ADDED_OUTPUTS + ADDED_INPUTS),
        *(SCORE_OUTPUT, BOXES_OUTPUT, SCALES_OUTPUT),
        *(CURVATURE_OUTPUT, ATTENTION_OUTPUT, LEGRAD_OUTPUT),
        *(BIASES_OUTPUT, ACCOUNTED_OUTPUT),
    }
)
_NUMBERED = re.compile(rf"({ACTIVATIONS_OUTPUT}|{GRADIENTS_OUTPUT}|{BIASES_OUTPUT})_\d+")


def layer_output(name: str, layer: int) -> str:
    """Return how the output of a target layer (or size) is called, counted from 0: ``NAME_2``."""
    return f"{name}_{layer + 1}" if layer else name


def is_reserved(name: str) -> bool:
    """Return whether a name is the export's alone; ``cam`` is not, others may use it too."""
    is_numbered = _NUMBERED.fullmatch(name) is not None
    return name.startswith(PREFIX) or name in _RESERVED or is_numbered


METADATA_PREFIX = "onnx_gradcam."

_LEFT_OUT_WHEN_EMPTY = frozenset({"further_layers", "gate"})
"""Fields of what most files do not have."""


@dataclass(frozen=True)
class LayerMetadata:
    """One target layer; the fields are those that `ExportMetadata` has for the first one."""

    target: str
    target_layout: str
    token_grid: list[int] | None = None
    token_order: list[int] = field(default_factory=list)
    token_rows: int = 0
    token_source: str = ""
    token_source_layout: str = ""

    @classmethod
    def from_json(cls, value: object) -> LayerMetadata:
        """Read one entry of ``further_layers`` back.

        Raises:
            TypeError: it is none.
        """
        types = {"target": str, "target_layout": str}
        if not isinstance(value, dict) or not all(
            isinstance(value.get(name), kind) for name, kind in types.items()
        ):
            raise TypeError("a further layer without a target")
        return cls(**value)


@dataclass(frozen=True)
class AttentionMetadata:
    """What an exported file says about its attention outputs.

    All lists but the last four have one entry per block, from the image on: L of them.

    Attributes:
        blocks: names of the attention maps in the graph; where an operator keeps its map to
            itself, of its result.
        heads: numbers of heads.
        mixed: tensors O = A V, the values V mixed by the attention A.
        values: the tensors V.
        outputs: LeGrad: tensors Z, what the blocks hand on.
        explained: LeGrad: tensors O whose A the gradient is taken by; `mixed`, or those of the
            pooling that reads each block.
        gradients: LeGrad: tensors ds/dA, ``(N, heads, queries, R)``, s being the block's score.
        grid: ``[h, w]`` of the tokens.
        order: which row lies in each cell of the grid; only the first where they are consecutive.
        rows: R, rows without a place (class and register tokens) included.
        read: rows of the last block that the score reads; none where it pools by attention.
        pooled: whether the score reads them by an attention of its own, which then is the last of
            ``cam_attention``: all its rows are that of the one query.
    """

    blocks: list[str]
    heads: list[int]
    mixed: list[str]
    values: list[str]
    outputs: list[str]
    explained: list[str]
    gradients: list[str]
    grid: list[int]
    order: list[int]
    rows: int
    read: list[int]
    pooled: bool

    @property
    def cells(self) -> list[int]:
        """The row in each cell of the grid, row by row of the grid."""
        count = math.prod(self.grid)
        return [self.order[0] + i for i in range(count)] if len(self.order) == 1 else self.order


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
        activation: ``Softmax``, ``LogSoftmax`` or ``Sigmoid`` between score and output, or empty.
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
        attention: `AttentionMetadata` as a mapping; None without attention outputs.
        outputs: names of the added outputs, in order.
        fused: of a CAM in the graph: its ``method``, its ``size`` (``map``, ``input`` or extents)
            and whether it is ``normalised``; None without one.
        objective: what y is, e.g. ``class``; see docs/objectives.md.
        seed_inputs: names of what says which y: inputs, but for a class fixed at export.
        several: whether there are T classes per image, on a second axis.
        places: axes of `score_tensor` over which a class has a score each.
        channels: number of channels on `class_axis`.
        first_channel: index of class 0 there.
        output_axis: axis of the classes in `score_output` where that has places, None where it
            has none.
        output_channel: index of class 0 there.
        further_layers: the target layers behind the first one; their outputs are numbered from 2.
        gate: whether the explanation can be switched off, by the input `GATE_INPUT`.
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
    attention: dict[str, Any] | None = None
    outputs: list[str] = field(default_factory=lambda: list(ADDED_OUTPUTS))
    fused: dict[str, Any] | None = None
    activation: str = ""
    objective: str = "class"
    seed_inputs: list[str] = field(default_factory=lambda: [CLASS_INPUT])
    several: bool = False
    places: list[int] = field(default_factory=list)
    channels: int = 0
    first_channel: int = 0
    output_axis: int | None = None
    output_channel: int = 0
    further_layers: list[LayerMetadata] = field(default_factory=list)
    gate: bool = False
    contract_version: int = CONTRACT_VERSION

    @property
    def layers(self) -> list[LayerMetadata]:
        """All target layers, in the order of their outputs."""
        first = {f.name: getattr(self, f.name) for f in fields(LayerMetadata)}
        return [LayerMetadata(**first), *self.further_layers]

    @property
    def spatial_axes(self) -> int:
        """The number of spatial axes of the target, and so of the image."""
        return len(self.token_grid) if self.token_grid else len(self.target_layout) - 2

    @property
    def fed_inputs(self) -> list[str]:
        """The added inputs."""
        fixed = self.class_input.startswith("fixed")
        return [name for name in self.seed_inputs if not (fixed and name == CLASS_INPUT)]

    def to_props(self) -> dict[str, str]:
        """Return ``metadata_props`` entries, sorted by key, values as JSON."""
        return {
            METADATA_PREFIX + name: json.dumps(value, ensure_ascii=False)
            for name, value in sorted(asdict(self).items())
            if value or name not in _LEFT_OUT_WHEN_EMPTY
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
                f.name: _parsed(props[METADATA_PREFIX + f.name])
                for f in fields(cls)
                if METADATA_PREFIX + f.name in props
            }
            further = [LayerMetadata.from_json(v) for v in known.pop("further_layers", [])]
            return cls(**known, further_layers=further)
        except (ValueError, TypeError) as error:
            raise NotExportedError(
                f"{source} has damaged onnx_gradcam metadata ({error}); export it again"
            ) from error


_decode = json.JSONDecoder().raw_decode


def _parsed(text: str) -> Any:
    """Return the value of a JSON text, as `json.loads` does; it takes thrice as long."""
    value, end = _decode(text) if text else (None, -1)
    return value if end == len(text) else json.loads(text)
