"""Look at the gradient of every model that ONNX ships to test its operators.

    python tools/node_models.py            writes docs/node-models.md (about ten minutes)
    python tools/node_models.py relu conv  prints the findings of models of these names

In: the models of ``onnx.backend.test.loader.load_model_tests(kind="node")`` with their inputs and
outputs, written by nobody here. Out: per model, an `Outcome`: each pair of a float input and a
float output is checked (`node_gradients`), or has a reason (`node_reasons`). What has neither, a
gradient that is wrong, and a reason that nothing needs make the tool fail.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, defs, numpy_helper

from onnx_gradcam.export.pipeline import OLDEST_OPSET
from onnx_gradcam.gradients.registry import NEWEST_OPSET
from tools.node_gradients import ALL, Finding, examine
from tools.node_reasons import REASONS, Pair, Reason
from tools.node_slopes import Subject

_PAGE = Path(__file__).parents[1] / "docs" / "node-models.md"

_NEWEST_IR = 13


@dataclass(frozen=True)
class NodeModel:
    """One model of the suite.

    Attributes:
        name: of the test.
        base: the test of the operator itself, where this is the expansion of its function.
        node: the operator under test.
        model: the model.
        inputs: values of the graph inputs, in order.
        outputs: values of the graph outputs, in order.
    """

    name: str
    base: str
    node: NodeProto
    model: ModelProto
    inputs: Sequence[Any]
    outputs: Sequence[Any]

    @property
    def operator(self) -> str:
        """Return the operator under test, with its domain unless that is the default one."""
        return f"{self.node.domain}::{self.node.op_type}" if self.node.domain else self.node.op_type

    @property
    def opset(self) -> int:
        """Return the version of the default domain, 0 where it is not imported."""
        return max((o.version for o in self.model.opset_import if not o.domain), default=0)

    def formal(self, tensor: str, *, output: bool = False) -> str:
        """Return the name that the operator's specification has for an input or output."""
        names = list(self.node.output if output else self.node.input)
        if tensor not in names:
            return tensor
        schema = _schema(self.node.op_type, self.opset, self.node.domain)
        if schema is None:
            return tensor
        formals = schema.outputs if output else schema.inputs
        return str(formals[min(names.index(tensor), len(formals) - 1)].name)


@dataclass
class Outcome:
    """What became of one model.

    Attributes:
        node_model: the model.
        kind: ``looked at``, or why there is nothing to look at: a property of its types.
        findings: one per pair of a float input and a float output.
        reasons: of findings that are neither checked nor zero.
        problems: findings without a reason, or wrong.
    """

    node_model: NodeModel
    kind: str
    findings: list[Finding] = field(default_factory=list)
    reasons: dict[Pair, Reason] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """Return one word for the model."""
        if self.kind != LOOKED_AT:
            return self.kind
        verdicts = {f.verdict for f in self.findings}
        if self.problems:
            return "wrong"
        if "checked" in verdicts:
            return "checked"
        return "reason" if self.reasons else (verdicts.pop() if len(verdicts) == 1 else "zero")


LOOKED_AT = "looked at"
NO_INPUT = "no float input"
NO_OUTPUT = "no float output"
NO_TENSOR = "sequences or optionals"


