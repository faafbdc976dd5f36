"""One Explainer shared by threads: the same results to the last bit, and each session made once."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from onnx_gradcam import Preprocessing, export_model, load
from onnx_gradcam.runtime import Explainer
from onnx_gradcam.runtime.session import OpenedModel
from tests.contract_models import contract_model, images
from tests.end_to_end.small_model import CLASSES, small_model
from tests.runtime.devices import on_stand_in

ZOO = Path(__file__).parents[1] / "zoo"
THREADS = 8
PHOTO = np.random.default_rng(6).integers(0, 256, (24, 32, 3), np.uint8)

Call = Callable[[Explainer, int], list[Any]]


def batch(number: int) -> Any:
    random = np.random.default_rng(number)
    return random.standard_normal((1 + number % 3, 3, 16, 16)).astype(np.float32)


def explained(method: str | None, explainer: Explainer, number: int) -> list[Any]:
    found = explainer.explain(batch(number), number % len(CLASSES), method)
    return [found.cams, found.raw_maps, found.scores, found.activations, found.gradients]


def smoothed(explainer: Explainer, number: int) -> list[Any]:
    return [explainer.explain(batch(number), None, eigen_smooth=True, aug_smooth=True).cams]


def predicted(explainer: Explainer, number: int) -> list[Any]:
    return [explainer.predict(batch(number))]


def of_photo(explainer: Explainer, number: int) -> list[Any]:
    found = explainer.explain_image(np.roll(PHOTO, number, axis=1), list(CLASSES))
    return [found.cams, found.photo_cams(), found.scores]


CALLS: dict[str, Call] = {
    "explain": partial(explained, None),
    "head runs": partial(explained, "ablationcam"),
    "other head runs": partial(explained, "reciprocam"),
    "model runs": partial(explained, "scorecam"),
    "gradient runs": partial(explained, "smoothgradcam++"),
    "smoothing": smoothed,
    "predict": predicted,
    "photo": of_photo,
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("threads") / "small.cam.onnx"
    recipe = Preprocessing(resize=(16, 16), scale=1 / 255)
    export_model(small_model(), path, gradient_builder="reverse", preprocess=recipe,
                 labels=CLASSES, verify=False)  # fmt: skip
    return path


@pytest.fixture(scope="module")
def alone(file: Path) -> dict[str, list[list[Any]]]:
    """What one thread gets, a list for each call."""
    explainer = load(file, device="cpu")
    return {name: [call(explainer, n) for n in range(THREADS)] for name, call in CALLS.items()}


def together(explainer: Explainer, calls: list[tuple[Call, int]]) -> list[list[Any]]:
    """Return what as many threads as there are calls get, which start at once."""
    start = Barrier(len(calls))

    def run(call: Call, number: int) -> list[Any]:
        start.wait(30)
        return call(explainer, number)

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, *zip(*calls, strict=True)))


def assert_equal(found: list[list[Any]], expected: list[list[Any]]) -> None:
    for own, other in zip(found, expected, strict=True):
        for array, wanted in zip(own, other, strict=True):
            np.testing.assert_array_equal(array, wanted)
            assert np.abs(wanted).max() > 0.01


@pytest.mark.parametrize("name", CALLS)
def test_the_first_calls_of_one_kind(
    file: Path, alone: dict[str, list[list[Any]]], name: str
) -> None:
    explainer = load(file, device="cpu")
    for _ in range(2):  # the sessions of parts are made in the first round
        found = together(explainer, [(CALLS[name], number) for number in range(THREADS)])
        assert_equal(found, alone[name])


def test_calls_of_all_kinds_at_once(file: Path, alone: dict[str, list[list[Any]]]) -> None:
    explainer = load(file, device="cpu")
    names = list(CALLS)
    for turn in range(4):
        order = [(names[(i + turn) % len(names)], (i * 3 + turn) % THREADS) for i in range(THREADS)]
        found = together(explainer, [(CALLS[name], number) for name, number in order])
        assert_equal(found, [alone[name][number] for name, number in order])


def test_a_device_shared_by_threads(file: Path, alone: dict[str, list[list[Any]]]) -> None:
    explainer = on_stand_in(load(file, device="cpu"))
    found = together(explainer, [(CALLS["explain"], number) for number in range(THREADS)])
    for own, other in zip(found, alone["explain"], strict=True):
        np.testing.assert_allclose(own[1], other[1], atol=1e-6)
        assert_equal([own[2:]], [other[2:]])
    run = explainer._runner.device
    assert run is not None
    assert list(run.maps._sessions) == ["gradcam"]


def test_each_session_is_made_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    start = OpenedModel.start_part

    def counted(opened: OpenedModel, content: bytes) -> Any:
        made.append(len(content))
        return start(opened, content)

    monkeypatch.setattr(OpenedModel, "start_part", counted)
    explainer = load(file, device="cpu")
    together(explainer, [(CALLS["predict"], number) for number in range(THREADS)])
    assert len(made) == 1
    together(explainer, [(CALLS["head runs"], number) for number in range(THREADS)])
    assert len(made) == 3, "trunk and head"
    together(explainer, [(call, 0) for call in CALLS.values()])
    assert len(made) == 3


@pytest.mark.parametrize("name", ["transformers-ViT", "timm-coatnet_nano_cc_224"])
def test_a_head_with_a_trunk(name: str, tmp_path: Path) -> None:
    """What by-passes A the trunk computes for each batch."""
    path = tmp_path / "m.onnx"
    with np.load(ZOO / f"{name}.npz") as known:
        target, image = str(known["auto_target"]), known["image"].astype(np.float32)[:1]
    export_model(ZOO / f"{name}.onnx", path, layer=target, gradient_builder="reverse",
                 verify=False)  # fmt: skip

    def call(explainer: Explainer, number: int) -> list[Any]:
        x = np.concatenate([np.roll(image, n, axis=-1) for n in range(number, 2 * number + 1)])
        return [explainer.explain(x, number, "reciprocam").raw_maps]

    alone = [call(load(path, device="cpu"), number) for number in range(4)]
    explainer = load(path, device="cpu")
    for _ in range(2):
        found = together(explainer, [(call, number % 4) for number in range(THREADS)])
        for (own,), (wanted,) in zip(found, alone * 2, strict=True):
            np.testing.assert_array_equal(own, wanted)
            assert np.ptp(wanted) > 0


def test_a_part_that_cannot_be_made_holds_no_calls(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(contract_model())
    explainer = load(path, device="cpu")
    os.utime(path, (0, 0))  # changed since: no part can be cut out, and the whole file runs
    expected = load(path, device="cpu").predict(images(2))
    for _ in range(5):
        np.testing.assert_array_equal(explainer.predict(images(2)), expected)
    assert explainer._reruns is not None
    (error,) = explainer._reruns._parts._sessions.values()
    assert "has changed" in str(error)
    assert error.__traceback__ is None
