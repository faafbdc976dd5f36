"""What a page holds is what the tables hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from onnx_gradcam.batch.options import BatchOptions
from onnx_gradcam.batch.rows import restored_map
from onnx_gradcam.report import block, write_report
from onnx_gradcam.report.comparison import difference
from tests.batch.examples import batch, rows
from tests.report.examples import OPTIONS, Page, read_page, write_results


@pytest.fixture(scope="module")
def page(results: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    file = tmp_path_factory.mktemp("page") / "report.html"
    write_report(results, file, [other])
    return read_page(file)


def test_images_and_failures(page: Page, results: Path) -> None:
    found = rows(results)
    explained = [row for row in found if row["error"] is None and row["rank"] == 0]
    assert page.facts["paths"] == [row["path"] for row in explained]
    assert page.arrays["number"].tolist() == [row["image"] for row in explained]
    assert page.arrays["width"].tolist() == [row["width"] for row in explained]
    [failed] = [row for row in found if row["error"] is not None]
    assert page.facts["failures"] == [[failed["path"], failed["error"]]]
    assert page.facts["failed"] == 1
    assert "broken.png" in failed["path"]


def test_rows_of_both_folders_stand_by_image(page: Page, results: Path, other: Path) -> None:
    mine = [row for row in rows(results) if row["error"] is None]
    theirs = [row for row in rows(other) if row["error"] is None]
    expected = []
    for image in page.arrays["number"]:
        expected += [row for row in mine if row["image"] == image]
        expected += [row for row in theirs if row["image"] == image]
    starts = page.arrays["starts"]
    assert np.diff(starts).tolist() == [3, 2] * 7
    assert starts[-1] == len(expected)
    for name in ("score", "entropy", "crop_x", "crop_width", "map_scale"):
        np.testing.assert_array_equal(
            page.arrays[name], np.array([row[name] for row in expected], np.float32)
        )
    for name, null in (("peak_x", -1), ("box_width", -1), ("border_peak", 2), ("map_width", 0)):
        values = [null if row[name] is None else row[name] for row in expected]
        assert page.arrays[name].tolist() == values
    classes = [page.facts["classes"][number] for number in page.arrays["class"]]
    assert classes == [[row["class"], row["class_name"]] for row in expected]
    notes = [page.facts["notes"][number] for number in page.arrays["note"]]
    assert notes == [row["note"] or "" for row in expected]
    maps = b"".join(row["map"] for row in expected)
    assert page.maps.tobytes() == maps


def test_drift_and_change(page: Page, results: Path, other: Path) -> None:
    mine = [row for row in rows(results) if row["error"] is None]
    theirs = [row for row in rows(other) if row["error"] is None]
    starts = page.arrays["starts"]
    defined = 0
    for place, number in enumerate(page.arrays["number"]):
        others = [row for row in theirs if row["image"] == number]
        for rank, row in enumerate(row for row in mine if row["image"] == number):
            found = difference(row, others)
            at = starts[2 * place] + rank
            drift = np.nan if found is None or found.drift is None else found.drift
            np.testing.assert_allclose(page.arrays["drift"][at], drift, rtol=1e-6)
            change = np.nan if found is None else found.change
            np.testing.assert_allclose(page.arrays["change"][at], change)
            defined += not np.isnan(drift)
    assert defined >= 10
    assert page.arrays["differs"].tolist() == [block.SAME] * 7


def test_pictures_are_those_of_the_table(page: Page, results: Path) -> None:
    kept = [row["thumbnail"] for row in rows(results) if row["rank"] == 0]
    assert page.pictures == kept


def test_the_card(page: Page) -> None:
    card = {title: dict(entries) for title, entries in page.facts["runs"][0]["card"]}
    assert card["Model"]["File"] == "model.cam.onnx"
    assert card["Model"]["Target layer"] == "A"
    assert card["Model"]["Gradient builder"] == "reverse 1"
    assert len(card["Model"]["SHA-256 of the exported file"]) == 64
    assert card["Explanation"]["Method"] == "gradcam"
    assert card["Explanation"]["Highest scores"] == "3"
    assert card["Images"] == {
        "Images": "8",
        "Failed": "1",
        "Rows": "22",
        "Parts": "2",
        "Inputs": card["Images"]["Inputs"],
    }
    assert [run["rectified"] for run in page.facts["runs"]] == [True, True]
    assert page.facts["runs"][1]["method"] == "eigencam"


def test_another_first_class_is_told(results: Path, tmp_path: Path) -> None:
    model, images = results.parent / "model.cam.onnx", results.parent / "images"
    second = BatchOptions(classes=(-2,), shard_size=4)
    batch(model, images, tmp_path / "second", second)
    summary = write_report(results, tmp_path / "page.html", [tmp_path / "second"])
    page = read_page(tmp_path / "page.html")
    assert page.arrays["differs"].tolist() == [block.DIFFERS] * 7
    assert summary.mean_drift == pytest.approx(0, abs=1e-12), "the same map of the same class"
    assert np.isfinite(page.arrays["drift"]).sum() == 7


def test_images_that_failed_elsewhere_are_told(tmp_path: Path) -> None:
    results = write_results(tmp_path)
    broken = tmp_path / "images" / "0002.png"
    picture = broken.read_bytes()
    broken.write_bytes(b"gone")
    batch(tmp_path / "model.cam.onnx", tmp_path / "images", tmp_path / "later", OPTIONS)
    broken.write_bytes(picture)
    write_report(results, tmp_path / "page.html", [tmp_path / "later"])
    page = read_page(tmp_path / "page.html")
    [(place, error)] = page.facts["runs"][1]["errors"].items()
    assert page.facts["paths"][int(place)].endswith("0002.png")
    assert "not an image" in error
    assert page.arrays["differs"][int(place)] == block.UNKNOWN


def test_large_maps_are_shrunk(
    tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "MAP_SIDES", (64, 3))
    monkeypatch.setattr(block, "MAP_BYTES", 100)
    write_report(results, tmp_path / "page.html")
    page = read_page(tmp_path / "page.html")
    assert page.facts["map_side"] == 3
    assert page.arrays["map_height"].tolist() == [3] * 21
    first = rows(results)[0]
    raw = restored_map(first)
    assert raw is not None
    assert raw.shape == (4, 5)
    expected = cv2.resize(raw, (3, 3), interpolation=cv2.INTER_AREA)
    found = page.maps[:9].astype(np.float32).reshape(3, 3) * page.arrays["map_scale"][0]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-6)


def test_tables_without_maps(tmp_path: Path) -> None:
    results = write_results(tmp_path, replace(OPTIONS, raw_maps=False), count=2)
    write_report(results)
    page = read_page(results / "report.html")
    assert len(page.maps) == 0
    assert page.arrays["map_height"].tolist() == [0] * 6
    assert page.arrays["peak_x"].min() >= 0
