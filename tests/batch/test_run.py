from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from onnx_gradcam.batch import BatchOptions, parts
from onnx_gradcam.batch.regions import decode_counts
from onnx_gradcam.batch.rows import entropy_of, peaks_at_border, restored_map, stored_map
from onnx_gradcam.batch.schema import COLUMNS
from onnx_gradcam.errors import (
    BatchError,
    ClassNotFoundError,
    OutputError,
    UsageError,
    WriteError,
)
from onnx_gradcam.runtime import load
from tests.batch.examples import batch, pixels, rows, write_images, write_model
from tests.contract_models import LABELS

OPTIONS = BatchOptions(shard_size=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 10)


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_rows_say_what_the_explainer_says(model: Path, images: Path, tmp_path: Path) -> None:
    summary = batch(model, images, tmp_path / "out", replace(OPTIONS, top_k=2))
    assert (summary.images, summary.errors, summary.rows, summary.parts) == (10, 0, 20, 3)
    found = rows(tmp_path / "out")
    assert [(r["image"], r["rank"]) for r in found] == [(n, k) for n in range(10) for k in (0, 1)]
    explainer = load(model, device="cpu")
    for number, photo in enumerate(sorted(images.iterdir())):
        expected = explainer.explain_image(photo, [-1, -2])
        cams = expected.photo_cams()
        for rank in (0, 1):
            row = found[2 * number + rank]
            assert row["path"] == str(photo)
            assert row["error"] is None
            assert row["class"] == expected.classes[rank]
            assert row["class_name"] == LABELS[row["class"]]
            assert row["score"] == expected.class_scores[rank]
            assert (row["height"], row["width"]) == cams.shape[1:]
            raw = expected.raw_maps[rank]
            stored = restored_map(row)
            assert stored is not None
            np.testing.assert_allclose(stored, raw, rtol=0, atol=np.abs(raw).max() / 2000)
            if row["note"]:
                assert row["note"] == expected.notes[rank]
                assert row["area"] == 0
                continue
            assert cams[rank, row["peak_y"], row["peak_x"]] > 0.8
            x, y, width, height = (row[f"box_{n}"] for n in ("x", "y", "width", "height"))
            runs = decode_counts(row["rle"])
            hot = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
            hot = np.pad(hot, (0, row["height"] * row["width"] - hot.size))
            mask = hot.reshape(row["width"], row["height"]).T
            assert mask.sum() == row["area"] > 0
            assert mask[y : y + height, x : x + width].sum() == row["area"]
            assert cams[rank][mask].mean() > cams[rank][~mask].mean()
            left, top, right, bottom = expected.geometry.box  # type: ignore[union-attr]
            assert row["crop_x"] == pytest.approx(left)
            assert row["crop_y"] == pytest.approx(top)
            assert row["crop_x"] + row["crop_width"] == pytest.approx(right)
            assert row["crop_y"] + row["crop_height"] == pytest.approx(bottom)


def test_the_manifest_tells_the_whole_story(model: Path, images: Path, tmp_path: Path) -> None:
    batch(model, images, tmp_path, replace(OPTIONS, threshold=0.3, how={"seed": 7}))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert manifest["options"]["threshold"] == 0.3
    assert manifest["options"]["how"] == {"seed": 7}
    assert manifest["options"]["method"] == "gradcam"
    assert len(manifest["model"]["sha256"]) == 64
    assert (manifest["images"], manifest["errors"], manifest["rows"]) == (10, 0, 10)
    assert manifest["sources"]["inputs"] == [str(images)]


def test_the_tables_have_the_columns_that_are_documented(
    model: Path, images: Path, tmp_path: Path
) -> None:
    batch(model, images, tmp_path)
    schema = pq.read_schema(tmp_path / "parts" / "part-000000.parquet")
    assert schema.names == list(COLUMNS)


