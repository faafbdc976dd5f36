"""The tables of docs/scale.md: figures that `tools/scale.py` measured in, Markdown out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

MILLION, BILLION = 10**6, 10**9
EFFICIENCY = 0.9
"""Share of its cores' time that a cluster is taken to explain in; the rest waits and starts."""

CORES = {MILLION: 64, BILLION: 1024}
"""Images -> cores of the clusters in the table of sizes."""

SHARDS = {MILLION: 1000, BILLION: 10_000}
"""Images -> --shard-size."""


def filled(page: str, blocks: Mapping[str, str]) -> str:
    """Return a page with its blocks, each between two comments of its name, written anew."""
    for name, text in blocks.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        page, count = re.subn(pattern, partial(_block, text), page, flags=re.DOTALL)
        assert count == 1, name
    return page


def _block(text: str, found: re.Match[str]) -> str:
    return f"{found[1]}\n{text}\n\n{found[2]}"


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the blocks by name."""
    return {
        "conditions": _conditions(record),
        "scaling": _scaling(record),
        "bytes": _bytes(record),
        "sizes": _sizes(record),
    }


def _conditions(record: Mapping[str, Any]) -> str:
    return (
        f"{record['model']}, onnxruntime {record['onnxruntime']}, Ray {record['ray']}, CPU"
        f" provider, {record['cores']} cores of one machine, {record['photos']} JPEG photos of"
        f" 500 x 375 ({record['photo_bytes'] / 1e3:.0f} kB each), shards of {record['shard_size']},"
        f" best of {record['rounds']} rounds in which all take turns, median in brackets. Starting"
        " is left out."
    )


def _scaling(record: Mapping[str, Any]) -> str:
    first = record["runs"]["local, --threads 1"]["best_rate"]
    lines = [
        "| engine | images a second | to the first | processor time of an image, ms |",
        "| --- | --- | --- | --- |",
    ]
    for name, run in record["runs"].items():
        ratio = run["best_rate"] / first
        lines.append(
            f"| {name} | {run['best_rate']:.1f} ({run['median_rate']:.1f}) | {ratio:.2f} |"
            f" {run['cpu_ms']:.1f} |"
        )
    return "\n".join(lines)


def _bytes(record: Mapping[str, Any]) -> str:
    plain = record["bytes_per_image"]["the table"]
    lines = ["| what | bytes per image |", "| --- | --- |"]
    for name, size in record["bytes_per_image"].items():
        more = name in {"--thumbnails 96", "--overlays jpg", "--arrays"}
        told = f"{size - plain:,.0f} more" if more else f"{size:,.0f}"
        lines.append(f"| {name} | {told} |")
    return "\n".join(lines)


def _sizes(record: Mapping[str, Any]) -> str:
    sizes = record["bytes_per_image"]
    plain = sizes["the table"]
    cpu = max(run["cpu_ms"] for run in record["runs"].values()) / 1e3  # all cores busy
    driver = record["driver_ms"] / 1e3
    rows: dict[str, list[str]] = {}

    def row(name: str, *values: str) -> None:
        rows.setdefault(name, []).extend(values)

    for images, cores in CORES.items():
        parts = images // SHARDS[images]
        hours = images * cpu / 3600
        wall = hours / cores / EFFICIENCY
        row("core-hours", f"{hours:,.1f}")
        row(f"hours on {CORES[MILLION]} and {CORES[BILLION]:,} cores", f"{wall:.2g}")
        row(
            "images read, at this size of photos",
            f"{_size(images * record['photo_bytes'])},"
            f" {_size(images * record['photo_bytes'] / wall / 3600)}/s",
        )
        row(
            "share of its time in which the driver's core is busy",
            f"{driver * images / 3600 / wall:.0%}",
        )
        row("parts, with --shard-size", f"{parts:,}, {SHARDS[images]:,}")
        row("the table", _size(images * plain))
        row("... with --no-maps", _size(images * sizes["--no-maps"]))
        row("... and --overlays jpg", _size(images * (sizes["--overlays jpg"] - plain)))
        row("... and --arrays", _size(images * (sizes["--arrays"] - plain)))
        row("finding finished parts again", f"{parts * record['resume_ms_per_part'] / 1e3:,.1f} s")
    lines = ["| | 10^6 images | 10^9 images |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(v)} |" for name, v in rows.items())])


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"
