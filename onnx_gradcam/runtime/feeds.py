"""Runs batches through a session: splits and pads where the model's batch size is fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_gradcam import bfloat16
from onnx_gradcam.errors import OnnxGradCamError, UsageError
from onnx_gradcam.runtime.extra_inputs import ExtraInputs, Feeds
from onnx_gradcam.runtime.image_input import DTYPES, ImageInput
from onnx_gradcam.runtime.session import LOG_FATAL_ONLY, import_onnxruntime, one_line


@dataclass(frozen=True)
class BatchRunner:
    """A session with its image input and whatever else it wants to be fed.

    Attributes:
        session: the ``onnxruntime.InferenceSession``.
        image_input: where the images go.
        extra: the other inputs.
    """

    session: Any
    image_input: ImageInput
    extra: ExtraInputs

    def run(
        self,
        outputs: Sequence[str],
        batch: NDArray[Any],
        seeds: Mapping[str, NDArray[Any]],
        extra_inputs: Mapping[str, ArrayLike] | None,
    ) -> list[NDArray[Any]]:
        """Return the outputs for a whole batch, concatenated along its first axis.

        Args:
            outputs: names of the outputs.
            batch: images in the model's own layout and dtype.
            seeds: values for the inputs that say which y, a row per image.
            extra_inputs: values for the other inputs, by name.

        Raises:
            UsageError: missing or unknown extra inputs, or images that the model cannot take.
        """
        extra = self.extra.checked(extra_inputs or {})
        images = len(batch)
        if images == 0:
            return [self._empty(name) for name in outputs]
        fixed = self.image_input.batch or self._fixed_batch(outputs[0])
        step = fixed or images
        per_image: Feeds = {self.image_input.name: batch, **seeds}
        shared: Feeds = {}
        for name, value in extra.items():
            feeds = per_image if self.extra.per_image(name, value, images, fixed) else shared
            feeds[name] = value
        chunks = []
        for start in range(0, images, step):
            rows = np.arange(start, start + step).clip(max=images - 1)
            feeds = shared | {name: value[rows] for name, value in per_image.items()}
            chunks.append(self._run_chunk(outputs, feeds, step, min(step, images - start)))
        return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]

    def _fixed_batch(self, output: str) -> int | None:
        """Return the batch size that an output has although the images declare none."""
        shape = next(n.shape for n in self.session.get_outputs() if n.name == output)
        return shape[0] if len(shape) > 1 and isinstance(shape[0], int) and shape[0] > 0 else None

    def _run_chunk(
        self, outputs: Sequence[str], feeds: Feeds, step: int, keep: int
    ) -> list[NDArray[Any]]:
        options = import_onnxruntime().RunOptions()
        options.log_severity_level = LOG_FATAL_ONLY
        try:
            values = bfloat16.run(self.session, outputs, feeds, options)
        except Exception as error:  # onnxruntime's exceptions share no base class
            shapes = ", ".join(f"{name} {value.shape}" for name, value in feeds.items())
            fixed = None not in self.image_input.shape[1:] and not self.extra.required
            kind = OnnxGradCamError if fixed else UsageError
            raise kind(f"the model cannot run on {shapes}: {one_line(error)}") from error
        # with one image a run, scores may come without a batch axis
        arrays = [_from_maps(v) if isinstance(v, list) else v for v in values]
        rows = [v[None] if step == 1 and v.shape[:1] != (1,) else v for v in arrays]
        return [value[:keep] for value in rows]

    def _empty(self, output: str) -> NDArray[Any]:
        """Return an output for no images; extents that the model leaves open are 0."""
        node = next(node for node in self.session.get_outputs() if node.name == output)
        shape = [d if isinstance(d, int) and d > 0 else 0 for d in node.shape]
        return np.zeros([0, *shape[1:]], DTYPES.get(node.type, np.dtype(np.int64)))


def _from_maps(maps: Sequence[Mapping[Any, float]]) -> NDArray[Any]:
    """Return ``(N, K)``, the classes in ascending order, of the maps that ZipMap makes."""
    return np.array([[row[key] for key in sorted(row)] for row in maps], np.float32)