def test_a_second_run_does_nothing_again(model: Path, images: Path, tmp_path: Path) -> None:
    first = batch(model, images, tmp_path, replace(OPTIONS, overlays="jpg", arrays=True))
    before = everything(tmp_path)
    told: list[int] = []
    options = replace(OPTIONS, overlays="jpg", arrays=True)
    second = batch(model, images, tmp_path, options, on_progress=told.append)
    assert (first.done_before, second.done_before) == (0, 10)
    assert replace(second, seconds=0, done_before=0) == replace(first, seconds=0)
    assert sum(told) == 10
    assert everything(tmp_path) == before


def test_a_missing_or_damaged_part_is_made_again(model: Path, images: Path, tmp_path: Path) -> None:
    batch(model, images, tmp_path)
    before = everything(tmp_path)
    (tmp_path / "parts" / "part-000001.parquet").unlink()
    (tmp_path / "parts" / "part-000002.parquet").write_bytes(b"PAR1 damaged")
    (tmp_path / "parts" / ".part-000001.parquet.99.tmp").write_bytes(b"left by a killed run")
    assert batch(model, images, tmp_path).done_before == 4
    assert everything(tmp_path) == before


def test_another_batch_does_not_go_on_here(model: Path, images: Path, tmp_path: Path) -> None:
    batch(model, images, tmp_path / "out")
    before = everything(tmp_path / "out")
    with pytest.raises(OutputError, match=r"another batch: threshold was 0\.5, not 0\.4"):
        batch(model, images, tmp_path / "out", replace(OPTIONS, threshold=0.4))
    other = write_model(tmp_path, class_input="required")
    with pytest.raises(OutputError, match="sha256 was"):
        batch(other, images, tmp_path / "out")
    assert everything(tmp_path / "out") == before
    batch(other, images, tmp_path / "out", force=True)
    assert everything(tmp_path / "out").keys() == before.keys()


def test_images_that_changed_are_noticed(model: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 8)
    batch(model, folder, tmp_path / "out")
    cv2.imwrite(str(folder / "0000a.png"), pixels(99))
    with pytest.raises(OutputError, match="images have changed"):
        batch(model, folder, tmp_path / "out")
    for path in sorted(folder.iterdir())[4:]:
        path.unlink()
    (folder / "0000a.png").unlink()
    cv2.imwrite(str(folder / "0003.png"), pixels(3))
    with pytest.raises(OutputError, match="fewer images than before"):
        batch(model, folder, tmp_path / "out")


def test_parts_of_somebody_else_are_not_touched(model: Path, images: Path, tmp_path: Path) -> None:
    batch(model, images, tmp_path)
    (tmp_path / "manifest.json").unlink()
    for force in (False, True):
        with pytest.raises(OutputError, match="without a manifest"):
            batch(model, images, tmp_path, force=force)


def test_one_process_at_a_time(model: Path, images: Path, tmp_path: Path) -> None:
    folder = parts.ResultFolder(tmp_path)
    with pytest.raises(OutputError, match="another process writes"):
        batch(model, images, tmp_path)
    folder.close()
    assert batch(model, images, tmp_path).images == 10


def bomb() -> bytes:
    """Return the beginning of a PNG of 60000 x 60000 pixels."""
    encoded = bytearray(cv2.imencode(".png", pixels(0))[1].tobytes())
    encoded[16:24] = (60000).to_bytes(4, "big") * 2
    return bytes(encoded)


def test_images_that_are_none_are_rows(model: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 6)
    (folder / "0001.png").write_bytes(b"no image")
    (folder / "0002.png").write_bytes(b"")
    (folder / "0003.png").write_bytes((folder / "0004.png").read_bytes()[:60])
    (folder / "0005.png").write_bytes(bomb())
    summary = batch(model, folder, tmp_path / "out")
    assert (summary.images, summary.errors, summary.rows) == (6, 4, 6)
    found = {Path(row["path"]).name: row["error"] for row in rows(tmp_path / "out")}
    assert found["0000.png"] is None
    assert found["0004.png"] is None
    assert found["0001.png"].startswith("not an image of a known format")
    assert found["0002.png"] == "the image is empty (0 bytes)"
    assert "damaged" in found["0003.png"]
    assert found["0005.png"].startswith("60000 x 60000 pixels")


