"""Pictures for people: heat maps laid over a photo, and panels with captions.

Photos and pictures are uint8 RGB ``(H, W, 3)``, heat maps float32 ``(H, W)`` in [0, 1]. Nothing is
written here: `encode_png` gives the bytes.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import MissingDependencyError, UsageError, nearest_names

if TYPE_CHECKING:
    from onnx_gradcam.runtime import Explanation

Picture = NDArray[np.uint8]
HeatMap = NDArray[np.float32]
Box = tuple[float, float, float, float]

COLORMAPS = {
    "inferno": (0.15, 0.86),
    "magma": (0.15, 0.86),
    "plasma": (0.0, 0.95),
    "viridis": (0.0, 1.0),
    "cividis": (0.0, 1.0),
    "turbo": (0.08, 0.92),
}
"""OpenCV's perceptual colour maps, and the part of each that shows on dark and on white photos."""

DEFAULT_COLORMAP = "inferno"
DEFAULT_OPACITY = 0.65
OPAQUE_FROM = 0.6
"""The heat from which on colours have their largest opacity."""

MIN_TILE, MAX_TILE = 256, 640
"""Bounds in pixels for the longer side of a photo in a panel."""

MIN_CELL = 200
"""Width in pixels of a panel's cells around narrower photos, so that captions have room."""

MAX_WIDTH = 2000
"""A panel wider than this, in pixels, gets another row of tiles."""

NOT_SEEN = "pale: not seen by the model"

MARGIN = 14
LINE = 24
PAPER, INK, FADED = 255, (32, 32, 36), (112, 112, 118)


@dataclass(frozen=True)
class Typeface:
    """One way to write: an OpenCV font name and its scale."""

    font: str
    scale: float
    color: tuple[int, int, int]


BOLD = Typeface("FONT_HERSHEY_DUPLEX", 0.58, INK)
REGULAR = Typeface("FONT_HERSHEY_SIMPLEX", 0.54, FADED)


def colorize(cam: HeatMap, colormap: str = DEFAULT_COLORMAP) -> Picture:
    """Return the colours of a heat map, uint8 RGB ``(H, W, 3)``.

    Raises:
        UsageError: no such colour map.
    """
    coldest, hottest = _ends(colormap)
    heat = coldest + np.clip(cam, 0, 1) * (hottest - coldest)
    return _colors(np.rint(heat * 255).astype(np.uint8), colormap)


def color_table(colormap: str = DEFAULT_COLORMAP) -> Picture:
    """Return the colours of all 256 levels of a colour map, uint8 RGB ``(256, 3)``.

    Raises:
        UsageError: no such colour map.
    """
    _ends(colormap)
    table: Picture = _colors(np.arange(256, dtype=np.uint8)[None], colormap)[0]
    return table


def _ends(colormap: str) -> tuple[float, float]:
    if colormap not in COLORMAPS:
        raise UsageError(f"no colour map {colormap!r}{nearest_names(colormap, COLORMAPS)}")
    return COLORMAPS[colormap]


def _colors(levels: Picture, colormap: str) -> Picture:
    cv2 = _cv2()
    colors: Picture = cv2.applyColorMap(levels, getattr(cv2, f"COLORMAP_{colormap.upper()}"))
    return _swapped(colors)


def overlay(
    photo: Picture,
    cam: HeatMap,
    alpha: float = DEFAULT_OPACITY,
    colormap: str = DEFAULT_COLORMAP,
) -> Picture:
    """Return a photo with a heat map over it; cold areas stay as they are in the photo.

    The opacity of the colours grows with the heat: 0 at heat 0, `alpha` from heat 0.6 on.

    Args:
        photo: uint8 RGB ``(H, W, 3)``.
        cam: float32 ``(H, W)`` in [0, 1], of the photo's size.
        alpha: largest opacity, 0 to 1.
        colormap: one of `COLORMAPS`.

    Raises:
        UsageError: sizes that differ, or an opacity or colour map that is none.
    """
    if photo.shape[:2] != cam.shape:
        raise UsageError(f"a heat map of {cam.shape} does not fit a photo of {photo.shape[:2]}")
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha must be between 0 and 1, not {alpha}")
    rise = np.clip(cam / np.float32(OPAQUE_FROM), 0, 1)
    opacity = (alpha * rise * rise * (3 - 2 * rise))[..., None]
    mixed = photo * (1 - opacity)
    mixed += colorize(cam, colormap) * opacity
    result: Picture = np.rint(mixed, out=mixed).astype(np.uint8)
    return result


