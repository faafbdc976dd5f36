from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_gradcam import render
from onnx_gradcam.errors import UsageError
from onnx_gradcam.preprocessing import Preprocessing
from onnx_gradcam.render import (
    BOLD,
    COLORMAPS,
    colorize,
    drawable,
    encode_png,
    explanation_panel,
    overlay,
    panel,
)
from onnx_gradcam.runtime import Explanation
from onnx_gradcam.runtime.preprocess import crop_geometry

RANDOM = np.random.default_rng(8)


def photo(height: int, width: int) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(height: int, width: int) -> NDArray[np.float32]:
    return np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))


def luminance(colors: NDArray[np.uint8]) -> NDArray[np.float64]:
    return colors @ np.array([0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("name", COLORMAPS)
def test_colour_maps_are_rgb_and_smooth(name: str) -> None:
    colors = colorize(ramp(1, 256), name)[0]
    assert colors.shape == (256, 3)
    assert np.abs(np.diff(colors.astype(int), axis=0)).max() <= 12
    assert colors[-1, 0] > colors[-1, 2], "the hottest is red or yellow, not blue"


def test_the_default_colours_grow_brighter_with_the_heat() -> None:
    assert (np.diff(luminance(colorize(ramp(1, 64))[0])) > 0).all()


def test_cold_areas_keep_the_photo_and_heat_covers_it() -> None:
    picture = np.full((4, 100, 3), 128, np.uint8)
    covered = overlay(picture, ramp(4, 100))
    np.testing.assert_array_equal(covered[:, 0], picture[:, 0])
    assert np.abs(covered[:, :3].astype(int) - 128).max() <= 2
    red = overlay(np.zeros_like(picture), ramp(4, 100))[0, :, 0] / colorize(ramp(1, 100))[0, :, 0]
    assert (np.diff(red) > -0.01).all(), "the opacity grows with the heat"
    assert red[-1] == pytest.approx(0.65, abs=0.01)


def test_opacity() -> None:
    picture = photo(5, 6)
    hot = np.ones((5, 6), np.float32)
    np.testing.assert_array_equal(overlay(picture, hot, alpha=0), picture)
    np.testing.assert_array_equal(overlay(picture, hot, alpha=1), colorize(hot))


def test_arguments_without_meaning() -> None:
    picture = photo(5, 6)
    with pytest.raises(UsageError, match="does not fit"):
        overlay(picture, np.zeros((6, 5), np.float32))
    with pytest.raises(UsageError, match="alpha"):
        overlay(picture, np.zeros((5, 6), np.float32), alpha=1.5)
    with pytest.raises(UsageError, match="did you mean 'viridis'"):
        colorize(np.zeros((5, 6), np.float32), "viridi")


@pytest.mark.parametrize(
    ("size", "tile"),
    [
        ((32, 32), (256, 256)),
        ((3000, 4000), (480, 640)),
        ((300, 400), (300, 400)),
        ((64, 16), (256, 64)),
        ((10, 2000), (3, 640)),
    ],
)
def test_panels_have_a_sensible_size(size: tuple[int, int], tile: tuple[int, int]) -> None:
    sheet = panel(photo(*size), [(ramp(*size), "cat\n0.9")])
    margin, cell = render.MARGIN, max(tile[1], render.MIN_CELL)
    assert sheet.shape[1] == 3 * margin + 2 * cell
    assert tile[0] < sheet.shape[0] < tile[0] + 150
    assert (sheet[:margin] == 255).all()
    assert (sheet[:, :margin] == 255).all()
    assert (sheet[margin, margin : margin + tile[1]] != 255).any()


def test_the_original_is_beside_its_overlays() -> None:
    picture = photo(256, 300)
    sheet = panel(picture, [(np.zeros((256, 300), np.float32), "nothing"), (ramp(256, 300), "all")])
    at = [slice(render.MARGIN + i * (300 + render.MARGIN), None) for i in range(3)]
    tiles = [sheet[render.MARGIN :, where][:256, :300] for where in at]
    np.testing.assert_array_equal(tiles[0], picture)
    np.testing.assert_array_equal(tiles[1], picture)
    np.testing.assert_array_equal(tiles[2], overlay(picture, ramp(256, 300)))


def test_many_classes_go_into_rows() -> None:
    sheet = panel(photo(200, 640), [(ramp(200, 640), str(i)) for i in range(7)])
    assert sheet.shape[1] <= render.MAX_WIDTH
    assert sheet.shape[0] > 3 * 200


def test_what_the_model_did_not_see_is_paler() -> None:
    picture = np.full((256, 300, 3), 100, np.uint8)
    cams = [(np.zeros((256, 300), np.float32), "x")]
    sheet = panel(picture, cams, box=(50, 0, 250, 256))
    tile = sheet[render.MARGIN :, 2 * render.MARGIN + 300 :][:256, :300]
    assert (tile[:, 50:250] == 100).all()
    assert (tile[:, :50] > 120).all()
    assert (tile[:, 250:] > 120).all()


@pytest.mark.parametrize("width", [60, 200, 640])
def test_captions_stay_within_their_tile(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    written: list[tuple[str, int]] = []
    monkeypatch.setattr(
        render, "_write", lambda tile, text, at, face: written.append((text, tile.shape[1]))
    )
    long = "African bush elephant, Loxodonta africana, known for its size " * 3
    panel(photo(256, width), [(ramp(256, width), f"{long}\n{long}"), (ramp(256, width), "x" * 400)])
    lines = [text for text, _ in written if text not in {"photo", "less", "more evidence"}]
    assert [line.endswith("...") for line in lines] == [False, True, True, True]
    cell = max(width, render.MIN_CELL)
    for line in lines:
        assert cell / 2 < cv2.getTextSize(line, cv2.FONT_HERSHEY_DUPLEX, BOLD.scale, 1)[0][0]
        assert cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 0.54, 1)[0][0] <= cell


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Zürich, Ägypten – Straße", "Zurich, Agypten - Strasse"),
        ("naïve œuvre", "naive oeuvre"),
        ("象 elephant", "? elephant"),
        ("tab\tand\x07bell", "tab and bell"),
    ],
)
def test_captions_where_the_fonts_know_ascii_alone(text: str, expected: str) -> None:
    assert drawable(text, unicode_fonts=False) == expected