def test_decompression_bombs_are_refused_by_their_header(model: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 2)  # of 14 x 30 and 15 x 29 pixels
    summary = batch(model, folder, tmp_path / "out", replace(OPTIONS, max_pixels=430))
    assert summary.errors == 1
    (error,) = (row["error"] for row in rows(tmp_path / "out") if row["error"])
    assert error == "29 x 15 pixels, more than the 430 allowed; raise --max-pixels if you trust it"


def test_errors_may_be_too_many(model: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 12)
    for number in (1, 5, 6):
        (folder / f"{number:04d}.png").write_bytes(b"no image")
    with pytest.raises(BatchError, match=r"more than 2 images failed.*0006\.png: not an image"):
        batch(model, folder, tmp_path / "out", max_errors=2)
    assert [part.images for part in parts.parts_of(tmp_path / "out")] == [4]
    assert batch(model, folder, tmp_path / "out", max_errors=3).errors == 3
    with pytest.raises(BatchError, match="more than 0 images failed"):
        batch(model, folder, tmp_path / "out", max_errors=0)


def test_what_no_image_can_have_stops_before_the_first(
    model: Path, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ClassNotFoundError):
        batch(model, images, tmp_path, replace(OPTIONS, classes=("no such label",)))
    with pytest.raises(UsageError, match="method"):
        batch(model, images, tmp_path, replace(OPTIONS, method="grdcam"))
    with pytest.raises(UsageError, match="99 highest"):
        batch(model, images, tmp_path, replace(OPTIONS, top_k=99))
    assert not list(tmp_path.iterdir())


def test_pictures_arrays_and_thumbnails(model: Path, images: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, overlays="png", arrays=True, thumbnails=12, top_k=2, raw_maps=False)
    batch(model, images, tmp_path, options)
    found = rows(tmp_path)
    assert all(row["map"] is None for row in found)
    explainer = load(model, device="cpu")
    with np.load(tmp_path / "arrays" / "part-000001.npz") as arrays:
        assert sorted(arrays) == [f"{n}-{k}" for n in range(4, 8) for k in (0, 1)]
        expected = explainer.explain_image(images / "0005.png", [-1, -2])
        np.testing.assert_array_equal(arrays["5-1"], expected.raw_maps[1])
    for row in found:
        if row["rank"]:
            assert row["overlay"] is row["thumbnail"] is None
            continue
        picture = cv2.imread(str(tmp_path / row["overlay"]))
        assert picture.shape[1] > 500
        small = cv2.imdecode(np.frombuffer(row["thumbnail"], np.uint8), cv2.IMREAD_COLOR)
        assert max(small.shape[:2]) == 12
    assert len(list(tmp_path.glob("overlays/*/*.png"))) == 10


def test_coco(model: Path, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 6)
    (folder / "0002.png").write_bytes(b"no image")
    batch(model, folder, tmp_path / "out", replace(OPTIONS, top_k=2), coco=True)
    coco = json.loads((tmp_path / "out" / "coco.json").read_text())
    shown = [row for row in rows(tmp_path / "out") if row["rle"]]
    assert [image["id"] for image in coco["images"]] == [0, 1, 3, 4, 5]
    assert len(coco["annotations"]) == len(shown) > 0
    for annotation, row in zip(coco["annotations"], shown, strict=True):
        assert annotation["image_id"] == row["image"]
        assert annotation["segmentation"] == {
            "size": [row["height"], row["width"]],
            "counts": row["rle"],
        }
        assert annotation["bbox"] == [
            row["box_x"],
            row["box_y"],
            row["box_width"],
            row["box_height"],
        ]
    names = {category["id"]: category["name"] for category in coco["categories"]}
    assert names.items() <= dict(enumerate(LABELS)).items()
    assert {a["category_id"] for a in coco["annotations"]} == names.keys()


