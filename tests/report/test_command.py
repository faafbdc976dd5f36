from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from onnx_gradcam.batch.options import BatchOptions
from onnx_gradcam.batch.rows import thumbnail
from onnx_gradcam.cli.main import main
from onnx_gradcam.report import thumbnails, write_report
from onnx_gradcam.runtime.photo import read_photo
from tests.batch.examples import batch
from tests.report.examples import edit_manifest, read_page, write_results


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def test_a_report(results: Path, other: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    result = run(results, "-o", file, "--against", other)
    assert result.exit_code == 0, result.stderr
    start = "7 images, 1 failed, 7 compared, mean drift 0."
    assert result.stdout.startswith(start)
    assert result.stdout.endswith(f"-> {file} ({file.stat().st_size / 1e6:.1f} MB)\n")
    before = file.read_bytes()
    assert run(results, "-o", file, "--against", other).exit_code == 2
    assert run(results, "-o", file, "--against", other, "--force").exit_code == 0
    assert file.read_bytes() == before, "the same byte for byte"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_page_goes_into_the_folder_unless_told_otherwise(tmp_path: Path) -> None:
    results = write_results(tmp_path, count=2)
    assert run(results).exit_code == 0
    assert "Heat maps: results" in (results / "report.html").read_text(encoding="utf-8")
    again = run(results)
    assert again.exit_code == 2
    assert again.stderr == f"error: {results / 'report.html'} exists; replace it with --force\n"


@pytest.mark.parametrize(
    ("limit", "numbers"), [(7, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 2, 4]), (1, [0])]
)
def test_a_limit_takes_every_nth(
    results: Path, tmp_path: Path, limit: int, numbers: list[int]
) -> None:
    result = run(results, "-o", tmp_path / "page.html", "--limit", limit)
    assert (f"{7 - limit} left out" in result.stdout) == (limit < 7)
    page = read_page(tmp_path / "page.html")
    assert page.arrays["number"].tolist() == numbers
    assert page.facts["left_out"] == 7 - limit
    assert len(page.pictures) == limit


def broken_json(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


def without(section: str) -> object:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest[section]
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return change


def half_a_part(folder: Path) -> None:
    part = folder / "parts" / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:200])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "holds no results: there is no manifest.json"),
        (lambda f: shutil.rmtree(f), "does not exist; name a folder that"),
        (lambda f: (shutil.rmtree(f), f.write_text("")), "is no folder; name a folder that"),
        (broken_json, "manifest.json: "),
        (lambda f: (f / "manifest.json").write_text("[]"), "is no manifest of a batch"),
        (lambda f: edit_manifest(f, format=9), "is of format 9, and this release reads 1"),
        (without("model"), "is incomplete: no model; run onnx-gradcam batch again"),
        (lambda f: edit_manifest(f, options={}), "is incomplete: no options.method"),
        (half_a_part, "part-000001.parquet is damaged; run the same onnx-gradcam batch again"),
        (lambda f: (f / "parts/part-000001.parquet").unlink(), "holds 1 parts, and its"),
        (
            lambda f: (shutil.rmtree(f / "parts"), edit_manifest(f, complete=False)),
            "holds no finished part yet; wait for the first one",
        ),
        (lambda f: edit_manifest(f, options={"method": "gradcamm"}), "no CAM method 'gradcamm'"),
    ],
)
def test_what_is_no_folder_of_results_is_one_line(
    results: Path, tmp_path: Path, harm: object, message: str
) -> None:
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    harm(folder)  # type: ignore[operator]
    result = run(folder, "-o", tmp_path / "page.html")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "page.html").exists()
    beside = run(results, "-o", tmp_path / "page.html", "--against", folder)
    assert (beside.exit_code, beside.stderr) == (2, result.stderr)


