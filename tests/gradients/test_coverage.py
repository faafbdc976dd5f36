"""Every row of the two tables is looked at, at the borders of its range of opsets."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from onnx_gradcam.gradients.registry import gradient_table, lowering_table
from tests.gradients.case import OLDEST_OPSET, versions
from tests.gradients.cases import CASES, quantization
from tests.gradients.engines import torch_gradients
from tests.gradients.test_lowerings import LOWERINGS
from tools import op_coverage
from tools.op_reasons import REASONS

NOT_RUN = {
    # onnxruntime 1.32 runs Swish in opset 24 alone: it has no kernel, and expands it only there
    ("Swish", 26),
    # and GlobalLpPool up to opset 21
    ("GlobalLpPool", 26),
}


def test_every_gradient_has_cases_at_both_ends_of_its_range() -> None:
    looked_at = {
        (op_type, opset)
        for case in (*CASES, *quantization.CASES)
        if not case.runtime
        for opset in case.checked_opsets()
        for op_type in case.op_types()
    }
    wanted = set()
    for row in gradient_table():
        assert row.domain == ""
        first = max(row.since, min(versions(row.op_type)), OLDEST_OPSET)
        wanted |= {(row.op_type, first), (row.op_type, row.until)}
    assert wanted - looked_at == NOT_RUN


def test_every_form_of_an_operator_has_a_case() -> None:
    looked_at = {
        (op_type, opset)
        for case in (*CASES, *quantization.CASES)
        for opset in case.checked_opsets()
        for op_type in case.op_types()
    }
    wanted = {
        (row.op_type, since)
        for row in gradient_table()
        for since in versions(row.op_type)
        if max(row.since, OLDEST_OPSET) <= since <= row.until
    }
    assert wanted <= looked_at


def test_every_lowering_has_a_case() -> None:
    assert {(case.domain, case.op_type) for case in LOWERINGS} == set(lowering_table())


def test_names_of_cases_are_unique() -> None:
    assert [
        name
        for name, count in Counter(c.name for c in (*CASES, *quantization.CASES)).items()
        if count > 1
    ] == []


def test_references_of_pytorch_are_those_of_the_cases() -> None:
    assert set(torch_gradients()) == {case.name for case in CASES if case.ad}


# -- docs/operators.md -------------------------------------------------------------------------


def unversioned(page: str) -> str:
    """The page without the last number of versions, which changes nothing in it."""
    return re.sub(r"(onnx\w* \d+\.\d+)\.\d+", r"\1", page)


def test_the_page_of_operators_is_what_the_tool_writes() -> None:
    written = op_coverage.PAGE.read_text(encoding="utf-8")
    assert unversioned(written) == unversioned(op_coverage.page()), "run tools/op_coverage.py"


@pytest.mark.parametrize("domain", REASONS)
def test_every_operator_is_covered_or_has_a_reason(domain: str) -> None:
    names = set(op_coverage.operators(domain))
    assert [
        name
        for name in names
        if not (op_coverage.is_covered(domain, name) or op_coverage.reason_for(domain, name))
    ] == []
    assert set(REASONS[domain]) <= names
    assert set(REASONS[domain]) & op_coverage.in_tables(domain) == set()


def test_every_formula_has_a_case() -> None:
    counts = op_coverage.case_counts()
    assert [row.op_type for row in gradient_table() if not counts[row.op_type]] == []