def panel(
    photo: Picture,
    cams: Sequence[tuple[HeatMap, str]],
    title: str | None = None,
    *,
    alpha: float = DEFAULT_OPACITY,
    colormap: str = DEFAULT_COLORMAP,
    box: Box | None = None,
) -> Picture:
    """Return the photo beside one overlay per heat map, with captions and a colour scale.

    Args:
        photo: uint8 RGB ``(H, W, 3)``; large ones are shrunk, tiny ones enlarged.
        cams: heat maps of the photo's size, each with its caption. The first line of a caption is
            set in bold and broken into two where it is long.
        title: what the original's caption says; ``photo`` when None.
        alpha: largest opacity of the colours.
        colormap: one of `COLORMAPS`.
        box: ``(left, top, right, bottom)`` of what the model saw; the rest is paler in the
            overlays. None where it saw the whole photo.
    """
    original = tile_photo(photo)
    size = original.shape[:2]
    scale = size[1] / photo.shape[1], size[0] / photo.shape[0]
    tiles = [(original, title or "photo")]
    for cam, caption in cams:
        hot = overlay(original, _resize(cam, size), alpha, colormap)
        if box is not None:
            hot = dim_outside(hot, [edge * scale[place % 2] for place, edge in enumerate(box)])
        tiles.append((hot, caption))
    return sheet(tiles, colormap, NOT_SEEN if box else "")


def sheet(
    tiles: Sequence[tuple[Picture, str]],
    colormap: str = DEFAULT_COLORMAP,
    note: str = "",
    *,
    fading: bool = True,
) -> Picture:
    """Return pictures of equal size, each with its caption, in rows above a colour scale.

    Args:
        tiles: pictures and captions, as `panel` has them.
        colormap: one of `COLORMAPS`.
        note: what stands beside the scale, which may fade as overlays do.
        fading: whether it does.
    """
    return _with_scale(_arrange([_tile(*one) for one in tiles]), colormap, note, fading)


def tile_photo(photo: Picture, longest: int = MAX_TILE) -> Picture:
    """Return a photo at the size of a tile: its longer side from `MIN_TILE` to `longest` pixels."""
    longer = max(photo.shape[:2])
    scale = min(max(longer, MIN_TILE), longest) / longer
    size = tuple(max(round(extent * scale), 1) for extent in photo.shape[:2])
    return np.asarray(_resize(photo, size))


def explanation_panel(explanation: Explanation, rows: Iterable[int] | None = None) -> Picture:
    """Return the panel of an explanation made by `Explainer.explain_image`.

    Args:
        explanation: one photo and its classes.
        rows: which of its heat maps; None for all.

    Raises:
        UsageError: the explanation has no photo.
    """
    if explanation.photo is None or explanation.geometry is None:
        raise UsageError("only explanations made by explain_image have a photo to draw on")
    chosen = list(range(len(explanation)) if rows is None else rows)
    cams = explanation.geometry.to_photo(explanation.cams[chosen])
    captions = [f"{explanation.class_names[row]}\n{score_text(explanation, row)}" for row in chosen]
    height, width = explanation.photo.shape[:2]
    box = explanation.geometry.box
    return panel(
        explanation.photo,
        list(zip(cams, captions, strict=True)),
        f"photo\n{explanation.method}",
        box=None if box == (0, 0, width, height) else box,
    )


def encode_png(picture: Picture) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    _, data = _cv2().imencode(".png", _swapped(picture))
    encoded: bytes = data.tobytes()
    return encoded


def encode_jpeg(picture: Picture, quality: int = 95) -> bytes:
    """Return a picture as the bytes of a JPEG file, of a quality from 0 to 100."""
    cv2 = _cv2()
    _, data = cv2.imencode(".jpg", _swapped(picture), [cv2.IMWRITE_JPEG_QUALITY, quality])
    encoded: bytes = data.tobytes()
    return encoded


def _swapped(picture: Picture) -> Picture:
    """Return RGB as BGR, which is what OpenCV takes, or the other way round."""
    cv2 = _cv2()
    swapped: Picture = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR)
    return swapped


def score_text(explanation: Explanation, row: int) -> str:
    """Return the score as a percentage where the model's output is probabilities."""
    scores, score = explanation.scores[row], float(explanation.class_scores[row])
    if explanation.objective in {"softmax", "sigmoid"}:
        return f"{score:.1%}"
    if explanation.objective != "class" or explanation.classes[row] < 0:
        return f"{explanation.objective if explanation.objective != 'class' else 'y'} {score:.4g}"
    rank = int((scores > score).sum()) + 1
    probabilities = scores.min() >= 0 and abs(float(scores.sum()) - 1) < 0.01
    text = f"{score:.1%}" if probabilities else f"score {score:.4g}"
    return f"{text}, rank {rank} of {len(scores)}"


