"""The checkpoint reader on files that the tests write themselves, with plain pickle."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tools.torch_checkpoint import (
    MAGIC_NUMBER,
    PROTOCOL_VERSION,
    CheckpointError,
    read_checkpoint,
)


class Global:
    """Pickles as the bare name ``module.name``, which need not exist here."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self, *arguments: Any) -> None:
        """Never called; pickle wants a callable in front of REDUCE."""


class Call:
    """Pickles as the call ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


class Storage:
    def __init__(self, kind: str, key: str, size: int, view: Any = None) -> None:
        self.pid = ("storage", Global("torch", kind), key, "cpu", size, view)


class Pickler(pickle._Pickler):  # the Python one: its save methods can be replaced by type
    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, Storage) else None

    def save_bare_name(self, obj: Global) -> None:
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        self.memoize(obj)

    dispatch[Global] = save_bare_name


def dump(value: Any) -> bytes:
    stream = io.BytesIO()
    Pickler(stream, 2).dump(value)
    return stream.getvalue()


REBUILD = Global("torch._utils", "_rebuild_tensor_v2")
FLOATS = np.arange(12, dtype="<f4")


def tensor(storage: Storage, shape: Any, strides: Any, offset: Any = 0) -> Call:
    return Call(REBUILD, storage, offset, shape, strides, False, Call(OrderedDict))


def checkpoint(
    state: Any,
    storages: dict[str, np.ndarray] | None = None,
    *,
    magic: Any = MAGIC_NUMBER,
    protocol: Any = PROTOCOL_VERSION,
    little_endian: Any = True,
) -> bytes:
    storages = {"0": FLOATS} if storages is None else storages
    parts = [dump(magic), dump(protocol), dump({"little_endian": little_endian}), dump(state)]
    parts.append(dump(list(storages)))
    for data in storages.values():
        parts += [data.size.to_bytes(8, "little"), data.tobytes()]
    return b"".join(parts)


def state_of(**tensors: Any) -> Any:
    return OrderedDict(tensors)


def good() -> bytes:
    return checkpoint(state_of(w=tensor(Storage("FloatStorage", "0", 12), (3, 4), (4, 1))))


def test_tensors_come_back_by_name_with_shape_and_type() -> None:
    longs = np.array([7], "<i8")
    content = checkpoint(
        state_of(
            w=tensor(Storage("FloatStorage", "0", 12), (3, 4), (4, 1)),
            count=tensor(Storage("LongStorage", "1", 1), (), ()),
        ),
        {"1": longs, "0": FLOATS},
    )
    found = read_checkpoint(content)
    assert list(found) == ["w", "count"]
    np.testing.assert_array_equal(found["w"], FLOATS.reshape(3, 4))
    assert found["w"].dtype == np.float32
    assert found["count"] == 7
    assert found["count"].dtype == np.int64
    assert found["count"].shape == ()


def test_views_keep_offset_strides_and_sharing() -> None:
    storage = Storage("FloatStorage", "0", 12)
    content = checkpoint(
        state_of(turned=tensor(storage, (4, 2), (1, 4), 4), row=tensor(storage, (4,), (1,), 8))
    )
    found = read_checkpoint(content)
    np.testing.assert_array_equal(found["turned"], FLOATS.reshape(3, 4)[1:].T)
    np.testing.assert_array_equal(found["row"], [8, 9, 10, 11])


class Marker:
    """Leaves a file behind if it is ever unpickled by running what it asks for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_runs_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "was-here"
    pickle.loads(pickle.dumps(Marker(trap)))
    assert trap.is_dir()  # the trap works
    trap.rmdir()
    for content in (
        checkpoint(state_of(w=Marker(trap))),
        checkpoint(Marker(trap)),
        checkpoint(state_of(), magic=Marker(trap)),
    ):
        with pytest.raises(CheckpointError, match=r"refused: the checkpoint asks for \w+\.mkdir"):
            read_checkpoint(content)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("os", "system"),
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "namedtuple"),
        ("torch", "load"),
        ("tools.torch_checkpoint", "_rebuild_tensor"),
        ("copyreg", "_reconstructor"),
    ],
)
def test_names_off_the_allow_list_are_refused(module: str, name: str) -> None:
    with pytest.raises(CheckpointError, match=f"refused: .* {module}.{name}"):
        read_checkpoint(checkpoint(state_of(w=Call(Global(module, name), "1"))))


