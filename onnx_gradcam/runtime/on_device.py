"""Arrays that stay in the memory of a device until somebody reads them.

`OnDevice` stands where an array would: it knows its shape and type, and fetches the values when
anything else is asked of it. A class that `reads_late` hands such fields out as arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Piece = tuple[Any, int]
"""An ``onnxruntime.OrtValue``, and how many of its first rows count."""


class OnDevice:
    """An array ``(N, ...)`` on a device. One may be shared by threads.

    Attributes:
        shape: its shape.
        dtype: its type.
        home: what made it; it outlives the values, which lie in its memory.
    """

    def __init__(self, pieces: Sequence[Piece], dtype: np.dtype[Any], home: Any) -> None:
        """Take the values, which nothing else may write to.

        Args:
            pieces: at least one, of equal shape beyond the rows.
            dtype: of the values.
            home: a `device_run.DeviceRun`.
        """
        rows = sum(kept for _, kept in pieces)
        self.shape: tuple[int, ...] = (rows, *pieces[0][0].shape()[1:])
        self.dtype, self.home = dtype, home
        self._pieces: Sequence[Piece] | None = tuple(pieces)
        self._array: Array | None = None
        self._lock = Lock()

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def pieces(self) -> Sequence[Piece] | None:
        """The values on the device; None once they have been fetched."""
        return self._pieces

    def numpy(self) -> Array:
        """Return the values; the first call fetches them and frees the memory of the device."""
        with self._lock:
            if self._array is None:
                assert self._pieces is not None, "they are in one place or the other"
                parts = [value.numpy()[:kept] for value, kept in self._pieces]
                self._array = np.concatenate(parts) if len(parts) > 1 else parts[0]
                self._pieces = None
            return self._array

    def first(self, rows: int) -> OnDevice:
        """Return the first rows of one piece without fetching them; there must be as many."""
        pieces = self._pieces
        assert pieces is not None, "what has just been made nobody has read"
        ((value, _),) = pieces
        return OnDevice([(value, rows)], self.dtype, self.home)

    def astype(self, dtype: Any, copy: bool = True) -> Array | OnDevice:
        """Return the values in another type; itself where it has that type and may be shared."""
        if np.dtype(dtype) == self.dtype and not copy:
            return self
        return self.numpy().astype(dtype, copy=copy)

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return the values for NumPy, whose functions so take this as the array that it is."""
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __getitem__(self, index: Any) -> Any:
        """Return some of the values."""
        return self.numpy()[index]

    def __getattr__(self, name: str) -> Any:
        """Return anything else that arrays have, of the values.

        Raises:
            AttributeError: arrays have it not.
        """
        if name.startswith("_"):  # what copying and pickling look for
            raise AttributeError(name)
        return getattr(self.numpy(), name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how it is pickled and copied: as the array."""
        return np.asarray, (self.numpy(),)


def joined(parts: Sequence[Any]) -> Any:
    """Return arrays concatenated along the first axis; those on a device stay there."""
    if len(parts) == 1:
        return parts[0]
    pieces = [p.pieces if isinstance(p, OnDevice) else None for p in parts]
    if None in pieces:
        return np.concatenate(parts)
    first: OnDevice = parts[0]
    every = [piece for some in pieces for piece in some or ()]
    return OnDevice(every, first.dtype, first.home)


def fetched(value: Any) -> Any:
    """Return an array for an array, wherever it lies."""
    return value.numpy() if isinstance(value, OnDevice) else value


class _Late:
    """A field that may hold an `OnDevice`, and gives an array to whoever reads it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            raise AttributeError(self._name)
        return fetched(vars(instance)[self._name])

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self._name] = value


Class = TypeVar("Class", bound=type)


def reads_late(*names: str) -> Callable[[Class], Class]:
    """Return a decorator of data classes whose fields of these names may hold an `OnDevice`."""

    def decorate(decorated: Class) -> Class:
        for name in names:
            setattr(decorated, name, _Late(name))
        return decorated

    return decorate