def _resize(image: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    if image.shape[:2] == size:
        return image
    cv2 = _cv2()
    if size[0] < image.shape[0]:
        flag = cv2.INTER_AREA
    else:  # enlarged photos keep their pixels, heat maps stay smooth
        flag = cv2.INTER_NEAREST if image.ndim == 3 else cv2.INTER_LINEAR
    resized: NDArray[Any] = cv2.resize(image, size[::-1], interpolation=flag)
    return resized


def dim_outside(picture: Picture, box: Sequence[float]) -> Picture:
    """Return a picture with everything outside the box paler, as the model did not see it."""
    left, top, right, bottom = (round(edge) for edge in box)
    pale = (picture * np.float32(0.6) + np.float32(PAPER * 0.4)).astype(np.uint8)
    pale[top:bottom, left:right] = picture[top:bottom, left:right]
    return pale


def _tile(picture: Picture, caption: str) -> Picture:
    """Return a picture with its caption below."""
    height, width = picture.shape[0], max(picture.shape[1], MIN_CELL)
    first, *rest = caption.split("\n")
    lines = [(text, BOLD) for text in _wrap(first, width, BOLD, lines=2)]
    lines += [(text, REGULAR) for line in rest for text in _wrap(line, width, REGULAR, lines=1)]
    tile = _blank(height + 8 + LINE * len(lines), width)
    tile[:height, : picture.shape[1]] = picture
    for row, (text, face) in enumerate(lines, start=1):
        _write(tile, text, (0, height + 4 + LINE * row - 6), face)
    return tile


def _arrange(tiles: Sequence[Picture]) -> Picture:
    """Return the tiles in rows, left to right, on one sheet."""
    width = tiles[0].shape[1]
    fit = max((MAX_WIDTH - MARGIN) // (width + MARGIN), 1)
    columns = math.ceil(len(tiles) / math.ceil(len(tiles) / fit))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.shape[0] for tile in row) + MARGIN for row in rows]
    sheet = _blank(MARGIN + sum(heights), MARGIN + columns * (width + MARGIN))
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            left = MARGIN + column * (width + MARGIN)
            sheet[top : top + tile.shape[0], left : left + width] = tile
        top += height
    return sheet


def _with_scale(tiles: Picture, colormap: str, note: str, fading: bool) -> Picture:
    """Return tiles with a thin colour scale below, and a note."""
    strip = _blank(LINE + MARGIN, tiles.shape[1])
    words = ("less", "more evidence")
    widths = [_text_width(word, REGULAR) for word in words]
    length = min(180, tiles.shape[1] - 2 * MARGIN - sum(widths) - 20)
    if length >= 40:
        right = tiles.shape[1] - MARGIN - widths[1]
        left = right - 10 - length
        ramp = np.tile(np.linspace(0, 1, length, dtype=np.float32), (8, 1))
        blank = np.full((8, length, 3), PAPER, np.uint8)
        colors = overlay(blank, ramp, 1.0, colormap) if fading else colorize(ramp, colormap)
        strip[8:16, left : left + length] = colors
        _write(strip, words[0], (left - 10 - widths[0], 17), REGULAR)
        _write(strip, words[1], (right, 17), REGULAR)
        if note and MARGIN + _text_width(note, REGULAR) < left - 30 - widths[0]:
            _write(strip, note, (MARGIN, 17), REGULAR)
    return np.concatenate([tiles, strip])


def _wrap(text: str, width: int, face: Typeface, lines: int) -> list[str]:
    """Break text into at most `lines` lines of `width` pixels; what is left over becomes '...'."""
    words = drawable(text, _has_unicode_fonts()).split()
    result: list[str] = []
    while words and len(result) < lines:
        count = len(words)
        if len(result) < lines - 1:
            while count > 1 and _text_width(" ".join(words[:count]), face) > width:
                count -= 1
        result.append(_shorten(" ".join(words[:count]), width, face))
        words = words[count:]
    return result


def _shorten(text: str, width: int, face: Typeface) -> str:
    if _text_width(text, face) <= width:
        return text
    while text and _text_width(text + "...", face) > width:
        text = text[:-1]
    return text.rstrip(" ,") + "..."


def drawable(text: str, unicode_fonts: bool) -> str:
    """Return text that the fonts can draw: OpenCV before 5 knows ASCII alone.

    Accents are dropped there (é becomes e), and what has no ASCII form becomes ``?``.
    """
    printable = "".join(c if c.isprintable() else " " for c in text)
    if unicode_fonts:
        return printable
    spelled = printable.translate(SPELLINGS)
    decomposed = unicodedata.normalize("NFKD", spelled)
    bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    return bare.encode("ascii", "replace").decode()


SPELLINGS = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
    | {"–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "đ": "d", "Đ": "D"}
)
"""Letters that Unicode does not decompose."""


def _text_width(text: str, face: Typeface) -> int:
    cv2 = _cv2()
    (width, _), _ = cv2.getTextSize(text, getattr(cv2, face.font), face.scale, 1)
    return int(width)


def _write(picture: Picture, text: str, origin: tuple[int, int], face: Typeface) -> None:
    cv2 = _cv2()
    font = getattr(cv2, face.font)
    cv2.putText(picture, text, origin, font, face.scale, face.color, 1, cv2.LINE_AA)


def _blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), PAPER, np.uint8)


def _has_unicode_fonts() -> bool:
    return int(_cv2().__version__.split(".")[0]) >= 5


def _cv2() -> Any:
    """Return the ``cv2`` module, imported on first use only.

    Raises:
        MissingDependencyError: it cannot be imported.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            f"OpenCV cannot be imported ({error}); pip install opencv-python-headless"
        ) from error
    return cv2
