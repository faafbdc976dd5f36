"""Photos and arrays in, samples out: prepared images, the class to explain, where the object is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnx_gradcam.arrays import SUFFIX, read_array
from onnx_gradcam.errors import ClassNotFoundError, ImageError, UsageError
from onnx_gradcam.evaluation.annotations import Annotations, mask_on_input
from onnx_gradcam.evaluation.prediction import Images, Masks
from onnx_gradcam.runtime import Explainer
from onnx_gradcam.runtime.classes import ClassResolver
from onnx_gradcam.runtime.photo import read_photo
from onnx_gradcam.runtime.preprocess import CropGeometry, preprocess


@dataclass(frozen=True, eq=False)
class Sample:
    """One image and one class of it.

    Attributes:
        name: how to call it.
        image: float32 ``(C, *spatial)``, prepared as the model takes it.
        wanted: the class to explain: its index, or -k for the k-th highest score.
        mask: bool ``(*spatial)``, true on the object of that class; None where nobody says.
    """

    name: str
    image: Images
    wanted: int = -1
    mask: Masks | None = None


def read_samples(
    explainer: Explainer,
    file: Path,
    *,
    wanted: int | str | None = None,
    annotations: Annotations | None = None,
) -> Iterator[Sample]:
    """Yield the samples of a photo or of an array file.

    With annotations, one per label of the photo: the label's class is explained where the model
    knows one of that name, else `wanted`, and the mask is that of the label's objects.

    Args:
        explainer: the file that will explain them; it prepares photos.
        file: a photo, or a .npy file of prepared images.
        wanted: the class to explain in all; None for the highest score.
        annotations: where the objects are.

    Raises:
        ImageError: no image, or no array that fits the model.
        ClassNotFoundError: `wanted` is out of range or unknown.
        UsageError: the file cannot prepare photos, or a photo has no boxes.
    """
    resolver = ClassResolver(
        explainer.num_classes, explainer.labels, explainer.metadata.class_input
    )
    default = resolver.resolve(wanted)
    if file.suffix == SUFFIX:
        if annotations is not None:
            raise UsageError(
                f"{file}: boxes are for photos; an array has no pixels to find them by"
            )
        for row, image in enumerate(_read_images(explainer, file)):
            yield Sample(f"{file.name}[{row}]", image, default)
        return
    image, geometry = _prepare(explainer, file)
    if annotations is None:
        yield Sample(file.name, image, default)
        return
    for label, objects in annotations.of(file).items():
        named = _index(resolver, label) if wanted is None else None
        name = file.name if label is None else f"{file.name}: {label}"
        whole = np.any([item.on(geometry.photo_size) for item in objects], axis=0)
        mask = mask_on_input(whole, geometry)
        yield Sample(name, image, default if named is None else named, mask)


def _index(resolver: ClassResolver, label: str | None) -> int | None:
    """Return the index of the class of that name, None where the model knows none."""
    if label is None or resolver.fixed is not None:
        return None
    try:
        return resolver.resolve(label)
    except ClassNotFoundError:
        return None


def _read_images(explainer: Explainer, file: Path) -> Images:
    declared = explainer.image_input
    try:
        batch = declared.fit(read_array(file))
    except UsageError as error:
        text = str(error)
        raise ImageError(text if str(file) in text else f"{file}: {text}") from error
    return declared.channels_first(batch).astype(np.float32)


def _prepare(explainer: Explainer, file: Path) -> tuple[Images, CropGeometry]:
    """Return a photo as the model takes it, channels first, and its geometry.

    Raises:
        UsageError: the file holds no preprocessing, or the model takes no such pictures.
    """
    declared = explainer.image_input
    if explainer.preprocessing is None or declared.spatial_axes != 2:
        raise UsageError(
            "the file holds no preprocessing for photos; export the model again with --preprocess"
            " PRESET, or give prepared images as .npy"
        )
    image, geometry = preprocess(
        read_photo(file), explainer.preprocessing, declared.layout, declared.dtype
    )
    batch = declared.fit(image)  # a grey picture (1, H, W) is a batch where there are no channels
    if len(batch) != 1:
        raise UsageError(f"the model takes grey pictures {declared.describe()}, not colours")
    return declared.channels_first(batch)[0].astype(np.float32), geometry
