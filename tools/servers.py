"""Measure how a server should run explanations; prints the tables of docs/servers.md.

    python tools/servers.py MODEL.onnx [--seconds 1.5] [--rounds 3] [--table sharing]

Each setting runs in processes of its own, in turn with the others, for several rounds: all request
threads explain one image after the other for so many seconds. What else the machine does only
lowers the rates, so figures are those of the best round, the median rate beside it. Processor time
is that of the processes, per explanation; memory is what they allocated (RssAnon).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onnx_gradcam import Explainer, load  # noqa: E402
from tools.soak import anonymous_kilobytes, exported  # noqa: E402

SPINNING: Mapping[str, Mapping[str, str]] = {
    "on": {},
    "stops between runs": {"session.force_spinning_stop": "1"},
    "off": {"session.intra_op.allow_spinning": "0"},
}
"""What idle threads of a session do -> entries of its options."""


@dataclass(frozen=True)
class Setting:
    """How a server runs explanations.

    Attributes:
        processes: worker processes.
        explainers: in each of them; request threads take them in turn.
        threads: of each session, for one operator.
        requests: threads in each process that explain.
        spinning: a key of `SPINNING`.
        arena: whether the session keeps memory for the next run.
        pause: seconds between the explanations of a thread.
    """

    processes: int = 1
    explainers: int = 1
    threads: int = 1
    requests: int = 1
    spinning: str = "stops between runs"
    arena: bool = True
    pause: float = 0


TABLES: Mapping[str, Mapping[str, Setting]] = {
    "sharing": {
        "1 Explainer, 1 thread, 1 request at a time": Setting(),
        "1 Explainer, 1 thread, 2 requests": Setting(requests=2),
        "1 Explainer, 1 thread, 8 requests": Setting(requests=8),
        "1 Explainer, 2 threads, 1 request": Setting(threads=2),
        "1 Explainer, 2 threads, 2 requests": Setting(threads=2, requests=2),
        "1 Explainer, 2 threads, 8 requests": Setting(threads=2, requests=8),
        "2 Explainers, 1 thread each, 2 requests": Setting(explainers=2, requests=2),
        "2 processes, 1 thread each, 1 request each": Setting(processes=2),
        "2 processes, 2 threads each, 1 request each": Setting(processes=2, threads=2),
    },
    "spinning": {
        f"spinning {name}, {described}": Setting(threads=2, spinning=name, **more)
        for described, more in (
            ("1 request", {}),
            ("2 requests", {"requests": 2}),
            ("1 request every 20 ms", {"pause": 0.02}),
        )
        for name in SPINNING
    },
}


def options(setting: Setting) -> Any:
    """Return the options of a session."""
    chosen = onnxruntime.SessionOptions()
    chosen.log_severity_level = 3
    chosen.intra_op_num_threads = setting.threads
    chosen.enable_cpu_mem_arena = setting.arena
    for key, value in SPINNING[setting.spinning].items():
        chosen.add_session_config_entry(key, value)
    return chosen


def image(explainer: Explainer, count: int = 1) -> Any:
    """Return random images."""
    shape = [count, *(size or 224 for size in explainer.image_input.shape[1:])]
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def serve(path: Path, setting: Setting, seconds: float) -> dict[str, float]:
    """Return what one process did in so many seconds; starts when a line comes in."""
    explainers = [
        load(path, device="cpu", session_options=options(setting))
        for _ in range(setting.explainers)
    ]
    x = image(explainers[0])
    took: list[list[float]] = [[] for _ in range(setting.requests)]
    for explainer in explainers:
        for _ in range(5):
            explainer.explain(x)
    print("ready", flush=True)
    sys.stdin.readline()
    used = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.perf_counter()

    def request(number: int) -> None:
        explainer = explainers[number % len(explainers)]
        while time.perf_counter() < begin + seconds:
            start = time.perf_counter()
            explainer.explain(x)
            took[number].append(time.perf_counter() - start)
            time.sleep(setting.pause) if setting.pause else None

    threads = [threading.Thread(target=request, args=(n,)) for n in range(setting.requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - begin
    now = resource.getrusage(resource.RUSAGE_SELF)
    every = [duration for own in took for duration in own]
    return {
        "rate": len(every) / wall,
        "median": statistics.median(every),
        "late": float(np.percentile(every, 95)),
        "processor": (now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime) / len(every),
        "memory": anonymous_kilobytes() / 1024,
    }


def measure(path: Path, setting: Setting, seconds: float) -> dict[str, float]:
    """Return what all processes of a setting did: rates and memory added up, times averaged."""
    command = [sys.executable, __file__, str(path), "--seconds", str(seconds)]
    command += ["--serve", json.dumps(asdict(setting))]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(setting.processes)
    ]
    for worker in workers:
        assert worker.stdout is not None, "piped"
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdin is not None, "piped"
        worker.stdin.write("go\n")
        worker.stdin.flush()
    found = [json.loads(worker.communicate()[0]) for worker in workers]
    added = {name: sum(one[name] for one in found) for name in ("rate", "memory")}
    mean = {n: sum(one[n] for one in found) / len(found) for n in ("median", "late", "processor")}
    return added | mean


def compare(path: Path, table: str, seconds: float, rounds: int) -> None:
    """Measure the settings of a table in turn, and print it."""
    every: dict[str, list[dict[str, float]]] = {name: [] for name in TABLES[table]}
    for _ in range(rounds):
        for name, setting in TABLES[table].items():
            every[name].append(measure(path, setting, seconds))
    best = {name: max(found, key=lambda one: one["rate"]) for name, found in every.items()}
    first = next(iter(best.values()))["rate"]
    print(
        "| setting | explanations a second: best round (median) | to the first | time of one, ms:"
        " median, 95 % | processor time of one, ms | memory, MB |\n|---|---|---|---|---|---|"
    )
    for name, found in every.items():
        own, middle = best[name], statistics.median(one["rate"] for one in found)
        print(
            f"| {name} | {own['rate']:.0f} ({middle:.0f}) | {own['rate'] / first:.2f}"
            f" | {1e3 * own['median']:.1f}, {1e3 * own['late']:.1f} | {1e3 * own['processor']:.1f}"
            f" | {own['memory']:.0f} |"
        )


ARENA_STEPS: Sequence[tuple[str, int, int]] = (
    ("after 50 single images", 1, 50),
    ("after a batch of 32", 32, 1),
    ("after 50 single images more", 1, 50),
)
"""What is shown -> images in a call, and calls."""

SHRINK = {"memory.enable_memory_arena_shrinkage": "cpu:0"}


def hold(path: Path, kind: str) -> list[float]:
    """Return megabytes held after each of `ARENA_STEPS`, and milliseconds of a single image."""
    setting = Setting(arena=kind != "arena off")
    explainer = load(path, device="cpu", session_options=options(setting))
    run = onnxruntime.RunOptions()
    for key, value in SHRINK.items() if kind == "arena, shrunk after each run" else ():
        run.add_run_config_entry(key, value)
    name, session = explainer.image_input.name, explainer._session
    outputs = [node.name for node in session.get_outputs()]
    found, single = [], []
    for _, count, times in ARENA_STEPS:
        x = image(explainer, count)
        for _ in range(times):
            start = time.perf_counter()
            session.run(outputs, {name: x}, run)
            single += [time.perf_counter() - start] * (count == 1)
        found.append(anonymous_kilobytes() / 1024)
    return [*found, 1e3 * statistics.median(single)]


def arenas(path: Path, rounds: int) -> None:
    """Print what the memory arena holds."""
    kinds = ("arena on", "arena, shrunk after each run", "arena off")
    print(f"| memory, MB | {' | '.join(s for s, *_ in ARENA_STEPS)} | one image, ms |")
    print("|---|---|---|---|---|")
    found: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            command = [sys.executable, __file__, str(path), "--hold", kind]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[kind].append(json.loads(done.stdout))
    for kind, all_rounds in found.items():
        middle = [statistics.median(values) for values in zip(*all_rounds, strict=True)]
        held = " | ".join(f"{value:.0f}" for value in middle[:-1])
        print(f"| {kind} | {held} | {middle[-1]:.1f} |")


def first_calls(path: Path) -> None:
    """Print how long first calls take, beside the later ones."""
    setting = Setting(threads=2)
    print("| call | first, ms | later, ms |\n|---|---|---|")
    start = time.perf_counter()
    explainer = load(path, device="cpu", session_options=options(setting))
    print(f"| `load` | {1e3 * (time.perf_counter() - start):.0f} | |")
    x = image(explainer)
    photo = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    calls: Mapping[str, Any] = {
        "explain": lambda: explainer.explain(x),
        "explain_image": lambda: explainer.explain_image(photo),
        "predict": lambda: explainer.predict(x),
        "explain(method='reciprocam')": lambda: explainer.explain(x, None, "reciprocam"),
    }
    for name, call in calls.items():
        took = []
        for _ in range(10):
            start = time.perf_counter()
            call()
            took.append(1e3 * (time.perf_counter() - start))
        print(f"| `{name}` | {took[0]:.1f} | {statistics.median(took[1:]):.1f} |")


FORK_CASES = (
    "loaded and used before the fork",
    "loaded before the fork",
    "loaded before, and again in the child",
    "loaded in the child alone",
)
"""When the Explainer is loaded with which the child explains."""


def fork(path: Path, threads: int, case: str) -> str:
    """Return what becomes of a child process that is to explain, forked as the case says."""
    own = Setting(threads=threads)
    before = again = None
    if case != FORK_CASES[3]:
        before = load(path, device="cpu", session_options=options(own))
    if before is not None and case == FORK_CASES[0]:
        before.explain(image(before))
    child = os.fork()
    if not child:
        if before is None or case == FORK_CASES[2]:
            again = load(path, device="cpu", session_options=options(own))
        explainer = again or before
        assert explainer is not None, "one of the two is there"
        for _ in range(20):
            explainer.explain(image(explainer))
        os._exit(0)
    return _fate(child, patience=5)


def forks(path: Path, rounds: int) -> None:
    """Print whether forked children can explain, each case several times."""
    print("| threads of the session | Explainer | children that explain | hang | crash |")
    print("|---|---|---|---|---|")
    for threads in (1, 2):
        for case in FORK_CASES:
            command = [sys.executable, __file__, str(path), "--fork", case, str(threads)]
            fates = [
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
                for _ in range(rounds)
            ]
            counts = " | ".join(str(fates.count(fate)) for fate in ("explains", "hangs", "crashes"))
            print(f"| {threads} | {case} | {counts} |")


def _fate(child: int, patience: float) -> str:
    for _ in range(int(patience / 0.05)):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "explains" if status == 0 else "crashes"
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "hangs"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="original, or exported (.cam.onnx)")
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=4)
    names = (*TABLES, "arena", "first", "fork")
    parser.add_argument("--table", action="append", choices=names, help="may be repeated; all")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    parser.add_argument("--fork", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        print(json.dumps(serve(given.model, Setting(**json.loads(given.serve)), given.seconds)))
        return
    if given.fork:
        print(fork(given.model, int(given.fork[1]), given.fork[0]))
        return
    if given.hold:
        print(json.dumps(hold(given.model, given.hold)))
        return
    others: Mapping[str, Callable[[Path], None]] = {
        "arena": lambda path: arenas(path, given.rounds),
        "first": first_calls,
        "fork": lambda path: forks(path, given.rounds),
    }
    print(f"onnxruntime {onnxruntime.__version__}, {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory() as folder:
        ready = given.model.name.endswith(".cam.onnx")
        path = given.model if ready else exported(given.model, Path(folder))
        for table in given.table or names:
            print(f"\n{table}\n", flush=True)
            if table in TABLES:
                compare(path, table, given.seconds, given.rounds)
            else:
                others[table](path)


if __name__ == "__main__":
    main()
