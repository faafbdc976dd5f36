"""Methods that run the head, against pytorch-grad-cam and openvino_xai on the same networks.

References and networks are written by ``tools/make_head_references.py``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnx_gradcam import export_model, load
from onnx_gradcam.cam import compute, heat_maps, paint
from onnx_gradcam.cam.registry import Need
from onnx_gradcam.runtime import Explainer

FOLDER = Path(__file__).parent
REFERENCES = np.load(FOLDER / "head_references.npz")
CASES = [key.removesuffix("/raw") for key in REFERENCES if key.endswith("/raw")]

Array = NDArray[np.float32]


class LinearHead:
    """y = sum of what is on the map and beside it, times weights: runs of a head, by hand."""

    def __init__(self, activations: Array, other_rows: Array, weights: Array) -> None:
        self.activations, self.other_rows, self.weights = activations, other_rows, weights
        self.sizes: list[int] = []
        self.scores = self(activations, np.arange(len(activations)))
        self.sizes.clear()

    def __call__(self, activations: Array, rows: Array, other_rows: Array | None = None) -> Array:
        self.sizes.append(len(rows))
        others = self.other_rows[rows] if other_rows is None else other_rows
        sums = activations.sum(axis=tuple(range(2, activations.ndim))) + others.sum(axis=1)
        return (sums * self.weights[rows]).sum(axis=1).astype(np.float32)


def linear_head(channels: int, *spatial: int, others: int = 0, low: float = 0) -> LinearHead:
    random = np.random.default_rng(4)
    a = random.uniform(low, 1, (2, channels, *spatial)).astype(np.float32)
    a.reshape(2, channels, -1)[:, 0, 0] = low  # the lowest value, exactly
    rest = random.uniform(low + 0.1, 1, (2, others, channels)).astype(np.float32)
    return LinearHead(a, rest, random.normal(size=(2, channels)).astype(np.float32))


@pytest.mark.parametrize("others", [0, 2])
def test_ablation_of_a_linear_head(others: int) -> None:
    head = linear_head(40, 3, 4, others=others)
    a, y = head.activations, head.scores[:, None]
    lost = head.weights * (a.sum(axis=(2, 3)) + head.other_rows.sum(axis=1))
    expected = ((lost / y)[:, :, None, None] * a).sum(axis=1)
    found = compute("ablationcam", a, further={Need.HEAD_RUNS: head})
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert head.sizes == [32, 8, 32, 8], "in blocks, image by image"


def test_a_channel_is_ablated_far_below_where_a_has_both_signs() -> None:
    head = linear_head(3, 2, 2, others=1, low=-1)
    head.other_rows[:, 0, 1] = -3  # the lowest value of the image
    head.scores = head(head.activations, np.arange(2))
    seen = []

    def runs(activations: Array, rows: Array, other_rows: Array) -> Array:
        seen.append((activations, other_rows))
        return LinearHead.__call__(head, activations, rows, other_rows)

    runs.scores, runs.other_rows = head.scores, head.other_rows  # type: ignore[attr-defined]
    compute("ablationcam", head.activations, further={Need.HEAD_RUNS: runs})
    changed, rest = seen[0]
    below = np.float32(-3) - np.float32(1e7)
    for channel in range(3):
        assert (changed[channel, channel] == below).all()
        assert (rest[channel, :, channel] == below).all()
        kept = np.arange(3) != channel
        np.testing.assert_array_equal(changed[channel, kept], head.activations[0, kept])
        np.testing.assert_array_equal(rest[channel][:, kept], head.other_rows[0][:, kept])


@pytest.mark.parametrize("spatial", [(5,), (3, 4), (2, 3, 4)])
def test_places_of_a_linear_head(spatial: tuple[int, ...]) -> None:
    head = linear_head(6, *spatial, others=2)
    per_place = np.einsum("nc...,nc->n...", head.activations, head.weights)
    rest = np.einsum("nrc,nc->n", head.other_rows, head.weights)
    rest = rest.reshape(-1, *[1] * len(spatial))
    further = {Need.HEAD_RUNS: head}
    alone = compute("reciprocam", head.activations, further=further)
    np.testing.assert_allclose(alone, per_place + rest, atol=1e-5)
    blurred = np.pad(per_place, [(0, 0), *[(1, 1)] * len(spatial)])
    for axis in range(1, len(spatial) + 1):
        length = blurred.shape[axis] - 2
        low, mid, high = (blurred.take(np.arange(s, s + length), axis) for s in range(3))
        blurred = 0.25 * low + 0.5 * mid + 0.25 * high
    around = compute("vitreciprocam", head.activations, further=further)
    np.testing.assert_allclose(around, blurred + rest, atol=1e-5)
    assert np.abs(around - alone).max() > 0.1
    assert max(head.sizes) <= 32


def test_scores_below_zero_are_painted_too() -> None:
    head = linear_head(4, 3, 3)
    head.weights = -np.abs(head.weights)
    painted = paint("reciprocam", head.activations, None, (6, 6), further={Need.HEAD_RUNS: head})
    assert painted.raw.max() < 0
    assert painted.notes == ("", "")
    best = painted.raw.reshape(2, -1).argmax(axis=1)
    small = heat_maps(painted.raw, (3, 3), rectify=False).reshape(2, -1)
    assert small.argmax(axis=1).tolist() == best.tolist()
    assert small.min(axis=1).tolist() == [0, 0]
    assert small.max() > 0.99
    flat = LinearHead(np.ones((1, 2, 2, 2), np.float32), np.zeros((1, 0, 2)), -np.ones((1, 2)))
    (note,) = paint(
        "reciprocam", flat.activations, None, (4, 4), further={Need.HEAD_RUNS: flat}
    ).notes
    assert note == "the raw map is -2 everywhere, to rounding"


def test_a_score_of_zero_is_noted() -> None:
    head = linear_head(3, 2, 2)
    head.scores = np.array([0, 1], np.float32)
    painted = paint("ablationcam", head.activations, None, (4, 4), further={Need.HEAD_RUNS: head})
    assert painted.notes[0] == "the raw map holds NaN or infinite values"
    assert painted.notes[1] != painted.notes[0]


@cache
def layer_of(network: str, layer: str) -> str:
    """Return the tensor that a module gives: of a norm its scaled and shifted output."""
    nodes = onnx.load(FOLDER / f"head_{network}.onnx").graph.node
    suffix = "/blocks/blocks.1/norm1" if layer == "norm1" else f"/{layer}"
    return next(n.output[0] for n in reversed(nodes) if n.name.rpartition("/")[0] == suffix)


@pytest.fixture(scope="module")
def explainers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Explainer]:
    folder = tmp_path_factory.mktemp("exported")
    found = {}
    for case in dict.fromkeys(case.rpartition("/")[0] for case in CASES):
        network, layer = case.split("/")
        path = folder / f"{network}_{layer}.onnx"
        export_model(
            FOLDER / f"head_{network}.onnx",
            path,
            layer=layer_of(network, layer),
            gradient_builder="reverse",
            verify=False,
        )
        found[case] = load(path, device="cpu")
    return found


def test_there_is_a_reference_for_every_method_on_both_networks() -> None:
    assert set(CASES) == {
        "cnn/map/ablationcam",
        "cnn/signed/ablationcam",
        "cnn/map/reciprocam",
        "vit/norm1/ablationcam",
        "vit/norm1/reciprocam",
        "vit/norm1/vitreciprocam",
    }


@pytest.mark.parametrize("case", CASES)
def test_maps_agree_with_the_reference(case: str, explainers: dict[str, Explainer]) -> None:
    key, _, method = case.rpartition("/")
    network = key.partition("/")[0]
    explainer = explainers[key]
    images, classes = REFERENCES[f"{network}/images"], REFERENCES[f"{network}/classes"]
    found = explainer.explain(images, classes, method)
    raw = REFERENCES[f"{case}/raw"]
    assert np.abs(raw[0] - raw[1]).max() > 0.1 * np.abs(raw).max(), "the images should differ"
    np.testing.assert_allclose(found.raw_maps, raw, rtol=0, atol=1e-5 * np.abs(raw).max())
    cam = REFERENCES[f"{case}/cam"]
    small = cam.shape == raw.shape  # theirs at the size of the layer
    ours = heat_maps(found.raw_maps, raw.shape[1:], rectify=False) if small else found.cams
    of_bytes = case == "cnn/map/reciprocam"  # cut off to 255 steps there
    np.testing.assert_allclose(ours, cam, rtol=0, atol=1.01 / 255 if of_bytes else 5e-5)
    assert found.cams.max() > 0.9
    assert found.notes == ("", "")
