from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.runtime.preprocess import CropGeometry, crop_geometry, preprocess

REFERENCES = np.load(Path(__file__).parent / "resize_references.npz")
PHOTO = REFERENCES["photo"]  # 29 x 41
FLOAT = np.dtype(np.float32)


@pytest.mark.parametrize(
    ("size", "recipe", "resized", "start"),
    [
        ((480, 640), Preprocessing(resize=256, crop=(224, 224)), (256, 341), (16, 58)),
        ((640, 480), Preprocessing(resize=256, crop=(224, 224)), (341, 256), (58, 16)),
        ((256, 256), Preprocessing(resize=256, crop=(225, 223)), (256, 256), (16, 16)),
        ((500, 375), Preprocessing(resize=(32, 32)), (32, 32), (0, 0)),
        ((30, 40), Preprocessing(), (30, 40), (0, 0)),
        ((30, 40), Preprocessing(crop=(20, 20)), (30, 40), (5, 10)),
        ((30, 40), Preprocessing(crop=(33, 44)), (30, 40), (-1, -2)),
    ],
)
def test_geometry_is_that_of_torchvision(
    size: tuple[int, int],
    recipe: Preprocessing,
    resized: tuple[int, int],
    start: tuple[int, int],
) -> None:
    geometry = crop_geometry(size, recipe)
    assert geometry.resized == resized
    assert (geometry.top, geometry.left) == start
    assert geometry.crop == (recipe.crop or resized)


def test_imagenet_recipe_by_hand() -> None:
    recipe = Preprocessing(
        resize=10, crop=(8, 8), scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)
    )
    image, geometry = preprocess(PHOTO, recipe, "NCHW", FLOAT)
    window = REFERENCES["bilinear/10x14"][1:9, 3:11].astype(np.float64)
    expected = (window / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
    assert (geometry.top, geometry.left) == (1, 3)
    np.testing.assert_allclose(image, expected.transpose(2, 0, 1), atol=1e-5)


def test_bgr_and_layouts() -> None:
    recipe = Preprocessing(color="BGR", resize=(10, 14), mean=(1, 2, 3))
    last, _ = preprocess(PHOTO, recipe, "NHWC", FLOAT)
    expected = REFERENCES["bilinear/10x14"][..., ::-1] - np.array([1, 2, 3], np.float32)
    np.testing.assert_array_equal(last, expected)
    first, _ = preprocess(PHOTO, recipe, "NCHW", FLOAT)
    np.testing.assert_array_equal(first, last.transpose(2, 0, 1))
    named = Preprocessing(color="BGR", resize=(10, 14), mean=(1, 2, 3), layout="NCHW")
    np.testing.assert_array_equal(preprocess(PHOTO, named, "NHWC", FLOAT)[0], first)


def test_gray_equals_pillow() -> None:
    image, _ = preprocess(PHOTO, Preprocessing(color="GRAY"), "NHWC", FLOAT)
    assert image.shape == (29, 41, 1)
    np.testing.assert_array_equal(image[..., 0], REFERENCES["gray"])


@pytest.mark.parametrize("name", ["float16", "float32", "float64", "uint8", "int8"])
def test_dtypes(name: str) -> None:
    dtype = np.dtype(name)
    recipe = Preprocessing(mean=(128.0,) if name == "int8" else (0.0,))
    image, _ = preprocess(PHOTO, recipe, "NHWC", dtype)
    assert image.dtype == dtype
    expected = PHOTO.astype(np.int32) - (128 if name == "int8" else 0)
    np.testing.assert_array_equal(image.astype(np.int32), expected)


def test_integers_are_rounded_and_clipped() -> None:
    gray = np.full((1, 2, 3), 200, np.uint8)
    image, _ = preprocess(gray, Preprocessing(scale=1.5), "NHWC", np.dtype(np.uint8))
    assert (image == 255).all()
    image, _ = preprocess(gray, Preprocessing(scale=0.0128), "NHWC", np.dtype(np.uint8))
    assert (image == 3).all()


def test_a_photo_smaller_than_the_crop_gets_black() -> None:
    white = np.full((3, 4, 3), 255, np.uint8)
    image, geometry = preprocess(white, Preprocessing(crop=(5, 8)), "NHWC", FLOAT)
    assert image.shape == (5, 8, 3)
    assert (image[1:4, 2:6] == 255).all()
    assert image.sum() == 3 * 4 * 3 * 255
    assert geometry.box == (0, 0, 4, 3)


def test_heat_maps_land_where_the_crop_was() -> None:
    geometry = crop_geometry((100, 200), Preprocessing(resize=50, crop=(40, 40)))
    assert geometry.box == (60, 10, 140, 90)
    on_photo = geometry.to_photo(np.ones((2, 40, 40), np.float32))
    assert on_photo.shape == (2, 100, 200)
    expected = np.zeros((100, 200), np.float32)
    expected[10:90, 60:140] = 1
    np.testing.assert_array_equal(on_photo[0], expected)


def test_a_hot_spot_keeps_its_place() -> None:
    geometry = crop_geometry((300, 400), Preprocessing(resize=30, crop=(20, 20)))
    cam = np.zeros((20, 20), np.float32)
    cam[5, 12] = 1
    on_photo = geometry.to_photo(cam)
    assert on_photo.shape == (300, 400)
    rows, columns = np.nonzero(on_photo > 0.9)
    assert rows.mean() + 0.5 == pytest.approx((5 + 0.5 + 5) * 10)
    assert columns.mean() + 0.5 == pytest.approx((10 + 0.5 + 12) * 10)


def test_a_padded_crop_is_cut_to_the_photo() -> None:
    geometry = CropGeometry((10, 20), (10, 20), -5, 0, (20, 20))
    cam = np.zeros((20, 20), np.float32)
    cam[5:15] = 1
    np.testing.assert_array_equal(geometry.to_photo(cam), np.ones((10, 20), np.float32))


def test_an_uncropped_map_is_resized_to_the_photo() -> None:
    geometry = crop_geometry((8, 8), Preprocessing(resize=(4, 4)))
    cam = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    on_photo = geometry.to_photo(cam)
    np.testing.assert_allclose(on_photo.mean(), cam.mean(), atol=0.05)
    assert on_photo.min() >= cam.min()
    assert geometry.box == (0, 0, 8, 8)
