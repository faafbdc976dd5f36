"""What was measured, as a JSON file: every single time, and the figures that follow from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from tools.bench.contestants import PLAIN
from tools.bench.statistics import Turns, ratio, timing

FORMAT = 1
OURS, PEERS = "ours", "peers"


class ResultsError(Exception):
    """A file holds no results of this format."""


@dataclass
class Cell:
    """One model at one layer and batch size, in one of the two groups.

    Attributes:
        group: `OURS`, all in one process, or `PEERS`, each in its own.
        model: its name.
        layer: as ``--layer``.
        batch: number of images.
        target: name of the target tensor.
        builder: who built the gradient.
        turns: contestant -> seconds, a list for each time that it was its turn.
        failures: contestant -> why it was not measured.
        differences: contestant -> how far its heat maps lie from ours at most.
        peaks: contestant -> peak memory of its process in bytes.
    """

    group: str
    model: str
    layer: str
    batch: int
    target: str = ""
    builder: str = ""
    turns: dict[str, Turns] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What it has in common with the same cell of another run."""
        return self.group, self.model, self.layer, self.batch

    def figures(self) -> dict[str, dict[str, float]]:
        """Return median, quartiles and the ratio over plain inference of each contestant."""
        found = {}
        for name, turns in self.turns.items():
            found[name] = asdict(timing(turns))
            if PLAIN in self.turns:
                over = asdict(ratio(turns, self.turns[PLAIN]))
                found[name] |= {f"ratio_{key}": value for key, value in over.items()}
        return {n: {k: round(v, 7) for k, v in f.items()} for n, f in found.items()}


@dataclass
class Results:
    """A whole run.

    Attributes:
        machine: what it ran on, in words.
        settings: how it was measured.
        versions: package -> version.
        installed: engine -> bytes on disk of all packages that it loaded.
        cells: in the order of measuring.
    """

    machine: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    installed: dict[str, int] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)

    def with_again(self, later: Results) -> Results:
        """Return these with the cells of a later run in place of the same ones; it is noted.

        Raises:
            ResultsError: another machine, other versions or other settings: ratios of such runs do
                not belong in one table.
        """
        same = (
            self.machine == later.machine and self.settings["threads"] == later.settings["threads"]
        )
        changed = [n for n, v in later.versions.items() if self.versions.get(n, v) != v]
        if not same or changed:
            raise ResultsError(f"another machine or setting, or other versions of {changed}")
        again = {cell.key: cell for cell in later.cells}
        cells = [again.pop(cell.key, cell) for cell in self.cells] + list(again.values())
        noted = {tuple(key) for key in self.settings.get("again", [])}
        noted |= {cell.key for cell in later.cells}
        settings = {**self.settings, "again": [list(c.key) for c in cells if c.key in noted]}
        return replace(self, settings=settings, cells=cells)

    def of_group(self, group: str) -> Iterator[Cell]:
        """Yield the cells of one group."""
        return (cell for cell in self.cells if cell.group == group)

    def save(self, path: Path) -> None:
        """Write it, one cell a line; times in microseconds."""
        head = {"format": FORMAT, **{k: v for k, v in vars(self).items() if k != "cells"}}
        lines = []
        for cell in self.cells:
            turns = {
                name: [[round(s * 1e6, 1) for s in turn] for turn in turns]
                for name, turns in cell.turns.items()
            }
            values = {**vars(cell), "turns": turns, "figures": cell.figures()}
            lines.append(json.dumps(values, sort_keys=True))
        text = json.dumps(head, indent=1, sort_keys=True).removesuffix("\n}")
        cells = ",\n".join(lines)
        path.write_text(f'{text},\n "cells": [\n{cells}\n]}}\n', encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ResultsError: no such file, or something else.
        """
        try:
            values = json.loads(path.read_text("utf-8"))
            if values.pop("format") != FORMAT:
                raise ResultsError(f"{path} has another format; measure again")
            cells = []
            for cell in values.pop("cells"):
                del cell["figures"]
                cell["turns"] = {
                    name: [[round(us / 1e6, 7) for us in turn] for turn in turns]
                    for name, turns in cell["turns"].items()
                }
                cells.append(Cell(**cell))
            return cls(**values, cells=cells)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResultsError(f"{path} holds no results of this tool: {error}") from error