def test_a_full_disk_leaves_all_before_it_intact(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    batch(model, images, whole)
    write, budget = Path.open, [3]

    def out_of_space(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if path.name.startswith(".part") and mode == "wb":
            budget[0] -= 1
            if budget[0] == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, mode, *args, **options)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", out_of_space)
        with pytest.raises(WriteError, match=r"part-000002.*No space left"):
            batch(model, images, out)
    found = everything(out)
    for number in (0, 1):
        name = f"parts/part-{number:06d}.parquet"
        assert found[name] == everything(whole)[name]
    assert sorted(found) == ["manifest.json", *(f"parts/part-{n:06d}.parquet" for n in (0, 1))]
    assert batch(model, images, out).done_before == 8
    assert everything(out) == everything(whole)


KILLED = """
import sys
from pathlib import Path
from tests.batch.examples import batch
batch(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
"""


@pytest.mark.parametrize("wait_for", [0, 1, 5, 12])
def test_killed_at_any_moment_it_goes_on(model: Path, tmp_path: Path, wait_for: int) -> None:
    """Killed as soon as so many parts are there, and started again: nothing is lost or doubled."""
    folder = write_images(tmp_path / "in", 80)
    whole, out = tmp_path / "whole", tmp_path / "out"
    batch(model, folder, whole)
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(model), str(folder), str(out)], cwd=root
    )
    while len(list(out.glob("parts/part-*"))) < wait_for and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(out.glob("parts/part-*.parquet")))
    assert done >= wait_for
    summary = batch(model, folder, out)
    assert summary.done_before == 4 * done
    assert summary.images == 80
    assert [row["image"] for row in rows(out)] == list(range(80))
    expected = everything(whole)
    found = everything(out)
    assert found.keys() == expected.keys()
    assert all(found[name] == expected[name] for name in expected if name.endswith(".parquet"))


def test_only_the_shard_in_flight_is_repeated(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, read = parts.ResultFolder.commit, []

    def stopped(folder: parts.ResultFolder, result: Any) -> None:
        if result.number == 1:
            raise KeyboardInterrupt
        commit(folder, result)

    with monkeypatch.context() as patched:
        patched.setattr(parts.ResultFolder, "commit", stopped)
        with pytest.raises(KeyboardInterrupt):
            batch(model, images, tmp_path)
    from onnx_gradcam.batch.sources import FileImage

    once = FileImage.read

    def noted(image: FileImage) -> bytes:
        read.append(Path(image.name).name)
        return once(image)

    monkeypatch.setattr(FileImage, "read", noted)
    batch(model, images, tmp_path)
    assert sorted(read) == [f"{n:04d}.png" for n in range(4, 10)]


def test_entropy() -> None:
    one = np.zeros((2, 2), np.float32)
    assert entropy_of(one) is None
    one[0, 1] = 3
    assert entropy_of(one) == 0
    assert entropy_of(np.full((3, 3), 0.25, np.float32)) == pytest.approx(1)
    half = np.array([[1, 1], [-5, 0]], np.float32)
    assert entropy_of(half) == pytest.approx(0.5)


def test_peaks_at_the_border() -> None:
    raw = np.zeros((3, 4), np.float32)
    raw[1, 2] = 1
    assert peaks_at_border(raw) is False
    raw[2, 2] = 2
    assert peaks_at_border(raw) is True
    assert peaks_at_border(raw[:2]) is None


def test_raw_maps_of_any_magnitude_are_kept() -> None:
    for scale in (1e-12, 1.0, 1e12):
        raw = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32) * scale
        kept = restored_map(stored_map(raw.astype(np.float32)))
        assert kept is not None
        np.testing.assert_allclose(kept, raw, rtol=0, atol=np.abs(raw).max() / 2**11)
    strange = np.array([[np.nan, 1], [np.inf, -2]], np.float32)
    kept = restored_map(stored_map(strange))
    assert kept is not None
    np.testing.assert_array_equal(kept, strange)
    zero = restored_map(stored_map(np.zeros((2, 2), np.float32)))
    assert zero is not None
    assert not zero.any()
