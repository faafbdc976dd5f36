from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onnx_gradcam import load, photo_files
from onnx_gradcam.errors import OutputError, WriteError
from onnx_gradcam.photo_files import (
    ExplainedPhoto,
    FailedPhoto,
    explain_photos,
    photos_of,
    picture_paths,
)
from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.render import explanation_panel
from onnx_gradcam.runtime import Explainer
from tests.contract_models import LABELS, contract_model, images
from tests.pipeline.threads import pipeline_threads

RECIPE = Preprocessing(resize=12, crop=(8, 10), scale=1 / 255, mean=(0.5,), std=(0.25,))


def names(folder: Path, *photos: str) -> list[str]:
    return [path.name for path in picture_paths([folder / photo for photo in photos], folder)]


def test_a_picture_is_named_after_its_photo(tmp_path: Path) -> None:
    assert names(tmp_path, "cat.jpg", "dog.tar.png") == ["cat.cam.png", "dog.tar.cam.png"]


def test_equal_names_get_numbers(tmp_path: Path) -> None:
    photos = ["a/cat.jpg", "b/cat.png", "c/CAT.jpg"]
    assert names(tmp_path, *photos) == ["cat.cam.png", "cat-2.cam.png", "CAT-3.cam.png"]


def test_a_number_that_is_a_name_is_passed_over(tmp_path: Path) -> None:
    photos = ["cat-2.jpg", "a/cat.jpg", "b/cat.jpg"]
    assert names(tmp_path, *photos) == ["cat-2.cam.png", "cat.cam.png", "cat-3.cam.png"]


def test_a_photo_is_never_overwritten_by_a_picture(tmp_path: Path) -> None:
    assert names(tmp_path, "cat.jpg", "cat.cam.png") == ["cat-2.cam.png", "cat.cam.cam.png"]


def test_a_photo_behind_a_link_is_never_overwritten_either(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "cat.cam.png").touch()
    link = tmp_path / "photos" / "cat.png"
    link.symlink_to(tmp_path / "maps" / "cat.cam.png")
    (found,) = picture_paths([link], tmp_path / "maps")
    assert found.name == "cat-2.cam.png"
    other_way = tmp_path / "elsewhere"
    other_way.symlink_to(tmp_path / "maps")
    (found,) = picture_paths([other_way / "cat.cam.png"], tmp_path / "maps")
    assert found.name == "cat.cam.cam.png"
    (found,) = picture_paths([other_way / "cat.CAM.png", other_way / "cat.jpg"][:1], tmp_path)
    assert found.name == "cat.CAM.cam.png"


def test_a_folder_stands_for_the_photos_in_it(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "a.cam.png", "notes.txt", "a.cam-3.npy"):
        (tmp_path / name).touch()
    (tmp_path / "empty.png").mkdir()
    found = photos_of([Path("first.jpg"), tmp_path, tmp_path / "empty.png"])
    assert found == [
        Path("first.jpg"), tmp_path / "a.PNG", tmp_path / "b.jpg", tmp_path / "empty.png",
        tmp_path / "empty.png",
    ]  # fmt: skip


