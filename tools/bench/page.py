"""The page that people read: tables of results in Markdown, and the picture beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.bench.chart import dot_plot
from tools.bench.contestants import (
    AGAIN,
    ENGINES,
    EXPLAINED,
    EXPORTED,
    FUSED,
    MEANINGS,
    PLAIN,
    PREDICT,
)
from tools.bench.results import OURS, PEERS, Cell, Results
from tools.bench.session import TOLERANCE
from tools.bench.statistics import LEVEL, ratio, timing

COLUMNS = (EXPORTED, EXPLAINED, FUSED, PREDICT, AGAIN)
MEGABYTE = 1_000_000


def write_page(results: Results, page: Path) -> None:
    """Write the page, its picture, and the results as JSON beside it."""
    picture = page.parent / "pictures" / f"{page.stem}.svg"
    text = document(results, page.stem)
    if any(results.of_group(PEERS)):
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text(plot(results), encoding="utf-8")
    page.write_text(text, encoding="utf-8")
    results.save(page.with_suffix(".json"))


def document(results: Results, stem: str = "performance") -> str:
    """Return the page in Markdown, that of a file of this name."""
    machine, settings = results.machine, results.settings
    versions = ", ".join(f"{name} {version}" for name, version in sorted(results.versions.items()))
    parts = [
        "# What explaining costs\n",
        "Written by `tools/benchmark.py`, from one run on one machine:"
        f" {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB,"
        f" {machine['system']}, Python {machine['python']}. {settings['threads']} threads for every"
        f" engine. {versions}. All single times are in"
        f" [{stem}.json]({stem}.json).\n",
        "Each model is named after its file or its torchvision architecture: those have random"
        " weights (speed does not depend on them), opset 17 and a free batch size;"
        " `tiny_shapes` and `efficientnet_lite0` are the trained models of this repository.\n",
        *_again(results),
        *_ours(results),
        *_peers(results, stem),
        "## Measure again\n",
        "    python tools/benchmark.py --peer-python PYTHON\n",
        "measures everything and writes this page; PYTHON is that of an environment with the peers."
        " Names of models, `--batch`, `--layer` and `--engine` choose a part; `--again"
        " docs/performance.json` puts it into this page.\n",
        "    python tools/benchmark.py --compare docs/performance.json\n",
        "measures our own part again and says what got slower or faster: the intervals of the two"
        " ratios do not overlap, and they differ by more than 2 % and by more than the *noise* of"
        " either run. Something slower ends in exit code 1. Both runs belong on the same machine;"
        " `--results NEW.json` compares without measuring.\n",
    ]
    return "\n".join(map(_wrapped, parts))


def _again(results: Results) -> Iterator[str]:
    again = [
        f"{model}, layer {layer}, batch {batch} ({group})"
        for group, model, layer, batch in results.settings.get("again", [])
    ]
    if again:
        yield f"Measured again in a run of their own: {'; '.join(again)}.\n"


def _wrapped(part: str) -> str:
    """Return a paragraph in lines of the width of the other pages; anything else as it is."""
    if part[:1] in "|!#" or part.startswith("    "):
        return part
    lines = textwrap.wrap(part, 100, break_long_words=False, break_on_hyphens=False)
    return "\n".join([*lines, ""]) if part.endswith("\n") else "\n".join(lines)


def _ours(results: Results) -> Iterator[str]:
    cells = [cell for cell in results.of_group(OURS) if PLAIN in cell.turns]
    failed = [cell for cell in results.of_group(OURS) if PLAIN not in cell.turns]
    yield "## Over plain inference\n"
    meanings = "; ".join(f"*{name}*: {meaning}" for name, meaning in MEANINGS.items())
    yield (
        f"{meanings}. Ratios of medians over *{PLAIN}*, all in one process, in turn and each time"
        " in another order; idle threads of one session do not spin while another one runs."
        f" ±: a bootstrap interval at {LEVEL:.0%}. *noise*: a second session of the original file,"
        " which would be 1.000 without noise. Builder: onnxruntime-training unless marked ʳ"
        " (reverse).\n"
    )
    header = ["model", "layer", "batch", "plain, ms (quartiles)", *COLUMNS[:-1], "noise"]
    yield table(header, [_ours_row(cell) for cell in cells])
    for cell in failed:
        yield f"{cell.model}, layer {cell.layer}, batch {cell.batch}: {cell.failures[PLAIN]}.\n"


def _ours_row(cell: Cell) -> list[str]:
    plain = timing(cell.turns[PLAIN])
    mark = "ʳ" if cell.builder == "reverse" else ""
    over = [
        str(ratio(cell.turns[name], cell.turns[PLAIN])) if name in cell.turns else ""
        for name in COLUMNS
    ]
    quartiles = f"{plain.low * 1e3:.2f} to {plain.high * 1e3:.2f}"
    milliseconds = f"{plain.median * 1e3:.2f} ({quartiles})"
    return [cell.model + mark, f"`{cell.layer}`", str(cell.batch), milliseconds, *over]


def _peers(results: Results, stem: str) -> Iterator[str]:
    cells = list(results.of_group(PEERS))
    if not cells:
        return
    engines = _measured(cells)
    yield "## Against what else there is\n"
    yield f"![time of each engine over plain inference](pictures/{stem}.svg)\n"
    yield (
        "The same weights, images and threads, each engine in a process of its own, one of them"
        " running at a time, in an order that changes from round to round. Every engine gives the"
        " scores and the heat maps of the class of the highest score, at the images' size. Its heat"
        f" maps were compared with ours first: one that differs by more than {TOLERANCE} of a range"
        " of 1 is not timed. *onnxruntime* and *torch, forward only* give scores alone and are what"
        " the others could reach at best. openvino_xai computes Recipro-CAM, another method without"
        " gradients, one image at a time. captum is told the class, so it runs the network once"
        " before. onnx-ad: the original file with the target layer as one more output, then"
        " onnx-ad's reverse model of the part behind it, and the same NumPy as ours. Ratios over"
        " *onnxruntime*, ± as above.\n"
    )
    reasons: dict[str, int] = {}
    labels = [ENGINES[name].label for name in engines]
    header = ["model", "layer", "batch", "onnxruntime, ms", *labels[1:]]
    yield table(header, [_peer_row(cell, engines[1:], reasons) for cell in cells])
    yield from (f"{number}. {reason}" for reason, number in reasons.items())
    if reasons:
        yield ""
    yield _differences(cells)
    yield "### Memory\n"
    yield (
        "The most that each process held, in MB, loading included. On disk: all installed packages"
        " whose modules it had loaded.\n"
    )
    rows = [
        [cell.model, str(cell.batch), *(_megabytes(cell.peaks.get(name)) for name in engines)]
        for cell in cells
    ]
    installed = [_megabytes(results.installed.get(name)) for name in engines]
    yield table(["model", "batch", *labels], [*rows, ["*on disk*", "", *installed]])


def _measured(cells: Sequence[Cell]) -> list[str]:
    return [n for n in ENGINES if n == PLAIN or any(n in c.turns or n in c.failures for c in cells)]


def _peer_row(cell: Cell, engines: Sequence[str], reasons: dict[str, int]) -> list[str]:
    """Return a row; failures refer to reasons by number, new ones are added."""
    shown = []
    for name in engines:
        if name in cell.failures:
            reason = f"{ENGINES[name].label}: {cell.failures[name]}"
            shown.append(f"no ({reasons.setdefault(reason, len(reasons) + 1)})")
        elif name in cell.turns and PLAIN in cell.turns:
            shown.append(str(ratio(cell.turns[name], cell.turns[PLAIN])))
        else:
            shown.append("")
    plain = f"{timing(cell.turns[PLAIN]).median * 1e3:.2f}" if PLAIN in cell.turns else "no"
    return [cell.model, f"`{cell.layer}`", str(cell.batch), plain, *shown]


def _differences(cells: Sequence[Cell]) -> str:
    largest: dict[str, float] = {}
    for cell in cells:
        for name, value in cell.differences.items():
            if name != EXPLAINED:
                largest[name] = max(value, largest.get(name, 0.0))
    listed = ", ".join(f"{ENGINES[name].label} {value:.0e}" for name, value in largest.items())
    return f"Largest difference of a heat map from ours: {listed or 'nothing compared'}.\n"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / MEGABYTE:.0f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, with a line to follow it."""
    lines = [f"| {' | '.join(line)} |" for line in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:], ""])


def plot(results: Results) -> str:
    """Return the picture: all engines over plain onnxruntime, for the smallest batch."""
    cells = [cell for cell in results.of_group(PEERS) if PLAIN in cell.turns]
    batch = min((cell.batch for cell in cells), default=1)
    layer = cells[0].layer if cells else "auto"
    names = [name for name in _measured(cells) if name != PLAIN]
    rows = {
        cell.model: {
            ENGINES[name].label: ratio(cell.turns[name], cell.turns[PLAIN]).value
            for name in names
            if name in cell.turns
        }
        for cell in cells
        if (cell.batch, cell.layer) == (batch, layer)
    }
    images = "1 image" if batch == 1 else f"{batch} images"
    title = f"Scores and heat map of {images}, {results.settings['threads']} CPU threads"
    return dot_plot(title, rows, [ENGINES[name].label for name in names])
