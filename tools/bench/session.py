"""The driver: starts workers, hands them the turn, gathers what they answer."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.bench.contestants import ALL_OURS, ENGINES, EXPLAINED, PLAIN, Engine
from tools.bench.files import EXPORTED, FUSED, FilesError, ModelFiles, export, original
from tools.bench.protocol import Task, Worker, WorkerError
from tools.bench.results import OURS, PEERS, Cell
from tools.bench.subjects import MAP, Subject

TOLERANCE = 0.01
"""How far heat maps in [0, 1] may lie apart: another method or layer differs by more."""

TURN_S = 0.3
"""How long a turn of one process among several should last, in seconds."""

TURNS = (5, 20)
"""How many turns each process takes at least, and at most."""

SLOW_S = 0.5
"""A run this long needs no untimed one before it that fills the caches anew."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        own_python: interpreter of our workers.
        peer_python: interpreter of the peers; None leaves them out.
        engines: who takes turns, names of `ENGINES`; nobody, and only ours are measured.
        layers: as ``--layer`` -> numbers of images, for our own contestants.
        peer_layers: likewise, for the comparison with peers.
        threads: of every engine.
        seconds: how long to measure one cell, about.
        repetitions: of ours, at least and at most.
        models: folder of the ONNX files of architectures.
    """

    own_python: str
    peer_python: str | None
    engines: tuple[str, ...]
    layers: Mapping[str, tuple[int, ...]]
    peer_layers: Mapping[str, tuple[int, ...]]
    threads: int
    seconds: float
    repetitions: tuple[int, int]
    models: Path


@dataclass
class Driver:
    """Measures one model after the other.

    Attributes:
        plan: what to measure.
        scratch: a folder for files and logs.
        versions: package -> version, of all engines that ran.
        installed: engine -> bytes on disk of the packages that it loaded.
        all_ours: the worker that holds all our contestants.
        engines: the workers that take turns, by name.
    """

    plan: Plan
    scratch: Path
    versions: dict[str, str] = field(default_factory=dict)
    installed: dict[str, int] = field(default_factory=dict)
    all_ours: Engine = ALL_OURS
    engines: Mapping[str, Engine] = field(default_factory=lambda: ENGINES)

    def measure(self, subject: Subject) -> Iterator[Cell]:
        """Yield the cells of one model as they are done."""
        plan = self.plan
        peer_layers = plan.peer_layers if plan.engines else {}
        for layer in {**plan.layers, **peer_layers}:
            try:
                model = original(subject, plan.models, plan.peer_python)
                files = export(model, layer, self.scratch / subject.name / layer.replace("/", "_"))
            except FilesError as error:
                for batch in plan.layers.get(layer, ()):
                    failures = {PLAIN: str(error)}
                    yield Cell(OURS, subject.name, layer, batch, failures=failures)
                continue
            if layer in plan.layers:
                yield from self.ours(subject, layer, files)
            if layer in peer_layers:
                yield from self.in_turn(subject, layer, files)

    def ours(self, subject: Subject, layer: str, files: ModelFiles) -> Iterator[Cell]:
        """Yield what our contestants take, all in one process."""
        with self._worker("ours", self.all_ours, subject, layer, files) as worker:
            for batch in self.plan.layers[layer]:
                cell = Cell(OURS, subject.name, layer, batch, files.target, files.builder)
                try:
                    cell.turns = {name: [] for name in worker.prepare(batch)}
                    for _ in range(self._repetitions(worker)):
                        for name, seconds in worker.run(1).items():
                            cell.turns[name].append(seconds)
                    self.versions |= worker.report(self.all_ours.packages)["versions"]
                except WorkerError as error:
                    cell.turns, cell.failures = {}, {PLAIN: str(error)}
                yield cell

    def in_turn(self, subject: Subject, layer: str, files: ModelFiles) -> Iterator[Cell]:
        """Yield what the engines take, each in its own process, one at a time."""
        with ExitStack() as stack:
            workers = {
                name: stack.enter_context(
                    self._worker(name, self.engines[name], subject, layer, files)
                )
                for name in self.plan.engines
            }
            self._load(workers)
            for batch in self.plan.peer_layers[layer]:
                cell = Cell(PEERS, subject.name, layer, batch, files.target, files.builder)
                taken = self._ready(workers, batch, cell)
                self._take_turns(workers, taken, cell)
                for name in cell.turns:
                    report = workers[name].report(self.engines[name].packages)
                    cell.peaks[name] = report["peak"]
                    self.versions |= report["versions"]
                    self.installed[name] = report["installed"]
                yield cell

    @staticmethod
    def _load(workers: Mapping[str, Worker]) -> None:
        """Have all workers import their libraries, the one thing that they do side by side."""
        for worker in workers.values():
            worker.start_loading()
        for worker in workers.values():
            with suppress(WorkerError):  # it fails once more when its turn comes
                worker.loaded()

    def _worker(
        self, name: str, engine: Engine, subject: Subject, layer: str, files: ModelFiles
    ) -> Worker:
        plan = self.plan
        python = plan.peer_python if engine.peer else plan.own_python
        assert python is not None, "peers without a Python of theirs"
        task = Task(
            factory=engine.factory,
            subject=subject.name,
            model=str(files.model.resolve()),
            exported=str(files.folder / EXPORTED),
            fused=str(files.folder / FUSED),
            layer=layer,
            tensor=files.target,
            form=subject.forms.get(layer, MAP),
            shape=files.shape,
            threads=plan.threads,
            folder=str(files.folder),
        )
        return Worker(python, task, files.folder / f"{name}.log")

    def _repetitions(self, worker: Worker) -> int:
        fewest, most = self.plan.repetitions
        once = sum(sum(seconds) for seconds in worker.run(1).values())
        return min(most, max(fewest, int(self.plan.seconds / once)))

    def _ready(self, workers: Mapping[str, Worker], batch: int, cell: Cell) -> dict[str, float]:
        """Return the seconds of one run of each engine that is ready and computes what ours does.

        The others are noted in the cell with the reason.
        """
        reference: NDArray[Any] | None = None
        taken = {}
        for name, worker in workers.items():
            try:
                worker.prepare(batch)
                path = self.scratch / "maps.npy"
                if self.engines[name].compared and worker.save_maps(path):
                    maps = np.load(path)
                    reference = maps if name == EXPLAINED else reference
                    cell.differences[name] = difference(maps, reference)
                (times,) = worker.run(2).values()
                taken[name] = min(times)
            except (WorkerError, DifferentError) as error:
                cell.failures[name] = str(error)
        return taken

    def _take_turns(
        self, workers: Mapping[str, Worker], taken: Mapping[str, float], cell: Cell
    ) -> None:
        """Let the engines run one after the other, each round in another order."""
        times = {name: min(5, math.ceil(TURN_S / once)) for name, once in taken.items()}
        untimed = {name: int(once < SLOW_S) for name, once in taken.items()}
        round_s = sum(once * (times[name] + untimed[name]) for name, once in taken.items())
        fewest, most = TURNS
        cell.turns = {name: [] for name in taken}
        order = random.Random(0)
        rounds = int(self.plan.seconds / round_s) if taken else 0
        for _ in range(min(most, max(fewest, rounds))):
            for name in order.sample(list(cell.turns), len(cell.turns)):
                try:
                    (seconds,) = workers[name].run(times[name], untimed[name]).values()
                    cell.turns[name].append(seconds)
                except WorkerError as error:
                    cell.failures[name] = str(error)
                    del cell.turns[name]


class DifferentError(Exception):
    """Heat maps are not those of the same method on the same layer."""


def difference(maps: NDArray[Any], reference: NDArray[Any] | None) -> float:
    """Return the largest difference of heat maps from ours.

    Raises:
        DifferentError: it is larger than rounding explains, or nothing can be said.
    """
    if reference is None:
        raise DifferentError("not compared: there are no heat maps of ours")
    if maps.shape != reference.shape:
        raise DifferentError(f"heat maps of shape {maps.shape}, ours have {reference.shape}")
    if not reference.max(axis=(1, 2)).min() > 0:
        raise DifferentError("not compared: a heat map of ours shows nothing on this image")
    largest = float(np.abs(_of_maximum_1(maps) - _of_maximum_1(reference)).max())
    if not largest <= TOLERANCE:
        raise DifferentError(f"heat maps differ from ours by {largest:.2g}: something else")
    return largest


def _of_maximum_1(maps: NDArray[Any]) -> NDArray[Any]:
    """Return maps divided by their maximum: what keeps a stretch from dividing by 0 differs.

    It shows where all raw values are tiny, as at the first layers of random networks.
    """
    largest = maps.max(axis=(1, 2), keepdims=True)
    return np.asarray(maps / np.where(largest == 0, 1, largest))
