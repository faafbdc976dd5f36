"""A photo as the model takes it: decoded, by the recipe that is stored in the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from onnx_gradcam.errors import UsageError
from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.runtime.image_input import ImageInput, without_channels
from onnx_gradcam.runtime.photo import Photo, PhotoSource, read_photo
from onnx_gradcam.runtime.preprocess import CropGeometry, preprocess


@dataclass(frozen=True, eq=False)
class PreparedPhoto:
    """One photo.

    Attributes:
        image: what the model takes, in its own layout and dtype, with a batch axis.
        photo: uint8 RGB ``(height, width, 3)``, all of it.
        geometry: which part of it the model sees.
    """

    image: NDArray[Any]
    photo: Photo
    geometry: CropGeometry


def prepare_photo(
    photo: PhotoSource, recipe: Preprocessing | None, declared: ImageInput
) -> PreparedPhoto:
    """Return a photo as the model takes it.

    Args:
        photo: path, encoded bytes, or a uint8 RGB array ``(H, W, 3)``.
        recipe: the stored preprocessing; None where there is none.
        declared: the image input.

    Raises:
        ImageError: not an image.
        UsageError: there is no recipe, or the model takes no photos, or not this one.
    """
    if recipe is None:
        raise UsageError(
            "the file holds no preprocessing for photos; export the model again with"
            " --preprocess PRESET, or prepare the array and use explain"
        )
    if declared.spatial_axes != 2:
        raise UsageError(
            f"the model takes no photos but {declared.describe()}; prepare the array"
            " and use explain"
        )
    pixels = read_photo(photo)
    image, geometry = preprocess(pixels, recipe, declared.layout, declared.dtype)
    if not declared.has_channels:
        image = without_channels(image, declared)
    return PreparedPhoto(declared.fit(image), pixels, geometry)
