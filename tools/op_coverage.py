"""Write docs/operators.md: which operators are differentiated, how, and what tests it.

    python tools/op_coverage.py

In: the tables of the package (gradients, expansions, preparation rules), the operators that the
installed onnx and onnxruntime define, the cases of the tests, docs/node-models.md. Out: the page,
on which every operator of the standard and of ``com.microsoft`` is, with a reason where it is not
covered (`op_reasons`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import onnx
import onnxruntime
from onnx import defs
from onnxruntime.capi import onnxruntime_pybind11_state

from onnx_gradcam.export.builders.operators import training_can_differentiate
from onnx_gradcam.export.builders.preparation import RULES
from onnx_gradcam.export.expansion import rules
from onnx_gradcam.export.expansion.classic import _trees
from onnx_gradcam.export.expansion.registry import Row, expansion_table
from onnx_gradcam.export.pipeline import OLDEST_OPSET
from onnx_gradcam.gradients.elementwise import _piecewise_constant
from onnx_gradcam.gradients.quantization import STRAIGHT_THROUGH
from onnx_gradcam.gradients.registry import MICROSOFT, NEWEST_OPSET, Entry, gradient_table
from tests.export.expansion.cases import CASES as EXPANSION_CASES
from tests.export.expansion.test_quantized import ROWS as QUANTIZED_CASES
from tests.gradients.cases import CASES, quantization
from tools.node_report import PAGE as NODE_MODELS
from tools.node_report import checked_models
from tools.op_reasons import REASONS, STANDARD_REASONS

PAGE = Path(__file__).parents[1] / "docs" / "operators.md"

_FLOATS = {f"tensor({name})" for name in ("float", "double", "float16", "bfloat16")}

NO_FLOAT_OUT = "no gradient by nature: its results are integers, booleans, strings or sequences"
NO_FLOAT_IN = "no gradient by nature: no float tensor goes in"


def page() -> str:
    """Return the page."""
    formulas, expansions = _formulas(), _expansions()
    functions, uncovered = _functions(), _uncovered()
    covered = {row[0] for row in (*formulas, *expansions, *functions)}
    parts = [
        "# Operators",
        "Written by `tools/op_coverage.py`; onnx "
        f"{onnx.__version__}, onnxruntime {onnxruntime.__version__}. Between the layer and the"
        f" score, {len(covered)} operators of opsets {OLDEST_OPSET} to {NEWEST_OPSET} can stand."
        " Any other one is refused there by name, and is no obstacle before the layer. What a"
        " formula does not cover (a rare attribute, a gradient with respect to weights) is refused"
        " with the reason.",
        "## Formulas",
        "*training*: whether onnxruntime-training differentiates the operator as it is, after"
        " preparation (it is written in other operators first), or not; `auto` then takes the"
        " built-in builder, which covers all. *cases*: of `tests/gradients/cases`, each compared"
        " with central differences and an independent engine; *models*: of ONNX's own test models,"
        " [compared with central differences](node-models.md).",
        _table(("operator", "opsets", "how", "where", "training", "cases", "models"), formulas),
        "## Expansions",
        "Written in operators above before anything else is looked at; the original node stays in"
        " the file ([definitions](expansion.md)). *cases*: compared with onnxruntime's own kernel."
        " `If` with a known condition is replaced by its branch. Where no number stands, whole"
        " models test it.",
        _table(("operator", "where", "cases"), expansions),
        "## Functions of the standard",
        "Defined by ONNX in other operators, and expanded into these.",
        _table(("operator", "since opset", "models"), functions),
        "## Not covered",
        _table(("reason", "operators"), uncovered),
    ]
    return "\n\n".join(parts) + "\n"


# -- covered -----------------------------------------------------------------------------------


def _formulas() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for entry in gradient_table():
        first = max(entry.since, min(_versions(entry.domain, entry.op_type)), OLDEST_OPSET)
        rows.append(
            (
                _name(entry.domain, entry.op_type),
                str(first) if first == entry.until else f"{first} to {entry.until}",
                _how(entry),
                _where(entry.formula),
                _training(entry.domain, entry.op_type),
                str(case_counts()[entry.op_type] or ""),
                _models(entry.op_type),
            )
        )
    return rows


def _how(entry: Entry) -> str:
    if entry.formula is _piecewise_constant:
        return "zero derivative"
    return "straight-through" if entry.op_type in STRAIGHT_THROUGH else "formula"


def _training(domain: str, op_type: str) -> str:
    if not training_can_differentiate(domain, op_type):
        return "no"
    return "after preparation" if op_type in RULES else "yes"


def _expansions() -> list[tuple[str, ...]]:
    counts = Counter((case.domain, case.op_type) for case in EXPANSION_CASES)
    counts.update((row.domain, row.op_type) for row in QUANTIZED_CASES)
    return [
        (
            _name(row.domain, row.op_type),
            _where(row.rule),
            str(counts[row.domain, row.op_type] or ""),
        )
        for row in _real_expansions()
    ]


def _functions() -> list[tuple[str, ...]]:
    return [
        (_name("", name), str(min(_versions("", name))), _models(name))
        for name in operators("")
        if is_covered_function(name)
    ]


def is_covered_function(name: str) -> bool:
    """Return whether an operator is covered by its definition in others, and by that alone."""
    by_table = name in in_tables("") or name in STANDARD_REASONS
    return not by_table and rules.find_rule("", name, NEWEST_OPSET) is not None and _is_float(name)


# -- not covered -------------------------------------------------------------------------------


def _uncovered() -> list[tuple[str, str]]:
    groups: dict[str, list[str]] = {}
    for domain in REASONS:
        for name in operators(domain):
            if not is_covered(domain, name):
                groups.setdefault(reason_for(domain, name), []).append(_name(domain, name))
    return [(reason, ", ".join(names)) for reason, names in groups.items()]


def is_covered(domain: str, name: str) -> bool:
    """Return whether an operator has a formula, an expansion or a definition in others."""
    return name in in_tables(domain) or (not domain and is_covered_function(name))


def reason_for(domain: str, name: str) -> str:
    """Return why an operator is not covered.

    Raises:
        KeyError: nobody has said.
    """
    if domain or name in REASONS[domain]:
        return REASONS[domain][name]
    float_in, float_out = _float_types(name)
    if not float_out:
        return NO_FLOAT_OUT
    if not float_in:
        return NO_FLOAT_IN
    raise KeyError(f"{name} is neither covered nor in tools/op_reasons.py")


def _is_float(name: str) -> bool:
    return all(_float_types(name))


def _float_types(name: str) -> tuple[bool, bool]:
    """Return whether a float tensor may go in, and come out."""
    schema = defs.get_schema(name, NEWEST_OPSET, "")
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    of_inputs, of_outputs = (
        any(_FLOATS & allowed.get(formal.type_str, {formal.type_str}) for formal in formals)
        for formals in (schema.inputs, schema.outputs)
    )
    return of_inputs, of_outputs


# -- what there is -----------------------------------------------------------------------------


@cache
def operators(domain: str) -> list[str]:
    """Return the names of all operators of a domain, in the opsets that are covered."""
    if domain == MICROSOFT:
        found = onnxruntime_pybind11_state.get_all_operator_schema()
        return sorted({str(s.name) for s in found if s.domain == MICROSOFT})
    schemas = [s for s in defs.get_all_schemas_with_history() if s.domain == domain]
    return sorted({s.name for s in schemas if s.since_version <= NEWEST_OPSET})


@cache
def case_counts() -> Counter[str]:
    """Return the number of gradient cases per operator."""
    cases = (*CASES, *quantization.CASES)
    return Counter(op_type for case in cases for op_type in case.op_types())


@cache
def in_tables(domain: str) -> frozenset[str]:
    """Return the operators of a domain that have a formula or an expansion."""
    formulas = {row.op_type for row in gradient_table() if row.domain == domain}
    return frozenset(formulas | {row.op_type for row in _real_expansions() if row.domain == domain})


def _real_expansions() -> list[Row]:
    """Return the table without those rules that only say why there is no gradient."""
    return [row for row in expansion_table() if row.rule is not _trees]


@cache
def _node_models() -> dict[str, int]:
    return checked_models(NODE_MODELS.read_text(encoding="utf-8"))


def _versions(domain: str, op_type: str) -> list[int]:
    schemas = defs.get_all_schemas_with_history()
    return [s.since_version for s in schemas if (s.domain, s.name) == (domain, op_type)]


# -- text --------------------------------------------------------------------------------------


def _models(op_type: str) -> str:
    return str(_node_models().get(op_type, 0) or "")


def _name(domain: str, op_type: str) -> str:
    return f"`{domain}::{op_type}`" if domain else f"`{op_type}`"


def _where(function: Callable[..., object]) -> str:
    return f"`{function.__module__.removeprefix('onnx_gradcam.').replace('.', '/')}.py`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
