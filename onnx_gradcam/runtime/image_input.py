"""The image input of a model: its shape, layout and dtype, and whether an array fits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_gradcam.bfloat16 import BFLOAT16
from onnx_gradcam.cam import all_finite
from onnx_gradcam.errors import UnsupportedModelError, UsageError

DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    BFLOAT16: np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(int8)": np.dtype(np.int8),
}
CHANNEL_COUNTS = (1, 3, 4)
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class ImageInput:
    """The graph input that holds the images.

    Attributes:
        name: of the graph input.
        shape: extents with the batch first, None where any extent goes.
        dtype: of its elements.
        channels_last: whether the channels are its last axis.
        has_channels: whether there is such an axis: sounds ``(N, L)`` and grey pictures
            ``(N, H, W)`` may have none.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    channels_last: bool
    has_channels: bool = True

    @classmethod
    def from_session(
        cls, node: Any, layout: str | None, target_layout: str, spatial_axes: int | None = None
    ) -> ImageInput:
        """Describe an onnxruntime ``NodeArg``.

        Args:
            node: the node argument: name, shape and type.
            layout: ``NCHW`` or ``NHWC`` where the stored preprocessing says so.
            target_layout: layout of the target tensor; decides where the shape does not.
            spatial_axes: how many the target has, hence the image.

        Raises:
            UnsupportedModelError: an element type that images cannot have.
        """
        if node.type not in DTYPES:
            raise UnsupportedModelError(
                f"image input {node.name!r} is of type {node.type}; known are {', '.join(DTYPES)}"
            )
        shape = tuple(d if isinstance(d, int) and d > 0 else None for d in node.shape)
        if spatial_axes is not None and not shape:  # a model may leave even the rank open
            shape = (None,) * (spatial_axes + 2)
        has_channels = spatial_axes is None or len(shape) != spatial_axes + 1
        channels_last = has_channels and _has_channels_last(shape, target_layout)
        if layout is not None and has_channels:
            channels_last = layout == "NHWC"
        return cls(node.name, shape, DTYPES[node.type], channels_last, has_channels)

    @property
    def batch(self) -> int | None:
        """The fixed batch size, None when any goes."""
        return self.shape[0] if self.shape else None

    @property
    def layout(self) -> str:
        """``NHWC`` with the channels last, else ``NCHW``."""
        return "NHWC" if self.channels_last else "NCHW"

    @property
    def spatial_axes(self) -> int:
        """The number of axes that are neither batch nor channels."""
        return len(self.shape) - 1 - self.has_channels

    def spatial(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the spatial extents of an array of this layout."""
        if not self.has_channels:
            return shape[1:]
        return shape[1:-1] if self.channels_last else shape[2:]

    def channels_first(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Return a batch of this layout as ``(N, C, *spatial)``."""
        if not self.has_channels:
            return batch[:, None]
        return np.moveaxis(batch, -1, 1) if self.channels_last else batch

    def from_channels_first(self, images: NDArray[np.float32]) -> NDArray[Any]:
        """Return images ``(N, C, *spatial)`` in this layout and type.

        Values are clipped to the range of the type, for integers rounded.
        """
        batch = images[:, 0] if not self.has_channels else images
        batch = np.moveaxis(batch, 1, -1) if self.channels_last else batch
        if self.dtype.kind in "iu":
            limits = np.iinfo(self.dtype)
            batch = batch.round().clip(limits.min, limits.max)
        elif self.dtype.itemsize < 4:
            batch = batch.clip(np.finfo(self.dtype).min, np.finfo(self.dtype).max)
        return np.ascontiguousarray(batch, self.dtype)

    def fit(self, x: ArrayLike) -> NDArray[Any]:
        """Return a batch in the model's own layout and dtype.

        Accepted are the model's own layout and ``(N, C, *spatial)``, with or without the batch
        axis; any float dtype where the model takes floats, else the model's dtype or whole
        numbers that it holds.

        Raises:
            UsageError: wrong shape or dtype, or values that are NaN or infinite.
        """
        array = np.asarray(x)
        if array.dtype != self.dtype:
            if array.dtype.name == "bfloat16":  # of the package ml_dtypes
                array = array.astype(np.float32)
            self._check_dtype(array)
        batch = array[None] if array.ndim == len(self.shape) - 1 else array
        if not self._fits(batch.shape):
            moved = np.moveaxis(batch, 1, -1) if self.channels_last and batch.ndim > 2 else batch
            if not self._fits(moved.shape):
                raise UsageError(
                    f"input of shape {array.shape} does not fit the model's {self.describe()}"
                )
            batch = moved
        if batch.dtype != self.dtype or not batch.flags.c_contiguous:
            with np.errstate(over="ignore"):  # float16 overflow is reported as infinite below
                batch = np.ascontiguousarray(batch, dtype=self.dtype)
        if self.dtype.kind == "f" and not all_finite(batch):
            finite = np.isfinite(batch).reshape(len(batch), -1).all(axis=1)
            raise UsageError(
                f"input holds NaN or infinite values (as {self.dtype}), first in image"
                f" {int(np.argmin(finite))}; a heat map of it would mean nothing"
            )
        return batch

    def describe(self) -> str:
        """Return name, shape and dtype for messages, e.g. ``'x' (N, 3, 224, 224) float32``."""
        names = ["N", *("?" for _ in self.shape[1:])]
        extents = (str(d) if d else n for d, n in zip(self.shape, names, strict=False))
        return f"{self.name!r} ({', '.join(extents)}) {self.dtype}"

    def _check_dtype(self, array: NDArray[Any]) -> None:
        is_float = array.dtype.kind == "f"
        fits = is_float if self.dtype.kind == "f" else is_float and _all_in(array, self.dtype)
        if array.dtype != self.dtype and not fits:
            raise UsageError(
                f"input of dtype {array.dtype} does not fit the model's {self.describe()}; scale"
                f" and convert it as the model expects, or use explain_image"
            )

    def _fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether a batch of any size has the model's other extents."""
        if shape[1:] == self.shape[1:]:
            return 0 not in shape[1:]
        return len(shape) == len(self.shape) and all(
            extent in {None, given} and given > 0
            for extent, given in zip(self.shape[1:], shape[1:], strict=True)
        )


def _all_in(array: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Return whether floats are whole numbers that an integer type holds."""
    limits = np.iinfo(dtype)
    whole = (array == np.round(array)) & (array >= limits.min) & (array <= limits.max)
    return bool(whole.all())


def _has_channels_last(shape: Shape, target_layout: str) -> bool:
    if len(shape) < 3:
        return False
    first, last = (shape[axis] in CHANNEL_COUNTS for axis in (1, -1))
    if first != last:
        return last
    undecided = shape[1] is None and shape[-1] is None
    return undecided and target_layout.endswith("C")


def without_channels(image: NDArray[Any], declared: ImageInput) -> NDArray[Any]:
    """Return a grey picture ``(1, H, W)`` as ``(H, W)``.

    Raises:
        UsageError: it has colours.
    """
    if image.shape[0] != 1:
        raise UsageError(
            f"the model takes grey pictures {declared.describe()}; export it again with a"
            ' preprocessing of "color": "GRAY"'
        )
    return np.asarray(image[0])
