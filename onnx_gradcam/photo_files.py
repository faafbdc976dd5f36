"""Photos or arrays in, files out: for each a picture of where the model looked, and the raw maps.

An array file ``x.npy`` holds what the model takes, prepared: one image or a batch of them. For
``cat.jpg`` that is ``cat.cam.png`` (all explained classes in one panel) and, per class,
``cat.cam-281.npy``: the raw map of class 281, float32 ``(h, w)``, before ReLU, normalisation and
resize.

Photos are decoded, explained, drawn and encoded by several threads ahead of the one that writes
their files, in order: when a photo is reported, its files are there, and none of a later one.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_gradcam.arrays import SUFFIX, read_array
from onnx_gradcam.errors import ImageError, UsageError
from onnx_gradcam.files import make_folder, refuse_existing, write_whole
from onnx_gradcam.pipeline.cores import divide
from onnx_gradcam.pipeline.overlap import overlapped
from onnx_gradcam.render import Picture, encode_jpeg, encode_png, explanation_panel
from onnx_gradcam.render_array import array_panel
from onnx_gradcam.runtime.photo import read_photo

if TYPE_CHECKING:
    from onnx_gradcam.runtime import Explainer, Explanation
    from onnx_gradcam.runtime.classes import ClassId
    from onnx_gradcam.runtime.options import ExplainOptions

ENCODERS: Mapping[str, Callable[[Picture], bytes]] = {"png": encode_png, "jpg": encode_jpeg}
"""Ending of the pictures -> how to encode them; JPEG takes a tenth of the time."""

ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
"""What the photos of a folder end in, in upper or lower case."""


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
        picture: what was drawn; None where no picture was wanted.
        classes: in the order asked for.
        row: which image of an array file that holds several.
    """

    photo: Path
    picture: Path | None
    classes: tuple[ExplainedClass, ...]
    row: int | None = None

    def summary(self) -> str:
        """Return what was found, as text for people."""
        row = "" if self.row is None else f" [{self.row}]"
        shown = self.picture or ", ".join(str(c.raw_map) for c in self.classes)
        lines = [f"{self.photo}{row} -> {shown}"]
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
    pictures: str | None = "png",
    force: bool = False,
    workers: int | None = None,
    **options: Unpack[ExplainOptions],
) -> Generator[ExplainedPhoto | FailedPhoto, None, None]:
    """Explain photos and write what was found; one that is no image does not stop the others.

    Args:
        explainer: a loaded file.
        photos: image files, or .npy files; those of equal names get numbers: ``cat.cam.png``,
            ``cat-2.cam.png``.
        folder: where the files go; created when missing.
        classes: indices, ranks or labels to explain.
        top_k: the k highest scores as well; without any of these, the highest one.
        above: every class with a higher score as well, the highest one where there is none.
        method: as in `Explainer.explain`.
        pictures: one of `ENCODERS`, or None to write raw maps alone.
        force: files may be overwritten.
        workers: how many images are explained at a time; without it as `pipeline.divide` says.
        options: as in `Explainer.explain`, the same for all photos; extra inputs with a row per
            image for an array file of several.

    Yields:
        For each photo in order, once its files are written, what was found; or why it could not
        be read.

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
    make_folder(folder)
    names = picture_paths(photos, folder, pictures or "png")
    if pictures is not None:
        for picture in names:
            refuse_existing(picture, force)
    job = _Job(explainer, _Asked(wanted, above), {"method": method, **options}, extra, pictures)
    if workers is None:
        division = divide(len(photos), method or explainer.default_method)
        workers = division.workers_on(explainer.providers)
    pieces = job.pieces(zip(photos, names, strict=True))
    with closing(overlapped(job.drafted, pieces, workers)) as drafts:
        for draft in drafts:
            yield draft if isinstance(draft, FailedPhoto) else _write(draft, force)


Extra = Mapping[str, ArrayLike]
How = Mapping[str, Any]


@dataclass(frozen=True)
class _Item:
    """An explanation and how to draw it."""

    explanation: Explanation
    draw: Callable[[list[int]], Picture]


@dataclass(frozen=True)
class _Piece:
    """One image to explain, and how.

    Attributes:
        photo: the file.
        picture: where its picture goes, or would go.
        explain: does the work.
        row: which image of an array file that holds several.
    """

    photo: Path
    picture: Path
    explain: Callable[[], _Item]
    row: int | None = None


@dataclass(frozen=True)
class _Draft:
    """An image that was explained, and the files that tell of it."""

    explained: ExplainedPhoto
    files: Mapping[Path, bytes]


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


@dataclass(frozen=True)
class _Job:
    """What is done with each image."""

    explainer: Explainer
    asked: _Asked
    how: How
    extra: Extra
    pictures: str | None

    def pieces(self, photos: Iterator[tuple[Path, Path]]) -> Iterator[_Piece | FailedPhoto]:
        """Yield the images of photos and array files; an array file is read when its turn comes."""
        for photo, picture in photos:
            if photo.suffix != SUFFIX:
                yield _Piece(photo, picture, partial(self._photo, photo))
                continue
            try:
                batch = self._array(photo)
            except ImageError as error:
                yield FailedPhoto(photo, error)
                continue
            for row in range(len(batch)):
                explain = partial(self._row, batch, row)
                if len(batch) == 1:
                    yield _Piece(photo, picture, explain)
                else:
                    stem = picture.name.removesuffix(f".cam{picture.suffix}")
                    own = picture.with_name(f"{stem}.{row}.cam{picture.suffix}")
                    yield _Piece(photo, own, explain, row)

    def drafted(self, piece: _Piece | FailedPhoto) -> _Draft | FailedPhoto:
        """Return an image explained, drawn and encoded; this is what threads do."""
        if isinstance(piece, FailedPhoto):
            return piece
        try:
            return _draft(piece, piece.explain(), self.pictures)
        except ImageError as error:
            return FailedPhoto(piece.photo, error)

    def _photo(self, photo: Path) -> _Item:
        explain = partial(self.explainer.explain_image, extra_inputs=self.extra)
        source: Any = photo
        if self.asked.above is not None:  # two runs of one photo
            source = read_photo(photo)
        classes = self.asked.classes(lambda: np.asarray(explain(source).scores[0]))
        explanation = explain(source, classes, **self.how)
        return _Item(explanation, partial(explanation_panel, explanation))

    def _array(self, file: Path) -> NDArray[Any]:
        """Return the images of an array file, in the model's own layout and dtype.

        Raises:
            ImageError: no array, or none that fits the model.
        """
        try:
            return self.explainer.image_input.fit(read_array(file))
        except UsageError as error:
            raise ImageError(
                f"{file}: {error}" if str(file) not in str(error) else str(error)
            ) from error

    def _row(self, batch: NDArray[Any], row: int) -> _Item:
        explainer, image = self.explainer, batch[row]
        own = explainer.extra_inputs.of_image(self.extra, row, len(batch))
        classes = self.asked.classes(lambda: explainer.predict(image, extra_inputs=own)[0])
        explanation = explainer.explain_classes(image, classes, extra_inputs=own, **self.how)
        sample = explainer.image_input.channels_first(batch[row : row + 1])[0]
        return _Item(explanation, partial(array_panel, explanation, sample))


def photos_of(paths: Sequence[Path]) -> list[Path]:
    """Return files: for a folder the photos right in it, by name; anything else as it is.

    Pictures of an earlier run are no photos. A folder without any stays, for whoever reads it to
    say so.
    """
    photos: list[Path] = []
    for path in paths:
        inside = path.is_dir() and sorted(filter(is_photo, path.iterdir()))
        photos += inside or [path]
    return photos


def is_photo(path: str | Path) -> bool:
    """Return whether a file is named like a photo, and not like a picture of an earlier run."""
    stem, ending = os.path.splitext(path)  # noqa: PTH122 # of a million files, without Paths
    return ending.lower() in ENDINGS and not stem.endswith(".cam")


def picture_paths(photos: Sequence[Path], folder: Path, ending: str = "png") -> list[Path]:
    """Return a picture's path for each photo: no two the same, none that of a photo itself."""
    places: dict[Path, Path] = {}
    taken = {_key(photo, places) for photo in photos}
    paths = []
    for photo in photos:
        path = folder / f"{photo.stem}.cam.{ending}"
        number = 2
        while _key(path, places) in taken:
            path = folder / f"{photo.stem}-{number}.cam.{ending}"
            number += 1
        taken.add(_key(path, places))
        paths.append(path)
    return paths


