"""Export the files of a folder, compare and report: writes docs/producers.md.

    python tools/producers.py FOLDER ... [--only NAME ...] [--output docs/producers.md]

The folders hold what `producer_keras`, `producer_torch`, `producer_sklearn` and
`producer_rewrites` wrote, or any ONNX classifiers. Every file is exported at the default layer and
at the first convolution, with the builder that ``auto`` takes and with ``reverse``, verified, and
run beside the original on onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import onnx
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from onnx_gradcam.errors import OnnxGradCamError  # noqa: E402
from onnx_gradcam.export.inspection import inspect_model  # noqa: E402
from onnx_gradcam.export.pipeline import export_model  # noqa: E402
from onnx_gradcam.export.report import ExportReport  # noqa: E402
from tools.producer_note import read_note  # noqa: E402
from tools.producer_traits import opset_and_ir, traits  # noqa: E402

BUILDERS = ("auto", "reverse")
FIRST = frozenset({"Conv", "ConvInteger", "Relu", "Clip", "Add", "Mul", "FusedConv", "LeakyRelu"})
"""Operators whose output may be the first feature map that is measured."""


@dataclass
class Measured:
    """What one export gave.

    Attributes:
        builder: the one that worked.
        gradient: largest relative difference from central differences.
        off: relative difference of the outputs with optimisations off.
        default: the same at onnxruntime's default level.
        problem: the refusal, empty when it worked.
        seconds: time taken.
    """

    builder: str = ""
    gradient: float | None = None
    off: float | None = None
    default: float | None = None
    problem: str = ""
    seconds: float = 0.0


@dataclass
class Row:
    """One file at one layer."""

    file: str
    layer: str = ""
    op_type: str = ""
    shape: str = ""
    results: dict[str, Measured] = field(default_factory=dict)


@dataclass
class Entry:
    """One file."""

    file: str
    producer: str
    what: str
    group: str
    opset: str
    traits: list[str]
    rows: list[Row]


def measure(path: Path) -> Entry:
    """Export a file at both layers with both builders."""
    model = onnx.load(path, load_external_data=False)
    note = read_note(path)
    rows = [_row(path, "auto")]
    first = _first_layer(path)
    if first is not None and first != rows[0].layer:
        rows.append(_row(path, first))
    return Entry(
        path.stem, note.producer, note.what, note.group, opset_and_ir(model), traits(model), rows
    )


def _first_layer(path: Path) -> str | None:
    try:
        layers = inspect_model(path).candidates
    except OnnxGradCamError:
        return None
    return next((layer.tensor for layer in layers if layer.op_type in FIRST), None)


def _row(path: Path, layer: str) -> Row:
    row = Row(path.stem)
    for builder in BUILDERS:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                report = export_model(
                    path, Path(folder) / "cam.onnx", layer=layer, gradient_builder=builder
                )
            except OnnxGradCamError as error:
                row.results[builder] = Measured(problem=str(error))
            else:
                row.layer = report.target
                row.shape = "x".join("?" if d is None else str(d) for d in report.target_shape[1:])
                row.results[builder] = _measured(report)
        row.results[builder].seconds = time.perf_counter() - start
    return row


def _measured(report: ExportReport) -> Measured:
    assert report.verification is not None
    values = {check.name: check.value for check in report.verification.checks}
    return Measured(
        report.builder,
        next((v for n, v in values.items() if n.startswith("gradient")), None),
        values.get("outputs, optimisations off"),
        values.get("outputs, default level"),
    )


HEADER = """# Files of many producers

Written by `tools/producers.py`, onnxruntime {version}, CPU provider. Each file is exported at the
layer that `--layer auto` picks and at the first feature map behind a convolution, with
`--gradient-builder auto` and `reverse`, and verified.

- *gradient*: relative difference of dy/dA from central differences, along the gradient; `auto` /
  `reverse`. Where a ReLU follows it is up to 2e-2: the differences then step over kinks. *lost*:
  zero or too small to be told from rounding, which the export says in a warning.
- *outputs*: original outputs of the exported file against the original, optimisations off / at the
  default level; *same* is to the last bit, else relative to the largest value.
- builder *training*: the gradient of onnxruntime-training; *reverse*: `auto` fell back to it.

{count} files: {good} export at the default layer, {bad} are refused.
"""

FOOTER = """
## Refused

