"""Whether the CAM in the graph is the one that NumPy computes from A and G.

In: the exported file. Out: one `Check`. A file may have left A and G out of its outputs: then
`with_maps` gives it them back, so that the gradient of every file is proven in the same way, and
what is proven holds for the file itself because its CAM is equal to that with A and G.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_gradcam.cam import compute, heat_maps, resize_linear
from onnx_gradcam.contract import (
    ACTIVATIONS_OUTPUT,
    CAM_OUTPUT,
    CLASS_INPUT,
    CLASSES_OUTPUT,
    GRADIENTS_OUTPUT,
    PREFIX,
    SCALES_OUTPUT,
    ExportMetadata,
)
from onnx_gradcam.export.files.model_file import LoadedModel
from onnx_gradcam.export.fuse.emit import FUSED_GRADIENTS
from onnx_gradcam.export.fuse.options import INPUT, MAP
from onnx_gradcam.export.precision import holds_half
from onnx_gradcam.export.verification.probe_inputs import CHANNEL_COUNTS
from onnx_gradcam.export.verification.report import Check
from onnx_gradcam.export.verification.subject import Array, Feeds, Subject, run, session_of

Size = tuple[int, ...]

NAME = "cam"

TINY = float(np.finfo(np.float32).tiny)

TOLERANCE = 1e-4
"""Accepted difference of a map, relative to the largest magnitude in the raw map."""

SUMMAND_TOLERANCE = 1e-6
"""The same relative to the sum of the magnitudes of the summands: they may cancel."""

HALF_TOLERANCE = 2e-2
"""Accepted between two files of a half-precision model: one output more moves its roundings."""

CONTRAST = 1e-2
"""A map whose positive part varies by less, relative to its largest magnitude, proves nothing."""


def with_maps(exported: LoadedModel, metadata: ExportMetadata) -> LoadedModel:
    """Return the file with A and G among its outputs; itself where they are."""
    outputs = {output.name for output in exported.model.graph.output}
    missing = [name for name in (ACTIVATIONS_OUTPUT, GRADIENTS_OUTPUT) if name not in outputs]
    if not missing or metadata.fused is None:
        return exported
    model = onnx.ModelProto()
    model.CopyFrom(exported.model)
    if not any(GRADIENTS_OUTPUT in node.output for node in model.graph.node):
        _spread(model.graph, metadata.spatial_axes)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in missing)
    return replace(exported, model=model, path=None)


def _spread(graph: onnx.GraphProto, spatial_axes: int) -> None:
    """Compute G from what the CAM reads in its place: the gradient of all positions."""
    axes, shape, space = (f"{PREFIX}verified/{name}" for name in ("axes", "shape", "space"))
    last = np.arange(2, 2 + spatial_axes)
    graph.initializer.append(numpy_helper.from_array(last, axes))
    graph.node.extend(
        [
            helper.make_node("Shape", [ACTIVATIONS_OUTPUT], [shape], name=shape),
            helper.make_node("Gather", [shape, axes], [space], name=space, axis=0),
            helper.make_node("Expand", [FUSED_GRADIENTS, space], [GRADIENTS_OUTPUT], name=axes),
        ]
    )


class _Reference:
    """The maps of NumPy, from the A and G of one run.

    Attributes:
        raw: raw maps, ``(N T, *spatial)``.
        positive: their positive part.
        shape: ``(N, T, *size)``, what the CAM is to have.
        cam: what it is to hold, ``(N T, *size)``.
        unit: magnitude of each raw map, rounding of its summands included, ``(N T, 1, ...)``.
    """

    def __init__(self, values: Mapping[str, Array], size: Size, fused: Mapping[str, Any]) -> None:
        """Compute them.

        Raises:
            UnsupportedModelError: the method does not go with this head.
        """
        activations, gradients = values[ACTIVATIONS_OUTPUT], values[GRADIENTS_OUTPUT]
        images, several = len(activations), 1
        if gradients.ndim > activations.ndim:
            several = gradients.shape[1]
            activations = np.repeat(activations, several, axis=0)
            gradients = gradients.reshape(activations.shape)
        self.raw = compute(fused["method"], activations, gradients)
        self.positive = np.maximum(self.raw, 0)
        size = size or self.raw.shape[1:]
        self.shape = (images, several, *size)
        self.cam = resize_linear(self.positive, size)
        self._axes = tuple(range(1, self.raw.ndim))
        self.peak = np.abs(self.raw).max(axis=self._axes, keepdims=True).astype(np.float64)
        summands = compute("hirescam", np.abs(activations), np.abs(gradients))
        summands = summands.max(axis=self._axes, keepdims=True)
        self.unit = np.maximum(self.peak + SUMMAND_TOLERANCE / TOLERANCE * summands, TINY)
        places = np.finfo(np.float32).eps * max(self.raw.shape[1:])  # Resize has them as float32
        self.cam_unit = self.unit + places / TOLERANCE * self.extent
        if fused["normalised"]:
            self.cam = heat_maps(self.raw, size)
            self.cam_unit = self.cam_unit / np.maximum(self.extent, TINY)

    @property
    def extent(self) -> Array:
        """By how much each positive part varies, ``(N T, 1, ...)``."""
        return np.asarray(np.ptp(self.positive, axis=self._axes, keepdims=True))

    @property
    def scales(self) -> Array:
        """The ends of each positive part, ``(N T, 2)``."""
        flat = self.positive.reshape(len(self.positive), -1)
        return np.stack([flat.min(axis=1), flat.max(axis=1)], axis=1)

    @property
    def telling(self) -> int:
        """How many maps show enough to prove something."""
        return int((self.extent > CONTRAST * self.peak).sum())

    @property
    def negative(self) -> Array:
        """Which maps are nowhere positive, bool ``(N T,)``."""
        highest = self.raw.max(axis=self._axes, keepdims=True)
        return np.asarray(highest < -CONTRAST * self.peak).reshape(-1)


def check_cam(subject: Subject, opened: LoadedModel) -> Check:
    """Compare the CAM of the file with NumPy's of its A and G, over inputs and classes.

    Args:
        subject: what is verified.
        opened: the same file with A and G among its outputs.

    Returns:
        The check.

    Raises:
        UnsupportedModelError: the method does not go with this head.
    """
    fused = subject.metadata.fused or {}
    optimise = not subject.metadata.straight_through  # a rounding may fall otherwise
    session = session_of(opened, optimise=optimise)
    own = session if opened is subject.exported else session_of(subject.exported, optimise=optimise)
    limit = HALF_TOLERANCE if holds_half(subject.reference.model) else TOLERANCE
    worst, maps = 0.0, 0
    for feeds in _feeds(subject, session):
        values = run(session, feeds)
        image = feeds[subject.metadata.image_input].shape
        reference = _Reference(values, _size(image, subject.metadata), fused)
        problem = _wrong_form(values, reference, fused)
        if problem:
            return Check(NAME, False, problem)
        found = values[CAM_OUTPUT].reshape(reference.cam.shape)
        error = _largest(found - reference.cam, reference.cam_unit)
        if fused["normalised"]:
            scales = values[SCALES_OUTPUT].reshape(reference.scales.shape)
            ends = _largest(scales - reference.scales, reference.unit.reshape(-1, 1))
            error = max(error, ends)
        if not error <= TOLERANCE:
            detail = f"differs from {fused['method']} of NumPy by {error:.1e} of the raw map"
            return Check(NAME, False, f"{detail} (tolerance {TOLERANCE:.0e})", error)
        if own is not session:
            alone = run(own, feeds)[CAM_OUTPUT].reshape(found.shape)
            apart = _largest(alone - found, reference.cam_unit)
            if not apart <= limit:
                detail = f"with activations and gradients as outputs it differs by {apart:.1e}"
                return Check(NAME, False, f"{detail} (tolerance {limit:.0e})", apart)
        worst, maps = max(worst, error), maps + reference.telling
    if not maps:
        detail = f"no map that was tried shows anything to compare with {fused['method']} of NumPy"
        return Check(NAME, True, detail, worst, warning=True)
    detail = f"{maps} maps equal {fused['method']} of NumPy to {worst:.1e} (tolerance"
    return Check(NAME, True, f"{detail} {TOLERANCE:.0e})", worst)


def _largest(gap: Array, unit: Array) -> float:
    return float((np.abs(gap) / unit).max(initial=0.0))


def _wrong_form(
    values: Mapping[str, Array], reference: _Reference, fused: Mapping[str, Any]
) -> str:
    """Return what is wrong with the outputs beside values that differ."""
    shapes = {CAM_OUTPUT: reference.shape}
    if fused["normalised"]:
        shapes[SCALES_OUTPUT] = (*reference.shape[:2], 2)
    for name, shape in shapes.items():
        value = values[name]
        if value.shape != shape or value.dtype != np.float32:
            return f"{name} is {value.dtype}{value.shape}, not float32{shape}"
        if not np.isfinite(value).all():
            return f"{name} holds NaN or infinite values"
    if values[CAM_OUTPUT].reshape(reference.cam.shape)[reference.negative].any():
        return "is not zero where the raw map is nowhere positive"
    return ""


def _feeds(subject: Subject, session: Any) -> Iterator[Feeds]:
    """Yield inputs with the default class, and with others where the file takes them."""
    for attempt in range(subject.attempts):
        feeds = subject.inputs(attempt)
        first = feeds | subject.seeds({})
        yield first
        meta = subject.metadata
        if CLASS_INPUT not in meta.fed_inputs:
            continue
        classes = run(session, first)[CLASSES_OUTPUT].reshape(subject.batch)
        steps = [
            step * (1 + np.arange(len(classes))) for step in range(1, min(meta.num_classes, 3))
        ]
        others = [(classes + step) % meta.num_classes for step in steps]
        for chosen in others:
            yield feeds | subject.class_feed(chosen)
        if meta.several and meta.fed_inputs == [CLASS_INPUT]:
            yield feeds | {CLASS_INPUT: np.stack([classes, *others], axis=1)}


def _size(image: Size, metadata: ExportMetadata) -> Size:
    """Return the extents that the CAM is to have; none for those of A."""
    size = (metadata.fused or {})["size"]
    if size == MAP:
        return ()
    return _image_size(image, metadata) if size == INPUT else tuple(size)


def _image_size(shape: Size, metadata: ExportMetadata) -> Size:
    """Return the spatial extents of images of this shape."""
    if len(shape) == metadata.spatial_axes + 1:
        return shape[1:]
    layout = (metadata.preprocessing or {}).get("layout")
    last = shape[-1] in CHANNEL_COUNTS and shape[1] not in CHANNEL_COUNTS
    if layout is not None:
        last = layout == "NHWC"
    return shape[1:-1] if last else shape[2:]
