"""A slice of ONNX's own test models: every one is checked, or has a reason, and reasons are needed.

`tools/node_models.py` looks at all of them and writes docs/node-models.md.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from onnx import helper

from onnx_gradcam.gradients.registry import FLOATS, gradient_table
from tools import node_gradients
from tools.node_gradients import examine
from tools.node_models import NodeModel, load_models, look_at
from tools.node_reasons import REASONS
from tools.node_report import PAGE, checked_models
from tools.node_slopes import Subject, run_reference

EVERY = 40
"""Every so many models; and the smallest of each operator with a formula."""

ALWAYS = {
    "test_attention_23_fullymasked_qk_matmul_output_mode3_zero",
    "test_attention_4d_with_past_and_present_qk_matmul",
    "test_scatternd_max",
    "test_scatter_elements_with_reduction_mul",
}
"""Where something was wrong once."""

_LARGEST = 5000
"""Elements of the inputs, in the slice."""


def slice_of_models() -> list[NodeModel]:
    """Return the slice; which models are in it does not depend on what becomes of them."""
    models = [m for m in load_models() if size(m) <= _LARGEST]
    formulas = {row.op_type for row in gradient_table()}
    chosen = {m.name: m for i, m in enumerate(models) if i % EVERY == 0 or m.name in ALWAYS}
    smallest: dict[str, NodeModel] = {}
    for m in sorted(models, key=lambda m: (len(m.model.graph.node), size(m), m.name)):
        if m.operator in formulas and has_floats(m):
            smallest.setdefault(m.operator, m)
    chosen |= {m.name: m for m in smallest.values()}
    return list(chosen.values())


def size(model: NodeModel) -> int:
    return sum(int(np.size(value)) for value in model.inputs if isinstance(value, np.ndarray))


def has_floats(model: NodeModel) -> bool:
    graph = model.model.graph
    types = [
        {info.type.tensor_type.elem_type for info in infos} for infos in (graph.input, graph.output)
    ]
    return all(found & FLOATS for found in types)


def test_a_slice_of_the_models() -> None:
    outcomes = [look_at(model) for model in slice_of_models()]
    assert [problem for outcome in outcomes for problem in outcome.problems] == []
    verdicts = [outcome.verdict for outcome in outcomes]
    assert verdicts.count("checked") > 100
    worst = max(f.error for o in outcomes for f in o.findings if f.verdict == "checked")
    assert worst > 0


def test_the_page_has_all_models_and_no_problem() -> None:
    text = PAGE.read_text(encoding="utf-8")
    models = load_models()
    assert f"{len(models)} models" in text
    assert re.search(r"^\| wrong \| 0 \|", text, re.MULTILINE)
    assert set(checked_models(text)) == {model.operator for model in models}
    assert [reason.text for reason in REASONS if reason.text not in text] == []


@pytest.mark.parametrize(
    ("op_type", "x", "verdict"),
    [
        ("Exp", [0.5, -1.0], "checked"),
        ("Floor", [0.5, -1.2], "zero"),
        ("Relu", [0.0, 1.0], "checked"),
        ("Det", [[1.0, 0.5], [0.0, 2.0]], "refused"),
    ],
)
def test_verdicts(op_type: str, x: list[float], verdict: str) -> None:
    (finding,) = examine(_subject(op_type, np.array(x, np.float32)))
    assert finding.verdict == verdict
    assert finding.moved == (op_type == "Relu")


@pytest.mark.parametrize("factor", [0.0, 1.0 + 1e-4, np.nan])
def test_a_wrong_gradient_is_seen(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = node_gradients.run_product
    monkeypatch.setattr(
        node_gradients, "run_product", lambda *arguments: right(*arguments) * factor
    )
    (finding,) = examine(_subject("Exp", np.array([0.5, -1.0], np.float32)))
    assert finding.verdict == "wrong"


def test_a_model_that_does_not_give_its_outputs_is_not_measured() -> None:
    subject = _subject("Exp", np.array([0.5, -1.0], np.float32))
    subject.wanted["y"] = subject.wanted["y"] + 1
    (finding,) = examine(subject)
    assert finding.verdict == "unmeasured"


def _subject(op_type: str, x: np.ndarray) -> Subject:
    node = helper.make_node(op_type, ["x"], ["y"])
    infos = [helper.make_tensor_value_info(name, 1, None) for name in ("x", "y")]
    infos[0] = helper.make_tensor_value_info("x", 1, x.shape)
    graph = helper.make_graph([node], "one", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (y,) = run_reference(model)({"x": x})
    return Subject(model, {"x": x}, {"y": np.asarray(y)})
