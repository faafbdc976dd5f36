from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onnx_gradcam.batch.shards import shards
from onnx_gradcam.batch.sources import FileImage, Sources
from onnx_gradcam.errors import ImageError, UsageError


def named(*inputs: str | Path, **more: Any) -> list[str]:
    return [image.name for image in Sources(tuple(map(str, inputs)), **more).references()]


def contents(*inputs: str | Path, **more: Any) -> list[bytes]:
    return [image.read() for image in Sources(tuple(map(str, inputs)), **more).references()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.jpg", "b/10.PNG", "a/1.jpg", "a/x.cam.png", "z.jpg", "notes.md"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "in"


def test_a_folder_stands_for_all_images_in_it(folder: Path) -> None:
    assert named(folder) == [str(folder / n) for n in ("z.jpg", "a/1.jpg", "b/10.PNG", "b/2.jpg")]
    assert contents(folder)[1] == b"a/1.jpg"


def test_a_glob_is_sorted(folder: Path) -> None:
    assert named(f"{folder}/*/*.jpg") == [str(folder / "a/1.jpg"), str(folder / "b/2.jpg")]
    assert len(named(f"{folder}/**/*.jpg")) == 3


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    odd = tmp_path / "cat[1].jpg"
    odd.write_bytes(b"odd")
    assert contents(odd) == [b"odd"]


def test_lists(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = folder / "list.txt"
    listed.write_text(f"a/1.jpg\n\n{folder}/z.jpg\n")
    assert named(listed) == ["a/1.jpg", f"{folder}/z.jpg"]
    assert contents(listed, root=str(folder)) == [b"a/1.jpg", b"z.jpg"]
    monkeypatch.chdir(folder)
    assert contents(listed) == [b"a/1.jpg", b"z.jpg"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"b/2.jpg\n")))
    assert contents("-") == [b"b/2.jpg"]


def test_tars(folder: Path, tmp_path: Path) -> None:
    tar = tmp_path / "shard-000.tar"
    with tarfile.open(tar, "w") as file:
        for name in ("a/1.jpg", "notes.md", "b/2.jpg"):
            file.add(folder / name, name)
    assert named(tar) == [f"{tar}/a/1.jpg", f"{tar}/b/2.jpg"]
    assert contents(tar) == [b"a/1.jpg", b"b/2.jpg"]
    cut = tmp_path / "cut.tar"
    cut.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(UsageError, match=r"cut\.tar: .*get it anew"):
        named(cut)
    packed = tmp_path / "x.tar.gz"
    packed.touch()
    with pytest.raises(UsageError, match="gunzip"):
        named(packed)
    (image,) = list(Sources((str(tar),)).references())[:1]
    tar.write_bytes(tar.read_bytes()[:515])
    with pytest.raises(ImageError, match="ends within"):
        image.read()


def write_table(file: Path, /, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), file, row_group_size=2)
    return file


def test_a_table_of_bytes(tmp_path: Path) -> None:
    data = [b"one", b"two", None, b"four", b"five"]
    table = write_table(tmp_path / "t.parquet", label=[1, 2, 3, 4, 5], image=data)
    assert named(table) == [f"{table}#{n}" for n in range(5)]
    images = list(Sources((str(table),)).references())
    assert [image.read() for image in images[:2]] == [b"one", b"two"]
    assert images[4].read() == b"five"
    with pytest.raises(ImageError, match="no image in this row"):
        images[2].read()


def test_a_table_of_paths(folder: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", path=["a/1.jpg", "z.jpg", "gone.jpg"])
    assert named(table) == ["a/1.jpg", "z.jpg", "gone.jpg"]
    images = list(Sources((str(table),), root=str(folder)).references())
    assert images[1].read() == b"z.jpg"
    with pytest.raises(ImageError, match=r"cannot read gone\.jpg"):
        images[2].read()


def test_a_table_of_both(folder: Path, tmp_path: Path) -> None:
    rows = [{"bytes": b"inside", "path": "x.jpg"}, {"bytes": None, "path": "z.jpg"}]
    table = write_table(tmp_path / "t.parquet", photo=rows, label=[0, 1])
    assert named(table) == ["x.jpg", "z.jpg"]
    assert contents(table, root=str(folder)) == [b"inside", b"z.jpg"]


def test_which_column(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", left=[b"l"], right=[b"r"], number=[1])
    assert contents(table, column="right") == [b"r"]
    with pytest.raises(UsageError, match=r"--column: left, right"):
        named(table)
    with pytest.raises(UsageError, match=r"no column 'rihgt'.*did you mean 'right'"):
        named(table, column="rihgt")
    with pytest.raises(UsageError, match="neither paths nor bytes"):
        named(table, column="number")


def test_what_is_no_input(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        named(tmp_path / "gone")
    with pytest.raises(UsageError, match="matches nothing"):
        named(f"{tmp_path}/*.gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images in"):
        named(folder, tmp_path / "empty")
    broken = tmp_path / "t.parquet"
    broken.write_bytes(b"PAR1 and no more")
    with pytest.raises(UsageError, match="cannot read the table"):
        named(broken)


def test_references_can_be_sent_elsewhere(folder: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.parquet", image=[b"one"])
    for image in Sources((str(folder), str(table))).references():
        assert pickle.loads(pickle.dumps(image)).read() == image.read()


def test_shards() -> None:
    images = [FileImage(str(n), str(n)) for n in range(7)]
    found = list(shards(images, 3))
    assert [[i.name for i in s.images] for s in found] == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert [(s.number, s.first) for s in found] == [(0, 0), (1, 3), (2, 6)]
    assert len({s.digest for s in found}) == 3
    assert [s.digest for s in shards(iter(images), 3)] == [s.digest for s in found]
