"""Explanations as notebooks show them: an `Explanation` in; text, HTML, a PNG or a figure out.

Heat maps of a photo are laid over it; those of prepared arrays, which an explanation does not keep,
are shown alone: of a signal as a strip, of a volume the slice with the most heat.
"""

from __future__ import annotations

import base64
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import MissingDependencyError, UsageError
from onnx_gradcam.render import (
    DEFAULT_COLORMAP,
    MAX_TILE,
    NOT_SEEN,
    HeatMap,
    Picture,
    colorize,
    dim_outside,
    encode_jpeg,
    encode_png,
    overlay,
    score_text,
    sheet,
    tile_photo,
)
from onnx_gradcam.runtime.photo import import_cv2

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from onnx_gradcam.runtime import Explanation

MOST = 12
"""So many heat maps are shown at most where nobody has said which; the rest is told of."""

MOST_NAMED = 3
"""Likewise in one line of text."""

HTML_SIDE, PNG_SIDE = 320, 256
"""Longer side of a picture in pixels. Notebooks keep both forms in their files."""

QUALITY = 85
STRIP_HEIGHT = 48
"""Height in pixels of the picture of a signal's heat map."""

CELL = 3.0
"""Longer side of a picture in a figure, in inches."""

SCALE, SCALE_HEIGHT = 4.0, 0.1
"""The colour scale of a figure, at most, in inches."""

LINE = 40
"""Letters on a line above a picture in a figure."""

Methods = str | Sequence[str]


@dataclass(frozen=True, eq=False)
class Tile:
    """One heat map as people see it.

    Attributes:
        picture: uint8 RGB.
        name: what was explained.
        score: its score, as text.
        told: what the picture shows, in words.
        note: why it shows nothing; empty where it shows something.
    """

    picture: Picture
    name: str
    score: str
    told: str
    note: str = ""

    @property
    def caption(self) -> str:
        """What stands below it, a line each."""
        return "\n".join(filter(None, [self.name, self.score, self.note and f"empty: {self.note}"]))


def text(explanation: Explanation) -> str:
    """Return an explanation in one line."""
    names, maps = explanation.class_names, len(explanation)
    rows = range(min(maps, MOST_NAMED))
    told = [f"{names[row]} ({score_text(explanation, row)})" for row in rows]
    more = [f"{maps - MOST_NAMED} more"] if maps > MOST_NAMED else []
    return f"<Explanation by {explanation.method}: {'; '.join(told + more) or 'no heat maps'}>"


def html(explanation: Explanation) -> str:
    """Return an explanation as HTML that needs nothing else: no script, no file, no network."""
    rows = range(min(len(explanation), MOST))
    parts = []
    if explanation.photo is not None:
        parts.append(_figure_of(_photo_tile(explanation, HTML_SIDE)))
    parts += [_figure_of(tile) for tile in tiles(explanation, rows, HTML_SIDE)]
    ramp = np.tile(np.linspace(0, 1, 120, dtype=np.float32), (8, 1))
    scale = _image("png", encode_png(colorize(ramp)), "colour scale from less to more evidence")
    words = [f"{escape(explanation.method)}; less {scale} more evidence", *_remarks(explanation)]
    parts.append(f"<div>{'; '.join(words)}</div>")
    page = f'<div class="onnx-gradcam">{"".join(parts)}</div>'
    return page.encode("utf-8", "replace").decode()  # names may hold halves of surrogate pairs


def png(explanation: Explanation) -> bytes:
    """Return an explanation as a PNG, for notebooks that show no HTML.

    Raises:
        UsageError: there is no heat map.
    """
    rows = range(min(len(explanation), MOST))
    if not rows:
        raise UsageError("an explanation without heat maps has no picture")
    pictures = [(t.picture, t.caption) for t in tiles(explanation, rows, PNG_SIDE)]
    *_, last = pictures[-1]
    if len(explanation) > MOST:
        pictures[-1] = pictures[-1][0], f"{last}\n{_more(explanation)}"
    if explanation.photo is None:
        return encode_png(sheet(pictures, fading=False))
    photo = _photo_tile(explanation, PNG_SIDE)
    pictures.insert(0, (photo.picture, f"photo\n{explanation.method}"))
    return encode_png(sheet(pictures, note=NOT_SEEN if _is_cropped(explanation) else ""))