def test_damage_within_a_part_is_one_line(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    part = folder / "parts" / "part-000001.parquet"
    data = bytearray(part.read_bytes())
    data[4:4000] = bytes(3996)
    part.write_bytes(data)
    result = run(folder, "-o", tmp_path / "page.html")
    assert result.exit_code == 2
    assert "part-000001.parquet" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_batch_that_goes_on_is_reported_so_far(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    (folder / "parts" / "part-000001.parquet").unlink()
    edit_manifest(folder, complete=False)
    assert run(folder).exit_code == 0
    page = read_page(folder / "report.html")
    assert page.facts["complete"] is False
    assert len(page.facts["paths"]) == 4
    card = dict(page.facts["runs"][0]["card"][2][1])
    assert card["Images"] == "4"
    assert card["Finished"].startswith("no")


def test_results_of_other_images_are_refused(results: Path, tmp_path: Path) -> None:
    elsewhere = write_results(tmp_path, count=2)
    result = run(results, "-o", tmp_path / "page.html", "--against", elsewhere)
    assert result.exit_code == 2
    assert "has none of the images of" in result.stderr
    assert "0000.png" in result.stderr


def test_a_folder_that_cannot_be_written_to(results: Path, tmp_path: Path) -> None:
    result = run(results, "-o", tmp_path / "gone" / "page.html")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


def test_a_full_disk_leaves_nothing(results: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is full")
    import errno

    from onnx_gradcam.report import write

    def full(*_: object, **__: object) -> object:
        yield b"<!doctype html>"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "page", full)
        file = results.parent / "full.html"
        result = run(results, "-o", file)
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert [path for path in results.parent.iterdir() if "full" in path.name] == []


def test_without_pyarrow(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run(results)
    assert result.exit_code == 5
    assert result.stderr.strip() == (
        "error: tables need the package pyarrow: pip install 'onnx-gradcam[batch]'"
    )


def test_without_onnxruntime(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert run(results, "-o", tmp_path / "page.html").exit_code == 0


def test_a_batch_of_failures_alone(tmp_path: Path) -> None:
    results = write_results(tmp_path, count=0)
    assert run(results).stdout.startswith("0 images, 1 failed -> ")
    page = read_page(results / "report.html")
    assert page.facts["paths"] == []
    assert page.facts["failures"][0][0].endswith("broken.png")


KEPT_NONE = BatchOptions(shard_size=4)


def test_pictures_are_made_where_the_batch_kept_none(tmp_path: Path) -> None:
    results = write_results(tmp_path, KEPT_NONE, count=3)
    (tmp_path / "images" / "0000.png").unlink()
    cv2.imwrite(str(tmp_path / "images" / "0001.png"), np.zeros((9, 9, 3), np.uint8))
    result = run(results)
    assert "2 without a picture" in result.stdout, "one is gone, one is not the same any more"
    page = read_page(results / "report.html")
    photo = read_photo(tmp_path / "images" / "0002.png")
    assert page.pictures == [b"", b"", thumbnail(photo, thumbnails.side_for(3))]
    assert page.facts["without_picture"] == 2


@pytest.mark.parametrize("kind", ["tar", "table", "list"])
def test_pictures_of_images_in_tars_tables_and_lists(tmp_path: Path, kind: str) -> None:
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    write_results(tmp_path, KEPT_NONE, count=3)
    photos = sorted((tmp_path / "images").glob("0*.png"))
    source = tmp_path / {"tar": "a.tar", "table": "a.parquet", "list": "a.txt"}[kind]
    if kind == "tar":
        with tarfile.open(source, "w") as tar:
            for photo in photos:
                tar.add(photo, photo.name)
    elif kind == "table":
        pq.write_table(pa.table({"image": [photo.read_bytes() for photo in photos]}), source)
    else:
        source.write_text("".join(f"{photo.name}\n" for photo in photos))
    root = str(tmp_path / "images") if kind == "list" else None
    batch(tmp_path / "model.cam.onnx", source, tmp_path / "out", KEPT_NONE, root=root)
    summary = write_report(tmp_path / "out")
    assert summary.without_picture == 0
    page = read_page(summary.file)
    assert page.pictures == [thumbnail(read_photo(photo), 480) for photo in photos]


def test_a_picture_that_another_folder_kept_serves(results: Path, tmp_path: Path) -> None:
    model, images = results.parent / "model.cam.onnx", results.parent / "images"
    batch(model, images, tmp_path / "bare", KEPT_NONE)
    write_report(tmp_path / "bare", against=[results])
    write_report(results, tmp_path / "kept.html")
    bare, kept = read_page(tmp_path / "bare" / "report.html"), read_page(tmp_path / "kept.html")
    assert bare.pictures == kept.pictures


@pytest.mark.parametrize(("images", "side"), [(1, 480), (250, 480), (251, 320), (1001, 192)])
def test_more_images_have_smaller_pictures(images: int, side: int) -> None:
    assert thumbnails.side_for(images) == side
