"""Read a legacy PyTorch checkpoint without PyTorch, and without running anything in it.

In: the bytes of a file that ``torch.save`` wrote before PyTorch 1.6 (five pickles, then the raw
storages). Out: a dict from name to `numpy.ndarray`.

A pickle is a program. This reader interprets it with an allow list of exactly the names that a
state dict needs; each is bound to a harmless stand-in defined here, so no callable of the file's
choosing ever runs. Anything else is refused by name.

Source: ``torch/serialization.py``, ``_legacy_save`` and ``_legacy_load``.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
ZIP_SIGNATURE = b"PK\x03\x04"

STORAGE_DTYPES: Mapping[str, str] = {
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
    "ShortStorage": "<i2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
}
"""Storage class in module ``torch`` -> NumPy dtype of its elements, little-endian."""


class CheckpointError(Exception):
    """The file is no legacy checkpoint, is damaged, or asks for something that is refused."""


# The stand-ins are NamedTuples, and _Rebuild has no attributes: the BUILD instruction of a pickle
# sets attributes on whatever came before, which it must not be able to do to these.


class _StorageType(NamedTuple):
    dtype: np.dtype[Any]


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype[Any]
    size: int


class _Tensor(NamedTuple):
    """A view on a storage whose bytes come later in the file."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Rebuild:
    """Stand in for ``torch._utils._rebuild_tensor_v2``; checks the types, touches no data."""

    __slots__ = ()

    def __call__(
        self, storage: object, offset: object, shape: object, strides: object, *_unused: object
    ) -> _Tensor:
        """Return the view that the arguments describe.

        Raises:
            CheckpointError: they do not describe a view on a storage.
        """
        if not isinstance(storage, _Storage):
            raise CheckpointError("a tensor refers to something that is no storage")
        numbers = (offset, *_tuple_of(shape), *_tuple_of(strides))
        if not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise CheckpointError(f"storage {storage.key!r} has a negative or non-integer extent")
        start, rank = int(numbers[0]), len(_tuple_of(shape))
        return _Tensor(storage, start, tuple(numbers[1 : 1 + rank]), tuple(numbers[1 + rank :]))


def _tuple_of(value: object) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise CheckpointError("a tensor's shape or strides are not a tuple")
    return value


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    **{("torch", name): _StorageType(np.dtype(dtype)) for name, dtype in STORAGE_DTYPES.items()},
}


class _StateDictUnpickler(pickle.Unpickler):
    """Interpret a pickle with the names of `_ALLOWED` and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a global name.

        Raises:
            CheckpointError: the name is not on the allow list.
        """
        if (module, name) not in _ALLOWED:
            raise CheckpointError(f"refused: the checkpoint asks for {module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that ``('storage', type, key, location, size, view)`` names.

        Raises:
            CheckpointError: any other reference, or a view on another storage.
        """
        match pid:
            case ("storage", _StorageType(dtype=dtype), str(key), str(), int(size), None):
                return _Storage(key, dtype, size)
        raise CheckpointError(f"unknown reference in the checkpoint: {pid!r:.100}")


def _load(stream: io.BytesIO, what: str) -> Any:
    try:
        return _StateDictUnpickler(stream).load()
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything, and all means the same
        raise CheckpointError(f"{what} cannot be read ({error})") from error


def _read_storages(
    stream: io.BytesIO, keys: list[str], storages: Mapping[str, _Storage]
) -> dict[str, npt.NDArray[Any]]:
    arrays = {}
    for key in keys:
        if key not in storages:
            raise CheckpointError(f"storage {key!r} belongs to no tensor")
        storage = storages[key]
        size = int.from_bytes(stream.read(8), "little", signed=True)
        if size != storage.size:
            raise CheckpointError(f"storage {key!r} has {size} elements, expected {storage.size}")
        # sliced by hand: read(n) with a size from the file must not be asked for more than is there
        wanted = size * storage.dtype.itemsize
        data = stream.read(wanted) if wanted <= len(stream.getbuffer()) else b""
        if len(data) != wanted:
            raise CheckpointError(f"the file ends inside storage {key!r}")
        arrays[key] = np.frombuffer(data, dtype=storage.dtype)
    return arrays


def _view(tensor: _Tensor, data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if len(tensor.shape) != len(tensor.strides):
        raise CheckpointError(f"a tensor of storage {tensor.storage.key!r} has too few strides")
    reach = [(n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True)]
    if 0 not in tensor.shape and tensor.offset + sum(reach) >= data.size:
        raise CheckpointError(f"a tensor reaches beyond storage {tensor.storage.key!r}")
    strides = tuple(s * data.itemsize for s in tensor.strides)
    start = data[tensor.offset :]
    return np.lib.stride_tricks.as_strided(start, tensor.shape, strides).copy()


def read_checkpoint(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of a state dict, by name, in the file's order.

    Args:
        content: the whole file.

    Raises:
        CheckpointError: not a legacy checkpoint of a flat state dict, damaged, or it refers to
            a name that is not on the allow list.
    """
    if content.startswith(ZIP_SIGNATURE):
        raise CheckpointError("a zip checkpoint (PyTorch 1.6 or later); this reads the older kind")
    stream = io.BytesIO(content)
    if _load(stream, "the magic number") != MAGIC_NUMBER:
        raise CheckpointError("not a PyTorch checkpoint: the magic number is missing")
    if _load(stream, "the protocol version") != PROTOCOL_VERSION:
        raise CheckpointError("unknown protocol version")
    system = _load(stream, "the system description")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("the checkpoint was not written on a little-endian machine")
    state = _load(stream, "the state dict")
    keys = _load(stream, "the list of storages")
    if not isinstance(state, dict) or not all(isinstance(v, _Tensor) for v in state.values()):
        raise CheckpointError("the checkpoint is not a flat state dict of tensors")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError("the list of storages is damaged")
    arrays = _read_storages(stream, keys, {t.storage.key: t.storage for t in state.values()})
    missing = [name for name, tensor in state.items() if tensor.storage.key not in arrays]
    if missing:
        raise CheckpointError(f"no data for {', '.join(missing[:3])}")
    return {str(name): _view(t, arrays[t.storage.key]) for name, t in state.items()}
