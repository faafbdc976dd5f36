"""What a session says of itself is asked once, and arrays pass through it without copies."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnxruntime
import pytest

from onnx_gradcam import load
from onnx_gradcam.contract import ACTIVATIONS_OUTPUT, GRADIENTS_OUTPUT
from onnx_gradcam.runtime import Explainer
from tests.contract_models import LABELS, contract_model, images


class Watched:
    """A session that counts what it is asked, and keeps what goes in and out."""

    def __init__(self, model: bytes) -> None:
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self.asked: Counter[str] = Counter()
        self.fed: list[dict[str, Any]] = []
        self.given: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        self.asked[name] += 1
        return getattr(self._session, name)

    def run(self, outputs: list[str], feeds: dict[str, Any], options: Any) -> list[Any]:
        self.fed.append(feeds)
        values = self._session.run(outputs, feeds, options)
        self.given.append(dict(zip(outputs, values, strict=True)))
        return list(values)


@pytest.fixture
def watched() -> tuple[Watched, Explainer]:
    session = Watched(contract_model(labels=LABELS))
    return session, Explainer(session)


def test_a_session_is_asked_once_for_many_explanations(watched: tuple[Watched, Explainer]) -> None:
    session, explainer = watched
    explainer.explain(images(1))
    explainer.predict(images(1))
    known = Counter(session.asked)
    for count in (1, 2, 3):
        explainer.explain(images(count), 2)
        explainer.explain_classes(images(1), [0, 1], "layercam", eigen_smooth=False)
        explainer.predict(images(count))
    assert session.asked == known
    assert len(session.fed) == 11


def test_neither_images_nor_outputs_are_copied(watched: tuple[Watched, Explainer]) -> None:
    session, explainer = watched
    x = images(3)
    found = explainer.explain(x)
    (fed,), (given,) = session.fed, session.given
    assert np.shares_memory(fed["image"], x)
    assert np.shares_memory(found.activations, given[ACTIVATIONS_OUTPUT])
    assert np.shares_memory(found.gradients, given[GRADIENTS_OUTPUT])
    assert np.shares_memory(found.scores, given["logits"])


def test_explanations_do_not_share_what_may_be_changed(
    watched: tuple[Watched, Explainer],
) -> None:
    _, explainer = watched
    x = images(2)
    first = explainer.explain(x)
    kept = [array.copy() for array in (first.cams, first.activations, first.scores)]
    for array in (first.cams, first.raw_maps, first.activations, first.gradients, first.scores):
        array[...] = 7
    first.classes[...] = 4
    dict.update(first.settings, masks=3)  # type: ignore[call-overload]
    second = explainer.explain(x)
    for array, expected in zip((second.cams, second.activations, second.scores), kept, strict=True):
        np.testing.assert_array_equal(array, expected)
    assert second.settings == {}
    assert second.classes.tolist() == second.scores.argmax(axis=1).tolist()


def test_an_image_that_is_not_contiguous_is_explained_as_its_copy(
    watched: tuple[Watched, Explainer],
) -> None:
    _, explainer = watched
    x = images(4)
    strange = np.asfortranarray(x)
    np.testing.assert_array_equal(explainer.explain(strange).cams, explainer.explain(x).cams)
    np.testing.assert_array_equal(explainer.explain(x[::2]).cams, explainer.explain(x).cams[::2])


@pytest.mark.parametrize("method", ["gradcam", None])
def test_a_call_without_options_is_like_one_that_names_the_defaults(method: str | None) -> None:
    explainer = load(contract_model(), device="cpu")
    x = images(3)
    named = explainer.explain(x, [-1, -1, -1], method, seed=0, eigen_smooth=False, layers=0)
    for _ in range(2):
        usual = explainer.explain(x, None, method)
        np.testing.assert_array_equal(usual.cams, named.cams)
        assert usual.classes.tolist() == named.classes.tolist()
        assert usual.method == named.method == "gradcam"


def test_defaults_that_are_kept_cannot_be_changed(watched: tuple[Watched, Explainer]) -> None:
    session, explainer = watched
    explainer.explain(images(2))
    (feeds,) = session.fed
    assert feeds["cam_class"].tolist() == [-1, -1]
    with pytest.raises(ValueError, match="read-only"):
        feeds["cam_class"][0] = 3
