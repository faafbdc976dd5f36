"""Inputs and outputs of other types than float32: what is fed, what comes back."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_gradcam import bfloat16, load
from onnx_gradcam.errors import UsageError
from tests.contract_models import contract_model, images

BRAIN = int(TensorProto.BFLOAT16)
TYPES = {
    "bfloat16": BRAIN,
    "float16": int(TensorProto.FLOAT16),
    "double": int(TensorProto.DOUBLE),
}


def with_types(
    takes: int, gives: int = int(TensorProto.FLOAT), image: str = "n, 3, 8, 10"
) -> bytes:
    """Return a float32 contract model with casts behind the image and before the scores."""
    model = onnx.load_from_string(contract_model(image=image))
    graph = model.graph
    names = {"image": "image_float", "logits": "logits_float"}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.append(helper.make_node("Cast", ["image"], ["image_float"], to=TensorProto.FLOAT))
    graph.node.extend(nodes)
    graph.node.append(helper.make_node("Cast", ["logits_float"], ["logits"], to=gives))
    graph.input[0].type.tensor_type.elem_type = takes
    graph.output[0].type.tensor_type.elem_type = gives
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def quarters(count: int) -> np.ndarray:
    """Return images that every float type holds."""
    drawn = np.random.default_rng(0).integers(-8, 9, (count, 3, 8, 10)) / 4
    return drawn.astype(np.float32)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64])
def test_floats_are_fed_in_the_type_of_the_model(name: str, given: type) -> None:
    x = quarters(2)
    found = load(with_types(TYPES[name], TYPES[name]), device="cpu").explain(
        x.astype(given), [1, 3]
    )
    expected = load(contract_model(), device="cpu").explain(x, [1, 3])
    np.testing.assert_array_equal(found.cams, expected.cams)
    np.testing.assert_array_equal(found.gradients, expected.gradients)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-2)
    arrays = (found.scores, found.cams, found.raw_maps, found.activations, found.gradients)
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_bfloat16_in_batches_of_a_fixed_size_and_of_none() -> None:
    explainer = load(with_types(BRAIN, BRAIN, "2, 3, 8, 10"), device="cpu")
    found = explainer.explain(quarters(3), [1, 2, 3])
    expected = load(contract_model(), device="cpu").explain(quarters(3), [1, 2, 3])
    np.testing.assert_allclose(found.cams, expected.cams, atol=1e-5)
    assert explainer.predict(quarters(0)).shape == (0, 5)
    assert explainer.predict(quarters(0)).dtype == np.float32


def test_bfloat16_arrays_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    explainer = load(with_types(BRAIN), device="cpu")
    x = quarters(1)
    found = explainer.explain(x.astype(ml_dtypes.bfloat16), 1)
    np.testing.assert_array_equal(found.cams, explainer.explain(x, 1).cams)


def test_whole_numbers_for_a_model_of_pixels() -> None:
    explainer = load(with_types(int(TensorProto.UINT8)), device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 10), dtype=np.uint8)
    expected = explainer.explain(pixels, 1)
    assert expected.cams.max() > 0
    for given in (np.float32, np.float64):
        np.testing.assert_array_equal(
            explainer.explain(pixels.astype(given), 1).cams, expected.cams
        )
    for wrong in (
        pixels / np.float32(255),
        pixels.astype(np.float32) + 1,
        images(2),
        -1.0 * pixels,
    ):
        with pytest.raises(UsageError, match=re.escape("does not fit the model's 'image'")):
            explainer.explain(wrong)


def test_products_that_float16_does_not_hold() -> None:
    x = (300 * quarters(2)).astype(np.float32)
    half = load(contract_model(kind="float16"), device="cpu").explain(x, 1, "hirescam")
    single = load(contract_model(), device="cpu").explain(x, 1, "hirescam")
    assert np.abs(single.activations).max() ** 2 > np.finfo(np.float16).max
    assert half.with_method("gradcam++").raw_maps.dtype == np.float32
    np.testing.assert_allclose(half.raw_maps, single.raw_maps, rtol=1e-2, atol=1.0)
    assert np.isfinite(half.with_method("gradcam++").raw_maps).all()


def test_bits_are_rounded_to_nearest_even() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint32)
    values = np.concatenate(
        [
            bits.view(np.float32),
            np.array([0.0, -0.0, np.inf, -np.inf, 3.4e38, 1e-45], np.float32),
            (np.arange(0, 2**32, 2**15, dtype=np.uint64)).astype(np.uint32).view(np.float32),
        ]
    )
    numbers = values[~np.isnan(values)]
    with np.errstate(over="ignore"):
        expected = numbers.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(bfloat16.to_bits(numbers), expected.view(np.uint16))
    back = bfloat16.from_bits(bfloat16.to_bits(numbers))
    np.testing.assert_array_equal(back, expected.astype(np.float32))
    assert np.isnan(bfloat16.from_bits(bfloat16.to_bits(values[np.isnan(values)]))).all()