`com.microsoft.nchwc` is what `ORT_ENABLE_ALL` makes of convolutions: [expansion](expansion.md).
Trees have no gradient; a support vector machine votes by pairs of classes.
Not exported by their converters (tf2onnx 1.17.0): the exact gelu of Keras 3, which becomes an
operator `Erfc` that ONNX has not, so that no runtime loads the file; `from_keras` of a Sequential
of Keras 3 (KeyError; its own `model.export` works).
"""


def document(entries: Iterable[Entry]) -> str:
    """Return docs/producers.md."""
    entries = list(entries)
    refused = [entry for entry in entries if entry.rows[0].results["auto"].problem]
    text = HEADER.format(
        version=onnxruntime.__version__,
        count=len(entries),
        good=len(entries) - len(refused),
        bad=len(refused),
    )
    for group in dict.fromkeys(entry.group for entry in entries):
        text += f"\n## {group}\n\n" + "\n".join(_table([e for e in entries if e.group == group]))
        text += "\n"
    return f"{text}{FOOTER}\n" + "\n".join(_refusals(entries)) + "\n"


def _table(entries: list[Entry]) -> Iterator[str]:
    yield "| file | producer | opset / IR | peculiar | layer | A | builder | gradient | outputs |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for entry in entries:
        peculiar = "; ".join(entry.traits)
        name = f"{entry.file}: {entry.what}"
        head = f"{name} | {entry.producer} | {entry.opset} | {peculiar}"
        for row in entry.rows:
            yield f"| {head} | {_layer(row)} | {row.shape} | {_builder(row)} | {_figures(row)} |"
            head = " | | | "


def _layer(row: Row) -> str:
    return f"`{row.layer}`" if row.layer else "none"


def _builder(row: Row) -> str:
    result = row.results["auto"]
    return "refused" if result.problem else result.builder.replace("onnxruntime-", "")


def _figures(row: Row) -> str:
    pairs = [row.results[name] for name in BUILDERS]
    gradients = " / ".join("refused" if r.problem else _number(r.gradient) for r in pairs)
    first = pairs[0]
    outputs = "" if first.problem else f"{_change(first.off)} / {_change(first.default)}"
    return f"{gradients} | {outputs}"


def _number(value: float | None) -> str:
    """Return two digits; exactly zero is what a gradient too small to be measured has."""
    if value is None:
        return "?"
    return f"{value:.0e}" if value else "lost"


def _change(value: float | None) -> str:
    return "same" if value == 0 else _number(value)


def _refusals(entries: list[Entry]) -> Iterator[str]:
    for entry in entries:
        for row, layer in zip(entry.rows, ("default layer", "first layer"), strict=False):
            problems = {r.problem for r in row.results.values() if r.problem}
            for problem in sorted(problems):
                yield f"- {entry.file}, {layer}: {_shortened(problem)}"


def _shortened(problem: str) -> str:
    """Return a refusal with the first operator of those that it names."""
    operators = problem.split(", com.microsoft", 1)
    return operators[0] if len(operators) == 1 else f"{operators[0]}, ..."


def main() -> int:
    """Measure all files, print each as it is done, write the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--only", nargs="*", help="starts of the names of files")
    parser.add_argument("--results", type=Path, help="JSON to continue and to add to")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "producers.md")
    arguments = parser.parse_args()
    onnxruntime.set_default_logger_severity(3)
    done = _read(arguments.results)
    for folder in arguments.folders:
        for path in sorted(folder.glob("*.onnx")):
            chosen = not arguments.only or path.name.startswith(tuple(arguments.only))
            if not chosen or (path.stem in done and not arguments.only):
                continue
            done[path.stem] = measure(path)
            print("\n".join(_table([done[path.stem]])).split("\n", 2)[2], flush=True)
            print("\n".join(_refusals([done[path.stem]])), flush=True)
            if arguments.results:
                text = json.dumps([asdict(entry) for entry in done.values()], indent=1)
                arguments.results.write_text(text, encoding="utf-8")
    ordered = sorted(done.values(), key=lambda entry: (entry.group, entry.file))
    arguments.output.write_text(document(ordered), encoding="utf-8")
    return 0


def _read(path: Path | None) -> dict[str, Entry]:
    if path is None or not path.is_file():
        return {}
    entries = {}
    for values in json.loads(path.read_text(encoding="utf-8")):
        rows = values.pop("rows")
        entry = Entry(**values, rows=[])
        for row in rows:
            results = {name: Measured(**result) for name, result in row.pop("results").items()}
            entry.rows.append(Row(**row, results=results))
        entries[entry.file] = entry
    return entries


if __name__ == "__main__":
    sys.exit(main())
