"""Prove on a GPU that explanations are those of the CPU, and measure what they cost there.

    python tools/gpu_check.py [MODEL.onnx ...] [--repetitions 50] [--json gpu.json]

Without models: the demonstration models. Each one is exported as it is and in half precision, and
explained by the CUDA provider (TF32 off and on), by TensorRT where it is there, plainly and as a
CUDA graph. Writes the results as JSON, and as tables behind the mark in docs/gpu.md.

Without a GPU it says so, writes nothing and ends with exit code 5; `--stand-in` shows the check
itself on the CPU, on standard output. Exit code 4: something differs by more than its tolerance.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import onnx_gradcam  # noqa: E402
from onnx_gradcam import OnnxGradCamError, export_model, load  # noqa: E402
from tools.gpu_engines import (  # noqa: E402
    CONTESTANTS,
    CUDA,
    ENGINES,
    HALF,
    PLAIN,
    STAND_IN,
    TENSORRT,
    Engine,
    Equality,
    Placement,
    Timed,
    compare,
    compare_graphs,
    placement,
    time_model,
)

DOCUMENT = ROOT / "docs" / "gpu.md"
MARK = "<!-- Below: written by tools/gpu_check.py -->\n"
DEMONSTRATION = ("tiny_shapes", "efficientnet_lite0")
DIFFERS, NO_GPU = 4, 5
"""Exit codes."""


@dataclass
class Report:
    """Everything that was found on one machine.

    Attributes:
        environment: what it is, and what is installed.
        equality: how values compare with the CPU's.
        placements: where nodes run.
        timings: how long explanations take.
        refusals: what could not be done, and why.
    """

    environment: Mapping[str, str]
    equality: list[Equality] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)
    timings: list[Timed] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Return the report as Markdown."""
        parts = ["## Measured\n", *(f"- {k}: {v}" for k, v in self.environment.items())]
        parts += ["\n### Equal to the CPU\n", _equality_table(self.equality)]
        parts += ["\n### Where the nodes run\n", _placement_table(self.placements)]
        parts += ["\n### What it costs\n", _timing_table(self.timings)]
        if self.refusals:
            parts += ["\n### What could not be done\n", *(f"- {one}" for one in self.refusals)]
        return "\n".join(parts) + "\n"


def why_no_gpu() -> str:
    """Return why nothing can be measured; empty where there is a GPU."""
    available = onnxruntime.get_available_providers()
    if CUDA not in available:
        return f"this onnxruntime has {', '.join(available)}"
    try:
        load_smallest()
    except OnnxGradCamError as error:
        return str(error)
    return ""


def load_smallest() -> None:
    """Open a small exported file on the GPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.onnx"
        small = ROOT / "models" / "tiny_shapes.onnx"
        export_model(small, path, gradient_builder="reverse", verify=False)
        load(path, device="cuda")


def environment() -> dict[str, str]:
    """Return what is installed, and which GPU there is."""
    found = {
        "onnx-gradcam": onnx_gradcam.__version__,
        "onnxruntime": f"{onnxruntime.__version__} ({onnxruntime.get_build_info()})",
        "CUDA of onnxruntime": getattr(onnxruntime, "cuda_version", "") or "none",
        "providers": ", ".join(onnxruntime.get_available_providers()),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
    }
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
        found["GPU (name, driver, memory)"] = " / ".join(done.stdout.split("\n")).strip(" /")
    except (OSError, subprocess.CalledProcessError) as error:
        found["GPU (name, driver, memory)"] = f"nvidia-smi does not tell: {error}"
    return found


def half(source: Path, target: Path) -> None:
    """Write a model in half precision with float32 inputs and outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(str(source)), keep_io_types=True)
    nodes, known = list(model.graph.node), {""}
    known |= {value.name for value in (*model.graph.input, *model.graph.initializer)}
    del model.graph.node[:]
    while nodes:  # the converter leaves its casts at the end
        ready = [node for node in nodes if known.issuperset(node.input)]
        nodes = [node for node in nodes if not known.issuperset(node.input)]
        model.graph.node.extend(ready)
        known.update(name for node in ready for name in node.output)
    onnx.save(model, target)