@pytest.fixture
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert pipeline_threads() == []


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    model = contract_model(labels=LABELS, preprocessing=RECIPE.to_dict())
    return load(model, device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photos of several sizes, one that is none, and arrays of one and of several images."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(6):
        random = np.random.default_rng(number)
        pixels = random.integers(0, 256, (14 + 5 * number, 40 - number, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
    (folder / "2x.png").write_bytes(b"no image")
    np.save(folder / "3x.npy", images(5))
    np.save(folder / "4x.npy", images(1)[0])
    (folder / "4y.npy").write_bytes(b"no array")
    return sorted(folder.iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


ASKED: list[dict[str, Any]] = [
    {},
    {"classes": ["Boston bull", 0], "top_k": 2},
    {"above": 0.5},
    {"method": "randomcam", "seed": 3},
    {"aug_smooth": True, "method": "hirescam"},
]


@pytest.mark.usefixtures("_no_thread_is_left")
@pytest.mark.parametrize("asked", ASKED)
def test_threads_change_nothing(
    explainer: Explainer, files: list[Path], tmp_path: Path, asked: dict[str, Any]
) -> None:
    first, *others = (tmp_path / str(workers) for workers in (1, 2, 4))
    expected = list(explain_photos(explainer, files, first, workers=1, **asked))
    assert [item.photo for item in expected if isinstance(item, FailedPhoto)] == [
        files[3], files[8],
    ]  # fmt: skip
    assert len(expected) == len(files) + 4
    assert len(contents(first)) >= 2 * (len(expected) - 2)
    for folder in others:
        found = list(explain_photos(explainer, files, folder, workers=int(folder.name), **asked))
        assert [str(item).replace(str(folder), "F") for item in found] == [
            str(item).replace(str(first), "F") for item in expected
        ]
        assert contents(folder) == contents(first)


def test_what_is_written_is_what_the_explainer_says(
    explainer: Explainer, files: list[Path], tmp_path: Path
) -> None:
    photo = files[0]
    (done,) = explain_photos(explainer, [photo], tmp_path, classes=[1, "kite"], workers=2)
    assert isinstance(done, ExplainedPhoto)
    expected = explainer.explain_image(photo, [1, "kite"])
    for row, found in enumerate(done.classes):
        np.testing.assert_array_equal(np.load(found.raw_map), expected.raw_maps[row])
    picture = cv2.imread(str(done.picture))
    assert picture is not None
    np.testing.assert_array_equal(picture[..., ::-1], explanation_panel(expected))


@pytest.mark.parametrize("pictures", ["png", "jpg", None])
def test_pictures_are_of_the_kind_asked_for_or_none(
    explainer: Explainer, files: list[Path], tmp_path: Path, pictures: str | None
) -> None:
    photos = [files[0], files[5]]
    done = [
        item
        for item in explain_photos(explainer, photos, tmp_path, pictures=pictures, workers=2)
        if isinstance(item, ExplainedPhoto)
    ]
    drawn = [path.name for path in tmp_path.iterdir() if path.suffix != ".npy"]
    if pictures is None:
        assert drawn == []
        assert {item.picture for item in done} == {None}
        assert str(done[0].classes[0].raw_map) in done[0].summary()
    else:
        assert len(drawn) == len(done)
        assert f"0.cam.{pictures}" in drawn
        for item in done:
            assert item.picture is not None
            decoded = cv2.imread(str(item.picture))
            assert decoded is not None
            assert np.ptp(decoded) > 100
    maps = {path.name for path in tmp_path.glob("*.npy")}
    assert maps == {found.raw_map.name for item in done for found in item.classes}
    assert all(name.startswith(("0.cam-", "3x.")) for name in maps)


@pytest.mark.usefixtures("_no_thread_is_left")
def test_a_writer_that_fails_leaves_what_was_reported_and_no_more(
    explainer: Explainer, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = photo_files.write_whole

    def full_from_the_second(path: Path, data: bytes, **how: bool) -> None:
        if path.name.startswith("1."):
            raise WriteError(f"cannot write {path}: no space left on device")
        write(path, data, **how)

    monkeypatch.setattr(photo_files, "write_whole", full_from_the_second)
    results = explain_photos(explainer, files * 20, tmp_path, pictures=None, workers=3)
    assert next(results).photo == files[0]
    with pytest.raises(WriteError, match=r"1\.cam-\d\.npy: no space left"):
        next(results)
    assert pipeline_threads() == []
    assert {name.split(".")[0] for name in contents(tmp_path)} == {"0"}


@pytest.mark.usefixtures("_no_thread_is_left")
def test_a_map_that_exists_stops_before_any_later_file(
    explainer: Explainer, files: list[Path], tmp_path: Path
) -> None:
    index = int(explainer.explain_image(files[1]).classes[0])
    (tmp_path / f"1.cam-{index}.npy").write_bytes(b"mine")
    results = explain_photos(explainer, files, tmp_path, workers=2)
    next(results)
    with pytest.raises(OutputError, match="exists"):
        next(results)
    assert set(contents(tmp_path)) == {*contents(tmp_path)} & {
        "0.cam.png", *(f"0.cam-{k}.npy" for k in range(5)), f"1.cam-{index}.npy",
    }  # fmt: skip
    assert (tmp_path / f"1.cam-{index}.npy").read_bytes() == b"mine"


@pytest.mark.usefixtures("_no_thread_is_left")
def test_a_reader_that_stops_has_the_files_it_was_told_of(
    explainer: Explainer, files: list[Path], tmp_path: Path
) -> None:
    results = explain_photos(explainer, files, tmp_path, pictures=None, workers=2)
    next(results)
    next(results)
    results.close()
    assert pipeline_threads() == []
    assert {name.split(".")[0] for name in contents(tmp_path)} == {"0", "1"}
