from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnx_gradcam.batch.regions import (
    Region,
    decode_counts,
    encode_counts,
    peak_of,
    region_of,
)
from onnx_gradcam.runtime.preprocess import CropGeometry

WHOLE = CropGeometry((4, 5), (4, 5), 0, 0, (4, 5))


def mask_of(region: Region, geometry: CropGeometry) -> NDArray[np.bool_]:
    """Return the pixels of a region, by the definition of COCO's run lengths."""
    height, width = geometry.photo_size
    values = np.arange(len(region.counts)) % 2 == 1
    flat = np.repeat(values, region.counts)
    assert flat.size <= height * width
    flat = np.concatenate([flat, np.zeros(height * width - flat.size, bool)])
    return flat.reshape(width, height).T


def pixel_by_pixel(cam: NDArray[np.float32], geometry: CropGeometry) -> NDArray[np.float32]:
    """Return the value of the map under the centre of each pixel of the photo, else -1."""
    height, width = geometry.photo_size
    found = np.full((height, width), -1, np.float32)
    for y in range(height):
        for x in range(width):
            row = int(np.floor((y + 0.5) * geometry.resized[0] / height - geometry.top))
            column = int(np.floor((x + 0.5) * geometry.resized[1] / width - geometry.left))
            if 0 <= row < geometry.crop[0] and 0 <= column < geometry.crop[1]:
                found[y, x] = cam[row, column]
    return found


@st.composite
def geometries(draw: st.DrawFn) -> CropGeometry:
    side = st.integers(1, 14)
    photo, resized, crop = ((draw(side), draw(side)) for _ in range(3))
    top, left = ((r - c) // 2 for r, c in zip(resized, crop, strict=True))
    return CropGeometry(photo, resized, top, left, crop)


@given(geometries(), st.integers(0, 2**32 - 1), st.sampled_from([0.2, 0.5, 0.9, 1.0]))
def test_all_that_is_hot_is_found_in_the_photo(
    geometry: CropGeometry, seed: int, threshold: float
) -> None:
    cam = np.random.default_rng(seed).random(geometry.crop).astype(np.float32)
    expected = pixel_by_pixel(cam, geometry) >= np.float32(threshold) * cam.max()
    region = region_of(cam, geometry, threshold, largest=False)
    if not expected.any():  # hot where no pixel of the photo has its centre
        assert region is None
        return
    assert region is not None
    np.testing.assert_array_equal(mask_of(region, geometry), expected)
    rows, columns = np.nonzero(expected)
    box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert region.box == box
    assert region.area == expected.sum()
    assert all(count > 0 for count in region.counts[1:]), "runs are as long as they can be"
    assert decode_counts(region.encoded) == region.counts


def test_the_largest_region_alone() -> None:
    cam = np.zeros((4, 5), np.float32)
    cam[0, 0] = 1
    cam[2:4, 2:4] = 0.6
    cam[1, 4] = 0.55  # touches it by a corner
    region = region_of(cam, WHOLE, 0.5, largest=True)
    assert region is not None
    assert (region.box, region.area) == ((2, 1, 3, 3), 5)
    both = region_of(cam, WHOLE, 0.5, largest=False)
    assert both is not None
    assert (both.box, both.area) == ((0, 0, 5, 4), 6)


def test_a_map_without_heat_has_no_region() -> None:
    assert region_of(np.zeros((4, 5), np.float32), WHOLE, 0.5, largest=True) is None


def test_the_peak_is_a_pixel_of_the_photo() -> None:
    cam = np.zeros((2, 2), np.float32)
    cam[1, 0] = 1
    enlarged = CropGeometry((40, 60), (2, 3), 0, 0, (2, 2))
    assert peak_of(cam, enlarged) == (10, 30)
    padded = CropGeometry((4, 4), (4, 4), -2, -2, (8, 8))
    far = np.zeros((8, 8), np.float32)
    far[7, 7] = 1
    assert peak_of(far, padded) == (3, 3), "what is beside the photo is at its edge"


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        # from pycocotools 2.0.11: mask.encode(np.asfortranarray(mask)) of masks with these runs
        ([15, 2, 5, 2, 5, 2, 11], "?250006"),
        ([0, 10], "0:"),
        ([0, 1, 9, 1, 9, 1, 9, 1, 5], "01900000L"),
        ([99100, 300, 8400], "lhP3\\9`V8"),
    ],
)
def test_run_lengths_as_text(counts: list[int], text: str) -> None:
    assert decode_counts(encode_counts(counts)) == counts
    assert encode_counts(counts) == text


@given(st.lists(st.integers(0, 2**31), min_size=1))
def test_run_lengths_survive_their_text(counts: list[int]) -> None:
    text = encode_counts(counts)
    assert decode_counts(text) == counts
    assert all(48 <= ord(letter) < 112 for letter in text)


def test_run_lengths_of_a_large_photo_are_few() -> None:
    geometry = CropGeometry((3000, 4000), (224, 299), 0, 37, (224, 224))
    cam = np.zeros((224, 224), np.float32)
    cam[50:100, 60:70] = 1
    region = region_of(cam, geometry, 0.5, largest=True)
    assert region is not None
    assert len(region.counts) < 2 * 4000
    share = region.area / (3000 * 4000)
    assert abs(share - 50 * 10 / (224 * 299)) < 1e-3
