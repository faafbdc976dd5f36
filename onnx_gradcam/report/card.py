"""The card of a folder of results: what was explained, by which model and how, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx_gradcam.report.results import Results

Entries = list[list[str]]
"""Label and value of each entry."""

MODEL = {
    "file": "File",
    "target_layers": "Target layer",
    "score": "Score",
    "classes": "Classes of the model",
    "gradient_builder": "Gradient builder",
    "sha256": "SHA-256 of the exported file",
    "source_sha256": "SHA-256 before the export",
}
"""Entry of the manifest -> what the card calls it."""

OPTIONS = {
    "method": "Method",
    "how": "Further",
    "classes": "Classes asked for",
    "top_k": "Highest scores",
    "threshold": "Threshold of boxes",
    "region": "Region",
    "max_pixels": "Largest image in pixels",
    "shard_size": "Images per part",
    "batch": "Images per run of the model",
}

_SILENT: tuple[Any, ...] = (None, [], {})
"""Values that say nothing."""

SOURCES = {"inputs": "Inputs", "column": "Column", "root": "Root"}

TOTALS = {
    "images": "Images",
    "errors": "Failed",
    "rows": "Rows",
    "parts": "Parts",
}


def card_of(results: Results) -> list[list[Any]]:
    """Return the sections of the card: the title and the entries of each."""
    manifest = results.manifest
    counted = {
        "images": results.images,
        "errors": results.errors,
        "rows": sum(part.rows for part in results.parts),
        "parts": len(results.parts),
    }
    totals = _entries(counted, TOTALS)
    if not manifest.get("complete"):
        totals.append(["Finished", "no: the batch has not reached its end"])
    tool = [["Version of onnx-gradcam", _text(manifest.get("tool_version"))]]
    return [
        ["Model", _entries(manifest["model"], MODEL)],
        ["Explanation", _entries(manifest["options"], OPTIONS) + tool],
        ["Images", totals + _entries(manifest["sources"], SOURCES)],
    ]


def _entries(section: Mapping[str, Any], labels: Mapping[str, str]) -> Entries:
    """Return the entries that say anything."""
    return [
        [label, _text(section[name])]
        for name, label in labels.items()
        if section.get(name) not in _SILENT
    ]


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        said = {name: part for name, part in value.items() if part not in _SILENT}
        return ", ".join(f"{name}: {_text(part)}" for name, part in said.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_text, value))
    return str(value)
