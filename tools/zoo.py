"""Build the architecture zoo, compare every gradient with PyTorch autograd, write docs/zoo.md.

Environment of its own (nothing of it is a dependency of the project or its tests)::

    python -m venv oracle && oracle/bin/pip install torch==2.13.0
    oracle/bin/pip install --no-deps timm torchvision transformers
    oracle/bin/pip install numpy pillow click onnx onnxscript onnxruntime opencv-python-headless
    oracle/bin/pip install huggingface_hub safetensors pyyaml regex tokenizers tqdm
    oracle/bin/python tools/zoo.py --folder zoo --report docs/zoo.md

Networks have seeded random weights; nothing is downloaded. ONNX files and results stay in the
folder, so that a later run goes on where this one ended; ``--again failed`` measures what did not
succeed once more (``wrong``: also what PyTorch did not export).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from tools.zoo_export import EXPORTERS, load_exporters  # noqa: E402
from tools.zoo_models import Architecture, architectures, load_libraries  # noqa: E402
from tools.zoo_report import failures, report, summary  # noqa: E402
from tools.zoo_slice import write_slice  # noqa: E402
from tools.zoo_worker import Plan, read_results, run_in_process  # noqa: E402

_AGAIN: dict[str, Callable[[dict[str, Any] | None], bool]] = {
    "missing": lambda row: row is None,
    "failed": lambda row: row is None or row["status"] not in {"ok", "not exported"},
    "wrong": lambda row: row is None or row["status"] != "ok",
    "all": lambda row: True,
}
"""Which rows are measured, by their last result."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("zoo"), help="for files and results")
    parser.add_argument(
        "--only", nargs="*", metavar="NAME", help="architectures, or parts of names"
    )
    parser.add_argument("--family", nargs="*", help="families")
    parser.add_argument("--limit", type=int, help="at most so many architectures")
    parser.add_argument("--exporter", nargs="*", choices=EXPORTERS, default=EXPORTERS)
    parser.add_argument("--gradient-builder", default="reverse")
    parser.add_argument(
        "--again", choices=sorted(_AGAIN), default="missing", help="rows to measure"
    )
    parser.add_argument("--build-only", action="store_true", help="write the ONNX files, no more")
    parser.add_argument("--no-verify", action="store_true", help="exports do not prove themselves")
    parser.add_argument("--seconds", type=float, default=300, help="limit per architecture")
    parser.add_argument("--keep-mb", type=float, default=20, help="larger ONNX files are deleted")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--failures", type=Path, metavar="FILE", help="write failures, grouped")
    parser.add_argument("--slice", type=Path, metavar="FOLDER", help="write the tests' fixtures")
    parser.add_argument("--no-run", action="store_true", help="report only")
    return parser.parse_args()


def _chosen(arguments: argparse.Namespace) -> list[Architecture]:
    named = architectures()
    only = arguments.only or [""]
    chosen = [
        a
        for a in named.values()
        if any(part == a.name if part in named else part in a.name for part in only)
        and (not arguments.family or a.family in arguments.family)
    ]
    return chosen[: arguments.limit]


def _write_failures(arguments: argparse.Namespace, chosen: list[Architecture]) -> None:
    if arguments.failures:
        results = {a: read_results(arguments.folder, a) for a in chosen}
        arguments.failures.write_text(failures(results, arguments.folder), encoding="utf-8")


def main() -> int:
    """Run what is asked for; exit with 1 when a row of those chosen is not right."""
    arguments = _arguments()
    torch.set_num_threads(1)
    if arguments.slice:
        print("\n".join(write_slice(arguments.slice, arguments.only)))
        return 0
    plan = Plan(
        folder=arguments.folder,
        exporters=tuple(arguments.exporter),
        builder=arguments.gradient_builder,
        measure=not arguments.build_only,
        wanted=_AGAIN[arguments.again],
        limit_s=arguments.seconds,
        keep_mb=arguments.keep_mb,
        verify=not arguments.no_verify,
    )
    chosen = _chosen(arguments)
    keys = [f"{exporter}/{layer}" for exporter in plan.exporters for layer in ("auto", "first")]
    if not arguments.no_run:
        load_libraries(chosen)
        load_exporters(plan.exporters)
    for index, architecture in enumerate([] if arguments.no_run else chosen):
        before = read_results(plan.folder, architecture)
        if plan.measure and not any(plan.wanted(before.get(key)) for key in keys):
            continue
        start = time.perf_counter()
        rows = run_in_process(architecture, plan)
        states = ", ".join(f"{key} {rows[key]['status']}" for key in keys if key in rows)
        took = time.perf_counter() - start
        print(f"{index + 1}/{len(chosen)} {architecture.name} {took:.0f} s: {states}", flush=True)
        _write_failures(arguments, chosen)
    _write_failures(arguments, chosen)
    results = {a: read_results(plan.folder, a) for a in chosen}
    if arguments.report:
        arguments.report.write_text(report(results), encoding="utf-8")
    print(summary(results))
    return 1 if any(r["status"] != "ok" for rows in results.values() for r in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
