"""What got slower, or faster, since an older run: ratios over plain inference, beyond noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tools.bench.contestants import AGAIN, PLAIN
from tools.bench.results import OURS, Cell, Results
from tools.bench.statistics import ratio, timing

THRESHOLD = 0.02
"""Smaller changes are no news."""

SLOWER, FASTER, LOST = "slower", "faster", "lost"

BAD = {SLOWER, LOST}


@dataclass(frozen=True)
class Change:
    """What became of one contestant of one cell.

    Attributes:
        word: `SLOWER`, `FASTER` or `LOST` (it was measured then and fails now).
        where: model, layer, batch and contestant, in words.
        detail: the two ratios, or the failure.
    """

    word: str
    where: str
    detail: str

    def __str__(self) -> str:
        """Return it as one line."""
        return f"{self.word}: {self.where}: {self.detail}"


def changes(old: Results, new: Results) -> Iterator[Change]:
    """Yield what changed beyond noise in the cells that both runs have.

    A change counts when the two intervals of the ratio over plain inference do not overlap, and
    when it is larger than `THRESHOLD` and than what a second session of the original file differed
    from the first one in either run.
    """
    before = {cell.key: cell for cell in old.of_group(OURS)}
    for cell in new.of_group(OURS):
        if cell.key in before:
            yield from _of_cell(before[cell.key], cell)


def notes(old: Results, new: Results) -> Iterator[str]:
    """Yield what makes the two runs less comparable, a line each."""
    for what in ("machine", "settings", "versions"):
        then, now = getattr(old, what), getattr(new, what)
        for key in sorted({*then} & {*now}):
            if then[key] != now[key]:
                yield f"note: {key}: {then[key]} then, {now[key]} now"
    before, after = ({cell.key for cell in r.of_group(OURS)} for r in (old, new))
    if before - after:
        yield f"note: {len(before - after)} of {len(before)} older measurements were not repeated"


def _of_cell(old: Cell, new: Cell) -> Iterator[Change]:
    where = f"{new.model}, layer {new.layer}, batch {new.batch}"
    if PLAIN not in old.turns:
        return
    if PLAIN not in new.turns:
        reason = next(iter(new.failures.values()), "no reason known")
        yield Change(LOST, where, reason)
        return
    floor = max(THRESHOLD, _own_noise(old), _own_noise(new))
    for name in [name for name in old.turns if name not in {PLAIN, AGAIN}]:
        if name not in new.turns:
            reason = new.failures.get(name, "it was not measured")
            yield Change(LOST, f"{where}, {name}", reason)
            continue
        then = ratio(old.turns[name], old.turns[PLAIN])
        now = ratio(new.turns[name], new.turns[PLAIN])
        detail = f"{then} then, {now} now (over plain inference)"
        if now.low > then.high and now.value > then.value * (1 + floor):
            yield Change(SLOWER, f"{where}, {name}", detail)
        if now.high < then.low and then.value > now.value * (1 + floor):
            yield Change(FASTER, f"{where}, {name}", detail)


def _own_noise(cell: Cell) -> float:
    """Return how far the second session of the same file lies from the first."""
    if AGAIN not in cell.turns:
        return 0.0
    return abs(timing(cell.turns[AGAIN]).median / timing(cell.turns[PLAIN]).median - 1)
