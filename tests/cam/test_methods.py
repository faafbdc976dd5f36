from __future__ import annotations

import numpy as np
import pytest

from onnx_gradcam.cam import compute, get_method, method_names, register
from onnx_gradcam.errors import UsageError

RANDOM = np.random.default_rng(3)


def maps(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return RANDOM.normal(size=shape).astype(np.float32)


def test_gradcam_by_hand() -> None:
    activations = np.array([[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]], np.float32)
    gradients = np.array([[[[1, 1], [1, 1]], [[0, 0], [0, -4]]]], np.float32)
    assert compute("gradcam", activations, gradients).tolist() == [[[-4, -4], [-4, -4]]]
    assert compute("hirescam", activations, gradients).tolist() == [[[1, 2], [3, -28]]]
    assert compute("layercam", activations, gradients).tolist() == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("spatial", [(7,), (3, 5), (2, 3, 4)])
def test_any_number_of_spatial_axes(name: str, spatial: tuple[int, ...]) -> None:
    activations, gradients = maps(2, 4, *spatial), maps(2, 4, *spatial)
    raw = compute(name, activations, gradients)
    flat = compute(name, activations.reshape(2, 4, -1), gradients.reshape(2, 4, -1))
    assert raw.shape == (2, *spatial)
    assert raw.dtype == np.float32
    np.testing.assert_allclose(raw.reshape(2, -1), flat, atol=1e-5)


@pytest.mark.parametrize("name", method_names())
def test_images_do_not_mix(name: str) -> None:
    activations, gradients = maps(3, 4, 5, 5), maps(3, 4, 5, 5)
    alone = compute(name, activations[1:2], gradients[1:2])
    np.testing.assert_allclose(compute(name, activations, gradients)[1:2], alone, atol=1e-6)


@pytest.mark.parametrize("name", method_names())
def test_half_precision_is_computed_in_single(name: str) -> None:
    activations, gradients = (1000 * maps(1, 300, 4, 4)).astype(np.float16), maps(1, 300, 4, 4)
    gradients = gradients.astype(np.float16)
    expected = compute(name, activations.astype(np.float32), gradients.astype(np.float32))
    assert np.abs(expected).max() > np.finfo(np.float16).max / 100
    np.testing.assert_array_equal(compute(name, activations, gradients), expected)


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("value", [0.0, 3.0, np.nan, np.inf, -np.inf, 1e38])
def test_extreme_values_give_finite_maps(name: str, value: float) -> None:
    filled = np.full((2, 3, 4, 4), value, np.float32)
    assert np.isfinite(compute(name, filled, filled)).all()
    assert np.isfinite(compute(name, maps(2, 3, 4, 4), filled)).all()


def test_eigencam_points_along_the_mean_activation() -> None:
    activations = np.abs(maps(4, 8, 6, 6))
    activations[:, :, 2:4, 2:4] += 5
    raw = compute("eigencam", activations, np.zeros_like(activations))
    mean = activations.mean(axis=1)
    for image in range(4):
        assert np.corrcoef(raw[image].ravel(), mean[image].ravel())[0, 1] > 0.9
    # a rotation of the channels changes the singular vectors' signs, not the map
    flipped = compute("eigencam", activations[:, ::-1], np.zeros_like(activations))
    np.testing.assert_allclose(flipped, raw, atol=1e-4)


def test_eigencam_without_correlation_makes_the_largest_position_positive() -> None:
    pattern = np.array([[-3, 1], [1, 1]], np.float32)
    activations = np.stack([pattern, -pattern])[None]
    raw = compute("eigencam", activations, np.zeros_like(activations))[0]
    assert raw[0, 0] == np.abs(raw).max()


def test_no_images_give_no_maps() -> None:
    assert compute("gradcam", np.zeros((0, 3, 2, 4)), np.zeros((0, 3, 2, 4))).shape == (0, 2, 4)


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'gradcam'"):
        get_method("gradcamm")


@pytest.mark.parametrize("shapes", [((1, 2, 3, 3), (1, 2, 3, 4)), ((1, 2), (1, 2))])
def test_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(UsageError, match="must share one shape"):
        compute("gradcam", np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'gradcam' is registered already"):
        register("gradcam", title="another", paper="none")(get_method("gradcam").function)


@pytest.mark.parametrize("name", method_names())
def test_each_method_says_where_it_comes_from(name: str) -> None:
    method = get_method(name)
    assert method.paper.startswith(("arXiv:", "doi:"))
    assert method.paper in (method.function.__doc__ or "")
    assert method.needs_gradients == (name != "eigencam")
