from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from onnx_gradcam.batch import BatchOptions
from onnx_gradcam.batch.frames import FrameExplainer
from onnx_gradcam.batch.schema import arrow_schema
from onnx_gradcam.errors import UsageError
from tests.batch.examples import batch, pixels, rows, write_images, write_model

OPTIONS = BatchOptions(top_k=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 6)


@pytest.fixture(scope="module")
def expected(
    model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """The rows that the command would write."""
    out = tmp_path_factory.mktemp("out")
    batch(model, images, out, replace(OPTIONS, shard_size=4))
    return rows(out)


def explainer(model: Path, **more: Any) -> FrameExplainer:
    return FrameExplainer(model, OPTIONS, device="cpu", threads=2, **more)


def paths(images: Path) -> list[str]:
    return [str(path) for path in sorted(images.iterdir())]


def encoded(images: Path) -> list[bytes]:
    return [Path(path).read_bytes() for path in paths(images)]


def rgb(images: Path) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(cv2.imread(path)[..., ::-1]) for path in paths(images)]


@pytest.mark.parametrize("kind", ["paths", "bytes", "pixels", "both", "arrow"])
def test_rows_are_those_of_a_folder(
    model: Path, images: Path, expected: list[dict[str, Any]], kind: str
) -> None:
    several = np.empty(6, object)
    several[:] = rgb(images)
    both = [{"bytes": b, "path": p} for b, p in zip(encoded(images), paths(images), strict=True)]
    columns: dict[str, Any] = {
        "paths": {"path": np.array(paths(images))},
        "bytes": {"bytes": np.array(encoded(images), object), "path": paths(images)},
        "pixels": {"image": several, "path": np.array(paths(images), object)},
        "both": {"image": both},
        "arrow": pa.table({"image": encoded(images), "path": paths(images)}),
    }
    found = explainer(model)(columns[kind])
    assert found.schema == arrow_schema()
    assert found.to_pylist() == expected


def test_images_of_one_size_come_as_one_array(model: Path) -> None:
    together = np.stack([pixels(0)] * 3)
    found = explainer(model)({"image": together}).to_pylist()
    assert [row["path"] for row in found] == [f"image#{n}" for n in (0, 0, 1, 1, 2, 2)]
    assert [row["image"] for row in found] == [0, 0, 1, 1, 2, 2]
    assert found[0]["score"] == found[2]["score"] != found[1]["score"]


def test_numbers_and_names_can_be_given(model: Path, images: Path) -> None:
    columns = {"jpg": encoded(images)[:2], "key": [70, 9], "title": ["first", "second"]}
    found = explainer(model, number="key", name="title")(columns).to_pylist()
    assert [(row["image"], row["path"]) for row in found] == [
        *((70, "first"), (70, "first"), (9, "second"), (9, "second"))
    ]
    unnamed = explainer(model, number="key")(columns).to_pylist()
    assert [row["path"] for row in unnamed[::2]] == ["jpg#70", "jpg#9"]


def test_relative_paths_start_at_the_root(model: Path, images: Path) -> None:
    found = explainer(model, root=str(images))({"path": ["0001.png", "gone.png"]}).to_pylist()
    assert [row["path"] for row in found] == ["0001.png", "0001.png", "gone.png"]
    assert found[0]["error"] is None
    assert found[2]["error"] == "cannot read gone.png: No such file or directory"


def test_what_is_no_image_is_a_row(model: Path, images: Path) -> None:
    columns = {"image": [b"no image", None, encoded(images)[0], np.zeros((3, 3, 7), np.uint8)]}
    found = explainer(model)(columns).to_pylist()
    assert [row["image"] for row in found] == [0, 1, 2, 2, 3]
    errors = [row["error"] for row in found]
    assert errors[0].startswith("not an image of a known format")
    assert errors[1] == "no image in the column 'image'"
    assert errors[2] is errors[3] is None
    assert "(3, 3, 7)" in errors[4]


def test_pixels_are_counted_before_they_are_looked_at(model: Path) -> None:
    small = FrameExplainer(model, replace(OPTIONS, max_pixels=400), device="cpu")
    (row,) = small({"image": [pixels(0)]}).to_pylist()
    assert row["error"].startswith("30 x 14 pixels, more than the 400 allowed")


def test_no_images_are_no_rows(model: Path) -> None:
    found = explainer(model)({"path": np.array([], object)})
    assert found.num_rows == 0
    assert found.schema == arrow_schema()


@pytest.mark.parametrize(
    ("columns", "more", "message"),
    [
        ({"a": [b"x"], "b": [b"x"]}, {}, "which column holds the images.*a, b"),
        ({"image": [b"x"]}, {"column": "imgae"}, "no column 'imgae'.*did you mean 'image'"),
        ({"image": [3.5]}, {}, "holds float: neither paths, encoded images nor pixels"),
        ({"image": np.array([b"x"])}, {}, "drops zeros at the end"),
        ({"image": [b"x"], "key": ["seven"]}, {"number": "key"}, "holds no whole numbers"),
    ],
)
def test_columns_that_cannot_be_are_errors(
    model: Path, columns: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        explainer(model, **more)(columns)


@pytest.mark.parametrize("files", [{"overlays": "jpg"}, {"arrays": True}])
def test_files_need_a_folder(model: Path, files: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="files in a folder of results"):
        FrameExplainer(model, BatchOptions(**files))