@cache
def load_models() -> tuple[NodeModel, ...]:
    """Return all models of the suite; making them takes seconds."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # the suite's own, of NumPy
        from onnx.backend.test.loader import load_model_tests

        tests = load_model_tests(kind="node")
    given = {test.name: test.model for test in tests if test.model is not None}
    models = []
    for test in tests:
        assert test.model is not None, "only other kinds of tests lie in files"
        assert test.data_sets is not None
        base = re.sub(r"_expanded.*$", "", test.name)
        node = given.get(base, test.model).graph.node[-1]
        inputs, outputs = test.data_sets[0]
        models.append(NodeModel(test.name, base, node, test.model, inputs, outputs))
    return tuple(models)


def look_at(node_model: NodeModel) -> Outcome:
    """Return what becomes of a model."""
    if not has_tensors_only(node_model):
        return Outcome(node_model, NO_TENSOR)
    subject = subject_of(node_model)
    if not subject.x_names:
        return Outcome(node_model, NO_INPUT)
    if not subject.y_names:
        return Outcome(node_model, NO_OUTPUT)
    outcome = Outcome(node_model, LOOKED_AT, examine(subject))
    for finding in outcome.findings:
        if finding.verdict in {"checked", "zero", "empty"}:
            continue
        pair = pair_of(node_model, finding)
        reason = reason_for(pair)
        if reason is None:
            outcome.problems.append(
                f"{node_model.name}: {finding.x} -> {finding.y} {finding.verdict}: {finding.detail}"
            )
        else:
            outcome.reasons[pair] = reason
    return outcome


def has_tensors_only(node_model: NodeModel) -> bool:
    """Return whether all inputs and outputs are tensors."""
    graph = node_model.model.graph
    return all(info.type.HasField("tensor_type") for info in (*graph.input, *graph.output))


def subject_of(node_model: NodeModel) -> Subject:
    """Return a model of tensors with its values, in an opset that is covered if it can be."""
    graph = node_model.model.graph
    return Subject(
        at_known_opset(node_model),
        {i.name: _array(v) for i, v in zip(graph.input, node_model.inputs, strict=True)},
        {o.name: _array(v) for o, v in zip(graph.output, node_model.outputs, strict=True)},
    )


def at_known_opset(node_model: NodeModel) -> ModelProto:
    """Return the model in the newest opset here where it is of a newer one, or older.

    That it means the same there is seen from its outputs, which are compared with those given.
    """
    known = max(OLDEST_OPSET, min(node_model.opset, NEWEST_OPSET))
    if known == node_model.opset or not node_model.opset:
        return node_model.model
    copy = ModelProto()
    copy.CopyFrom(node_model.model)
    for entry in copy.opset_import:
        if not entry.domain:
            entry.version = known
    copy.ir_version = min(copy.ir_version, _NEWEST_IR)
    try:
        checker.check_model(copy)
    except checker.ValidationError:
        return node_model.model
    return copy


def pair_of(node_model: NodeModel, finding: Finding) -> Pair:
    """Return what reasons are looked up by."""
    y = finding.y if finding.y == ALL else node_model.formal(finding.y, output=True)
    x = node_model.formal(finding.x)
    return Pair(node_model.operator, x, y, node_model.name, finding.verdict, finding.detail)


def reason_for(pair: Pair) -> Reason | None:
    """Return the first reason that covers a pair."""
    return next((reason for reason in REASONS if reason.covers(pair)), None)


def _array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def _schema(op_type: str, opset: int, domain: str) -> defs.OpSchema | None:
    try:
        return (
            defs.get_schema(op_type, opset, domain) if opset else defs.get_schema(op_type, domain)
        )
    except defs.SchemaError:
        return None


def main() -> int:
    """Look at the models; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pattern", nargs="*", help="parts of names of models; nothing is written")
    patterns = parser.parse_args().pattern
    outcomes = []
    start = time.monotonic()
    for node_model in load_models():
        if patterns and not any(re.search(p, node_model.name) for p in patterns):
            continue
        outcomes.append(look_at(node_model))
        if patterns:
            print("\n".join(_lines(outcomes[-1])))
        elif len(outcomes) % 200 == 0:
            print(f"{len(outcomes)} models, {time.monotonic() - start:.0f} s", flush=True)
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    if not patterns:
        from tools import node_ad  # these read this module
        from tools.node_report import page

        others = list(node_ad.opinions(load_models()))
        problems += [f"{name}: onnx-ad differs" for name in node_ad.unexplained(others)]
        used = {id(r) for outcome in outcomes for r in outcome.reasons.values()}
        problems += [f"a reason that nothing needs: {r}" for r in REASONS if id(r) not in used]
        _PAGE.write_text(page(outcomes, node_ad.paragraph(others)), encoding="utf-8")
    print("\n".join(problems), f"{len(outcomes)} models, {len(problems)} problems", sep="\n")
    return 1 if problems else 0


def _lines(outcome: Outcome) -> Iterator[str]:
    yield f"{outcome.node_model.name}: {outcome.verdict}"
    for finding in outcome.findings:
        line = f"  {finding.x} -> {finding.y}: {finding.verdict}"
        line += f", {finding.error:.1e}, {finding.engine}" if finding.verdict == "checked" else ""
        yield line + (f": {finding.detail}" if finding.detail else "")


if __name__ == "__main__":
    sys.exit(main())
