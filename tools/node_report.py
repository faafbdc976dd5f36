"""The page docs/node-models.md: what became of the models of ONNX's node tests, in tables."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
import onnxruntime

from tools.node_gradients import PRODUCT_TOLERANCE
from tools.node_models import LOOKED_AT, NO_INPUT, NO_OUTPUT, NO_TENSOR, Outcome
from tools.node_slopes import DENSE, ELEMENTS, ENGINES

PAGE = Path(__file__).parents[1] / "docs" / "node-models.md"

COLUMNS = {
    "checked": "a gradient was compared with central differences; other pairs of inputs and"
    " outputs of the model may be zero or have a reason",
    "zero": "every gradient is zero: measured, and zero or refused as zero by the package",
    "reason": "not checked, or not only zero, for a reason below",
    "empty": "the inputs have no elements",
    NO_INPUT: "integers, booleans, strings, floats of 8 bits or less",
    NO_OUTPUT: "the same of the outputs",
    NO_TENSOR: "inputs or outputs are no tensors",
}

_OPERATORS = "## Per operator"


def page(outcomes: Sequence[Outcome], third: str) -> str:
    """Return the page; `third` says what a third engine found."""
    return (
        "\n\n".join(
            [
                _introduction(outcomes),
                _totals(outcomes),
                _measurement(outcomes),
                third,
                _OPERATORS,
                _per_operator(outcomes),
                "## Reasons\n\nPairs are of a float input and a float output of one model.",
                _reasons(outcomes),
                "## Gradients that are zero\n\nA check of these models alone would let any formula"
                " that returns zeros pass. By operator, with the number of models.",
                _zeros(outcomes),
            ]
        )
        + "\n"
    )


def checked_models(text: str) -> dict[str, int]:
    """Return how many models of each operator are checked, as the page says."""
    rows = text.split(_OPERATORS)[1].split("\n##")[0]
    return {
        name: int(count) for name, count in re.findall(r"^\| `(\S+)` \| \d+ \| (\d+) ", rows, re.M)
    }


def _introduction(outcomes: Sequence[Outcome]) -> str:
    expanded = sum(o.node_model.name != o.node_model.base for o in outcomes)
    return (
        "# Gradients of ONNX's own test models\n\n"
        "Written by `tools/node_models.py`. ONNX ships a model of one operator, with inputs and"
        " outputs, for every form of every operator, and one more in which the operator is written"
        f" out where the standard defines it as a function: {len(outcomes)} models in onnx"
        f" {onnx.__version__}, {expanded} of them written out. Of each model, every pair of a float"
        " input x and a float output y is looked at: dL/dx of the built-in gradient builder, L a"
        " randomly weighted sum of y, beside central differences of the model itself; with several"
        " outputs also that of their sum. A model whose opset is newer than those covered is taken"
        " in the newest that is, if it gives the same outputs there."
    )


def _totals(outcomes: Sequence[Outcome]) -> str:
    counts = Counter(outcome.verdict for outcome in outcomes)
    pairs = Counter(finding.verdict for outcome in outcomes for finding in outcome.findings)
    rows = [(name, str(counts[name]), meaning) for name, meaning in COLUMNS.items()]
    rows.append(("wrong", str(counts["wrong"]), "a gradient that is wrong, or has no reason"))
    summary = ", ".join(f"{pairs[name]} {name}" for name in ("checked", "zero", "empty"))
    others = sum(len(outcome.reasons) for outcome in outcomes)
    return _table(("verdict", "models", "meaning"), rows) + (
        f"\n\nPairs: {summary}, {others} with a reason."
    )


def _measurement(outcomes: Sequence[Outcome]) -> str:
    found = [f for o in outcomes for f in o.findings if f.verdict in {"checked", "zero"}]
    rows = []
    for engine in ENGINES:
        own = [f for f in found if f.engine == engine.name]
        worst = max((f.error for f in own if f.verdict == "checked"), default=0.0)
        rows.append(
            (
                engine.name,
                str(len(own)),
                f"{engine.step:.1e}",
                f"{engine.tolerance:.0e}",
                f"{worst:.1e}",
            )
        )
    return (
        "The model runs in the first of these engines that reproduces the given outputs and in"
        f" which L has slopes: along up to {ELEMENTS} single elements of x and {DENSE} random"
        " directions, the same to both sides. Where x lies on a kink it is moved by a few"
        f" hundredths ({sum(f.moved for f in found)} pairs). The gradient runs in the same"
        " precision and, where onnxruntime runs the model in float32, there as well (tolerance"
        f" {PRODUCT_TOLERANCE:.0e}). A larger error is allowed within the rounding of the slopes,"
        " where these are tiny. Integers are constants; so are other floats where a formula"
        f" needs it. onnxruntime {onnxruntime.__version__}.\n\n"
        + _table(("engine", "pairs", "step", "tolerance", "largest error"), rows)
    )


def _per_operator(outcomes: Sequence[Outcome]) -> str:
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        groups[outcome.node_model.operator][outcome.verdict] += 1
    rows = []
    for operator, counts in sorted(groups.items()):
        no_float = counts[NO_INPUT] + counts[NO_OUTPUT] + counts[NO_TENSOR] + counts["empty"]
        numbers = (counts.total(), counts["checked"], counts["zero"], counts["reason"], no_float)
        rows.append((f"`{operator}`", *(str(n) if n else "" for n in numbers)))
        rows[-1] = (*rows[-1][:2], str(counts["checked"]), *rows[-1][3:])
    return _table(
        ("operator", "models", "checked", "zero", "reason", "no float or no element"), rows
    )


def _reasons(outcomes: Sequence[Outcome]) -> str:
    pairs: Counter[str] = Counter()
    models: Counter[str] = Counter()
    operators: dict[str, set[str]] = defaultdict(set)
    for outcome in outcomes:
        for pair, reason in outcome.reasons.items():
            pairs[reason.text] += 1
            operators[reason.text].add(pair.operator)
        models.update({reason.text for reason in outcome.reasons.values()})
    rows = [
        (_names(operators[text]), text, str(models[text]), str(pairs[text]))
        for text in sorted(pairs, key=lambda text: sorted(operators[text]))
    ]
    return _table(("operators", "reason", "models", "pairs"), rows)


def _zeros(outcomes: Iterable[Outcome]) -> str:
    counts = Counter(
        o.node_model.operator for o in outcomes if o.kind == LOOKED_AT and o.verdict == "zero"
    )
    return ", ".join(f"`{name}` {count}" for name, count in sorted(counts.items())) + "."


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
