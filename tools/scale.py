"""Measure what a batch costs by each engine, and write the figures of docs/scale.md.

    python tools/scale.py model.cam.onnx

Images per second of the local engine and of Ray with one actor and more, all in turn; processor
time per image; bytes per image of what is written. From these follow the tables of sizes. Beside
docs/scale.md goes docs/scale.json with all figures.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnxruntime  # noqa: E402

from onnx_gradcam.batch import BatchOptions, run_batch  # noqa: E402
from onnx_gradcam.batch.engine import LocalEngine  # noqa: E402
from onnx_gradcam.batch.parts import parts_of  # noqa: E402
from onnx_gradcam.batch.shards import Shard  # noqa: E402
from onnx_gradcam.batch.shards import shards as make_shards  # noqa: E402
from onnx_gradcam.batch.sources import FileImage, Sources  # noqa: E402
from onnx_gradcam.batch.tables import import_pyarrow  # noqa: E402
from onnx_gradcam.batch.worker import ShardResult, ShardWorker  # noqa: E402
from onnx_gradcam.files import write_whole  # noqa: E402
from onnx_gradcam.pipeline import Division, divide  # noqa: E402
from onnx_gradcam.pipeline.cores import cores  # noqa: E402
from onnx_gradcam.ray import Actors, RayEngine  # noqa: E402
from onnx_gradcam.ray.cluster import import_ray  # noqa: E402
from onnx_gradcam.runtime import load  # noqa: E402
from tools.scale_page import filled, tables  # noqa: E402
from tools.throughput import SMALL, make_photos  # noqa: E402

PAGE = ROOT / "docs" / "scale.md"
SIZES: Mapping[str, Mapping[str, Any]] = {
    "the table": {},
    "--no-maps": {"raw_maps": False},
    "--top-k 3": {"top_k": 3},
    "--thumbnails 96": {"thumbnails": 96},
    "--overlays jpg": {"overlays": "jpg"},
    "--arrays": {"arrays": True},
}
"""Options of the command -> of `BatchOptions`, whose bytes per image are measured."""


@dataclass(frozen=True)
class Run:
    """One batch.

    Attributes:
        rate: images per second.
        cpu: milliseconds of the processors of all processes that take part, per image.
    """

    rate: float
    cpu: float


class Replay:
    """An engine that has the results already: what is left is the work of the driver."""

    def __init__(self, result: ShardResult) -> None:
        """Take what every shard comes to, as it would come from an actor."""
        self._sent = pickle.dumps(result)

    def results(self, todo: Iterable[Shard], save: Any, on_image: Any) -> Iterator[ShardResult]:
        """Yield it for each shard."""
        for shard in todo:
            yield replace(pickle.loads(self._sent), number=shard.number, digest=shard.digest)


class Bench:
    """A model and photos."""

    def __init__(self, exported: Path, folder: Path, photos: int, shard_size: int) -> None:
        """Make the photos."""
        self.exported, self.folder = exported, folder
        self.explainer = load(exported, device="cpu")
        (folder / "in").mkdir()
        self.photos = make_photos(folder / "in", photos, SMALL)
        self.options = BatchOptions(shard_size=shard_size)
        self.runs = 0

    def batch(self, engine: Any, options: BatchOptions, *inputs: object) -> tuple[Path, float]:
        """Explain photos into a new folder; return it, and the seconds."""
        self.runs += 1
        output = self.folder / f"out{self.runs}"
        sources = Sources(tuple(map(str, inputs)) or (str(self.folder / "in"),))
        summary = run_batch(self.exported, self.explainer, engine, sources, output, options)
        assert summary.errors == 0
        return output, summary.seconds

    def local(self, threads: int) -> Any:
        """Return the local engine."""
        division = divide(threads=threads)
        session = division.session_options()
        explainer = load(self.exported, device="cpu", session_options=session)
        return nullcontext(LocalEngine(explainer, self.options, Division(division.workers)))

    def ray(self, actors: int) -> RayEngine:
        """Return the engine of Ray."""
        return RayEngine(self.exported, self.explainer, self.options, Actors(actors))

    def timed(self, start: Callable[[], Any]) -> Run:
        """Return what a batch takes after a short one, with which sessions have started."""
        with start() as engine:
            self.batch(engine, self.options, *self.photos[: 4 * self.options.shard_size])
            before = processor_seconds()
            _, seconds = self.batch(engine, self.options)
            cpu = processor_seconds() - before
        return Run(len(self.photos) / seconds, cpu * 1e3 / len(self.photos))

    def driver(self, shard_size: int = 1000, shards: int = 10) -> float:
        """Return the milliseconds that the driver works for an image."""
        worker = ShardWorker(self.explainer, self.options, cores())
        names = [FileImage(str(p), str(p)) for p in self.photos]
        (shard, *_) = make_shards(names, len(names))
        result = worker.run(shard, lambda _path, _data: None)
        table = import_pyarrow().concat_tables([result.table] * (shard_size // len(names) + 1))
        table = table.slice(0, shard_size).combine_chunks()
        listed = self.folder / "list.txt"
        listed.write_text("".join(f"{n:09d}.jpg\n" for n in range(shards * shard_size)))
        options = replace(self.options, shard_size=shard_size)
        replay = Replay(replace(result, table=table, images=shard_size))
        before = time.process_time()
        self.batch(replay, options, listed)
        return (time.process_time() - before) * 1e3 / (shards * shard_size)

    def bytes_per_image(self) -> dict[str, float]:
        """Return what is written for an image, by options; all in one shard."""
        found = {}
        for name, more in SIZES.items():
            options = replace(self.options, shard_size=len(self.photos), **more)
            engine = LocalEngine(self.explainer, options, Division(cores()))
            output, _ = self.batch(engine, options)
            files = [f for f in output.rglob("*") if f.is_file() and f.name != "manifest.json"]
            found[name] = sum(f.stat().st_size for f in files) / len(self.photos)
        return found

    def resume(self) -> float:
        """Return the milliseconds that finding a finished part takes."""
        options = replace(self.options, shard_size=1)
        output, _ = self.batch(LocalEngine(self.explainer, options, Division(cores())), options)
        began = time.perf_counter()
        count = sum(1 for _ in parts_of(output))
        return (time.perf_counter() - began) * 1e3 / count


def processor_seconds() -> float:
    """Return the processor time of this process and of all that descend from it."""
    ticks, parents = {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        number = int(process.name)
        parents[number] = int(fields[1])
        ticks[number] = int(fields[11]) + int(fields[12])  # utime and stime
    family = {os.getpid()}
    while found := {n for n, parent in parents.items() if parent in family} - family:
        family |= found
    return sum(ticks[number] for number in family) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exported", type=Path)
    parser.add_argument("--photos", type=int, default=120)
    parser.add_argument("--shard-size", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    ray = import_ray()
    ray.init(address="local", num_cpus=cores(), include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given.exported, Path(folder), given.photos, given.shard_size)
        counts = [2**n for n in range(cores().bit_length()) if 2**n <= cores()]
        contestants: dict[str, Callable[[], Any]] = {}
        for n in counts:
            contestants[f"local, --threads {n}"] = partial(bench.local, n)
            contestants[f"ray, --actors {n}"] = partial(bench.ray, n)
        runs: dict[str, list[Run]] = {name: [] for name in contestants}
        for _ in range(given.rounds):
            for name, start in contestants.items():
                runs[name].append(bench.timed(start))
        ray.shutdown()
        record = {
            "model": given.exported.name.partition(".")[0],
            "onnxruntime": onnxruntime.__version__,
            "ray": ray.__version__,
            "cores": cores(),
            "photos": given.photos,
            "photo_bytes": statistics.mean(p.stat().st_size for p in bench.photos),
            "shard_size": given.shard_size,
            "rounds": given.rounds,
            "runs": {
                name: {
                    "best_rate": max(r.rate for r in own),
                    "median_rate": statistics.median(r.rate for r in own),
                    "cpu_ms": min(r.cpu for r in own),
                }
                for name, own in runs.items()
            },
            "bytes_per_image": bench.bytes_per_image(),
            "driver_ms": bench.driver(),
            "resume_ms_per_part": bench.resume(),
        }
    write_whole(
        PAGE.with_suffix(".json"), (json.dumps(record, indent=2) + "\n").encode(), force=True
    )
    text = filled(PAGE.read_text(encoding="utf-8"), tables(record))
    write_whole(PAGE, text.encode(), force=True)


if __name__ == "__main__":
    main()
