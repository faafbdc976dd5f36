"""The page docs/export-cost.md: figures of `tools/export_cost.py` in, Markdown out."""

from __future__ import annotations

from typing import Any

Figures = dict[str, Any]

MEGABYTE = 1e6

HEADER = """# What exporting, starting and loading cost

Written by `tools/export_cost.py` from `export-cost.json`, on {machine}.

"""

EXPORT = """## Exporting

Without verification. *read and write*: `onnx.load` and `onnx.save` of the same file. *beyond*:
seconds beyond that. *peak*: the most memory that the process held, interpreter and imports
({imported:.0f} MB) included; *times the model*: that, with the peak of the process in which
onnxruntime-training builds the gradient added, over the size of the file. Each figure is the
median of processes of their own, in turn.

An export reads nodes and small tensors; weights of more than 64 KB stay in the file and are
copied from it when the new one is written (`export/files/unread.py`). So it can take less time
and memory than reading and writing the model. That holds for a model that is given as a path; one
that is given as bytes or as a `ModelProto` is in memory already, and is copied there.
Verification reads both models as a whole.

| model | MB | step | seconds | beyond | peak, MB | builder's process, MB | times the model |
|---|---|---|---|---|---|---|---|
"""

LARGE = """
## A model with external data

Copying its data file to the device takes {copy:.0f} s at best here; *read and write* is of the
model file alone.

| model | step | seconds | peak, MB | builder's process, MB | times the model |
|---|---|---|---|---|---|
"""

START = """
## Starting

Wall-clock time of a process, medians (quartiles). `onnx-gradcam --help` imports click, and no
command.

| command | seconds |
|---|---|
"""

LOAD = """
## Loading

`onnx_gradcam.load` of an export against `onnxruntime.InferenceSession` of the same file with the
same options (one thread), in turn in one process; medians. *added*: the median of the differences
of pairs, in ms and as a share of creating the session.

| model | session, ms | load, ms | added, ms | added, share |
|---|---|---|---|---|
"""


def page(figures: Figures) -> str:
    """Return the page; parts that were not measured are left out."""
    text = HEADER.format(machine=figures["machine"])
    if exports := figures.get("export"):
        steps = [s for model in exports.values() for s in model["steps"].values()]
        imported = max(step["imported"] for step in steps) / MEGABYTE
        text += EXPORT.format(imported=imported)
        text += "".join(_export_rows(name, model) for name, model in exports.items())
    for name, model in figures.get("large", {}).items():
        text += LARGE.format(copy=model["copy_seconds"])
        text += "".join(
            f"| {name} | {step} | {taken['seconds']:.1f} | {_memory(model, taken)} |\n"
            for step, taken in model["steps"].items()
        )
    if starts := figures.get("start"):
        text += START + "".join(
            f"| `{name}` | {t['median']:.3f} ({t['low']:.3f} to {t['high']:.3f}) |\n"
            for name, t in starts.items()
        )
    if loads := figures.get("load"):
        text += LOAD + "".join(_load_row(name, model) for name, model in loads.items())
    return text


def _export_rows(name: str, model: Figures) -> str:
    baseline = next(iter(model["steps"].values()))["seconds"]
    return "".join(
        f"| {name} | {model['bytes'] / MEGABYTE:.1f} | {step} | {taken['seconds']:.2f}"
        f" | {taken['seconds'] - baseline:+.2f} | {_memory(model, taken)} |\n"
        for step, taken in model["steps"].items()
    )


def _memory(model: Figures, taken: Figures) -> str:
    """Return three cells: peak, that of the builder's process, both over the size."""
    together = (taken["peak"] + taken["builder_peak"]) / model["bytes"]
    builder = f"{taken['builder_peak'] / MEGABYTE:.0f}" if taken["builder_peak"] else ""
    return f"{taken['peak'] / MEGABYTE:.0f} | {builder} | {together:.2f}"


def _load_row(name: str, model: Figures) -> str:
    session, load = model["session"]["median"], model["load"]["median"]
    return (
        f"| {name} | {1e3 * session:.1f} | {1e3 * load:.1f} | {1e3 * model['added']:.2f}"
        f" | {model['added'] / session:+.3f} |\n"
    )
