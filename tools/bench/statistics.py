"""Medians, quartiles, and ratios with an interval, of times that were taken in turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Turns = list[list[float]]
"""Seconds of one contestant: a list for each time that it was its turn."""

LEVEL = 0.99
"""How sure an interval is: there are some hundred of them, few of which may be wrong."""

SAMPLES = 2000


@dataclass(frozen=True)
class Timing:
    """Seconds: the median and the quartiles below and above it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians, and the interval that holds it at `LEVEL`."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it with the farther end of its interval."""
        return f"{self.value:.3f} ± {max(self.high - self.value, self.value - self.low):.3f}"


def timing(turns: Turns) -> Timing:
    """Return median and quartiles of all times."""
    values = np.concatenate([np.asarray(turn) for turn in turns])
    return Timing(*(float(np.percentile(values, p)) for p in (50, 25, 75)))


def ratio(turns: Turns, base: Turns) -> Ratio:
    """Return the ratio of the medians of two contestants that took turns with each other.

    The interval is that of a bootstrap that draws turns, the same ones of both: what disturbed the
    machine for a while hit both, and times of one turn are no independent witnesses.
    """
    count = min(len(turns), len(base))
    drawn = np.random.default_rng(0).integers(0, count, (SAMPLES, count))
    above, below = (_medians(t[:count], drawn) for t in (turns, base))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(above / below, (tail, 1 - tail))
    value = timing(turns[:count]).median / timing(base[:count]).median
    return Ratio(value, float(low), float(high))


def _medians(turns: Turns, drawn: NDArray[np.int64]) -> NDArray[Any]:
    """Return the median of the times of the drawn turns, for each drawing."""
    values = np.asarray(turns)[drawn]
    return np.asarray(np.median(values.reshape(len(drawn), -1), axis=1))
