from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.runtime.image_input import ImageInput


def image_input(
    shape: list[Any], layout: str | None = None, target: str = "NCHW", kind: str = "float"
) -> ImageInput:
    node = SimpleNamespace(name="x", shape=shape, type=f"tensor({kind})")
    return ImageInput.from_session(node, layout, target)


@pytest.mark.parametrize(
    ("shape", "layout", "target", "expected"),
    [
        (["N", 3, 224, 224], None, "NCHW", "NCHW"),
        ([1, 224, 224, 3], None, "NCHW", "NHWC"),
        (["N", 64, 64, 1], None, "NCHW", "NHWC"),
        (["N", 3, "h", "w"], None, "NHWC", "NCHW"),
        (["N", "h", "w", "c"], None, "NCHW", "NCHW"),
        (["N", "h", "w", "c"], None, "NHWC", "NHWC"),
        ([None, 3, 3, 3], None, "NHWC", "NCHW"),
        (["N", 12, 32, 32], None, "NHWC", "NCHW"),
        (["N", "h", "w", 12], "NHWC", "NCHW", "NHWC"),
        (["N", 224, 224, 3], "NCHW", "NCHW", "NCHW"),
        (["N", 100], None, "NC", "NCHW"),
    ],
)
def test_layout(shape: list[Any], layout: str | None, target: str, expected: str) -> None:
    assert image_input(shape, layout, target).layout == expected


def test_open_extents_and_fixed_batch() -> None:
    assert image_input(["N", 3, -1, None]).shape == (None, 3, None, None)
    assert image_input([4, 3, 8, 8]).batch == 4
    assert image_input(["N", 3, 8, 8]).describe() == "'x' (N, 3, 8, 8) float32"


def test_volumes_and_signals() -> None:
    volume = image_input(["N", 1, 4, 8, 8])
    assert volume.spatial(volume.fit(np.zeros((2, 1, 4, 8, 8), np.float32)).shape) == (4, 8, 8)
    signal = image_input(["N", 3, 100])
    assert signal.spatial(signal.fit(np.zeros((3, 100))).shape) == (100,)


def test_integers_are_taken_as_they_are_or_as_whole_floats_only() -> None:
    raw = image_input(["N", 8, 8, 3], kind="uint8")
    for same in (np.uint8, np.float32):
        assert raw.fit(np.full((8, 8, 3), 7, same)).dtype == np.uint8
    for other in (np.int8, np.int64, np.bool_):
        with pytest.raises(UsageError, match="uint8"):
            raw.fit(np.zeros((8, 8, 3), other))
    for value in (0.5, -1.0, 256.0, np.nan):
        with pytest.raises(UsageError, match="uint8"):
            raw.fit(np.full((8, 8, 3), value))


def test_the_own_layout_goes_before_the_other() -> None:
    square = image_input(["N", 3, 3, 3], layout="NHWC")
    x = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3)
    np.testing.assert_array_equal(square.fit(x), x)


def test_an_image_without_pixels() -> None:
    with pytest.raises(UsageError, match="does not fit"):
        image_input(["N", 3, "h", "w"]).fit(np.zeros((1, 3, 0, 5), np.float32))


def test_an_element_type_that_images_do_not_have() -> None:
    with pytest.raises(UnsupportedModelError, match=r"tensor\(string\)"):
        image_input(["N", 3, 8, 8], kind="string")
