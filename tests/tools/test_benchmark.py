"""The benchmark's figures, its page, and what it says about an older run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tools import benchmark
from tools.bench.chart import dot_plot
from tools.bench.compare import changes, notes
from tools.bench.contestants import AGAIN, EXPLAINED, EXPORTED, OURS, PLAIN
from tools.bench.page import document, write_page
from tools.bench.results import Cell, Results, ResultsError
from tools.bench.session import Plan
from tools.bench.statistics import ratio, timing
from tools.bench.subjects import SUBJECTS

MACHINE = {"processor": "P", "cores": 2, "memory_gb": 8, "system": "S", "python": "3.11"}


def times(median: float, spread: float = 0.01, seed: int = 0, length: int = 1) -> list[list[float]]:
    """Forty turns of times around a median in milliseconds."""
    factors = np.random.default_rng(seed).normal(1, spread, (40, length))
    return [[round(float(value), 7) for value in turn] for turn in median / 1e3 * factors]


def results(explained: float, *, spread: float = 0.01, again: float = 20, seed: int = 1) -> Results:
    turns = {
        PLAIN: times(20, spread, seed),
        AGAIN: times(again, spread, seed + 1),
        EXPORTED: times(21, spread, seed + 2),
        EXPLAINED: times(explained, spread, seed + 3),
    }
    cell = Cell("ours", "net", "auto", 1, "A", "reverse", turns)
    return Results(dict(MACHINE), {"threads": 2}, {"onnxruntime": "1"}, {}, [cell])


def test_figures() -> None:
    turns = [[0.001, 0.002], [0.003, 0.004], [0.005]]
    found = timing(turns)
    assert (found.median, found.low, found.high) == (0.003, 0.002, 0.004)
    over = ratio(times(30, seed=1, length=3), times(20, seed=2))
    assert over.value == pytest.approx(1.5, rel=0.01)
    assert 1.47 < over.low < 1.5 < over.high < 1.53
    assert over.high - over.low > 0.003


def test_what_disturbs_both_is_no_spread() -> None:
    """A machine that is twice as slow half of the time: the ratio is known all the same."""
    slow = np.repeat([1.0, 2.0], 20)
    base = [[float(v) * 0.02] for v in slow * np.random.default_rng(0).normal(1, 0.01, 40)]
    other = [[1.1 * turn[0] * f] for turn, f in zip(base, np.linspace(0.99, 1.01, 40), strict=True)]
    over = ratio(other, base)
    assert over.value == pytest.approx(1.1, rel=0.02)
    alone = [turn[0] for turn in other]
    assert max(alone) / min(alone) > 1.9


def test_results_come_back(tmp_path: Path) -> None:
    written = results(22)
    written.cells[0].failures["torch"] = "no torch"
    written.cells[0].peaks[PLAIN] = 12345678
    written.save(tmp_path / "new.json")
    read = Results.load(tmp_path / "new.json")
    assert read == written
    figures = json.loads((tmp_path / "new.json").read_text())["cells"][0]["figures"]
    assert figures[EXPLAINED]["ratio_value"] == pytest.approx(1.1, abs=0.01)
    assert figures[PLAIN]["median"] == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 0}', '{"format": 1, "cells": [{}]}'])
def test_other_files_are_no_results(tmp_path: Path, text: str) -> None:
    (tmp_path / "old.json").write_text(text)
    with pytest.raises(ResultsError, match=r"old\.json"):
        Results.load(tmp_path / "old.json")
    assert benchmark.main(["--compare", str(tmp_path / "old.json")]) == 2


@pytest.mark.parametrize(
    ("explained", "spread", "again", "words"),
    [
        (22, 0.01, 20, []),  # the same, measured anew
        (22.2, 0.001, 20, []),  # surely slower, by less than what counts
        (24, 0.01, 20, ["slower"]),
        (20.4, 0.01, 20, ["faster"]),
        (24, 0.2, 20, []),  # the intervals overlap
        (24, 0.01, 22.5, []),  # two sessions of one file differ by more
    ],
)
def test_what_counts_as_slower(
    explained: float, spread: float, again: float, words: list[str]
) -> None:
    old, new = results(22, spread=spread), results(explained, spread=spread, again=again, seed=11)
    found = list(changes(old, new))
    assert [change.word for change in found] == words
    for change in found:
        assert change.where == "net, layer auto, batch 1, explained"
        then, now = re.findall(r"(\d\.\d+) ± \d\.\d+ (?:then|now)", change.detail)
        assert float(then) == pytest.approx(1.1, abs=0.02)
        assert float(now) == pytest.approx(explained / 20, abs=0.02)


def test_what_fails_now_is_lost() -> None:
    old, new = results(22), results(22, seed=11)
    del new.cells[0].turns[EXPLAINED]
    new.cells[0].failures[EXPLAINED] = "out of memory"
    assert [str(change) for change in changes(old, new)] == [
        "lost: net, layer auto, batch 1, explained: out of memory"
    ]
    new.cells[0].turns, new.cells[0].failures = {}, {PLAIN: "no such file"}
    assert [str(change) for change in changes(old, new)] == [
        "lost: net, layer auto, batch 1: no such file"
    ]
    assert list(changes(new, old)) == []


def test_what_makes_runs_incomparable_is_said() -> None:
    old, new = results(22), results(22)
    assert list(notes(old, new)) == []
    new.settings["threads"] = 4
    new.versions["onnxruntime"] = "2"
    new.cells[0].batch = 8
    assert list(notes(old, new)) == [
        "note: threads: 2 then, 4 now",
        "note: onnxruntime: 1 then, 2 now",
        "note: 1 of 1 older measurements were not repeated",
    ]


@pytest.mark.parametrize(("explained", "code"), [(22, 0), (26, 1), (20.4, 0)])
def test_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], explained: float, code: int
) -> None:
    results(22).save(tmp_path / "old.json")
    results(explained, seed=11).save(tmp_path / "new.json")
    files = ["--compare", str(tmp_path / "old.json"), "--results", str(tmp_path / "new.json")]
    assert benchmark.main(files) == code
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"{code} slower or lost, {int(explained < 21)} faster")


def peer_results() -> Results:
    found = results(22)
    for batch in (1, 8):
        cell = Cell("peers", "net", "auto", batch, "A", "reverse")
        cell.turns = {
            PLAIN: times(20),
            EXPLAINED: times(21, seed=1),
            "torchcam": times(60, seed=2, length=3),
        }
        cell.failures = {"captum": "wants channels first"}
        cell.differences = {EXPLAINED: 0.0, "torchcam": 3e-6}
        cell.peaks = {PLAIN: 100_000_000, EXPLAINED: 110_000_000, "torchcam": 700_000_000}
        found.cells.append(cell)
    found.installed = {PLAIN: 137_000_000, "torchcam": 800_000_000}
    return found


def test_the_page_holds_the_figures(tmp_path: Path) -> None:
    page = tmp_path / "figures.md"
    write_page(peer_results(), page)
    text = page.read_text("utf-8")
    (ours,) = re.findall(r"^\| netʳ \| `auto` \| 1 \| (.*) \|$", text, re.MULTILINE)
    plain, exported, explained, fused, predict, noise = ours.split(" | ")
    assert float(plain.split()[0]) == pytest.approx(20, rel=0.01)
    values = [float(cell.split(" ± ")[0]) for cell in (exported, explained, noise)]
    assert values == pytest.approx([1.05, 1.1, 1.0], abs=0.01)
    assert (fused, predict) == ("", "")
    (peers,) = re.findall(r"^\| net \| `auto` \| 8 \| (.*) \|$", text, re.MULTILINE)
    assert re.fullmatch(r"[\d.]+ \| 1\.05\d ± [\d.]+ \| (2\.9|3\.0)\d+ ± [\d.]+ \| no \(1\)", peers)
    assert "1. captum: wants channels first" in text
    assert "| net | 1 | 100 | 110 | 700 |  |" in text
    assert "| *on disk* |  | 137 |  | 800 |  |" in text
    assert "torchcam 3e-06" in text
    assert "(pictures/figures.svg)" in text
    assert (tmp_path / "pictures" / "figures.svg").exists()
    assert Results.load(tmp_path / "figures.json") == peer_results()
    assert all(len(line) <= 100 for line in text.splitlines() if line[:1] != "|")


def test_the_plot_puts_dots_where_they_belong() -> None:
    rows = {"a": {"x": 1.0, "y": 2.0, "z": 4.0}, "b <&>": {"x": 2.0}}
    tree = ElementTree.fromstring(dot_plot("title", rows, ["x", "y", "z"]))
    at = {}
    for circle in tree.iter("{http://www.w3.org/2000/svg}circle"):
        title = circle.find("{http://www.w3.org/2000/svg}title")
        if title is not None:
            at[title.text] = (float(circle.attrib["cx"]), float(circle.attrib["cy"]))
    one, two, four = (at[f"a, {key}"][0] for key in ("x: 1.00", "y: 2.00", "z: 4.00"))
    assert two - one == pytest.approx(four - two, abs=0.2)
    assert two - one > 50
    assert at["b <&>, x: 2.00"][0] == pytest.approx(two)
    assert at["b <&>, x: 2.00"][1] > at["a, x: 1.00"][1] + 10


def test_a_page_without_peers_shows_no_picture(tmp_path: Path) -> None:
    write_page(results(22), tmp_path / "page.md")
    assert not (tmp_path / "pictures").exists()
    assert "## Against" not in document(results(22))


def planned(*arguments: str, old: Results | None = None) -> tuple[list[str], Plan]:
    options = benchmark.parser().parse_args(arguments)
    benchmark.settle(options, old)
    return options.models, benchmark.plan_of(options)


def test_what_is_measured() -> None:
    models, plan = planned()
    assert models == list(SUBJECTS)
    assert plan.layers == {"auto": (1, 8), "0": (1,)}
    assert plan.engines == ()
    assert planned("--layer", "0", "--batch", "8", "--batch", "2")[1].layers == {"0": (8, 2)}
    peers = planned("--peer-python", "python", "--engine", "captum", "--peer-layer", "0")[1]
    assert peers.engines == (PLAIN, EXPLAINED, "captum")
    assert peers.peer_layers == {"0": (1, 8)}
    models, plan = planned("--compare", "old.json", old=results(22))
    assert (models, plan.layers, plan.threads) == (["net"], {"auto": (1,)}, 2)


def test_an_unknown_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["resnet51"]) == 2
    assert "'resnet51' is neither a file nor one of tiny_shapes" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    output = tmp_path / "page.md"
    command = ["vgg16", "--models-dir", str(tmp_path), "--layer", "auto", "--batch", "1"]
    assert benchmark.main([*command, "--output", str(output)]) == 0
    (cell,) = Results.load(output.with_suffix(".json")).cells
    assert "vgg16.onnx is missing; --peer-python" in cell.failures[PLAIN]
    assert "vgg16, layer auto, batch 1:" in output.read_text("utf-8")


def test_the_whole_way_on_a_small_model(tmp_path: Path) -> None:
    """All our contestants, and onnx-ad as the peer that the tests have."""
    command = ["--check", "--peer-python", sys.executable, "--engine", "onnx-ad", "--threads", "1"]
    output = tmp_path / "page.md"
    assert benchmark.main([*command, "--output", str(output)]) == 0
    found = Results.load(output.with_suffix(".json"))
    assert [(cell.group, cell.layer) for cell in found.cells] == [
        ("ours", "auto"),
        ("peers", "auto"),
        ("ours", "0"),
    ]
    ours, peers, first = found.cells
    assert set(ours.turns) == set(OURS)
    assert (ours.target, first.target) == ("/separable2/Relu_2_output_0", "/conv1/Conv_output_0")
    assert set(peers.turns) == {PLAIN, EXPLAINED, "onnx-ad"}
    assert peers.differences["onnx-ad"] < 1e-5
    assert found.versions.keys() == {"onnxruntime", "numpy", "onnx-ad"}
    assert "onnx-ad" in output.read_text("utf-8")


def test_a_part_that_is_measured_again_takes_its_place(tmp_path: Path) -> None:
    old = tmp_path / "figures.json"
    peer_results().save(old)
    later = peer_results()
    later.cells = [later.cells[2]]
    later.cells[0].turns[EXPLAINED] = times(30, seed=4)
    later.save(tmp_path / "later.json")
    assert benchmark.main(["--results", str(tmp_path / "later.json"), "--again", str(old)]) == 0
    merged = Results.load(old)
    assert [cell.key for cell in merged.cells] == [cell.key for cell in peer_results().cells]
    assert merged.cells[:2] == peer_results().cells[:2]
    assert merged.cells[2].figures()[EXPLAINED]["median"] == pytest.approx(0.03, rel=0.01)
    text = old.with_suffix(".md").read_text("utf-8")
    assert "Measured again in a run of their own: net, layer auto, batch 8 (peers)." in text
    later.machine["processor"] = "another"
    later.save(tmp_path / "later.json")
    assert benchmark.main(["--results", str(tmp_path / "later.json"), "--again", str(old)]) == 2
