from pathlib import Path

from onnx_gradcam.batch import picture_paths


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
