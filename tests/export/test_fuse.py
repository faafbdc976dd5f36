"""The CAM in the graph equals NumPy's, for every method, opset and size; the rest is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from onnx_gradcam.cam import compute, heat_maps, method_names, resize_linear
from onnx_gradcam.contract import (
    ACTIVATIONS_OUTPUT,
    CAM_OUTPUT,
    GRADIENTS_OUTPUT,
    PREFIX,
    SCALES_OUTPUT,
)
from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.export.fuse import Fusion, Image, emit_cam
from onnx_gradcam.export.fuse.methods import FUSABLE
from onnx_gradcam.gradients.emitter import Emitter, TensorType

Array = np.ndarray[Any, Any]

SHAPE = (2, 5, 4, 6)
OPSETS = (7, 9, 11, 13, 18, 21, 24)


def maps(shape: Sequence[int] = SHAPE, classes: int = 0, seed: int = 4) -> tuple[Array, Array]:
    """Return A, not negative as behind a ReLU, and G."""
    random = np.random.default_rng(seed)
    a = random.gamma(1.0, size=shape).astype(np.float32)
    several = (shape[0], classes, *shape[1:]) if classes else shape
    return a, random.normal(size=several).astype(np.float32)


def fused(
    a: Array,
    g: Array,
    fusion: Fusion,
    *,
    opset: int = 17,
    image: Array | None = None,
    open_sizes: bool = False,
) -> dict[str, Array]:
    """Emit the CAM of given A and G, and run it."""
    image = np.zeros((2, 3, 9, 12), np.float32) if image is None else image
    given = {"a": a, "g": g, "image": image}
    dtypes = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in given.items()}
    shapes: dict[str, list[Any]] = {
        name: [None] * value.ndim if open_sizes else list(value.shape)
        for name, value in given.items()
    }
    types = {name: TensorType(dtypes[name], tuple(shapes[name])) for name in given}
    emit = Emitter(opset, types, lambda _: None, PREFIX)
    emit.node("Identity", ["a"], output=ACTIVATIONS_OUTPUT)
    emit.node("Identity", ["g"], output=GRADIENTS_OUTPUT)
    shape = [*shapes["a"][:1], a.shape[1], *shapes["a"][2:]]
    classes = g.shape[1 : 1 + g.ndim - a.ndim]
    outputs = emit_cam(emit, fusion, shape, Image("image", [2, 3]), classes=classes)
    model = helper.make_model(
        helper.make_graph(
            emit.nodes,
            "fused",
            [helper.make_tensor_value_info(n, dtypes[n], shapes[n]) for n in given],
            [helper.make_tensor_value_info(o.name, o.dtype, o.shape) for o in outputs],
            emit.initializers,
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in outputs]
    feeds = {name: given[name] for name in (node.name for node in session.get_inputs())}
    return dict(zip(names, session.run(names, feeds), strict=True))


def expected(a: Array, g: Array, fusion: Fusion, size: Sequence[int]) -> Array:
    raw = compute(fusion.method, a, g)
    maps = heat_maps(raw, size) if fusion.normalise else resize_linear(np.maximum(raw, 0), size)
    return maps[:, None]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("method", FUSABLE)
def test_every_method_in_every_form_of_the_operators(method: str, opset: int) -> None:
    a, g = maps()
    if method == "cam":
        g = np.broadcast_to(g.mean(axis=(2, 3), keepdims=True), g.shape).copy()
    for size, extents in (("map", (4, 6)), ("input", (9, 12)), ((3, 8), (3, 8))):
        for normalise in (False, True):
            fusion = Fusion(method, size, normalise)
            wanted = expected(a, g, fusion, extents)
            assert (wanted > 0.05).any()
            found = fused(a, g, fusion, opset=opset)
            np.testing.assert_allclose(found[CAM_OUTPUT], wanted, rtol=1e-5, atol=2e-6)
            assert found[CAM_OUTPUT].dtype == np.float32
            if normalise:
                raw = np.maximum(compute(method, a, g), 0).reshape(len(a), -1)
                ends = np.stack([raw.min(axis=1), raw.max(axis=1)], axis=1)[:, None]
                np.testing.assert_allclose(found[SCALES_OUTPUT], ends, rtol=1e-5)


@pytest.mark.parametrize("method", FUSABLE)
@pytest.mark.parametrize("shape", [(3, 4, 7), (1, 4, 5, 6), (2, 4, 3, 4, 5)])
def test_sounds_pictures_and_volumes(method: str, shape: tuple[int, ...]) -> None:
    a, g = maps(shape)
    if method == "cam":
        g[:] = g.mean(axis=tuple(range(2, g.ndim)), keepdims=True)
    size = tuple(2 * n + 1 for n in shape[2:])
    for normalise in (False, True):
        fusion = Fusion(method, size, normalise)
        wanted = expected(a, g, fusion, size)
        assert (wanted > 0.05).any()
        for open_sizes in (False, True):
            found = fused(a, g, fusion, open_sizes=open_sizes)[CAM_OUTPUT]
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("method", FUSABLE)
@pytest.mark.parametrize("shape", [(2, 4, 7), SHAPE])
def test_several_classes_of_an_image(method: str, shape: tuple[int, ...]) -> None:
    a, g = maps(shape, classes=3)
    if method == "cam":
        g[:] = g.mean(axis=tuple(range(3, g.ndim)), keepdims=True)
    size = tuple(n + 3 for n in shape[2:])
    for normalise in (False, True):
        fusion = Fusion(method, size, normalise)
        found = fused(a, g, fusion)
        assert found[CAM_OUTPUT].shape == (2, 3, *size)
        for row in range(3):
            wanted = expected(a, g[:, row], fusion, size)[:, 0]
            np.testing.assert_allclose(found[CAM_OUTPUT][:, row], wanted, rtol=1e-5, atol=2e-6)
            if normalise:
                alone = fused(a, g[:, row], fusion)[SCALES_OUTPUT][:, 0]
                np.testing.assert_allclose(found[SCALES_OUTPUT][:, row], alone, rtol=1e-5)


@pytest.mark.parametrize("opset", [11, 13, 19])
@pytest.mark.parametrize("size", [(9, 12), (2, 3), (4, 6)])
def test_sizes_known_at_run_time_only(opset: int, size: tuple[int, int]) -> None:
    a, g = maps()
    image = np.zeros((2, 3, *size), np.float32)
    for normalise in (False, True):
        fusion = Fusion("gradcam", "input", normalise)
        found = fused(a, g, fusion, opset=opset, image=image, open_sizes=True)[CAM_OUTPUT]
        wanted = expected(a, g, fusion, size)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-6)


def test_the_interpolation_is_that_of_opencv() -> None:
    a, g = maps()
    found = fused(a, g, Fusion("gradcam", (17, 11)))[CAM_OUTPUT]
    small = fused(a, g, Fusion("gradcam"))[CAM_OUTPUT]
    for image in range(len(a)):
        wanted = cv2.resize(small[image, 0], (11, 17), interpolation=cv2.INTER_LINEAR)
        assert wanted.max() > 0.05
        np.testing.assert_allclose(found[image, 0], wanted, atol=1e-6)


def test_large_matrices_are_not_stored() -> None:
    a, g = maps((1, 2, 2000))
    fusion = Fusion("gradcam", (3000,))
    found = fused(a, g, fusion)[CAM_OUTPUT]
    np.testing.assert_allclose(found, expected(a, g, fusion, (3000,)), atol=1e-3)
    with pytest.raises(UnsupportedModelError, match="its sizes are large, and opset 9 has no Res"):
        fused(a, g, fusion, opset=9)


def test_open_sizes_need_a_newer_opset() -> None:
    a, g = maps()
    with pytest.raises(UnsupportedModelError, match=r"at run time only.*\(cam_size map\)"):
        fused(a, g, Fusion("gradcam", "input"), opset=9, open_sizes=True)
    found = fused(a, g, Fusion("gradcam"), opset=9, open_sizes=True)
    wanted = expected(a, g, Fusion("gradcam"), (4, 6))
    np.testing.assert_allclose(found[CAM_OUTPUT], wanted, rtol=1e-5, atol=1e-6)


def test_float64_comes_as_float32() -> None:
    a, g = maps()
    for fusion in (Fusion("gradcam", "input", True), Fusion("layercam")):
        size = (9, 12) if fusion.normalise else (4, 6)
        found = fused(a.astype(np.float64), g.astype(np.float64), fusion)[CAM_OUTPUT]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected(a, g, fusion, size), rtol=1e-5, atol=2e-6)


# -- maps that show nothing --------------------------------------------------------------------

BROKEN = {"NaN": np.nan, "infinite": np.inf, "minus infinite": -np.inf}


@pytest.mark.parametrize("value", BROKEN)
@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "xgradcam", "layercam"])
def test_a_map_that_is_not_finite_is_zero_and_others_are_not(method: str, value: str) -> None:
    a, g = maps()
    a[0, 1, 2, 3] = BROKEN[value]
    g = np.abs(g)
    for normalise in (False, True):
        found = fused(a, g, Fusion(method, "input", normalise))
        assert not found[CAM_OUTPUT][0].any()
        assert found[CAM_OUTPUT][1].max() > 0.5
        if normalise:
            assert np.isnan(found[SCALES_OUTPUT][0]).all()
            assert np.isfinite(found[SCALES_OUTPUT][1]).all()


@pytest.mark.parametrize("opset", [7, 17])
def test_a_map_that_is_nowhere_positive_is_zero(opset: int) -> None:
    a, g = maps()
    g[0] = -np.abs(g[0])
    for normalise in (False, True):
        found = fused(a, g, Fusion("gradcam", "input", normalise), opset=opset)
        assert not found[CAM_OUTPUT][0].any()
        assert found[CAM_OUTPUT][1].max() > 0.05
        if normalise:
            assert found[SCALES_OUTPUT][0].tolist() == [[0, 0]]


@pytest.mark.parametrize("opset", [7, 17])
def test_noise_on_a_constant_map_is_not_stretched(opset: int) -> None:
    a, g = np.full(SHAPE, 1 / 3, np.float32), np.full(SHAPE, 0.7, np.float32)
    a[:, 0, 1, 2] *= np.float32(1 + 3e-7)
    found = fused(a, g, Fusion("gradcam", "input", True), opset=opset)
    assert not found[CAM_OUTPUT].any()
    value = 5 * 0.7 / 3
    np.testing.assert_allclose(found[SCALES_OUTPUT], value, rtol=1e-6)
    plain = fused(a, g, Fusion("gradcam"), opset=opset)[CAM_OUTPUT]
    np.testing.assert_allclose(plain, value, rtol=1e-6)  # not stretched: it is what it is


def test_cam_wants_the_same_gradient_everywhere() -> None:
    a, g = maps()
    g[1] = g[1].mean(axis=(1, 2), keepdims=True)
    found = fused(a, g, Fusion("cam", "map", True))
    assert not found[CAM_OUTPUT][0].any()
    assert np.isnan(found[SCALES_OUTPUT][0]).all()
    wanted = expected(a[1:], g[1:], Fusion("cam", "map", True), (4, 6))
    np.testing.assert_allclose(found[CAM_OUTPUT][1:], wanted, rtol=1e-5, atol=2e-6)


# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "parsed"),
    [("map", "map"), ("input", "input"), ("7x9", (7, 9)), ((7, 9), (7, 9)), ("12", (12,))],
)
def test_sizes(size: Any, parsed: Any) -> None:
    fusion = Fusion.parse("gradcam", size)
    assert fusion is not None
    assert fusion.size == parsed


@pytest.mark.parametrize(
    "size", ["7x", "0x4", "big", (), (1, 2, 3, 4), (3.5, 2), (-1, 4), "1x2x3x4"]
)
def test_no_sizes(size: Any) -> None:
    with pytest.raises(UsageError, match="is none of map, input, HxW"):
        Fusion.parse("gradcam", size)


@pytest.mark.parametrize("method", sorted({*method_names()} - {*FUSABLE}))
def test_methods_that_cannot_be_fused(method: str) -> None:
    with pytest.raises(
        UsageError, match="cannot be computed in the graph; fuse_cam takes gradcam,"
    ):
        Fusion.parse(method)


def test_all_fusable_methods_are_methods() -> None:
    assert {*FUSABLE} <= {*method_names()}
    with pytest.raises(UsageError, match="did you mean 'gradcam'"):
        Fusion.parse("gradcan")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"size": "input"}, "cam_size"),
        ({"normalise": True}, "cam_normalise"),
        ({"outputs": "cam"}, "outputs"),
    ],
)
def test_options_that_go_with_a_method_alone(options: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is about a CAM in the graph; name its method"):
        Fusion.parse(None, **options)
    assert Fusion.parse(None) is None


def test_other_outputs_are_refused() -> None:
    with pytest.raises(UsageError, match="outputs 'none' is none of all, cam"):
        Fusion.parse("gradcam", outputs="none")


def test_a_size_of_other_axes_is_refused() -> None:
    a, g = maps((2, 3, 8))
    with pytest.raises(UsageError, match=r"1 spatial axes cannot be given the size \(7, 9\) of 2"):
        fused(a, g, Fusion("gradcam", (7, 9)))


def test_second_derivatives_go_with_activations() -> None:
    for name in ("second_order", "full_gradient", "attention"):
        with pytest.raises(UsageError, match=f"{name} goes with activations"):
            Fusion.parse("gradcam", outputs="cam", further={name: True})
        assert Fusion.parse("gradcam", further={name: True}) == Fusion("gradcam")