def test_captions_where_the_fonts_know_unicode() -> None:
    assert drawable("Straße 象\n", unicode_fonts=True) == "Straße 象 "


def explanation(scores: list[float], **changes: Any) -> Explanation:
    recipe = Preprocessing(resize=(20, 20))
    fields: dict[str, Any] = {
        "scores": np.array([scores, scores], np.float32),
        "classes": np.array([1, 0]),
        "cams": ramp(20, 20)[None].repeat(2, axis=0),
        "raw_maps": np.zeros((2, 5, 5), np.float32),
        "activations": np.zeros((2, 3, 5, 5), np.float32),
        "gradients": np.zeros((2, 3, 5, 5), np.float32),
        "method": "gradcam",
        "labels": ("cat", "dog"),
        "photo": photo(300, 400),
        "geometry": crop_geometry((300, 400), recipe),
    }
    return Explanation(**(fields | changes))


@pytest.mark.parametrize(
    ("scores", "texts"),
    [
        ([0.25, 0.75], ["dog", "75.0%, rank 1 of 2", "cat", "25.0%, rank 2 of 2"]),
        ([-1.5, 12.3456], ["dog", "score 12.35, rank 1 of 2", "cat", "score -1.5, rank 2 of 2"]),
    ],
)
def test_the_panel_of_an_explanation(
    monkeypatch: pytest.MonkeyPatch, scores: list[float], texts: list[str]
) -> None:
    written: list[str] = []
    write = render._write

    def spy(tile: Any, text: str, at: Any, face: Any) -> None:
        written.append(text)
        write(tile, text, at, face)

    monkeypatch.setattr(render, "_write", spy)
    sheet = explanation_panel(explanation(scores))
    assert written[:2] == ["photo", "gradcam"]
    assert [text for text in written if text in texts] == texts
    assert "pale: not seen by the model" not in written, "the whole photo was seen"
    assert sheet.shape[1] == 4 * render.MARGIN + 3 * 400
    one = explanation_panel(explanation(scores), [1])
    assert one.shape[1] == 3 * render.MARGIN + 2 * 400


def test_the_panel_says_what_pale_means(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(render, "_write", lambda tile, text, at, face: written.append(text))
    cropped = crop_geometry((300, 400), Preprocessing(resize=30, crop=(20, 20)))
    explanation_panel(explanation([0.25, 0.75], geometry=cropped))
    assert "pale: not seen by the model" in written


def test_an_explanation_without_photo_has_no_panel() -> None:
    with pytest.raises(UsageError, match="explain_image"):
        explanation_panel(explanation([0.25, 0.75], photo=None, geometry=None))


def test_png_keeps_the_colours() -> None:
    picture = photo(12, 9)
    data = encode_png(picture)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[..., ::-1], picture)


@pytest.mark.parametrize(
    ("objective", "text"),
    [("class", "y 0.25"), ("softmax", "25.0%"), ("similarity", "similarity 0.25")],
)
def test_the_score_of_other_objectives(objective: str, text: str) -> None:
    maps = np.zeros((1, 4, 4), np.float32)
    found = Explanation(
        scores=np.array([[2, 1]], np.float32),
        classes=np.array([-1]),
        cams=maps,
        raw_maps=maps,
        activations=None,
        gradients=None,
        method="gradcam",
        y=np.array([0.25], np.float32),
        objective=objective,
    )
    assert render.score_text(found, 0) == text