def check(models: Sequence[Path], engines: Sequence[Engine], given: argparse.Namespace) -> Report:
    """Return what was found, for each model in both precisions on each engine."""
    report = Report(environment())
    for source in models:
        for precision in ("float32", "float16"):
            name = f"{source.stem}, {precision}"
            print(name, file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                steps = source, Path(folder), precision, given.layers
                for files in _tried(report, name, prepared, *steps):
                    for engine in engines:
                        tolerance = HALF if precision == "float16" else engine.tolerance
                        _on_engine(report, name, files, engine, tolerance, given)
    return report


def prepared(
    source: Path, folder: Path, precision: str, layers: Sequence[str]
) -> dict[str, dict[str, Path]]:
    """Return by layer the original file and its exports: with A and G, and with the CAM alone."""
    plain = source
    if precision == "float16":
        plain = folder / "half.onnx"
        half(source, plain)
    files = {}
    for number, layer in enumerate(layers):
        of_layer = {"plain": plain}
        for kind, chosen in (("exported", {}), ("cam", {"fuse_cam": "gradcam", "outputs": "cam"})):
            of_layer[kind] = folder / f"{kind}{number}.onnx"
            options: dict[str, Any] = {"layer": layer, "verify": False, **chosen}
            export_model(plain, of_layer[kind], gradient_builder="reverse", **options)
        files[layer] = of_layer
    return files


def _on_engine(
    report: Report,
    name: str,
    files: Mapping[str, Mapping[str, Path]],
    engine: Engine,
    tolerance: float,
    given: argparse.Namespace,
) -> None:
    for layer, of_layer in files.items():
        model = f"{name}, layer {layer}"
        where = f"{model}, {engine.name}"
        for title, kind in ((model, "exported"), (f"{model}, CAM in the file", "cam")):
            for compared, how in ((compare, ""), (compare_graphs, ", CUDA graph")):
                own = title, of_layer[kind], engine, tolerance
                for found in _tried(report, where + how, compared, *own):
                    report.equality += found
        exported = of_layer["exported"]
        report.placements += _tried(report, where, placement, model, exported, engine)
        for batch in given.batch or (1, 8):
            timed = model, of_layer, engine, batch, given.repetitions
            report.timings += _tried(report, where, time_model, *timed)


def _tried(report: Report, where: str, call: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what a step gives, as a list of one; of none where it fails, and why is reported."""
    try:
        return [call(*arguments)]
    except Exception as error:  # one model or provider must not end the others
        line = " ".join(str(error).split())[:400]
        report.refusals.append(f"{where}: {type(error).__name__}: {line}")
        return []


def _equality_table(found: Sequence[Equality]) -> str:
    lines = [
        "| model | engine | value | largest difference | may be | |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {e.model} | {e.engine} | {e.value} | {e.error:.1e} | {e.tolerance:.0e} |"
        f" {'' if e.holds else '**differs**'} |"
        for e in found
    ]
    return "\n".join(lines)


def _placement_table(found: Sequence[Placement]) -> str:
    lines = ["| model | engine | nodes | on the CPU, added | on the CPU, of the model |"]
    lines.append("|---|---|---|---|---|")
    for p in found:
        counts = ", ".join(f"{name}: {count}" for name, count in p.counts.items())
        hosts = [
            ", ".join(f"{op} {count}" for op, count in sorted(p.on_host[group].items())) or "none"
            for group in ("added", "of the model")
        ]
        lines.append(f"| {p.model} | {p.engine} | {counts} | {hosts[0]} | {hosts[1]} |")
    return "\n".join(lines)


def _timing_table(found: Sequence[Timed]) -> str:
    lines = [
        f"| model | engine | batch | plain, ms (quartiles) | {' | '.join(CONTESTANTS[1:])} |",
        f"|---|---|---|---|{'---|' * len(CONTESTANTS[1:])}",
    ]
    for t in found:
        plain = t.times[PLAIN]
        ratios = [
            f"{t.times[name].median / plain.median:.3f}" if name in t.times else "refused"
            for name in CONTESTANTS[1:]
        ]
        lines.append(
            f"| {t.model} | {t.engine} | {t.batch} | {plain.median * 1e3:.2f}"
            f" ({plain.low * 1e3:.2f} to {plain.high * 1e3:.2f}) | {' | '.join(ratios)} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, write, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, help="the demonstration models if none")
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--batch", action="append", type=int, help="may be repeated; 1 and 8")
    parser.add_argument("--layers", nargs="+", default=["auto", "0"], help="as --layer of export")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    parser.add_argument("--stand-in", action="store_true", help="the CPU in the place of a GPU")
    given = parser.parse_args(arguments)
    missing = "" if given.stand_in else why_no_gpu()
    if missing:
        print(f"no GPU here: nothing was measured ({missing})", file=sys.stderr)
        return NO_GPU
    available = onnxruntime.get_available_providers()
    engines = (
        [STAND_IN] if given.stand_in else [e for e in ENGINES if e.providers[0][0] in available]
    )
    found = [ROOT / "models" / f"{name}.onnx" for name in DEMONSTRATION]
    report = check(given.models or [path for path in found if path.exists()], engines, given)
    if TENSORRT not in available:
        report.refusals.append("TensorRT: not part of this onnxruntime")
    text = report.markdown()
    if given.stand_in:
        print("No GPU was used: the CPU stood in its place, to show that this check works.\n")
    else:
        given.json.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
        page = given.document.read_text(encoding="utf-8").split(MARK)[0]
        given.document.write_text(page + MARK + "\n" + text, encoding="utf-8")
    print(text)
    return 0 if all(e.holds for e in report.equality) else DIFFERS


if __name__ == "__main__":
    sys.exit(main())
