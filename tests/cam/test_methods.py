from __future__ import annotations

from math import sqrt, tanh

import numpy as np
import pytest
from numpy.typing import NDArray

from onnx_gradcam.cam import Need, components, compute, get_method, method_names
from onnx_gradcam.cam.components import channel_sum, spatial_mean
from onnx_gradcam.errors import UnsupportedModelError, UsageError

RANDOM = np.random.default_rng(3)
START = RANDOM.bit_generator.state
METHODS = method_names({Need.GRADIENTS, Need.SEED})


@pytest.fixture(autouse=True)
def _same_numbers_whatever_ran_before() -> None:
    RANDOM.bit_generator.state = START


def maps(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


def inputs(name: str, *shape: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return A and G of a shape; G as behind a global average pooling where the method needs it."""
    activations, gradients = maps(*shape), maps(*shape)
    if name == "cam":
        gradients[:] = maps(*shape[:2], *[1] * (len(shape) - 2))
    return activations, gradients


def test_gradcam_by_hand() -> None:
    activations = np.array([[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]], np.float32)
    gradients = np.array([[[[1, 1], [1, 1]], [[0, 0], [0, -4]]]], np.float32)
    assert compute("gradcam", activations, gradients).tolist() == [[[-4, -4], [-4, -4]]]
    assert compute("hirescam", activations, gradients).tolist() == [[[1, 2], [3, -28]]]
    assert compute("layercam", activations, gradients).tolist() == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("spatial", [(7,), (3, 5), (2, 3, 4)])
def test_any_number_of_spatial_axes(name: str, spatial: tuple[int, ...]) -> None:
    activations, gradients = inputs(name, 2, 4, *spatial)
    raw = compute(name, activations, gradients)
    flat = compute(name, activations.reshape(2, 4, -1), gradients.reshape(2, 4, -1))
    assert raw.shape == (2, *spatial)
    assert raw.dtype == np.float32
    np.testing.assert_allclose(raw.reshape(2, -1), flat, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_images_do_not_mix(name: str) -> None:
    activations, gradients = inputs(name, 3, 4, 5, 5)
    alone = compute(name, activations[1:2], gradients[1:2])
    np.testing.assert_allclose(compute(name, activations, gradients)[1:2], alone, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_is_computed_in_single(name: str) -> None:
    activations, gradients = inputs(name, 1, 300, 4, 4)
    activations, gradients = (1000 * activations).astype(np.float16), gradients.astype(np.float16)
    expected = compute(name, activations.astype(np.float32), gradients.astype(np.float32))
    largest = {"kpcacam": 1, "activationmap": 100}.get(name, np.finfo(np.float16).max / 100)
    assert np.abs(expected).max() > largest, "float16 would overflow, or nothing is compared"
    np.testing.assert_array_equal(compute(name, activations, gradients), expected)


@pytest.mark.parametrize("name", METHODS)
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


@pytest.mark.parametrize("name", METHODS)
def test_no_images_give_no_maps(name: str) -> None:
    assert compute(name, np.zeros((0, 3, 2, 4)), np.zeros((0, 3, 2, 4))).shape == (0, 2, 4)


@pytest.mark.parametrize("shapes", [((1, 2, 3, 3), (1, 2, 3, 4)), ((1, 2), (1, 2))])
def test_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(UsageError, match="must share one shape"):
        compute("gradcam", np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_elementwise_by_hand() -> None:
    activations = np.array([[[[1, -2], [3, 4]], [[5, 6], [7, 8]]]], np.float32)
    gradients = np.array([[[[1, -1], [-1, 1]], [[2, 0], [-1, -4]]]], np.float32)
    assert compute("gradcamelementwise", activations, gradients).tolist() == [[[11, 2], [0, 4]]]


def test_cam_sums_to_the_score_behind_a_global_average_pooling() -> None:
    activations, head, bias = maps(2, 3, 4, 5), maps(2, 3), maps(2)
    score = (head * activations.mean(axis=(2, 3))).sum(axis=1) + bias
    gradients = np.broadcast_to(head[:, :, None, None] / 20, activations.shape)
    raw = compute("cam", activations, gradients)
    np.testing.assert_allclose(raw, np.einsum("nc,nchw->nhw", head, activations), atol=1e-6)
    np.testing.assert_allclose(raw.mean(axis=(1, 2)) + bias, score, atol=1e-6)
    np.testing.assert_allclose(raw, 20 * compute("gradcam", activations, gradients), atol=1e-5)


def test_cam_refuses_a_head_that_tells_positions_apart() -> None:
    gradients = np.ones((2, 3, 4, 5), np.float32)
    gradients[1, 2, 0, 0] += 1e-3
    with pytest.raises(UnsupportedModelError, match="differs between positions"):
        compute("cam", maps(2, 3, 4, 5), gradients)
    compute("cam", maps(2, 3, 4, 5), gradients.round(2))


def test_fem_counts_the_unusual_by_the_deviation_of_the_population() -> None:
    channel = np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 9]], np.float32)  # mean 0.9, deviation 2.7
    flat = np.ones((2, 5), np.float32)
    raw = compute("fem", np.stack([channel, flat])[None])[0]
    np.testing.assert_allclose(raw, 0.1 * channel, atol=1e-6)
    # of a sample: 2.85; with this value only the population's deviation lets it pass
    edge = np.array([[0, 0, 0], [0, 0, 1]], np.float32)  # 1/6 + 2 * 0.3727 < 1 < 1/6 + 2 * 0.4082
    assert compute("fem", edge[None, None]).max() == pytest.approx(1 / 6)


def test_eigengradcam_is_eigencam_of_the_product() -> None:
    activations, gradients = maps(2, 4, 5, 3), maps(2, 4, 5, 3)
    product = compute("eigencam", activations * gradients)
    np.testing.assert_array_equal(compute("eigengradcam", activations, gradients), product)
    hires = compute("hirescam", activations, gradients)
    assert (((hires - hires.mean(axis=(1, 2), keepdims=True)) * product).sum(axis=(1, 2)) > 0).all()


def test_segeigencam_makes_the_largest_position_positive() -> None:
    activations, gradients = maps(8, 4, 5, 3), maps(8, 4, 5, 3)
    raw = compute("segeigencam", activations, gradients)
    assert (raw.max(axis=(1, 2)) == np.abs(raw).max(axis=(1, 2))).all()
    plain = compute("eigencam", activations * np.abs(gradients))
    np.testing.assert_array_equal(np.abs(raw), np.abs(plain))
    assert (raw != plain).any()
    assert (raw == plain).any()


def test_kpcacam_of_two_positions_by_hand() -> None:
    activations = np.array([[[[1, 3]], [[0, 4]]]], np.float32)  # centred: -1 and 1, -2 and 2
    like, unlike = tanh(5 / 2 + 1), tanh(-5 / 2 + 1)
    # the centred kernel is (like - unlike) / 2 * [[1, -1], [-1, 1]], of eigenvalue like - unlike
    expected = sqrt(like - unlike) / sqrt(2)
    np.testing.assert_allclose(np.abs(compute("kpcacam", activations)), [[[expected] * 2]])


def test_kpcacam_of_flat_channels_is_zero() -> None:
    flat = np.broadcast_to(maps(1, 5, 1, 1), (1, 5, 6, 7))
    assert not compute("kpcacam", flat).any()


@pytest.mark.parametrize("size", [199, 201, 450])
def test_the_first_eigenvector_however_it_is_found(size: int) -> None:
    square = np.random.default_rng(size).normal(size=(size, size))
    matrix = square + square.T  # its eigenvalues of both signs lie close together
    value, vector = components._first_eigenvector(matrix)
    assert value == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-9)
    assert np.linalg.norm(matrix @ vector - value * vector) < 1e-7 * value
    assert np.linalg.norm(vector) == pytest.approx(1)


def test_the_first_eigenvector_of_a_large_matrix_of_small_rank() -> None:
    axis = np.linspace(-1, 1, 300)
    value, vector = components._first_eigenvector(np.outer(axis, axis) - 5 * np.ones((300, 300)))
    assert value == pytest.approx(float(axis @ axis))
    np.testing.assert_allclose(np.abs(vector), np.abs(axis) / np.linalg.norm(axis), atol=1e-9)


def test_randomcam_depends_on_the_seed_alone() -> None:
    activations = maps(3, 6, 4, 4)
    raw = compute("randomcam", activations, maps(3, 6, 4, 4))
    np.testing.assert_array_equal(compute("randomcam", activations), raw)
    np.testing.assert_array_equal(compute("randomcam", activations, seed=0), raw)
    assert np.abs(compute("randomcam", activations, seed=1) - raw).max() > 0.1
    one = np.eye(6, dtype=np.float32).reshape(1, 6, 6)  # channel k lights position k: w itself
    weights = compute("randomcam", one)[0]
    assert weights[0] == pytest.approx(0.0976270)
    assert len(set(weights.tolist())) == 6


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range(seed: int) -> None:
    with pytest.raises(UsageError, match="seed"):
        compute("randomcam", maps(1, 2, 3, 3), seed=seed)


@pytest.mark.parametrize("name", [n for n in METHODS if get_method(n).smooths])
def test_eigen_smooth_is_the_first_component_of_the_summands(name: str) -> None:
    activations, gradients = inputs(name, 2, 4, 5, 5)
    smooth = compute(name, activations, gradients, eigen_smooth=True)
    raw = compute(name, activations, gradients)
    assert np.abs(smooth - raw).max() > 0.01
    evidence = (smooth * (raw - raw.mean(axis=(1, 2), keepdims=True))).sum(axis=(1, 2))
    assert (evidence > 0).all(), "the sign is that of the map without smoothing"
    one = [x[:, :1] for x in (activations, gradients)]  # of one channel only the mean is lost
    smooth, raw = (compute(name, *one, eigen_smooth=flag) for flag in (True, False))
    np.testing.assert_allclose(smooth, raw - raw.mean(axis=(1, 2), keepdims=True), atol=1e-5)


def test_the_activation_map_is_the_mean_over_channels() -> None:
    activations = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4) - 5
    expected = np.arange(12).reshape(1, 3, 4) + 1  # of x - 5 and x + 7
    np.testing.assert_array_equal(compute("activationmap", activations), expected)
    assert not get_method("activationmap").rectified  # the least active place is 0


@pytest.mark.parametrize("size", [(7, 7), (5,), (2, 3, 3)])
def test_sums_over_channels_are_those_of_the_summands(size: tuple[int, ...]) -> None:
    random = np.random.default_rng(3)
    maps, wide = random.normal(size=(2, 2, 300, *size)).astype(np.float32)
    narrow = spatial_mean(wide)
    axes = tuple(range(2, wide.ndim))
    np.testing.assert_allclose(narrow, wide.mean(axis=axes, keepdims=True), rtol=0, atol=1e-6)
    for weights in (narrow, wide):
        expected = (weights.astype(np.float64) * maps).sum(axis=1)
        np.testing.assert_allclose(channel_sum(maps, weights), expected, rtol=0, atol=3e-5)
        np.testing.assert_array_equal(
            channel_sum(maps[1:], weights[1:]), channel_sum(maps, weights)[1:]
        )


def test_the_mean_of_a_large_map_is_that_of_a_small_one() -> None:
    maps = np.random.default_rng(3).normal(size=(1, 5, 300, 300)).astype(np.float32)
    np.testing.assert_allclose(spatial_mean(maps), maps.mean(axis=(2, 3), keepdims=True))
    assert spatial_mean(maps[:, :2]).shape == (1, 2, 1, 1)
    np.testing.assert_allclose(
        spatial_mean(maps[:, :2]), spatial_mean(maps)[:, :2], rtol=0, atol=1e-7
    )


def test_what_is_equal_everywhere_stays_so_in_a_sum_over_channels() -> None:
    """Else, where large terms cancel, their rounding noise would be painted as a heat map."""
    random = np.random.default_rng(3)
    column = 1e3 * random.normal(size=(1, 960, 1, 1)).astype(np.float32)
    weights = random.normal(size=(1, 960, 1, 1)).astype(np.float32)
    (raw,) = channel_sum(np.tile(column, (7, 7)), weights)
    assert (raw == raw[0, 0]).all()