def plot(
    explanation: Explanation,
    rows: int | Iterable[int] | None = None,
    *,
    method: Methods | None = None,
    columns: int | None = None,
    ax: Any = None,
    photo: bool | None = None,
    alpha: float = 0.65,
    colormap: str = DEFAULT_COLORMAP,
) -> Figure:
    """Return a figure of heat maps; `Explanation.plot` says what the arguments are.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        UsageError: rows that are not there, axes of another number, or a method that cannot be had
            without running the model again.
        UnsupportedModelError: a method that needs what the file does not offer.
    """
    pyplot = _import_pyplot()
    chosen = _chosen(explanation, rows)
    names = [method] if isinstance(method, str) else method or []
    each = [explanation.with_method(name) for name in names] or [explanation]
    draw = partial(tiles, longest=MAX_TILE, alpha=alpha, colormap=colormap)
    drawn = [
        replace(tile, name=f"{tile.name}, {one.method}") if len(each) > 1 else tile
        for row in chosen
        for one in each
        for tile in draw(one, [row])
    ]
    if ax is not None:
        axes = _given_axes(ax, len(drawn))
        figure: Any = axes[0].figure
    else:
        with_photo = explanation.photo is not None if photo is None else photo
        if with_photo and explanation.photo is not None:
            before = _photo_tile(explanation, MAX_TILE)
            step = len(each) if len(each) > 1 and columns is None else len(drawn)
            for place in reversed(range(0, len(drawn), step)):
                drawn.insert(place, before)
        wide = columns or (len(drawn) // len(chosen) if len(each) > 1 else 4)
        figure, axes = _new_figure(pyplot, drawn, min(wide, len(drawn)))
        _add_scale(figure, axes, colormap)
        if rows is None and len(explanation) > MOST:
            figure.suptitle(_more(explanation), fontsize="small")
    for axis, tile in zip(axes, drawn, strict=True):
        _draw(axis, tile)
    drawn_on: Figure = figure
    return drawn_on


def tiles(
    explanation: Explanation,
    rows: Iterable[int],
    longest: int,
    *,
    alpha: float = 0.65,
    colormap: str = DEFAULT_COLORMAP,
) -> Iterator[Tile]:
    """Yield heat maps, over the photo where there is one.

    Args:
        explanation: what to show.
        rows: which of its heat maps.
        longest: the longer side of a picture, at most, in pixels.
        alpha: largest opacity over a photo.
        colormap: one of `render.COLORMAPS`.
    """
    names = explanation.class_names
    drawn = _on_photo if explanation.photo is not None else _alone
    for row in rows:
        picture, cam = drawn(explanation, row, longest, alpha, colormap)
        note = explanation.notes[row] if explanation.notes else ""
        name, score = names[row], score_text(explanation, row)
        if explanation.photo is None and explanation.cams.ndim == 4:
            score += f", slice {_hottest(explanation.cams[row])} of {explanation.cams.shape[1]}"
        told = f"Heat map of {name} ({score}) by {explanation.method}: {_place(cam, note)}"
        yield Tile(picture, name, score, told, note)


def _on_photo(
    explanation: Explanation, row: int, longest: int, alpha: float, colormap: str
) -> tuple[Picture, HeatMap]:
    assert explanation.photo is not None, "the caller has looked"
    assert explanation.geometry is not None, "a photo has one"
    small = tile_photo(explanation.photo, longest)
    # of a photo of that size from the start, the model would have seen the same part
    geometry = replace(explanation.geometry, photo_size=(small.shape[0], small.shape[1]))
    cam = geometry.to_photo(explanation.cams[row])
    picture = overlay(small, cam, alpha, colormap)
    return dim_outside(picture, geometry.box) if _is_cropped(explanation) else picture, cam


def _alone(
    explanation: Explanation, row: int, longest: int, _alpha: float, colormap: str
) -> tuple[Picture, HeatMap]:
    cam = _FLAT[explanation.cams.ndim - 1](explanation.cams[row], longest)
    return colorize(cam, colormap), cam


def _strip(cam: NDArray[np.float32], longest: int) -> HeatMap:
    places = np.linspace(0, len(cam) - 1, longest).round().astype(int)
    return np.ascontiguousarray(np.broadcast_to(cam[places], (STRIP_HEIGHT, longest)))


def _sized(cam: NDArray[np.float32], longest: int) -> HeatMap:
    scale = longest / max(cam.shape)
    size = [max(round(extent * scale), 1) for extent in cam.shape[::-1]]
    resized: HeatMap = import_cv2().resize(cam, size, interpolation=import_cv2().INTER_LINEAR)
    return resized


def _slice(cam: NDArray[np.float32], longest: int) -> HeatMap:
    return _sized(cam[_hottest(cam)], longest)


def _hottest(volume: NDArray[np.float32]) -> int:
    return int(volume.sum(axis=(1, 2)).argmax())


_FLAT: dict[int, Callable[[NDArray[np.float32], int], HeatMap]] = {1: _strip, 2: _sized, 3: _slice}
"""Number of spatial axes -> the heat map as a picture has it, ``(H, W)``."""


def _photo_tile(explanation: Explanation, longest: int) -> Tile:
    assert explanation.photo is not None, "the caller has looked"
    height, width = explanation.photo.shape[:2]
    told = f"The photo, {width} x {height} pixels"
    return Tile(tile_photo(explanation.photo, longest), "photo", f"{width} x {height}", told)


def _place(cam: HeatMap, note: str) -> str:
    """Return where a heat map is highest, in words."""
    if note:
        return f"empty, {note}"
    row, column = np.unravel_index(int(cam.argmax()), cam.shape)
    across, down = ((at + 0.5) / of for at, of in zip((column, row), cam.shape[::-1], strict=True))
    return f"highest {across:.0%} from the left, {down:.0%} from the top"


def _is_cropped(explanation: Explanation) -> bool:
    if explanation.photo is None or explanation.geometry is None:
        return False
    height, width = explanation.photo.shape[:2]
    return explanation.geometry.box != (0, 0, width, height)


def _more(explanation: Explanation) -> str:
    return f"{MOST} of {len(explanation)} heat maps"


def _remarks(explanation: Explanation) -> list[str]:
    cropped = [NOT_SEEN] if _is_cropped(explanation) else []
    more = [f"{_more(explanation)}, .plot(rows) draws others"] if len(explanation) > MOST else []
    return cropped + more


def _figure_of(tile: Tile) -> str:
    height, width = tile.picture.shape[:2]
    first, *rest = map(escape, tile.caption.split("\n"))
    return (
        '<figure style="display: inline-block; vertical-align: top; margin: 4px;'
        f' max-width: {width}px">'
        f"{_image('jpeg', encode_jpeg(tile.picture, QUALITY), tile.told, f'{width}', f'{height}')}"
        f"<figcaption>{'<br>'.join([f'<b>{first}</b>', *rest])}</figcaption></figure>"
    )


def _image(kind: str, data: bytes, told: str, width: str = "", height: str = "") -> str:
    size = f' width="{width}" height="{height}"' if width else ""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<img src="{source}" alt="{escape(told)}"{size}>'


def _import_pyplot() -> Any:
    try:
        return import_module("matplotlib.pyplot")
    except ImportError as error:
        raise MissingDependencyError(
            "figures need the package matplotlib: pip install 'onnx-gradcam[notebook]'"
        ) from error


def _chosen(explanation: Explanation, rows: int | Iterable[int] | None) -> list[int]:
    maps = len(explanation)
    if rows is None:
        chosen = list(range(min(maps, MOST)))
    else:
        chosen = [rows] if isinstance(rows, int | np.integer) else list(rows)
    wrong = [row for row in chosen if not -maps <= row < maps]
    if wrong or not chosen:
        what = f"no heat map {wrong[0]}" if wrong else "no heat map to draw"
        raise UsageError(f"{what}: this explanation has {maps}, counted from 0")
    return [int(row) % maps for row in chosen]


def _given_axes(ax: Any, maps: int) -> list[Axes]:
    axes = list(np.ravel(np.asarray(ax, object)))
    if len(axes) != maps:
        raise UsageError(f"{maps} heat maps cannot be drawn on {len(axes)} axes; name rows")
    return axes


def _new_figure(pyplot: Any, drawn: Sequence[Tile], columns: int) -> tuple[Figure, list[Axes]]:
    lines = math.ceil(len(drawn) / columns)
    height, width = drawn[0].picture.shape[:2]
    inches = CELL / max(height, width)
    size = (columns * max(width * inches, CELL / 2), lines * (height * inches + 0.7) + 0.6)
    figure = pyplot.figure(figsize=size, layout="constrained")
    figure._ipython_display_ = partial(_shown_once, figure)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for unused in grid[len(drawn) :]:
        unused.set_axis_off()
    return figure, list(grid[: len(drawn)])


def _draw(ax: Axes, tile: Tile) -> None:
    ax.imshow(tile.picture)
    ax.set_axis_off()
    lines = [
        line
        for number, part in enumerate(tile.caption.split("\n"))
        for line in textwrap.wrap(part, LINE, max_lines=1 if number else 2, placeholder=" ...")
    ]
    ax.set_title("\n".join(lines), fontsize="small", parse_math=False)


def _add_scale(figure: Figure, axes: Sequence[Axes], colormap: str) -> None:
    colors = import_module("matplotlib.colors")
    shades = colorize(np.linspace(0, 1, 256, dtype=np.float32)[None], colormap)[0] / 255
    mappable = import_module("matplotlib.cm").ScalarMappable(cmap=colors.ListedColormap(shades))
    width = float(figure.get_size_inches()[0])
    length = min(SCALE / width, 0.9)
    size: dict[str, Any] = {"shrink": length, "aspect": length * width / SCALE_HEIGHT}
    bar = figure.colorbar(mappable, ax=list(axes), location="bottom", ticks=[0, 1], **size)
    bar.ax.set_xticklabels(["less", "more evidence"], fontsize="small")


def _shown_once(figure: Figure) -> None:
    """Keep Jupyter from showing a figure twice: as the value of a cell, and as one that is open.

    Raises:
        NotImplementedError: always, so that IPython goes on with what it shows figures by.
    """
    if "inline" in import_module("matplotlib").get_backend():
        _import_pyplot().close(figure)
    raise NotImplementedError