def _key(path: Path, places: dict[Path, Path]) -> str:
    """Return what tells files apart, also where upper and lower case do not.

    Args:
        path: the file.
        places: folders that were resolved before; asking the disk takes a while.
    """
    if path.is_symlink():
        return str(path.resolve()).casefold()
    folder = path.parent
    if folder not in places:
        places[folder] = folder.resolve()
    return str(places[folder] / path.name).casefold()


def _draft(piece: _Piece, item: _Item, pictures: str | None) -> _Draft:
    explanation, picture = item.explanation, piece.picture
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
        path = picture.with_name(f"{picture.stem}-{key}.npy")
        found[key] = ExplainedClass(index, name, score, path, explanation.notes[row])
        files[path] = _npy(explanation.raw_maps[row])
        rows.append(row)
    drawn = None
    if pictures is not None:
        drawn = picture
        files[picture] = ENCODERS[pictures](item.draw(rows))
    return _Draft(ExplainedPhoto(piece.photo, drawn, tuple(found.values()), piece.row), files)


def _write(draft: _Draft, force: bool) -> ExplainedPhoto:
    for path in draft.files:
        refuse_existing(path, force)
    for path, data in draft.files.items():
        write_whole(path, data, force=force)
    return draft.explained


def _suffix(explanation: Explanation, row: int) -> str:
    """Return what tells the file of a map from those of others: class and box, or a number."""
    index = int(explanation.classes[row])
    key = str(index) if index >= 0 else f"{explanation.class_names[row].split()[0]}-{row}"
    return key if explanation.boxes is None else f"{key}-box-{explanation.boxes[row]}"


def _npy(array: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
