"""Runs batches through a session: splits and pads where the model's batch size is fixed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_gradcam import bfloat16
from onnx_gradcam.contract import CLASS_INPUT
from onnx_gradcam.errors import OnnxGradCamError, UsageError, nearest_names
from onnx_gradcam.runtime.image_input import DTYPES, ImageInput
from onnx_gradcam.runtime.session import LOG_ERRORS_ONLY, import_onnxruntime, one_line

Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class BatchRunner:
    """A session with its image input and whatever else it wants to be fed.

    Attributes:
        session: the ``onnxruntime.InferenceSession``.
        image_input: where the images go.
        required: node arguments of the other inputs that must be fed, by name.
        overridable: names of initializers that may be fed.
    """

    session: Any
    image_input: ImageInput
    required: Mapping[str, Any]
    overridable: Collection[str]

    def run(
        self,
        outputs: Sequence[str],
        batch: NDArray[Any],
        classes: NDArray[np.int64] | None,
        extra_inputs: Mapping[str, ArrayLike] | None,
    ) -> list[NDArray[Any]]:
        """Return the outputs for a whole batch, concatenated along its first axis.

        Args:
            outputs: names of the outputs.
            batch: images in the model's own layout and dtype.
            classes: int64 ``(N,)`` for cam_class, or None for a file with a fixed class.
            extra_inputs: values for the other inputs, by name.

        Raises:
            UsageError: missing or unknown extra inputs, or images that the model cannot take.
        """
        extra = self._checked_extra(extra_inputs or {})
        images = len(batch)
        if images == 0:
            return [self._empty(name) for name in outputs]
        step = self.image_input.batch or images
        per_image: Feeds = {self.image_input.name: batch}
        if classes is not None:
            per_image[CLASS_INPUT] = classes
        shared: Feeds = {}
        for name, value in extra.items():
            feeds = per_image if value.shape[:1] == (images,) and images != step else shared
            feeds[name] = value
        chunks = []
        for start in range(0, images, step):
            rows = np.arange(start, start + step).clip(max=images - 1)
            feeds = shared | {name: value[rows] for name, value in per_image.items()}
            chunks.append(self._run_chunk(outputs, feeds, min(step, images - start)))
        return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]

    def _run_chunk(self, outputs: Sequence[str], feeds: Feeds, keep: int) -> list[NDArray[Any]]:
        options = import_onnxruntime().RunOptions()
        options.log_severity_level = LOG_ERRORS_ONLY
        try:
            values = bfloat16.run(self.session, outputs, feeds, options)
        except Exception as error:  # onnxruntime's exceptions share no base class
            shapes = ", ".join(f"{name} {value.shape}" for name, value in feeds.items())
            fixed = None not in self.image_input.shape[1:] and not self.required
            kind = OnnxGradCamError if fixed else UsageError
            raise kind(f"the model cannot run on {shapes}: {one_line(error)}") from error
        return [value[:keep] for value in values]

    def _empty(self, output: str) -> NDArray[Any]:
        """Return an output for no images; extents that the model leaves open are 0."""
        node = next(node for node in self.session.get_outputs() if node.name == output)
        shape = [d if isinstance(d, int) and d > 0 else 0 for d in node.shape]
        return np.zeros([0, *shape[1:]], DTYPES.get(node.type, np.dtype(np.int64)))

    def _checked_extra(self, extra: Mapping[str, ArrayLike]) -> Feeds:
        missing = [name for name in self.required if name not in extra]
        if missing:
            raise UsageError(
                f"the model also needs input {', '.join(map(repr, missing))}; pass"
                " extra_inputs={name: array}"
            )
        known = {*self.required, *self.overridable}
        for name in extra:
            if name not in known:
                hint = nearest_names(name, known)
                raise UsageError(f"the model has no extra input {name!r}{hint}")
        return {name: self._as_declared(name, value) for name, value in extra.items()}

    def _as_declared(self, name: str, value: ArrayLike) -> NDArray[Any]:
        """Return an extra input in the dtype that the model declares, if images can have it."""
        node = self.required.get(name)
        return np.asarray(value, dtype=DTYPES.get(node.type) if node is not None else None)
