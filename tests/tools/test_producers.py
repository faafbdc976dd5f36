"""The tools that gather files of many producers: what they say of a file, and the page."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import helper

from tests.export.test_producers import KERAS, PADDLE, filled, renamed
from tools.producer_note import KNOWN, Note, read_note, write_note
from tools.producer_traits import opset_and_ir, traits
from tools.producers import document, measure


def test_what_is_peculiar() -> None:
    assert traits(filled(KERAS)) == [
        "channels-last input",
        "3 outputs",
        "ends in Softmax",
        "nodes without names",
    ]
    model = renamed(filled(PADDLE), {"conv": "a;b:0", "flat": "c@1"})
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    model.graph.input.append(helper.make_tensor_value_info("fc_w", onnx.TensorProto.FLOAT, [6, 4]))
    model.graph.node[0].domain = "com.microsoft"
    assert traits(model) == [
        "1 weights are inputs",
        "sizes of -1",
        "ends in Softmax, Identity",
        "Conv of com.microsoft",
        "names with `:` `;` `@`",
        "holds Shape",
    ]
    assert opset_and_ir(model) == "11 / 7"


def test_notes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_note(path, Note("a program 1.0", "a network", "Group"))
    assert read_note(path) == Note("a program 1.0", "a network", "Group")
    assert read_note(tmp_path / "cifar10_resnet20.onnx") == KNOWN["cifar10_resnet20"]
    assert read_note(tmp_path / "else.onnx") == Note("unknown", "else", "Other")


def test_a_file_is_measured_at_both_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.producers.BUILDERS", ("reverse",))
    onnx.save(filled(KERAS), tmp_path / "good.onnx")
    bad = filled(KERAS)
    bad.graph.node[-3].CopyFrom(helper.make_node("ArgMax", ["logits"], ["probabilities"], axis=1))
    bad.graph.output[2].type.tensor_type.elem_type = onnx.TensorProto.INT64
    del bad.graph.node[-1], bad.graph.output[:2]
    onnx.save(bad, tmp_path / "bad.onnx")
    good, refused = (measure(tmp_path / f"{name}.onnx") for name in ("good", "bad"))
    assert [row.layer for row in good.rows] == ["relu", "conv"]
    for row in good.rows:
        result = row.results["reverse"]
        assert result.builder == "reverse"
        assert result.gradient is not None
        assert 0 < result.gradient < 0.03
        assert result.off == 0
    assert "no output holds class scores" in refused.rows[0].results["reverse"].problem


def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(filled(PADDLE), tmp_path / "paddle.onnx")
    write_note(tmp_path / "paddle.onnx", Note("Paddle 3", "tiny", "Chinese"))
    text = document([measure(tmp_path / "paddle.onnx")])
    assert "1 files: 1 export at the default layer, 0 are refused" in text
    assert "## Chinese" in text
    assert "| paddle: tiny | Paddle 3 | 11 / 7 | ends in Softmax, Identity" in text
    assert "| `swished` | 6x8x8 |" in text
