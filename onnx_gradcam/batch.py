"""Photos in, files out: for each photo a picture of where the model looked, and the raw maps.

For ``cat.jpg`` that is ``cat.cam.png`` (all explained classes in one panel) and, per class,
``cat.cam-281.npy``: the raw map of class 281, float32 ``(h, w)``, before ReLU, normalisation and
resize.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnx_gradcam.errors import ImageError, UsageError
from onnx_gradcam.files import make_folder, refuse_existing, write_whole
from onnx_gradcam.render import encode_png, explanation_panel

if TYPE_CHECKING:
    from onnx_gradcam.runtime import Explainer, Explanation
    from onnx_gradcam.runtime.classes import ClassId


@dataclass(frozen=True)
class ExplainedClass:
    """One heat map.

    Attributes:
        index: the class.
        name: its label, or ``class 281`` where the file holds none.
        score: the model's own output for it.
        raw_map: the .npy file.
    """

    index: int
    name: str
    score: float
    raw_map: Path


@dataclass(frozen=True)
class ExplainedPhoto:
    """A photo that was explained: its picture, and its classes in the order asked for."""

    photo: Path
    picture: Path
    classes: tuple[ExplainedClass, ...]

    def summary(self) -> str:
        """Return what was found, as text for people."""
        lines = [f"{self.photo} -> {self.picture}"]
        lines += [f"  {c.index:>5}  {c.score:>10.4f}  {c.name}" for c in self.classes]
        return "\n".join(lines)


@dataclass(frozen=True)
class FailedPhoto:
    """A photo that could not be read."""

    photo: Path
    error: ImageError


def explain_photos(
    explainer: Explainer,
    photos: Sequence[Path],
    folder: Path,
    *,
    classes: Sequence[ClassId] = (),
    top_k: int | None = None,
    method: str = "gradcam",
    force: bool = False,
) -> Iterator[ExplainedPhoto | FailedPhoto]:
    """Explain photos one after another; one that is no image does not stop the others.

    Args:
        explainer: a loaded file.
        photos: image files; those of equal names get numbers: ``cat.cam.png``, ``cat-2.cam.png``.
        folder: where the files go; created when missing.
        classes: indices, ranks or labels to explain.
        top_k: the k highest scores as well; without classes and top_k, the highest one.
        method: name of the CAM method.
        force: files may be overwritten.

    Yields:
        For each photo, once its files are written, what was found; or why it could not be read.

    Raises:
        UsageError: more top scores than classes; what `Explainer.explain_image` refuses besides.
        OutputError: a file exists (without `force`), or the folder cannot be written to.
        WriteError: the disk is full.
    """
    if top_k is not None and top_k > explainer.num_classes:
        raise UsageError(
            f"no {top_k} highest scores: the model has {explainer.num_classes} classes"
        )
    wanted = [*classes, *(-rank for rank in range(1, (top_k or 0) + 1))] or None
    make_folder(folder)
    pictures = picture_paths(photos, folder)
    for picture in pictures:
        refuse_existing(picture, force)
    for photo, picture in zip(photos, pictures, strict=True):
        try:
            explanation = explainer.explain_image(photo, wanted, method)
        except ImageError as error:
            yield FailedPhoto(photo, error)
        else:
            yield _write(explanation, photo, picture, force)


def picture_paths(photos: Sequence[Path], folder: Path) -> list[Path]:
    """Return a picture's path for each photo: no two the same, none that of a photo itself."""
    taken = {_key(photo) for photo in photos}
    paths = []
    for photo in photos:
        path = folder / f"{photo.stem}.cam.png"
        number = 2
        while _key(path) in taken:
            path = folder / f"{photo.stem}-{number}.cam.png"
            number += 1
        taken.add(_key(path))
        paths.append(path)
    return paths


def _key(path: Path) -> str:
    """Return what tells files apart, also where upper and lower case do not."""
    return str(path.resolve()).casefold()


def _write(explanation: Explanation, photo: Path, picture: Path, force: bool) -> ExplainedPhoto:
    found: dict[int, ExplainedClass] = {}
    files: dict[Path, bytes] = {}
    rows = []
    details = zip(
        explanation.classes.tolist(),
        explanation.class_names,
        explanation.class_scores.tolist(),
        strict=True,
    )
    for row, (index, name, score) in enumerate(details):
        if index in found:  # a class that was named and is among the highest scores too
            continue
        path = picture.with_name(f"{picture.name.removesuffix('.png')}-{index}.npy")
        found[index] = ExplainedClass(index, name, score, path)
        files[path] = _npy(explanation.raw_maps[row])
        rows.append(row)
    files[picture] = encode_png(explanation_panel(explanation, rows))
    for path in files:
        refuse_existing(path, force)
    for path, data in files.items():
        write_whole(path, data, force=force)
    return ExplainedPhoto(photo, picture, tuple(found.values()))


def _npy(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
