"""Whether a gate does what it says: closed, the model's own outputs; open, the explanation too.

In: the gated file, and the same with the gate open for good, on which everything else is verified.
Out: one `Check` for each position of the gate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnx_gradcam.contract import CLASS_INPUT, GATE_INPUT
from onnx_gradcam.export.files.model_file import LoadedModel
from onnx_gradcam.export.gate import without_gate
from onnx_gradcam.export.precision import holds_half
from onnx_gradcam.export.verification.compare_outputs import Difference, compare_outputs
from onnx_gradcam.export.verification.report import Check
from onnx_gradcam.export.verification.subject import Feeds, Subject, run, session_of

CLOSED, OPEN = "gate closed", "gate open"
_FEEDS = {name: {GATE_INPUT: np.array([name == OPEN])} for name in (CLOSED, OPEN)}


def opened(exported: LoadedModel) -> LoadedModel:
    """Return a gated file with the gate open for good; itself where there is none."""
    model = without_gate(exported.model)
    return exported if model is exported.model else replace(exported, model=model, path=None)


def check_gate(gated: LoadedModel, subject: Subject) -> Iterator[Check]:
    """Yield the checks of both positions: at each, the file gives what it gives without a gate.

    Args:
        gated: the file.
        subject: the same without a gate.
    """
    closed, open_ = _Position(CLOSED), _Position(OPEN)
    for optimise in (False, True):
        session = session_of(gated, optimise=optimise)
        whole = session_of(subject.exported, optimise=optimise)
        for feeds in _inputs(subject):
            _compare(subject, session, feeds, run(whole, feeds), optimise, closed, open_)
        del session, whole
    yield closed.check("the model's own outputs, and no images in those of the explanation")
    yield open_.check("all outputs as without a gate")


@dataclass
class _Position:
    """What was found at one position of the gate."""

    name: str
    problems: list[str] = field(default_factory=list)
    apart: dict[bool, list[Difference]] = field(default_factory=lambda: {False: [], True: []})

    def take(self, differences: list[Difference], optimise: bool) -> None:
        self.apart[optimise] += [d for d in differences if not d.identical]

    def check(self, what: str) -> Check:
        wrong = [d for d in self.apart[False] if not d.proves_equal]
        wrong += [d for d in self.apart[True] if not d.within_rounding]
        problems = list(dict.fromkeys([*self.problems, *map(str, wrong)]))
        if problems:
            return Check(self.name, False, "; ".join(problems)[:300])
        error = max((d.relative for found in self.apart.values() for d in found), default=0.0)
        same = "identical to the last bit"
        exact = f"{same} with optimisations off" if not self.apart[False] else "within rounding"
        default = f", {error:.1e} apart at the default level" if error else ", and optimised"
        return Check(self.name, True, f"{what}, {exact}{default}", error)


def _compare(
    subject: Subject,
    session: Any,
    feeds: Feeds,
    expected: Feeds,
    optimise: bool,
    closed: _Position,
    open_: _Position,
) -> None:
    """Compare what a gated session gives with what it is to give."""
    added = {*subject.metadata.outputs}
    half = holds_half(subject.reference.model)
    own = {name: value for name, value in expected.items() if name not in added}
    found = run(session, feeds | _FEEDS[CLOSED])
    closed.take(compare_outputs(own, found, half=half), optimise)
    closed.problems += [f"{name!r} holds images" for name in sorted(added) if len(found[name])]
    found = run(session, feeds | _FEEDS[OPEN])
    # a rounding that falls otherwise when optimised bends the gradient
    bent = optimise and subject.metadata.straight_through
    open_.take(compare_outputs(own if bent else expected, found, half=half), optimise)
    if GATE_INPUT in {node.name for node in session.get_overridable_initializers()}:
        unfed = compare_outputs(found, run(session, feeds))
        lost = [d.name for d in unfed if not d.within_rounding]
        open_.problems += [f"{name!r} differs where the gate is not fed" for name in lost]


def _inputs(subject: Subject) -> Iterator[Feeds]:
    """Yield inputs for the default class, and for the second highest where it can be asked for."""
    feeds = subject.inputs()
    yield feeds | subject.seeds({})
    if CLASS_INPUT in subject.metadata.fed_inputs and subject.metadata.num_classes > 1:
        yield feeds | subject.class_feed([-2])
