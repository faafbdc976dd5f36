"""What Chromium draws is what Python draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from onnx_gradcam.batch.rows import restored_map
from onnx_gradcam.cam.postprocess import heat_maps
from onnx_gradcam.render import overlay
from tests.report.browsing import firsts

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

pytestmark = pytest.mark.browser


def test_heat_maps_are_those_of_python(tab: Tab) -> None:
    random = np.random.default_rng(5)
    kinds = [random.normal(0, 3, (7, 7)), np.full((7, 7), -1.0), 1e-6 * random.random((7, 7))]
    raw = np.stack(kinds).astype(np.float32)
    raw[0, 2, 3] = np.nan
    for size in ((7, 7), (96, 72), (5, 31)):
        for rectified in (True, False):
            expected = heat_maps(raw, size, rectify=rectified)
            assert expected[0].max() > 0.99
            for one, heat in zip(raw, expected, strict=True):
                found = in_browser(tab, one, size, rectified)
                np.testing.assert_allclose(found, heat, atol=2e-5)


def in_browser(tab: Tab, raw: Any, size: tuple[int, int], rectified: bool) -> Any:
    """Return the heat map of a raw map ``(7, 7)``, made by the page."""
    values = [None if np.isnan(value) else float(value) for value in raw.ravel()]
    found = tab.evaluate(
        """([values, height, width, rectified]) => Array.from(heatMap(
            {height: 7, width: 7, values: values.map((v) => v === null ? NaN : v)},
            height, width, rectified))""",
        [values, *size, rectified],
    )
    return np.reshape(found, size)


def test_half_precision_numbers(tab: Tab) -> None:
    bits = [0, 1, 0x3FF, 0x400, 0x3C00, 0xBC00, 0x7BFF, 0x3555, 0x8001]
    found = tab.evaluate("(bits) => bits.map(float16)", bits)
    assert found == np.array(bits, np.uint16).view(np.float16).astype(float).tolist()
    assert tab.evaluate("Number.isNaN(float16(0x7e00)) && float16(0xfc00) === -Infinity")


def test_colours_are_those_of_overlays(tab: Tab) -> None:
    heat = np.linspace(0, 1, 97, dtype=np.float32)
    pixels = tab.evaluate(
        """(heat) => { const pixels = new Uint8ClampedArray(4 * heat.length);
            paint(pixels, heat, JSON.parse(textOf("facts")).colors);
            return Array.from(pixels); }""",
        heat.tolist(),
    )
    rgba = np.reshape(pixels, (97, 4)).astype(np.float64)
    photo = np.full((1, 97, 3), 90, np.uint8)
    opacity = 0.65 * rgba[:, 3:] / 255
    found = photo[0] * (1 - opacity) + rgba[:, :3] * opacity
    expected = overlay(photo, heat[None])[0].astype(np.float64)
    np.testing.assert_allclose(found, expected, atol=1.5)
    assert np.abs(expected - 90).max() > 60


def test_a_picture_shows_the_map_of_its_row(tab: Tab, mine: list[dict[str, Any]]) -> None:
    """The hottest pixel of the drawn canvas lies where the table says the peak is."""
    for place, row in enumerate(firsts(mine)):
        if row["note"]:
            continue
        found = tab.evaluate(
            """(place) => { const canvas = document.querySelectorAll("#gallery canvas")[place];
                const {width, height} = canvas;
                const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
                return [width, height, Array.from(data)]; }""",
            place,
        )
        width, height, data = found
        assert max(width, height) == 96
        raw = restored_map(row)
        assert raw is not None
        heat = heat_maps(raw[None], (height, width))[0]
        rise = np.clip(heat / 0.6, 0, 1)
        expected = np.rint(255 * rise * rise * (3 - 2 * rise))
        alpha = np.reshape(data, (height, width, 4))[..., 3]
        assert np.abs(alpha - expected).max() <= 1
        assert alpha.max() == 255
