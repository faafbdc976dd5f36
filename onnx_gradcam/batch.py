"""Photos or arrays in, files out: for each a picture of where the model looked, and the raw maps.

An array file ``x.npy`` holds what the model takes, prepared: one image or a batch of them. For
``cat.jpg`` that is ``cat.cam.png`` (all explained classes in one panel) and, per class,
``cat.cam-281.npy``: the raw map of class 281, float32 ``(h, w)``, before ReLU, normalisation and
resize.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_gradcam.arrays import SUFFIX, read_array
from onnx_gradcam.errors import ImageError, UsageError
from onnx_gradcam.files import make_folder, refuse_existing, write_whole
from onnx_gradcam.render import Picture, encode_png, explanation_panel
from onnx_gradcam.render_array import array_panel

if TYPE_CHECKING:
    from onnx_gradcam.runtime import Explainer, Explanation
    from onnx_gradcam.runtime.classes import ClassId
    from onnx_gradcam.runtime.options import ExplainOptions


@dataclass(frozen=True)
class ExplainedClass:
    """One heat map.

    Attributes:
        index: the class.
        name: its label, or ``class 281`` where the file holds none.
        score: the model's own output for it.
        raw_map: the .npy file.
        note: why the map shows nothing; empty where it shows something.
    """

    index: int
    name: str
    score: float
    raw_map: Path
    note: str = ""


@dataclass(frozen=True)
class ExplainedPhoto:
    """A photo, or an image of an array file, that was explained.

    Attributes:
        photo: the file.
        picture: what was drawn.
        classes: in the order asked for.
        row: which image of an array file that holds several.
    """

    photo: Path
    picture: Path
    classes: tuple[ExplainedClass, ...]
    row: int | None = None

    def summary(self) -> str:
        """Return what was found, as text for people."""
        row = "" if self.row is None else f" [{self.row}]"
        lines = [f"{self.photo}{row} -> {self.picture}"]
        for c in self.classes:
            lines.append(f"  {c.index:>5}  {c.score:>10.4f}  {c.name}")
            if c.note:
                lines.append(f"{'':>21}empty: {c.note}")
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
    above: float | None = None,
    method: str | None = None,
    force: bool = False,
    **options: Unpack[ExplainOptions],
) -> Iterator[ExplainedPhoto | FailedPhoto]:
    """Explain photos one after another; one that is no image does not stop the others.

    Args:
        explainer: a loaded file.
        photos: image files, or .npy files; those of equal names get numbers: ``cat.cam.png``,
            ``cat-2.cam.png``.
        folder: where the files go; created when missing.
        classes: indices, ranks or labels to explain.
        top_k: the k highest scores as well; without any of these, the highest one.
        above: every class with a higher score as well, the highest one where there is none.
        method: as in `Explainer.explain`.
        force: files may be overwritten.
        options: as in `Explainer.explain`, the same for all photos; extra inputs with a row per
            image for an array file of several.

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
    extra = options.pop("extra_inputs", None) or {}
    how = {"method": method, **options}
    make_folder(folder)
    pictures = picture_paths(photos, folder)
    for picture in pictures:
        refuse_existing(picture, force)
    for photo, picture in zip(photos, pictures, strict=True):
        explain = _explain_array if photo.suffix == SUFFIX else _explain_photo
        try:
            asked = _Asked(wanted, above)
            for item in explain(explainer, photo, asked, how, extra):
                yield _write(item, photo, picture, force)
        except ImageError as error:
            yield FailedPhoto(photo, error)


@dataclass(frozen=True)
class _Item:
    """An explanation, how to draw it, and which image of several it is of."""

    explanation: Explanation
    draw: Callable[[list[int]], Picture]
    row: int | None = None


@dataclass(frozen=True)
class _Asked:
    """The classes named, and the score above which others are wanted too."""

    named: Sequence[ClassId] | None
    above: float | None

    def classes(self, scores: Callable[[], NDArray[np.float32]]) -> Sequence[ClassId] | None:
        """Return the classes to explain of an image with these scores ``(K,)``."""
        if self.above is None:
            return self.named
        found = np.flatnonzero(scores() > self.above).tolist()
        return [*(self.named or ()), *found] or None


Extra = Mapping[str, ArrayLike]
How = Mapping[str, Any]


def _explain_photo(
    explainer: Explainer, photo: Path, wanted: _Asked, how: How, extra: Extra
) -> Iterator[_Item]:
    def scores() -> NDArray[np.float32]:
        all_scores = explainer.explain_image(photo, extra_inputs=extra).scores
        return np.asarray(all_scores[0])

    classes = wanted.classes(scores)
    explanation = explainer.explain_image(photo, classes, extra_inputs=extra, **how)
    yield _Item(explanation, lambda rows: explanation_panel(explanation, rows))


def _explain_array(
    explainer: Explainer, file: Path, wanted: _Asked, how: How, extra: Extra
) -> Iterator[_Item]:
    """Explain each image of an array file.

    Raises:
        ImageError: no array, or none that fits the model.
    """
    try:
        batch = explainer.image_input.fit(read_array(file))
    except UsageError as error:
        raise ImageError(
            f"{file}: {error}" if str(file) not in str(error) else str(error)
        ) from error
    samples = explainer.image_input.channels_first(batch)
    for row in range(len(batch)):
        own = explainer.extra_inputs.of_image(extra, row, len(batch))
        predict = partial(explainer.predict, batch[row], extra_inputs=own)
        classes = wanted.classes(lambda predict=predict: predict()[0])  # type: ignore[misc]
        explanation = explainer.explain_classes(batch[row], classes, extra_inputs=own, **how)
        draw = partial(array_panel, explanation, samples[row])
        yield _Item(explanation, draw, row if len(batch) > 1 else None)


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


def _write(item: _Item, photo: Path, picture: Path, force: bool) -> ExplainedPhoto:
    explanation = item.explanation
    if item.row is not None:
        stem = picture.name.removesuffix(".cam.png")
        picture = picture.with_name(f"{stem}.{item.row}.cam.png")
    found: dict[str, ExplainedClass] = {}
    files: dict[Path, bytes] = {}
    rows = []
    details = zip(
        explanation.classes.tolist(),
        explanation.class_names,
        explanation.class_scores.tolist(),
        strict=True,
    )
    for row, (index, name, score) in enumerate(details):
        key = _suffix(explanation, row)
        if key in found:  # a class that was named and is among the highest scores too
            continue
        path = picture.with_name(f"{picture.name.removesuffix('.png')}-{key}.npy")
        found[key] = ExplainedClass(index, name, score, path, explanation.notes[row])
        files[path] = _npy(explanation.raw_maps[row])
        rows.append(row)
    files[picture] = encode_png(item.draw(rows))
    for path in files:
        refuse_existing(path, force)
    for path, data in files.items():
        write_whole(path, data, force=force)
    return ExplainedPhoto(photo, picture, tuple(found.values()), item.row)


def _suffix(explanation: Explanation, row: int) -> str:
    """Return what tells the file of a map from those of others: class and box, or a number."""
    index = int(explanation.classes[row])
    key = str(index) if index >= 0 else f"{explanation.class_names[row].split()[0]}-{row}"
    return key if explanation.boxes is None else f"{key}-box-{explanation.boxes[row]}"


def _npy(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
