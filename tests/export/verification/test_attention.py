"""The checks of attention outputs find each thing that can be wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, numpy_helper

from onnx_gradcam.errors import VerificationError
from onnx_gradcam.export.attention import outputs
from onnx_gradcam.export.graph import Graph
from onnx_gradcam.export.pipeline import export_model
from onnx_gradcam.export.verification.report import Check
from onnx_gradcam.export.verification.verify import check_export
from tests.export.spatial.transformers import ATTENTION_POOLED, CLASS_TOKEN, POOLED

Change = Callable[[onnx.ModelProto], None]


def checks(network: object, folder: Path, change: Change, against: bool = True) -> dict[str, Check]:
    """Export a network, change the file, and check it."""
    source, path = folder / "source.onnx", folder / "exported.onnx"
    onnx.save(network.model(), source)
    options = {"attention": "both", "gradient_builder": "reverse", "verify": False}
    export_model(source, path, **options)
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    report = check_export(path, source if against else None)
    return {check.name: check for check in report.checks}


def node(model: onnx.ModelProto, name: str) -> NodeProto:
    (found,) = (n for n in model.graph.node if name in (n.name, *n.output))
    return found


@pytest.mark.parametrize("against", [True, False])
@pytest.mark.parametrize("network", [CLASS_TOKEN, POOLED, ATTENTION_POOLED])
def test_what_is_right_passes(tmp_path: Path, network: object, against: bool) -> None:
    found = checks(network, tmp_path, lambda _model: None, against)
    assert all(check.passed for check in found.values())
    assert 0 < found["attention"].value < 1e-6
    assert 0 < found["LeGrad"].value < 1e-2


def test_attention_of_another_block(tmp_path: Path) -> None:
    def swap(model: onnx.ModelProto) -> None:
        concat = node(model, "cam_attention")
        concat.input[:] = concat.input[::-1]

    found = checks(CLASS_TOKEN, tmp_path, swap)
    assert not found["attention"].passed
    assert "rows sum to 1 within" in found["attention"].detail
    assert found["LeGrad"].passed


def test_attention_before_the_softmax(tmp_path: Path) -> None:
    def bypass(model: onnx.ModelProto) -> None:
        for n in model.graph.node:
            if n.name.startswith("onnx_gradcam/attention/block_1"):
                n.input[:] = ["aqk" if name == "aa" else name for name in n.input]

    found = checks(CLASS_TOKEN, tmp_path, bypass)
    assert not found["attention"].passed
    assert found["attention"].value > 0.1


def wrong_values(model: onnx.ModelProto) -> None:
    """Take the gradient by another block's attention."""
    for n in model.graph.node:
        if n.name.startswith("onnx_gradcam/legrad/block_1/Transpose"):
            n.input[:] = ["bv"]


def scaled(model: onnx.ModelProto) -> None:
    """Multiply the gradient of a block by 1.05."""
    product = node(model, "onnx_gradcam/legrad/block_2/MatMul")
    factor = numpy_helper.from_array(np.array(1.05, np.float32), "onnx_gradcam/factor")
    model.graph.initializer.append(factor)
    index = list(model.graph.node).index(product)
    scaled = onnx.helper.make_node("Mul", ["onnx_gradcam/raw", factor.name], product.output)
    scaled.name = "onnx_gradcam/scaled"
    product.output[:] = ["onnx_gradcam/raw"]
    product.name = "onnx_gradcam/product"
    model.graph.node.insert(index + 1, scaled)


@pytest.mark.parametrize(("change", "block"), [(wrong_values, 1), (scaled, 2)])
@pytest.mark.parametrize("network", [CLASS_TOKEN, POOLED])
def test_a_wrong_gradient(tmp_path: Path, network: object, change: Change, block: int) -> None:
    found = checks(network, tmp_path, change)
    assert not found["LeGrad"].passed
    assert f"of block {block}: central differences differ by" in found["LeGrad"].detail
    assert found["attention"].passed
    assert found["gradient"].passed


def test_negative_gradients_that_count(tmp_path: Path) -> None:
    def keep(model: onnx.ModelProto) -> None:
        for n in model.graph.node:
            if n.name.startswith("onnx_gradcam/legrad/") and n.op_type == "Relu":
                n.op_type = "Abs"

    found = checks(CLASS_TOKEN, tmp_path, keep)
    assert not found["LeGrad"].passed
    assert "from the mean of relu of its gradients" in found["LeGrad"].detail


@pytest.mark.parametrize("network", [CLASS_TOKEN, POOLED])
def test_the_score_of_the_model_in_place_of_a_blocks_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: object
) -> None:
    def none(graph: Graph, blocks: list[str], _score: str) -> tuple[Graph, list[dict[str, str]]]:
        return graph, [{}] * len(blocks)

    monkeypatch.setattr(outputs, "with_block_scores", none)
    with pytest.raises(VerificationError, match="LeGrad: of block 1: central differences differ"):
        export_model(
            network.model(), tmp_path / "x.onnx", attention="legrad", gradient_builder="reverse"
        )
    assert not list(tmp_path.iterdir())
