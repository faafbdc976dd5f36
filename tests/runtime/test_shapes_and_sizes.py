"""Inputs beside the image, images without a channel axis, scores without a batch axis."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_gradcam.errors import UsageError
from onnx_gradcam.runtime.extra_inputs import ExtraInputs
from onnx_gradcam.runtime.feeds import BatchRunner
from onnx_gradcam.runtime.image_input import ImageInput


def argument(name: str, shape: list[Any], kind: str = "float") -> SimpleNamespace:
    return SimpleNamespace(name=name, shape=shape, type=f"tensor({kind})")


def image_input(shape: list[Any], axes: int, layout: str = "NCHW") -> ImageInput:
    return ImageInput.from_session(argument("x", shape), None, layout, axes)


class Session:
    """Doubles each image; one image a run, and then the scores have no batch axis."""

    def __init__(self, batch: int | None, squeezed: bool = False) -> None:
        self.batch, self.squeezed = batch, squeezed
        self.fed: list[dict[str, Any]] = []

    def get_outputs(self) -> list[SimpleNamespace]:
        return [argument("scores", [5] if self.squeezed else [self.batch or "N", 5])]

    def get_inputs(self) -> list[SimpleNamespace]:
        return [argument("x", []), argument("facts", [])]

    def get_overridable_initializers(self) -> list[SimpleNamespace]:
        return []

    def run(self, outputs: list[str], feeds: dict[str, Any], options: Any) -> list[Any]:
        self.fed.append(feeds)
        scores = 2 * feeds["x"].reshape(len(feeds["x"]), 5)
        assert self.batch in {None, len(scores)}
        return [scores[0] if self.squeezed else scores]


def runner(session: Session, shape: list[Any], **extra: SimpleNamespace) -> BatchRunner:
    return BatchRunner(session, image_input(shape, 1, "NCW"), ExtraInputs(extra, set()))


IMAGES = np.arange(15, dtype=np.float32).reshape(3, 1, 5)


def test_scores_without_a_batch_axis_come_one_by_one() -> None:
    session = Session(1, squeezed=True)
    (scores,) = runner(session, [1, 1, 5]).run(["scores"], IMAGES, {}, None)
    np.testing.assert_array_equal(scores, 2 * IMAGES[:, 0])
    assert len(session.fed) == 3


def test_a_batch_size_that_only_the_scores_declare_counts() -> None:
    session = Session(2)
    (scores,) = runner(session, ["N", 1, 5]).run(["scores"], IMAGES, {}, None)
    np.testing.assert_array_equal(scores, 2 * IMAGES[:, 0])
    assert [len(feeds["x"]) for feeds in session.fed] == [2, 2]


@pytest.mark.parametrize(
    ("declared", "expected"), [(["N", 2], [2, 2]), ([2, 2], [2, 2]), ([3, 2], [3, 3])]
)
def test_rows_of_another_input_go_with_their_images(
    declared: list[Any], expected: list[int]
) -> None:
    """A declared size that is not the batch size is no axis of images."""
    session = Session(2)
    facts = np.arange(6, dtype=np.float32).reshape(3, 2)
    batches = runner(session, [2, 1, 5], facts=argument("facts", declared))
    batches.run(["scores"], IMAGES, {}, {"facts": facts})
    assert [len(feeds["facts"]) for feeds in session.fed] == expected
    if expected == [2, 2]:
        np.testing.assert_array_equal(session.fed[0]["facts"], facts[:2])
        np.testing.assert_array_equal(session.fed[1]["facts"], facts[[2, 2]])


EXTRA = ExtraInputs(
    {
        "facts": argument("facts", ["N", 2]),
        "gain": argument("gain", []),
        "count": argument("count", [1], "int32"),
        "on": argument("on", [1], "bool"),
    },
    {"default"},
)


def test_types_follow_the_declaration() -> None:
    given = {"facts": [[1, 2]], "gain": 3, "count": [4], "on": [1], "default": [5]}
    found = EXTRA.checked(given)
    assert [found[n].dtype for n in ("facts", "gain")] == [np.float32, np.float32]
    assert found["gain"].shape == ()
    assert found["count"].dtype == np.int32
    assert found["on"].dtype == np.bool_


def test_what_is_missing_unknown_or_unfit() -> None:
    whole = {"facts": [[1, 2]], "gain": 3, "count": [4], "on": [1]}
    with pytest.raises(UsageError, match=r"also needs input 'facts', 'on'.*--input NAME=FILE"):
        EXTRA.checked({"gain": 3, "count": [4]})
    with pytest.raises(UsageError, match=r"no extra input 'fact'; did you mean 'facts'"):
        EXTRA.checked(whole | {"fact": 1})
    with pytest.raises(UsageError, match="'count' does not fit tensor"):
        EXTRA.checked(whole | {"count": ["many"]})


def test_one_image_for_several_classes_and_one_of_several() -> None:
    given = {"facts": np.array([[1.0, 2.0]]), "gain": np.float32(3), "count": np.array([4])}
    each = EXTRA.for_each_class(given, 3)
    np.testing.assert_array_equal(each["facts"], [[1, 2]] * 3)
    assert each["count"] is given["count"], "its first axis has a size of its own"
    rows = {"facts": np.arange(6).reshape(3, 2), "gain": np.float32(3), "count": np.array([4])}
    np.testing.assert_array_equal(EXTRA.of_image(rows, 1, 3)["facts"], [[2, 3]])
    assert np.shape(EXTRA.of_image(rows, 1, 2)["facts"]) == (3, 2)


@pytest.mark.parametrize(
    ("shape", "axes", "given", "spatial"),
    [
        (["N", 33], 1, (2, 33), (33,)),
        (["N", 33], 1, (33,), (33,)),
        (["N", 8, 9], 2, (8, 9), (8, 9)),
        ([], 2, (2, 3, 8, 9), (8, 9)),
        ([], 1, (2, 3, 8), (8,)),
        (["N", 1, 4, 8, 9], 3, (1, 4, 8, 9), (4, 8, 9)),
    ],
)
def test_axes_of_the_image(
    shape: list[Any], axes: int, given: tuple[int, ...], spatial: tuple[int, ...]
) -> None:
    found = image_input(shape, axes, "NC" + "DHW"[-axes:])
    batch = found.fit(np.zeros(given, np.float32))
    assert found.spatial(batch.shape) == spatial
    assert found.spatial_axes == axes
    first = found.channels_first(batch)
    assert first.shape == (len(batch), first.shape[1], *spatial)


def test_channels_are_moved_to_the_front() -> None:
    last = image_input(["N", 8, 9, 3], 2, "NHWC")
    batch = np.random.default_rng(0).standard_normal((2, 8, 9, 3)).astype(np.float32)
    np.testing.assert_array_equal(last.channels_first(batch), batch.transpose(0, 3, 1, 2))
