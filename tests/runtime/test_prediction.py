"""Scores alone: one quick run where a batch fits one, and the same numbers in every other way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_gradcam import load
from onnx_gradcam.errors import OnnxGradCamError
from onnx_gradcam.runtime import Explainer
from tests.contract_models import contract_model, images

Array = NDArray[Any]


class Counted:
    """A session that counts its runs; it may break, or lose the batch axis."""

    def __init__(self, session: Any, problem: str = "") -> None:
        self.session, self.problem, self.runs = session, problem, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run(self, outputs: list[str], feeds: dict[str, Array], options: Any) -> list[Array]:
        self.runs += 1
        if self.problem == "breaks":
            raise RuntimeError("made up")
        found: list[Array] = self.session.run(outputs, feeds, options)
        return [value[0] for value in found] if self.problem == "no batch axis" else found


def counted(explainer: Explainer, problem: str = "") -> Counted:
    """Put a counting session in place of the one that predicts."""
    assert explainer._reruns is not None
    parts = explainer._reruns._parts
    session = Counted(explainer._reruns.whole.session, problem)
    parts._sessions = dict.fromkeys(parts._sessions, session)
    vars(explainer._reruns).pop("whole")
    return session


@pytest.mark.parametrize(
    ("model", "runs"),
    [
        ({}, 1),
        ({"softmax": True}, 1),
        ({"class_input": "required"}, 1),
        ({"image": "2, 3, 8, 10"}, 2),
        ({"extra_input": True}, 1),
        ({"kind": "float16"}, 1),
    ],
    ids=str,
)
def test_scores_are_those_of_the_explanation(model: dict[str, Any], runs: int) -> None:
    explainer = load(contract_model(**model), device="cpu")
    session = counted(explainer)
    extra = {"gain": np.array([2.0])} if "extra_input" in model else None
    x = images(3)
    scores = explainer.predict(x, extra_inputs=extra)
    np.testing.assert_array_equal(scores, explainer.explain(x, extra_inputs=extra).scores)
    assert session.runs == runs
    assert np.ptp(scores) > 0.1
    assert explainer.predict(x[:0], extra_inputs=extra).shape == (0, 5)
    assert session.runs == runs


def test_a_session_that_breaks_is_reported_in_one_line() -> None:
    explainer = load(contract_model(), device="cpu")
    session = counted(explainer, "breaks")
    with pytest.raises(OnnxGradCamError, match=r"cannot run on image \(2, 3, 8, 10\): made up"):
        explainer.predict(images(2))
    assert session.runs == 2


def test_scores_without_a_batch_axis() -> None:
    explainer = load(contract_model(), device="cpu")
    expected = explainer.predict(images(1))
    other = load(contract_model(), device="cpu")
    session = counted(other, "no batch axis")
    for runs in (2, 3):  # it is tried once
        np.testing.assert_array_equal(other.predict(images(1)), expected)
        assert session.runs == runs


def test_the_session_of_a_part_does_not_keep_its_bytes() -> None:
    explainer = load(contract_model(), device="cpu")
    explainer.predict(images(1))
    assert explainer._reruns is not None
    assert explainer._reruns.whole.session._model_bytes is None
