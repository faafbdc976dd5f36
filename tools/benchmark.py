"""Measure what explaining costs, over plain inference and against what else there is.

    python tools/benchmark.py [MODEL ...] [--peer-python PYTHON]       # writes docs/performance.*
    python tools/benchmark.py [MODEL ...] --compare docs/performance.json    # what got slower?

MODEL is a name of `tools/bench/subjects.py` or an ONNX file; without, all of those names. Files of
torchvision architectures lie in `--models-dir`, and are made there where PYTHON has torch.

Our own contestants run in one process, interleaved; engines that are compared with each other run
in a process each, one at a time (`--peer-python`: an environment with torch, torchvision, grad-cam,
torchcam, captum, openvino, openvino_xai, onnx-ad and onnxruntime). What of it is missing, the
tables say. `--compare` measures what the older run did, unless other models, layers or batches are
named.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.bench.compare import BAD, changes, notes  # noqa: E402
from tools.bench.contestants import ENGINES, EXPLAINED, PEERS, PLAIN  # noqa: E402
from tools.bench.page import document, write_page  # noqa: E402
from tools.bench.results import OURS, Cell, Results, ResultsError  # noqa: E402
from tools.bench.session import Driver, Plan  # noqa: E402
from tools.bench.subjects import SUBJECTS, Subject, UnknownSubjectError, subject_of  # noqa: E402

PAGE = ROOT / "docs" / "performance.md"
MODELS = ROOT / "build" / "benchmark"

BATCHES = (1, 8)
LAYERS = {"auto": BATCHES, "0": (1,)}
"""What is measured unless something else is asked for."""


def main(arguments: list[str] | None = None) -> int:
    """Measure, write what is asked for, and return the exit code: 1 where something got slower."""
    options = parser().parse_args(arguments)
    try:
        old = None if options.compare is None else Results.load(options.compare)
        settle(options, old)
        if options.results is None:
            new = measure(tuple(map(subject_of, options.models)), plan_of(options))
        else:
            new = Results.load(options.results)
        if options.again is not None:
            new = Results.load(options.again).with_again(new)
    except (ResultsError, UnknownSubjectError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    output = options.output or (options.again and options.again.with_suffix(".md"))
    if output is None and old is None and not options.check:
        output = PAGE
    if output is not None:
        write_page(new, output)
    else:
        print(document(new))
    if options.check:
        return int(any(cell.failures for cell in new.cells))
    return 0 if old is None else tell_changes(old, new)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = result.add_argument
    add("models", nargs="*", metavar="MODEL")
    add("--layer", action="append", help="as for export; may be repeated (auto and 0)")
    add("--peer-layer", action="append", help="likewise, for the comparison with peers (auto)")
    add(
        "--batch",
        action="append",
        type=int,
        help="number of images; may be repeated (1 and 8; layer 0: 1)",
    )
    add("--threads", type=int, help="of every engine (one a core)")
    add("--seconds", type=float, default=8.0, help="time for each line of a table, about")
    add("--repetitions", type=int, nargs=2, default=(10, 60), help="of ours: at least, at most")
    add("--peer-python", metavar="PYTHON", help="interpreter of the peers' environment")
    add("--engine", action="append", choices=PEERS, help="a peer; may be repeated (all)")
    add("--models-dir", type=Path, default=MODELS, help="ONNX files of torchvision architectures")
    add("--output", type=Path, metavar="PAGE.md", help="the page, its picture and JSON beside it")
    add("--compare", type=Path, metavar="OLD.json", help="say what changed since that run")
    add("--again", type=Path, metavar="OLD.json", help="put what is measured into that run's page")
    add("--results", type=Path, metavar="NEW.json", help="take results from there, measure nothing")
    add("--check", action="store_true", help="does it work? one small model, nothing is written")
    return result


def settle(options: argparse.Namespace, old: Results | None) -> None:
    """Fill in what was not asked for: what the older run measured, where there is one."""
    cells = [] if old is None else list(old.of_group(OURS))
    if options.check:
        options.models, options.batch = ["tiny_shapes"], [1]
        options.seconds, options.repetitions = 0.0, (3, 3)
    options.models = options.models or list(dict.fromkeys(c.model for c in cells)) or list(SUBJECTS)
    usual: dict[str, tuple[int, ...]] = {}
    for cell in cells:
        usual[cell.layer] = tuple(dict.fromkeys((*usual.get(cell.layer, ()), cell.batch)))
    usual = usual or LAYERS
    batches = tuple(options.batch or ())
    layers = options.layer or usual
    options.layers = {name: batches or usual.get(name, BATCHES) for name in layers}
    options.peer_layers = {name: batches or BATCHES for name in options.peer_layer or ["auto"]}
    then = None if old is None else old.settings["threads"]
    options.threads = options.threads or then or os.cpu_count() or 1


def plan_of(options: argparse.Namespace) -> Plan:
    """Return what the options ask to measure."""
    peers = tuple(options.engine or PEERS) if options.peer_python else ()
    return Plan(
        own_python=sys.executable,
        peer_python=options.peer_python,
        engines=tuple(name for name in ENGINES if name in {PLAIN, EXPLAINED, *peers} and peers),
        layers=options.layers,
        peer_layers=options.peer_layers,
        threads=options.threads,
        seconds=options.seconds,
        repetitions=tuple(options.repetitions),
        models=options.models_dir,
    )


def measure(subjects: tuple[Subject, ...], plan: Plan) -> Results:
    """Measure all models, and tell the progress."""
    settings = {"threads": plan.threads, "seconds": plan.seconds}
    results = Results(machine(), settings)
    with tempfile.TemporaryDirectory() as scratch:
        driver = Driver(plan, Path(scratch), results.versions, results.installed)
        for subject in subjects:
            for cell in driver.measure(subject):
                results.cells.append(cell)
                print(progress(cell), file=sys.stderr, flush=True)
    return results


def progress(cell: Cell) -> str:
    """Return a line about a cell."""
    over = {name: f["ratio_value"] for name, f in cell.figures().items() if "ratio_value" in f}
    listed = [f"{name} {value:.3f}" for name, value in over.items() if name != PLAIN]
    listed += [f"{name}: {reason}" for name, reason in cell.failures.items()]
    return f"{cell.model}, layer {cell.layer}, batch {cell.batch}: {', '.join(listed)}"


def machine() -> dict[str, Any]:
    """Return what this runs on."""
    information = Path("/proc/cpuinfo")
    names = (
        [
            line.partition(":")[2].strip()
            for line in information.read_text("utf-8").splitlines()
            if line.startswith("model name")
        ]
        if information.exists()
        else []
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": (names or [platform.processor() or platform.machine()])[0],
        "cores": os.cpu_count() or 1,
        "memory_gb": round(memory / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def tell_changes(old: Results, new: Results) -> int:
    """Print what changed, and return 1 where something got slower or lost."""
    for note in notes(old, new):
        print(note)
    found = list(changes(old, new))
    for change in found:
        print(change)
    bad = sum(change.word in BAD for change in found)
    print(f"{bad} slower or lost, {len(found) - bad} faster, beyond noise")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