def test_extension_codes_are_refused_too() -> None:
    copyreg.add_extension("os", "getcwd", 240)
    try:
        call = pickle.EXT1 + bytes([240]) + pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.STOP
        with pytest.raises(CheckpointError, match=r"refused: the checkpoint asks for os\.getcwd"):
            read_checkpoint(call)
    finally:
        copyreg.remove_extension("os", "getcwd", 240)


@pytest.mark.parametrize(
    "name", ["torch FloatStorage", "torch._utils _rebuild_tensor_v2", "collections OrderedDict"]
)
@pytest.mark.parametrize("slots", [False, True])
def test_a_pickle_cannot_alter_what_stands_in_for_the_names(name: str, slots: bool) -> None:
    attributes: Any = {"dtype": "O", "__call__": "x", "__defaults__": (1,)}
    state = pickle.dumps((None, attributes) if slots else attributes, 0)[:-1]
    attack = pickle.GLOBAL + name.replace(" ", "\n").encode() + b"\n" + state + pickle.BUILD
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(attack + pickle.STOP)
    assert read_checkpoint(good())["w"].dtype == np.float32


def test_every_truncation_is_an_error() -> None:
    content = good()
    read_checkpoint(content)
    for length in range(len(content)):
        with pytest.raises(CheckpointError):
            read_checkpoint(content[:length])


STORAGE = Storage("FloatStorage", "0", 12)
DAMAGED = {
    "the older kind": b"PK\x03\x04" + good(),
    "the magic number is missing": checkpoint(state_of(), magic=1),
    "unknown protocol version": checkpoint(state_of(), protocol=1002),
    "little-endian": checkpoint(state_of(), little_endian=False),
    "not a flat state dict": checkpoint(state_of(w=3)),
    "list of storages is damaged": checkpoint(state_of(), {3: FLOATS}),  # type: ignore[dict-item]
    "belongs to no tensor": checkpoint(state_of()),
    "has 12 elements, expected 11": checkpoint(
        state_of(w=tensor(Storage("FloatStorage", "0", 11), (1,), (1,)))
    ),
    "no data for w": checkpoint(state_of(w=tensor(STORAGE, (12,), (1,))), {}),
    "reaches beyond": checkpoint(state_of(w=tensor(STORAGE, (3, 4), (4, 1), 1))),
    "reaches beyond storage": checkpoint(state_of(w=tensor(STORAGE, (2,), (10**15,)))),
    "negative or non-integer": checkpoint(state_of(w=tensor(STORAGE, (2,), (1,), -1))),
    "non-integer extent": checkpoint(state_of(w=tensor(STORAGE, (2.0,), (1,)))),
    "not a tuple": checkpoint(state_of(w=tensor(STORAGE, [2], (1,)))),
    "too few strides": checkpoint(state_of(w=tensor(STORAGE, (3, 4), (4,)))),
    "no storage": checkpoint(state_of(w=Call(REBUILD, 1, 0, (), ()))),
    "unknown reference": checkpoint(
        state_of(w=tensor(Storage("FloatStorage", "0", 12, ("1", 0, 4)), (1,), (1,)))
    ),
    "cannot be read": checkpoint(state_of(w=Call(REBUILD, STORAGE))),
}


@pytest.mark.parametrize("reason", DAMAGED)
def test_damage_is_named(reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(DAMAGED[reason])


def test_a_huge_storage_in_a_small_file_is_refused_without_reserving_memory() -> None:
    huge = 2**48
    content = checkpoint(state_of(w=tensor(Storage("FloatStorage", "0", huge), (1,), (1,))), {})
    content = content.removesuffix(dump([])) + dump(["0"]) + huge.to_bytes(8, "little")
    with pytest.raises(CheckpointError, match="the file ends inside storage '0'"):
        read_checkpoint(content)
