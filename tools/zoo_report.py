"""The results of the zoo as text: a table, a summary, and the failures in groups."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tools.zoo_export import file_of
from tools.zoo_models import Architecture

Results = Mapping[Architecture, dict[str, dict[str, Any]]]


def _rows(results: Results) -> Iterator[tuple[Architecture, dict[str, Any]]]:
    for architecture, rows in results.items():
        for row in rows.values():
            yield architecture, row


def summary(results: Results) -> str:
    """Return how many rows and architectures came out how."""
    lines = []
    for layer in ("auto", "first"):
        for exporter in ("legacy", "dynamo"):
            states = Counter(
                row["status"]
                for _, row in _rows(results)
                if (row["layer"], row["exporter"]) == (layer, exporter)
            )
            told = ", ".join(f"{count} {status}" for status, count in states.most_common())
            lines.append(f"{exporter}, {layer}: {told or 'nothing yet'}")
    complete = [a for a, rows in results.items() if rows and _right(rows)]
    lines.append(f"architectures right in every row that PyTorch exports: {len(complete)}")
    return "\n".join(lines)


def _right(rows: dict[str, dict[str, Any]]) -> bool:
    states = {row["status"] for row in rows.values()}
    return "ok" in states and states <= {"ok", "not exported"}


def precision(results: Results) -> str:
    """Return by which comparison the rows are right, and the largest error of each."""
    kinds: dict[str, list[float]] = {"float32": [], "float64": [], "float64, unfolded": []}
    for _, row in _rows(results):
        if row["status"] == "ok":
            kind = "float64, unfolded" if row.get("unfolded") else "float64"
            errors = row["float64"] or row["float32"]
            kinds[kind if row["float64"] else "float32"].append(max(errors.values()))
    return "\n".join(
        f"{len(values)} rows compared in {kind}: largest error {max(values):.0e}"
        for kind, values in kinds.items()
        if values
    )


_VARIABLE = re.compile(r"'[^']*'|\d+(\.\d+)?(e-?\d+)?|[/\w.]*/[/\w.]+")


def _reason(row: dict[str, Any]) -> str:
    """Return a heading for rows that fail alike: the message without names and numbers."""
    operators = sorted(set(re.findall(r"[\w.]+::\w+-\d+", row["detail"])))
    if operators:
        return f"{row['status']}: {', '.join(operators)}"
    return f"{row['status']}: {_VARIABLE.sub('…', row['detail'])[:140]}"


def failures(results: Results, folder: Path) -> str:
    """Return what is not right, the most frequent reason first, with files and messages."""
    groups: dict[str, list[str]] = defaultdict(list)
    for architecture, row in _rows(results):
        if row["status"] == "ok":
            continue
        source = file_of(folder, architecture.file_stem, row["exporter"])
        worst = {**row["float32"], **{f"{k} float64": v for k, v in row["float64"].items()}}
        told = ", ".join(f"{k} {v:.1e}" for k, v in worst.items())
        where = f"{row['operator']} `{row['target']}` {row['shape']}" if row["target"] else ""
        groups[_reason(row)].append(
            f"- {source} ({row['layer']}) {where} {told} {row['detail'][:400]}".rstrip()
        )
    lines = [summary(results), ""]
    for reason, items in sorted(groups.items(), key=lambda item: -len(item[1])):
        lines += [f"## {len(items)} x {reason}", *items, ""]
    return "\n".join(lines)


_COLUMNS = (
    "architecture",
    "family",
    "exporters",
    "recommended layer",
    "A",
    "builder",
    "A error",
    "dy/dA error",
    "CAM error",
    "overhead",
    "first: A",
    "A error",
    "dy/dA error",
    "CAM error",
    "overhead",
)


def report(results: Results) -> str:
    """Return the document."""
    lines = [
        _HEADER,
        "```text",
        f"architectures: {sum(bool(rows) for rows in results.values())}",
        summary(results),
        precision(results),
        "```",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|" + "---|" * len(_COLUMNS),
    ]
    lines += [_line(a, rows) for a, rows in results.items() if rows]
    lines += _listed(results, "Not right", lambda row: row["status"] not in {"ok", "not exported"})
    lines += _listed(
        results, "What PyTorch does not export", lambda row: row["status"] == "not exported"
    )
    return "\n".join(lines) + "\n"


def _listed(results: Results, heading: str, wanted: Callable[[dict[str, Any]], bool]) -> list[str]:
    rows = [(a, row) for a, row in _rows(results) if wanted(row)]
    if not rows:
        return []
    head = [
        "",
        f"## {heading}",
        "",
        "| architecture | exporter | layer | why |",
        "|---|---|---|---|",
    ]
    return head + [
        f"| {a.name} | {row['exporter']} | {row['layer']} | {_plain(row)} |" for a, row in rows
    ]


def _plain(row: dict[str, Any]) -> str:
    errors = row["float64"] or row["float32"]
    told = ", ".join(f"{k} {v:.1e}" for k, v in errors.items()) or row["detail"]
    return f"{row['status']}: {told}".replace("|", "\\|").replace("\n", " ")[:200]


def _line(architecture: Architecture, rows: dict[str, dict[str, Any]]) -> str:
    right = [row for row in rows.values() if row["status"] == "ok"]
    recommended = [row for row in right if row["layer"] == "auto"]
    first = [row for row in right if row["layer"] == "first"]
    cells = [
        architecture.name,
        architecture.family,
        ", ".join(dict.fromkeys(row["exporter"] for row in right)) or "none",
        " / ".join(dict.fromkeys(row["operator"] for row in recommended)) or "none",
        _shape(recommended),
        " / ".join(dict.fromkeys(row["builder"] for row in recommended)),
        *_errors(recommended),
        _shape(first),
        *_errors(first),
    ]
    return f"| {' | '.join(cells)} |"


def _shape(rows: list[dict[str, Any]]) -> str:
    return " / ".join(dict.fromkeys(" x ".join(map(str, row["shape"][1:])) for row in rows))


def _errors(rows: list[dict[str, Any]]) -> list[str]:
    """Return the largest error of each kind, and the overhead, of both exporters."""
    if not rows:
        return [""] * 4
    mark = " †" if any(row["float64"] for row in rows) else ""
    mark = " ‡" if any(row.get("unfolded") for row in rows) else mark
    kept = [row["float64"] or row["float32"] for row in rows]
    worst = [max(errors[kind] for errors in kept) for kind in ("A", "dy/dA", "CAM")]
    return [
        *(f"{value:.0e}{mark if value == max(worst) else ''}" for value in worst),
        f"{max(row['overhead'] for row in rows):.1f}",
    ]


_HEADER = """# The architecture zoo

Written by `tools/zoo.py`. Architectures of timm, torchvision and transformers, small variants with
seeded random weights, through both ONNX exporters of PyTorch (*legacy*: opset 17, or 18 where an
operator needs it; *dynamo*: opset 18), each explained at the recommended layer (*auto*) and at the
first convolution (*first*), for two images and two classes.

Errors are relative (Euclidean norm) to PyTorch autograd at the same tensor, which is found among
all tensors of the network by its values. They are those of float32, onnxruntime against PyTorch;
where that exceeds 1e-4, those of the same graph in float64 against autograd in float64 (marked †):
in float32 two engines disagree about units that lie within rounding of the kink of a ReLU. Where
the dynamo exporter folds batch norms into convolutions, it rounds weights, with the same effect in
float64; there the file without that optimisation is compared (marked ‡). The error of a heat map
that cancels to zero (before a normalisation per channel) is relative to its summands. *overhead*:
time with the explanation / time without, on one thread of a busy machine and at these small sizes,
so no more than an order of magnitude. Of both exporters the larger figure is shown. Where several
tensors of the network have the values of A (a view, a ReLU of what is positive already), the one
whose gradient fits best is taken.
"""
