"""Tables of images of every type of column, and what reads single rows of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onnx_gradcam.batch import columns
from onnx_gradcam.batch.columns import value_of
from onnx_gradcam.batch.shards import Shard
from onnx_gradcam.batch.sources import Sources
from onnx_gradcam.errors import ImageError, UsageError

PATHS = ["a.jpg", None, "b.jpg"]


def images(table: Path, **more: Any) -> list[Any]:
    return list(Sources((str(table),), **more).references())


def write(file: Path, /, **arrays: Any) -> Path:
    pq.write_table(pa.table(arrays), file)
    return file


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
        *([pa.string_view()] if hasattr(pa, "string_view") else []),
    ],
    ids=str,
)
def test_paths_of_every_type(tmp_path: Path, kind: Any) -> None:
    (tmp_path / "a.jpg").write_bytes(b"A")
    (tmp_path / "b.jpg").write_bytes(b"B")
    array = pa.array(PATHS, pa.string()).cast(kind) if kind != pa.string() else pa.array(PATHS)
    table = write(tmp_path / "t.parquet", file=array)
    found = images(table, root=str(tmp_path))
    assert [image.name for image in found] == ["a.jpg", f"{table}#1", "b.jpg"]
    assert [found[0].read(), found[2].read()] == [b"A", b"B"]
    with pytest.raises(ImageError, match="no image in this row"):
        found[1].read()


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(),
        pa.large_binary(),
        pa.binary(3),
        pa.dictionary(pa.int32(), pa.binary()),
        *([pa.binary_view()] if hasattr(pa, "binary_view") else []),
    ],
    ids=str,
)
def test_bytes_of_every_type(tmp_path: Path, kind: Any) -> None:
    array = pa.array([b"one", b"two"], pa.binary()).cast(kind)
    found = images(write(tmp_path / "t.parquet", data=array))
    assert [image.read() for image in found] == [b"one", b"two"]


def test_parts_of_structures(tmp_path: Path) -> None:
    rows = [{"left": {"bytes": b"L", "path": "l.jpg"}, "raw": b"R"}, {"left": None, "raw": None}]
    table = write(
        tmp_path / "t.parquet", eyes=pa.array(rows), **{"dot.ted": pa.array([b"1", b"2"])}
    )
    assert [i.read() for i in images(table, column="dot.ted")] == [b"1", b"2"]
    first, second = images(table, column="eyes.left")
    assert (first.name, first.read()) == ("l.jpg", b"L")
    with pytest.raises(ImageError, match="no image in this row"):
        second.read()
    assert images(table, column="eyes.raw")[0].read() == b"R"
    with pytest.raises(UsageError, match=r"'eyes' of .* holds neither paths nor bytes"):
        images(table, column="eyes")


def test_a_table_without_rows(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no images in"):
        images(write(tmp_path / "t.parquet", image=pa.array([], pa.binary())))


def test_paths_that_are_no_utf8(tmp_path: Path) -> None:
    raw = pa.array([b"caf\xe9.jpg", b"b.jpg"])
    texts = pa.StringArray.from_buffers(2, raw.buffers()[1], raw.buffers()[2])
    (tmp_path / "caf\udce9.jpg").write_bytes(b"C")
    found = images(write(tmp_path / "t.parquet", path=texts), root=str(tmp_path))
    assert [image.name for image in found] == ["caf\udce9.jpg", "b.jpg"]
    assert found[0].read() == b"C"


def table_of_bytes(folder: Path, rows: int, group: int = 100, salt: int = 0) -> Path:
    file = folder / "t.parquet"
    data = [bytes([n % 251, salt]) * 50 for n in range(rows)]
    pq.write_table(pa.table({"image": data}), file, row_group_size=group)
    return file


def test_rows_are_read_in_any_order_by_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "KEPT_BYTES", 2000)
    found = images(table_of_bytes(tmp_path, 250))
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(lambda image: image.read(), found + found[::-1]))
    expected = [bytes([n % 251, 0]) * 50 for n in range(250)]
    assert contents == expected + expected[::-1]


def test_a_row_group_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    data = [bytes(1 << 20) for _ in range(300)]
    pages = {"write_batch_size": 4, "use_dictionary": False}
    pq.write_table(pa.table({"image": data}), table, compression="zstd", **pages)
    before = pa.total_allocated_bytes()
    most = 0
    for row in range(300):
        assert len(value_of(str(table), "image", 0, row)) == 1 << 20
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 250 << 20, "of 300 MiB"


def test_one_reader_at_a_time_reads_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of_bytes(tmp_path, 64)
    opened: list[str] = []
    once = columns.opened_table
    monkeypatch.setattr(columns, "opened_table", lambda t: opened.append(t) or once(t))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda image: image.read(), images(table)))
    assert len(opened) == 1


def test_a_table_that_changes_while_it_is_read(tmp_path: Path) -> None:
    found = images(table_of_bytes(tmp_path, 50))
    table_of_bytes(tmp_path, 20)
    assert found[19].read() == bytes([19, 0]) * 50
    for image in found[40:42]:
        with pytest.raises(ImageError, match="has changed while it was read"):
            image.read()
    (tmp_path / "t.parquet").unlink()
    columns._READERS.clear()
    with pytest.raises(ImageError, match="cannot read"):
        found[3].read()


def test_damaged_pages_are_errors_of_their_rows(tmp_path: Path) -> None:
    table = table_of_bytes(tmp_path, 200)
    found = images(table)
    data = bytearray(table.read_bytes())
    place = pq.read_metadata(table).row_group(1).column(0)
    start = place.dictionary_page_offset or place.data_page_offset
    data[start : start + place.total_compressed_size] = b"\xff" * place.total_compressed_size
    table.write_bytes(data)
    assert found[99].read() == bytes([99, 0]) * 50
    for image in found[100:103]:
        with pytest.raises(ImageError, match="cannot read"):
            image.read()


def test_other_bytes_in_the_same_rows_are_other_images(tmp_path: Path) -> None:
    def digest(salt: int) -> str:
        return Shard(0, 0, tuple(images(table_of_bytes(tmp_path, 50, salt=salt)))).digest

    assert digest(0) == digest(0) != digest(1)
