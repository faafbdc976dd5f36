"""Draw small pictures of shapes on cluttered ground, with the box of each shape.

In: a `numpy.random.Generator`. Out: uint8 RGB ``(64, 64, 3)`` and what is where. NumPy only, no
PyTorch, so that anyone can draw more of them.

Colour, size, place, turn and ground are random, so that the class is in the outline alone. The
ground holds stripes, noise and loose strokes and dots, which look like parts of the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SIZE = 64
"""Side of a picture in pixels."""

SUPERSAMPLING = 3
"""Sub-pixels a side when a shape is drawn: this smooths its edges."""


@dataclass(frozen=True)
class PlacedShape:
    """One shape in a picture.

    Attributes:
        label: a key of `SHAPES`.
        box: ``(x0, y0, x1, y1)`` in pixels, the upper ends exclusive: the smallest that holds it.
    """

    label: str
    box: tuple[int, int, int, int]


def _circle(x: Array, y: Array) -> Mask:
    return np.hypot(x, y) < 0.95


def _square(x: Array, y: Array) -> Mask:
    inside: Mask = np.maximum(abs(x), abs(y)) < 0.78
    return inside


def _triangle(x: Array, y: Array) -> Mask:
    return (y < 0.6) & (3**0.5 * abs(x) - y < 1.1)


def _cross(x: Array, y: Array) -> Mask:
    x, y = np.abs(x), np.abs(y)
    return (np.minimum(x, y) < 0.28) & (np.maximum(x, y) < 0.95)


def _ring(x: Array, y: Array) -> Mask:
    inside: Mask = np.abs(np.hypot(x, y) - 0.72) < 0.22
    return inside


def _star(x: Array, y: Array) -> Mask:
    """Five points: the radius of the edge between a tip and the notch next to it."""
    tip, notch, turn = 1.0, 0.42, 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + turn / 2) % turn - turn / 2)
    edge = tip * notch * np.sin(turn / 2)
    edge = edge / (notch * np.sin(turn / 2 - angle) + tip * np.sin(angle))
    inside: Mask = np.hypot(x, y) < edge
    return inside


SHAPES: Mapping[str, Callable[[Array, Array], Mask]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
    "star": _star,
}
"""Label -> whether a point is inside; coordinates within -1 to 1, y downwards."""

LABELS = tuple(SHAPES)


def _coverage(label: str, centre: Array, radius: float, turn: float) -> Array:
    """Return how much of each pixel a shape covers: ``(SIZE, SIZE)``, 0 to 1."""
    points = (np.arange(SIZE * SUPERSAMPLING) + 0.5) / SUPERSAMPLING
    x, y = np.meshgrid((points - centre[0]) / radius, (points - centre[1]) / radius)
    cos, sin = np.cos(turn), np.sin(turn)
    inside = SHAPES[label](cos * x + sin * y, cos * y - sin * x).astype(np.float64)
    cover: Array = inside.reshape(SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING).mean(axis=(1, 3))
    return cover


def _ground(rng: np.random.Generator) -> Array:
    """Return a textured ground: a colour gradient, two gratings, coarse and fine noise; 0 to 1."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    low, high = rng.uniform(0.15, 0.85, (2, 3))
    ramp = np.cos(rng.uniform(0, 2 * np.pi)) * x + np.sin(rng.uniform(0, 2 * np.pi)) * y
    picture: Array = low + (high - low) * 0.5 * (1 + ramp[..., None])
    for _ in range(2):
        angle, cycles, phase = rng.uniform((0, 2, 0), (np.pi, 12, 2 * np.pi))
        wave = np.sin(2 * np.pi * cycles * (np.cos(angle) * x + np.sin(angle) * y) + phase)
        picture = picture + rng.uniform(0, 0.09) * wave[..., None] * rng.uniform(0.3, 1, 3)
    coarse = rng.normal(0, 0.06, (SIZE // 8, SIZE // 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    return picture + coarse + rng.normal(0, 0.03, (SIZE, SIZE, 3))


def _strokes(picture: Array, rng: np.random.Generator) -> Array:
    """Return the picture with straight strokes and dots, too thin to be a shape."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    for _ in range(rng.integers(2, 7)):
        centre = rng.uniform(0, SIZE, 2)
        angle, length, width = rng.uniform((0, 0, 0.7), (np.pi, 9, 1.6))
        along = np.cos(angle) * (x - centre[0]) + np.sin(angle) * (y - centre[1])
        across = np.cos(angle) * (y - centre[1]) - np.sin(angle) * (x - centre[0])
        distance = np.hypot(np.maximum(abs(along) - length, 0), across)
        cover = np.clip(width + 0.5 - distance, 0, 1)[..., None]
        picture = picture * (1 - cover) + rng.uniform(0, 1, 3) * cover
    return picture


def _box_of(cover: Array) -> tuple[int, int, int, int]:
    rows, columns = (np.flatnonzero((cover > 0.5).any(axis=axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _apart(box: tuple[int, ...], others: list[PlacedShape], gap: int = 3) -> bool:
    return all(
        box[0] >= other.box[2] + gap
        or box[2] + gap <= other.box[0]
        or box[1] >= other.box[3] + gap
        or box[3] + gap <= other.box[1]
        for other in others
    )


def _contrasting_color(ground: Array, rng: np.random.Generator) -> Array:
    """Return a colour at least 0.35 away, in one channel, from the mean colour beneath."""
    while True:
        color = rng.uniform(0, 1, 3)
        if abs(color - ground).max() > 0.35:
            return color


def draw(
    rng: np.random.Generator, labels: list[str]
) -> tuple[npt.NDArray[np.uint8], list[PlacedShape]]:
    """Return a picture that holds one shape of each label, not touching one another.

    Args:
        rng: where all the chance comes from; the same state draws the same picture.
        labels: keys of `SHAPES`; three at most find room.

    Returns:
        uint8 RGB ``(64, 64, 3)`` and its shapes in the order of `labels`.
    """
    picture = _strokes(_ground(rng), rng)
    placed: list[PlacedShape] = []
    while len(placed) < len(labels):
        label = labels[len(placed)]
        radius = rng.uniform(8, 15 if len(labels) == 1 else 13)
        centre = rng.uniform(radius + 1, SIZE - radius - 1, 2)
        cover = _coverage(label, centre, radius, rng.uniform(0, 2 * np.pi))
        box = _box_of(cover)
        if not _apart(box, placed):
            continue
        beneath = (picture * cover[..., None]).sum(axis=(0, 1)) / cover.sum()
        grain = rng.normal(0, 0.03, picture.shape)
        fill = _contrasting_color(beneath, rng) + grain
        picture = picture * (1 - cover[..., None]) + fill * cover[..., None]
        placed.append(PlacedShape(label, box))
    return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8), placed


def draw_random(
    rng: np.random.Generator, count: int = 1
) -> tuple[npt.NDArray[np.uint8], list[PlacedShape]]:
    """Return a picture of `count` shapes of different random labels."""
    return draw(rng, [str(label) for label in rng.permutation(LABELS)[:count]])
