"""Run exported files on several releases of onnxruntime, and write docs/runtime-versions.md.

    python tools/runtime_versions.py --runtime 1.23.2 --runtime 1.32.0

Each release is installed into a virtual environment of its own (needs a package index). The
files: the light models of the onnx wheel with random weights, and the models of this repository,
exported at their recommended layer by the reverse builder, and by onnxruntime-training where it
is installed. The release that this Python has is the reference; `--runtime` names the others.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from onnx_gradcam.contract import ADDED_OUTPUTS, GRADIENTS_OUTPUT, PREFIX  # noqa: E402
from onnx_gradcam.errors import BuilderUnavailableError  # noqa: E402
from onnx_gradcam.export.pipeline import export_model  # noqa: E402
from tools.light_models import light_model, light_model_names  # noqa: E402

Array = np.ndarray[Any, Any]

BUILDERS = ("reverse", "onnxruntime-training")
DEFAULT_RUNTIMES = ("1.23.2",)
TOLERANCE = 1e-4
"""Largest accepted difference between releases, relative to the largest value of an output."""

EXPORTED, FEEDS = "exported.onnx", "feeds.npz"

WORKER = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
model, feeds, results, version = sys.argv[1:]
if onnxruntime.__version__ != version:
    sys.exit("this is onnxruntime " + onnxruntime.__version__ + ", not " + version)
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
with numpy.load(feeds) as archive:
    values = session.run(None, dict(archive))
names = [output.name for output in session.get_outputs()]
numpy.savez(results, **dict(zip(names, values)))
"""


@dataclass(frozen=True)
class Row:
    """One exported file on one release.

    Attributes:
        model: name of the model.
        builder: who built the gradient.
        opset: opset and IR version of the file.
        operators: number of different added operators.
        runtime: release of onnxruntime.
        outputs: largest relative difference of the original outputs from the reference.
        gradients: the same of ``cam_gradients``.
        failure: why it does not run, else empty.
    """

    model: str
    builder: str
    opset: str
    operators: int
    runtime: str
    outputs: float = 0.0
    gradients: float = 0.0
    failure: str = ""

    @property
    def good(self) -> bool:
        """Whether it runs and agrees."""
        return not self.failure and max(self.outputs, self.gradients) <= TOLERANCE


def models() -> Iterator[tuple[str, onnx.ModelProto | Path]]:
    """Yield (name, model)."""
    for path in sorted((ROOT / "models").glob("*.onnx")):
        yield path.stem, path
    yield from ((name, light_model(name)) for name in light_model_names())


def make_environment(folder: Path, runtime: str) -> Path:
    """Install one release of onnxruntime into a virtual environment; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, f"onnxruntime=={runtime}"], check=True)
    return python


def feeds_of(path: Path) -> dict[str, Array]:
    """Return random values for the image input, batch 1."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    return {
        node.name: rng.standard_normal(
            [size if isinstance(size, int) else 1 for size in node.shape]
        ).astype(np.float32)
        for node in session.get_inputs()
    }


def run(python: Path, runtime: str, folder: Path) -> dict[str, Array] | str:
    """Run the file in another Python; return its outputs, or the last line of what it said."""
    results = folder / "results.npz"
    results.unlink(missing_ok=True)
    files = (folder / EXPORTED, folder / FEEDS, results)
    command = [str(python), "-c", WORKER, *map(str, files), runtime]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    with np.load(results) as archive:
        return {name: archive[name] for name in archive.files}


def is_standard(node: onnx.NodeProto, opset: int) -> bool:
    """Return whether the standard domain has the operator at this opset."""
    return node.domain in {"", "ai.onnx"} and bool(onnx.defs.has(node.op_type, opset, ""))


def difference(before: Array, after: Array) -> float:
    """Return the largest difference relative to the largest value."""
    scale = float(np.abs(before).max()) or 1.0
    return float(np.abs(before.astype(np.float64) - after).max()) / scale


def compare(row: Row, before: dict[str, Array], after: dict[str, Array] | str) -> Row:
    """Return the row with its figures filled in."""
    if isinstance(after, str):
        return Row(**(vars(row) | {"failure": after}))
    originals = [name for name in before if name not in ADDED_OUTPUTS]
    outputs = max(difference(before[name], after[name]) for name in originals)
    gradients = difference(before[GRADIENTS_OUTPUT], after[GRADIENTS_OUTPUT])
    return Row(**(vars(row) | {"outputs": outputs, "gradients": gradients}))


def rows(pythons: dict[str, Path], folder: Path) -> Iterator[Row]:
    """Export every model with every builder and yield one row per release.

    Raises:
        SystemExit: a file does not run on the reference.
    """
    exported = folder / EXPORTED
    for name, model in models():
        for builder in BUILDERS:
            try:
                export_model(model, exported, gradient_builder=builder, force=True, verify=False)
            except BuilderUnavailableError:
                continue
            proto = onnx.load(exported)
            values = feeds_of(exported)
            np.savez(folder / FEEDS, **values)  # type: ignore[arg-type]
            before = run(Path(sys.executable), onnxruntime.__version__, folder)
            if isinstance(before, str):
                raise SystemExit(f"error: {name} does not run here: {before}")
            if not before[GRADIENTS_OUTPUT].any():
                raise SystemExit(f"error: the gradient of {name} is zero: nothing is compared")
            opset = next(o.version for o in proto.opset_import if o.domain in {"", "ai.onnx"})
            added = [n for n in proto.graph.node if n.name.startswith(PREFIX)]
            if foreign := [n.op_type for n in added if not is_standard(n, opset)]:
                raise SystemExit(f"error: {name}: operators that are not standard: {foreign}")
            operators = len({n.op_type for n in added})
            for runtime, python in pythons.items():
                row = Row(name, builder, f"{opset}, IR {proto.ir_version}", operators, runtime)
                yield compare(row, before, run(python, runtime, folder))


def figure(value: float) -> str:
    """Return a difference for the table."""
    return f"{value:.0e}" if value else "identical"


def table(found: list[Row]) -> str:
    """Return the page for docs/."""
    lines = [
        "# Exported files on other releases of onnxruntime",
        "",
        f"Written by `tools/runtime_versions.py`. Reference: onnxruntime {onnxruntime.__version__};"
        " all figures are largest differences",
        "from it, relative to the largest value, CPU provider, default optimisation level. All"
        " added operators belong to the",
        "standard domain `ai.onnx`.",
        "",
        "| model | builder | opset | added operators | onnxruntime | outputs | gradients |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.model} | {r.builder} | {r.opset} | {r.operators} | {r.runtime} | "
        + (
            f"does not run: {r.failure} | |"
            if r.failure
            else f"{figure(r.outputs)} | {figure(r.gradients)} |"
        )
        for r in found
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table.

    Raises:
        SystemExit: with 1 when a file does not run or differs.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runtime", action="append", help="release to try, again for several")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs/runtime-versions.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pythons = {
            runtime: make_environment(folder / runtime, runtime)
            for runtime in arguments.runtime or DEFAULT_RUNTIMES
        }
        found = []
        for row in rows(pythons, folder):
            print(
                row.model,
                row.builder,
                row.runtime,
                row.failure or figure(row.gradients),
                flush=True,
            )
            found.append(row)
    arguments.output.write_text(table(found), encoding="utf-8")
    bad = [row for row in found if not row.good]
    raise SystemExit(f"error: {len(bad)} of {len(found)} differ or fail" if bad else 0)


if __name__ == "__main__":
    main()
