"""Runs batches through a session: splits and pads where the model's batch size is fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_gradcam import bfloat16
from onnx_gradcam.contract import GATE_INPUT
from onnx_gradcam.errors import OnnxGradCamError, UsageError
from onnx_gradcam.runtime.device_run import DeviceRun
from onnx_gradcam.runtime.extra_inputs import ExtraInputs, Feeds
from onnx_gradcam.runtime.image_input import DTYPES, ImageInput
from onnx_gradcam.runtime.on_device import OnDevice, joined
from onnx_gradcam.runtime.session import one_line, run_options

OPEN: Feeds = {GATE_INPUT: np.array([True])}
CLOSED: Feeds = {GATE_INPUT: np.array([False])}
"""What a file with a gate is fed; others do not take it."""


@dataclass(frozen=True)
class BatchFeeds:
    """Values for the inputs of a model, for a batch.

    Attributes:
        per_image: those with a row per image.
        shared: those that all images share.
    """

    per_image: Feeds
    shared: Feeds

    @property
    def all(self) -> Feeds:
        """The values for all images, as they are."""
        return {**self.shared, **self.per_image}

    def of(self, rows: NDArray[np.intp]) -> Feeds:
        """Return the values for some of the images."""
        return self.shared | {name: value[rows] for name, value in self.per_image.items()}


@dataclass(frozen=True)
class BatchRunner:
    """A session with its image input and whatever else it wants to be fed.

    Attributes:
        session: the ``onnxruntime.InferenceSession``.
        image_input: where the images go.
        extra: the other inputs.
        device: what runs the session so that large outputs stay on a device; None on the host.
        always: values for inputs that are the same in all runs.
    """

    session: Any
    image_input: ImageInput
    extra: ExtraInputs
    device: DeviceRun | None = None
    always: Feeds = field(default_factory=dict)

    def run(
        self,
        outputs: Sequence[str],
        batch: NDArray[Any],
        seeds: Mapping[str, NDArray[Any]],
        extra_inputs: Mapping[str, ArrayLike] | None,
    ) -> list[NDArray[Any]]:
        """Return the outputs for a whole batch, concatenated along its first axis.

        Each is an array, or an `OnDevice` in its place.

        Args:
            outputs: names of the outputs.
            batch: images in the model's own layout and dtype.
            seeds: values for the inputs that say which y, a row per image.
            extra_inputs: values for the other inputs, by name.

        Raises:
            UsageError: missing or unknown extra inputs, or images that the model cannot take.
        """
        fixed = self.fixed_batch(outputs[0])
        return self._run(outputs, self.feeds(batch, seeds, extra_inputs, fixed), fixed)

    def run_on(self, outputs: Sequence[str], given: BatchFeeds) -> list[NDArray[Any]]:
        """Return what `run` returns; of the values given the session gets those that it takes.

        Raises:
            UsageError: images that the model cannot take.
        """
        return self._run(outputs, given, self.fixed_batch(outputs[0]))

    def _run(
        self, outputs: Sequence[str], given: BatchFeeds, fixed: int | None
    ) -> list[NDArray[Any]]:
        images = len(given.per_image[self.image_input.name])
        if images == 0:
            return [self._empty(name) for name in outputs]
        step = fixed or images
        if step == images:  # neither what goes in nor what comes out is copied
            return self._run_chunk(outputs, given.all, step, images)
        chunks = []
        for start in range(0, images, step):
            rows = np.arange(start, start + step).clip(max=images - 1)
            chunks.append(self._run_chunk(outputs, given.of(rows), step, images - start))
        return [joined(parts) for parts in zip(*chunks, strict=True)]

    def feeds(
        self,
        batch: NDArray[Any],
        seeds: Mapping[str, NDArray[Any]],
        extra_inputs: Mapping[str, ArrayLike] | None,
        fixed: int | None,
    ) -> BatchFeeds:
        """Return what the model is fed for a batch.

        Args:
            batch: see `run`.
            seeds: likewise.
            extra_inputs: likewise.
            fixed: the only number of images that the model takes, None where any goes.

        Raises:
            UsageError: missing or unknown extra inputs.
        """
        extra = self.extra.checked(extra_inputs or {})
        given = BatchFeeds({self.image_input.name: batch, **seeds}, {})
        for name, value in extra.items():
            per_image = self.extra.per_image(name, value, len(batch), fixed)
            (given.per_image if per_image else given.shared)[name] = value
        return given

    def fixed_batch(self, output: str) -> int | None:
        """Return the only number of images that the model takes, None where any goes.

        It may show in an output only, although the images declare none.
        """
        if self.image_input.batch:
            return self.image_input.batch
        shape = self._asked.outputs[output].shape
        return shape[0] if len(shape) > 1 and isinstance(shape[0], int) and shape[0] > 0 else None

    @cached_property
    def _asked(self) -> _Asked:
        return _Asked.of(self.session)

    def _run_chunk(self, outputs: Sequence[str], feeds: Feeds, step: int, keep: int) -> list[Any]:
        """Return the first rows of the outputs of one run of `step` images.

        Raises:
            OnnxGradCamError: the model cannot run on them.
        """
        asked = self._asked
        given = {**feeds, **self.always} if self.always else feeds
        taken = {name: value for name, value in given.items() if name in asked.inputs}
        try:
            values: Sequence[Any]
            if self.device is not None:
                values = self.device.run(outputs, taken)
            else:
                values = asked.runner.run(outputs, taken, asked.options)
        except OnnxGradCamError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no base class
            shapes = ", ".join(f"{name} {value.shape}" for name, value in taken.items())
            fixed = None not in self.image_input.shape[1:] and not self.extra.required
            kind = OnnxGradCamError if fixed else UsageError
            raise kind(f"the model cannot run on {shapes}: {one_line(error)}") from error
        arrays = [_from_maps(v) if isinstance(v, list) else v for v in values]
        if step == 1:  # then scores may come without a batch axis
            arrays = [v if v.shape[:1] == (1,) else v[None] for v in arrays]
        if keep >= step:
            return arrays
        return [v.first(keep) if isinstance(v, OnDevice) else v[:keep] for v in arrays]

    def _empty(self, output: str) -> NDArray[Any]:
        """Return an output for no images; extents that the model leaves open are 0."""
        node = self._asked.outputs[output]
        shape = [d if isinstance(d, int) and d > 0 else 0 for d in node.shape]
        return np.zeros([0, *shape[1:]], DTYPES.get(node.type, np.dtype(np.int64)))


@dataclass(frozen=True)
class _Asked:
    """What a session says of itself, asked once for many runs.

    Attributes:
        inputs: names of what it takes.
        outputs: node arguments of what it gives, by name.
        runner: runs it.
        options: for each run.
    """

    inputs: frozenset[str]
    outputs: Mapping[str, Any]
    runner: bfloat16.Runner
    options: Any

    @classmethod
    def of(cls, session: Any) -> _Asked:
        nodes = (*session.get_inputs(), *session.get_overridable_initializers())
        return cls(
            frozenset(node.name for node in nodes),
            {node.name: node for node in session.get_outputs()},
            bfloat16.Runner.of(session),
            run_options(),
        )


def taken_by(session: Any, feeds: Mapping[str, NDArray[Any]]) -> Feeds:
    """Return what a session takes of some values; one of a part of the model takes less."""
    nodes = (*session.get_inputs(), *session.get_overridable_initializers())
    names = {node.name for node in nodes}
    return {name: value for name, value in feeds.items() if name in names}


def _from_maps(maps: Sequence[Mapping[Any, float]]) -> NDArray[Any]:
    """Return ``(N, K)``, the classes in ascending order, of the maps that ZipMap makes."""
    return np.array([[row[key] for key in sorted(row)] for row in maps], np.float32)
