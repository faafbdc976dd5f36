"""What a model takes beside the images: checked, and told apart into per image and shared."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnx_gradcam.errors import UsageError, nearest_names
from onnx_gradcam.runtime.image_input import DTYPES

Feeds = dict[str, NDArray[Any]]
Values = Mapping[str, ArrayLike]

_OTHER_DTYPES: Mapping[str, Any] = {
    "tensor(bool)": np.bool_,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(string)": np.object_,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
}


@dataclass(frozen=True)
class ExtraInputs:
    """The inputs beside images and class.

    Attributes:
        required: node arguments of those that must be fed, by name.
        overridable: names of initializers that may be fed.
    """

    required: Mapping[str, Any]
    overridable: Collection[str]

    def checked(self, given: Values) -> Feeds:
        """Return the values in the dtypes that the model declares.

        Raises:
            UsageError: one is missing, unknown, or cannot be converted.
        """
        if not given and not self.required:
            return {}
        known = {*self.required, *self.overridable}
        for name in given:
            if name not in known:
                hint = nearest_names(name, known)
                raise UsageError(f"the model has no extra input {name!r}{hint}")
        missing = [name for name in self.required if name not in given]
        if missing:
            raise UsageError(
                f"the model also needs input {', '.join(map(repr, missing))}; pass"
                " extra_inputs={name: array} (on the command line: --input NAME=FILE.npy)"
            )
        return {name: self._as_declared(name, value) for name, value in given.items()}

    def _as_declared(self, name: str, value: ArrayLike) -> NDArray[Any]:
        node = self.required.get(name)
        kind = node.type if node is not None else ""
        dtype = DTYPES.get(kind, _OTHER_DTYPES.get(kind))
        try:
            return np.asarray(value, dtype=dtype)
        except (TypeError, ValueError) as error:
            raise UsageError(f"extra input {name!r} does not fit {kind}: {error}") from error

    def per_image(self, name: str, value: NDArray[Any], images: int, batch: int | None) -> bool:
        """Return whether the first axis of a value runs over the images.

        Args:
            name: of the input.
            value: what is fed.
            images: how many there are.
            batch: the fixed batch size, None where any goes.
        """
        if value.shape[:1] != (images,):
            return False
        node = self.required.get(name)
        first = node.shape[0] if node is not None and node.shape else None
        return not isinstance(first, int) or first < 1 or first == batch

    def for_each_class(self, given: Values, classes: int, images: int = 1) -> Values:
        """Return the values that belong to an image once for each of its classes."""
        return {
            name: np.repeat(np.asarray(value), classes, axis=0)
            if self._has_rows(name) and np.shape(value)[:1] == (images,)
            else value
            for name, value in given.items()
        }

    def of_image(self, given: Values, row: int, images: int) -> Values:
        """Return the values of one image of several."""
        return {
            name: np.asarray(value)[row : row + 1]
            if self._has_rows(name) and np.shape(value)[:1] == (images,)
            else value
            for name, value in given.items()
        }

    def _has_rows(self, name: str) -> bool:
        """Return whether an input may have a row per image."""
        node = self.required.get(name)
        return node is not None and bool(node.shape) and not isinstance(node.shape[0], int)
