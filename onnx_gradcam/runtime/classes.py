"""Which class to explain: indices, ranks and label names become one int64 per image."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import ClassNotFoundError, UsageError, nearest_names

ClassId = int | str
ClassIds = ClassId | Sequence[ClassId] | NDArray[np.integer[Any]]
HIGHEST = -1
FIXED_PREFIX = "fixed:"


@dataclass(frozen=True)
class ClassResolver:
    """What an exported file knows about its classes.

    Attributes:
        num_classes: K.
        labels: K names, or None.
        class_input: ``optional``, ``required`` or ``fixed:K``, from the metadata.
    """

    num_classes: int
    labels: tuple[str, ...] | None
    class_input: str

    @property
    def fixed(self) -> int | None:
        """The only class this file explains, None when the caller may choose."""
        if self.class_input.startswith(FIXED_PREFIX):
            return int(self.class_input.removeprefix(FIXED_PREFIX))
        return None

    def per_image(self, classes: ClassIds | None, images: int) -> NDArray[np.int64]:
        """Return one class per image, int64 ``(N,)``; -k is still the k-th highest score.

        Raises:
            ClassNotFoundError: an index out of range, or an unknown label.
            UsageError: not one class per image, an ambiguous label, or a class other than the
                one that was fixed at export.
        """
        if is_single(classes):
            return np.full(images, self.resolve(classes), np.int64)
        resolved = self.several(classes)
        if len(resolved) != images:
            raise UsageError(
                f"{len(resolved)} classes for {images} images; give one class for all, or one each"
            )
        return resolved

    def several(self, classes: ClassIds | None) -> NDArray[np.int64]:
        """Return the classes asked for, int64 ``(M,)``; one for None or a single class.

        Raises:
            ClassNotFoundError: an index out of range, or an unknown label.
            UsageError: as in `per_image`.
        """
        items: list[Any] = [classes] if is_single(classes) else list(classes)  # type: ignore[arg-type]
        return np.array([self.resolve(item) for item in items], np.int64)

    def resolve(self, item: object) -> int:
        """Return the index or rank for an index, a rank, a label, or None for the default.

        A label may be one of several names of a class that are separated by commas; upper and
        lower case do not matter. A number in a string counts where no label is called so.

        Raises:
            ClassNotFoundError: out of range, or unknown.
            UsageError: ambiguous, not a class at all, or not the one fixed at export.
        """
        if item is None:
            return HIGHEST if self.fixed is None else self.fixed
        index = self._find_label(item) if isinstance(item, str) else _as_index(item)
        if not -self.num_classes <= index < self.num_classes:
            raise ClassNotFoundError(
                f"class {index} is out of range: the model has {self.num_classes} classes, 0 to"
                f" {self.num_classes - 1} (or -1 for the highest score, -2 for the second, ...)"
            )
        if self.fixed is not None and index != self.fixed:
            raise UsageError(
                f"this file explains class {self.fixed} only, not {index}; export the model again"
                " with --class-input optional"
            )
        return index

    def _find_label(self, name: str) -> int:
        labels = self.labels or ()
        for is_called in (_exactly, _in_any_case, _by_a_synonym):
            found = [i for i, label in enumerate(labels) if is_called(label, name)]
            if len(found) == 1:
                return found[0]
            if found:
                raise UsageError(
                    f"label {name!r} is the name of classes {', '.join(map(str, found))};"
                    " give the index"
                )
        try:
            return int(name)
        except ValueError:
            pass
        if self.labels is None:
            raise ClassNotFoundError(
                f"label {name!r} is unknown: the file holds no labels; give the class index, or"
                " export the model again with --labels FILE"
            )
        raise ClassNotFoundError(f"no class is called {name!r}{nearest_names(name, self.labels)}")


def is_single(classes: ClassIds | None) -> bool:
    """Return whether this is one class (or None), not a sequence of them."""
    if isinstance(classes, np.ndarray):
        return classes.ndim == 0
    return isinstance(classes, (str, bytes)) or not isinstance(classes, Sequence)


def _exactly(label: str, name: str) -> bool:
    return label == name


def _in_any_case(label: str, name: str) -> bool:
    return label.casefold().strip() == name.casefold().strip()


def _by_a_synonym(label: str, name: str) -> bool:
    return any(_in_any_case(part, name) for part in label.split(","))


def _as_index(item: object) -> int:
    if isinstance(item, (bool, np.bool_)):
        raise UsageError(f"a class is an index or a label, not {item!r}")
    try:
        return operator.index(item)  # type: ignore[arg-type]
    except TypeError:
        raise UsageError(f"a class is an index or a label, not {item!r}") from None
