"""Inputs that are no images, are not there any more, or have names that nobody would choose."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onnx_gradcam.batch import BatchOptions
from onnx_gradcam.batch.references import FileImage
from onnx_gradcam.batch.sources import Sources
from onnx_gradcam.errors import ImageError, OutputError, UsageError
from tests.batch.examples import batch, rows, write_images, write_model

OPTIONS = BatchOptions(shard_size=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def named(*inputs: str | Path, **more: Any) -> list[str]:
    return [image.name for image in Sources(tuple(map(str, inputs)), **more).references()]


def errors(output: Path) -> dict[str, str | None]:
    return {Path(row["path"]).name: row["error"] for row in rows(output)}


def test_what_is_no_file_is_a_row(model: Path, tmp_path: Path) -> None:
    """A pipe would be waited for, a device read from without end."""
    folder = write_images(tmp_path / "in", 3)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "endless.jpg").symlink_to("/dev/zero")
    (folder / "link.png").symlink_to(folder / "0001.png")
    (folder / "broken.png").symlink_to(folder / "gone.png")
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "inside.png").write_bytes((folder / "0002.png").read_bytes())
    summary = batch(model, folder, tmp_path / "out")
    assert (summary.images, summary.errors) == (8, 3)
    found = errors(tmp_path / "out")
    assert found["pipe.jpg"] is not None
    assert found["pipe.jpg"].endswith("pipe.jpg: a folder, pipe or device, not a file")
    assert found["endless.jpg"] is not None
    assert "broken.png: No such file" in (found["broken.png"] or "")
    assert found["link.png"] is None
    assert found["inside.png"] is None


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.jpg"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ImageError, match=r"huge\.jpg: 1099511627776 bytes, more than an image"):
        FileImage(str(huge), str(huge)).read()


def test_images_that_go_away_are_rows(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "in", 9)
    once = FileImage.read

    def read(image: FileImage) -> bytes:
        if image.name.endswith("0002.png"):
            for number in (6, 7):
                (folder / f"{number:04d}.png").unlink()
        return once(image)

    monkeypatch.setattr(FileImage, "read", read)
    assert batch(model, folder, tmp_path / "out").errors == 2
    found = errors(tmp_path / "out")
    assert [name for name, error in found.items() if error] == ["0006.png", "0007.png"]


NAMES = ["line\nbreak.png", "caf\udce9.png", "象 é.png", "a" * 251 + ".png", " .png", "it's.png"]


def test_names_that_nobody_would_choose(model: Path, tmp_path: Path) -> None:
    """Parquet and JSON hold UTF-8 alone; names of files hold any bytes."""
    folder = tmp_path / "in \udcff"
    folder.mkdir()
    source = write_images(tmp_path / "source", 1) / "0000.png"
    for name in NAMES:
        (folder / name).write_bytes(source.read_bytes())
    (folder / "caf\udce9 2.png").write_bytes(b"no image")
    out = tmp_path / "out"
    assert batch(model, folder, out, coco=True).errors == 1
    found = rows(out)
    assert {row["path"] for row in found} == {
        str(folder / name).replace("\udcff", "\\xff").replace("\udce9", "\\xe9")
        for name in [*NAMES, "caf\udce9 2.png"]
    }
    assert all(Path(os.fsdecode(row["path_bytes"])).exists() for row in found)
    (error,) = (row["error"] for row in found if row["error"])
    assert error.startswith("not an image")
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["sources"]["inputs"] == [str(folder)]
    assert len(json.loads((out / "coco.json").read_text(encoding="utf-8"))["images"]) == 6
    for part in (out / "parts").iterdir():
        pq.read_table(part).validate(full=True)
    assert batch(model, folder, out, coco=True).done_before == 7


def test_names_that_are_utf8_are_no_bytes(model: Path, tmp_path: Path) -> None:
    batch(model, write_images(tmp_path / "in", 1), tmp_path / "out")
    assert rows(tmp_path / "out")[0]["path_bytes"] is None


def test_names_that_no_file_can_have(model: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"x" * 5000 + b".jpg\n" + b"y/" * 3000 + b"z.jpg\n")
    assert batch(model, listed, tmp_path / "out").errors == 2
    assert all("File name too long" in row["error"] for row in rows(tmp_path / "out"))
    with pytest.raises(ImageError, match="null"):
        FileImage("x", "nul\0.jpg").read()


@pytest.mark.parametrize("given", ["", "x" * 5000, "nul\0.jpg", "/root/gone/x.jpg"])
def test_inputs_that_are_not_there(given: str) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        named(given)


def test_no_inputs_at_all() -> None:
    with pytest.raises(UsageError, match="no inputs"):
        named()


def test_links_that_lead_in_circles(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 2)
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "back").symlink_to(folder)
        (folder / name / "other").symlink_to(folder / ("b" if name == "a" else "a"))
    began = time.monotonic()
    expected = [str(folder / "0000.png"), str(folder / "0001.png")]
    assert named(folder) == expected
    assert named(f"{folder}/**/*.png") == expected
    assert time.monotonic() - began < 5


def test_globs_go_to_any_depth_and_name_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x.png", "a/x.png", "a/b/x.png", "a/b/y.jpg", ".hidden/x.png", "c[1]/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    deep = ["a/b/x.png", "a/x.png", "c[1]/x.png", "x.png"]
    assert named("**/*.png") == deep
    assert named(f"{tmp_path}/**/*.png") == [str(tmp_path / name) for name in deep]
    assert named("a/**/x.png") == ["a/b/x.png", "a/x.png"]
    assert named("*/**/b/*") == ["a/b/x.png", "a/b/y.jpg"]
    assert named("**/b/**/*.png") == ["a/b/x.png"]
    assert sorted(named("a/**")) == ["a/b/x.png", "a/b/y.jpg", "a/x.png"]
    assert named(".hidden/**/*.png") == [".hidden/x.png"]


def test_folders_that_cannot_be_listed_are_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "in", 2)
    (folder / "secret").mkdir()
    scan = os.scandir

    def guarded(path: Any) -> Any:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    for given in (str(folder), f"{folder}/**/*.png"):
        with pytest.raises(UsageError, match=r"cannot list the folder .*secret: Permission denied"):
            named(given)


def test_a_folder_of_tables_says_how_to_name_them(tmp_path: Path) -> None:
    (tmp_path / "data.parquet").mkdir()
    (tmp_path / "data.parquet" / "part-0.parquet").touch()
    with pytest.raises(UsageError, match=r"no images in .*data\.parquet; .*'.*/\*\.parquet'"):
        named(tmp_path / "data.parquet")


def test_a_list_that_can_be_read_but_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.txt")
    with pytest.raises(UsageError, match="no file that can be read twice; give a list as -"):
        named(tmp_path / "list.txt")


def test_a_table_with_other_images_than_before(model: Path, tmp_path: Path) -> None:
    """Rows of bytes have no names of their own: that they are others is told by their sizes."""
    folder = write_images(tmp_path / "in", 8)
    contents = [path.read_bytes() for path in sorted(folder.iterdir())]
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": contents}), table)
    batch(model, table, tmp_path / "out")
    assert batch(model, table, tmp_path / "out").done_before == 8
    pq.write_table(pa.table({"image": contents[:3] + contents[4:] + contents[3:4]}), table)
    with pytest.raises(OutputError, match="the images have changed"):
        batch(model, table, tmp_path / "out")


def test_the_same_image_twice_is_two_rows(model: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 1)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{folder}/0000.png\n" * 3)
    batch(model, listed, tmp_path / "out", replace(OPTIONS, shard_size=2))
    found = rows(tmp_path / "out")
    assert [row["image"] for row in found] == [0, 1, 2]
    assert len({row["score"] for row in found}) == 1


def test_many_files_are_found_in_a_moment(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(20_000):
        os.close(os.open(folder / f"{number:06d}.jpg", os.O_CREAT | os.O_WRONLY))
    began = time.process_time()
    assert sum(1 for _ in Sources((str(folder),)).references()) == 20_000
    assert time.process_time() - began < 1
