"""Model folders for Triton: what it checks at load holds, and requests get the Explainer's answers.

No Triton is at hand: `backend_rules` says its checks once more, and onnxruntime runs the file as
its backend does, several requests in one batch.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnx_gradcam import export_model, load
from onnx_gradcam.contract import METADATA_PREFIX, ExportMetadata
from onnx_gradcam.export.triton.repository import write_triton
from onnx_gradcam.preprocessing import PRESETS
from tests.contract_models import LABELS, images
from tests.end_to_end.small_model import CLASSES, small_model
from tests.export.objective_models import objective_model
from tests.export.triton.backend_rules import load_problems, session_of
from tests.export.triton.examples import config_of, exported, files

FILES: dict[str, tuple[dict[str, Any], int]] = {
    "class optional": ({}, 0),
    "class required": ({"class_input": "required"}, 8),
    "class fixed": ({"class_input": "fixed:2"}, 8),
    "probabilities": ({"class_input": "required", "softmax": True}, 8),
    "scores in maps": ({"class_input": "required", "score_axes": True}, 8),
    "channels last": ({"class_input": "required", "channels_last": True,
                       "image": "n, 8, 10, 3"}, 8),
    "any size": ({"class_input": "required", "image": "n, 3, h, w"}, 8),
    "half precision": ({"class_input": "required", "kind": "float16"}, 8),
    "one image": ({"class_input": "required", "image": "1, 3, 8, 10"}, 0),
    "another input": ({"class_input": "required", "extra_input": True}, 0),
}  # fmt: skip
"""Exported files -> how they are made, and the max_batch_size that they can have."""

TEXT = """\
name: "cat_dog_cam"
backend: "onnxruntime"
default_model_filename: "model.onnx"
max_batch_size: 8
input: [
  {
    name: "image"
    data_type: TYPE_FP32
    dims: [ 3, 8, 10 ]
  },
  {
    name: "cam_class"
    data_type: TYPE_INT64
    dims: [ 1 ]
    reshape: {
      shape: [ ]
    }
  }
]
output: [
  {
    name: "logits"
    data_type: TYPE_FP32
    dims: [ 5 ]
    label_filename: "labels.txt"
  },
  {
    name: "cam_activations"
    data_type: TYPE_FP32
    dims: [ 4, 4, 5 ]
  },
  {
    name: "cam_gradients"
    data_type: TYPE_FP32
    dims: [ 4, -1, -1 ]
  },
  {
    name: "cam_classes"
    data_type: TYPE_INT64
    dims: [ 1 ]
    reshape: {
      shape: [ ]
    }
  }
]
version_policy: {
  latest: {
    num_versions: 1
  }
}
dynamic_batching: { }
parameters: [
"""


def test_the_text_is_this(tmp_path: Path) -> None:
    written = write_triton(exported(tmp_path, class_input="required"), tmp_path / "models")
    assert written.folder == tmp_path / "models" / "cat_dog_cam"
    text = (written.folder / "config.pbtxt").read_text(encoding="utf-8")
    assert text.startswith(TEXT)
    assert str(written) == f"{written.folder}, with dynamic batching up to 8 images"


@pytest.mark.parametrize("kind", FILES)
def test_triton_would_load_it(kind: str, tmp_path: Path) -> None:
    made, max_batch_size = FILES[kind]
    written = write_triton(exported(tmp_path, **made), tmp_path / "models")
    config = config_of(written.folder)
    assert load_problems(written.folder, config) == []
    assert config.max_batch_size == written.max_batch_size == max_batch_size
    assert config.HasField("dynamic_batching") == bool(max_batch_size)
    assert bool(written.obstacle) == (not max_batch_size)


CHANGES = {
    "another name": (lambda c: setattr(c, "name", "other"), "name 'other' in the folder"),
    "an optional class": (
        lambda c: setattr(c.input[1], "optional", True),
        "optional input 'cam_class' with batching",
    ),
    "a class left out": (lambda c: c.input.pop(), "the model has 2 inputs"),
    "another size": (lambda c: c.input[0].dims.__setitem__(1, 9), r"'image' has the shape .*, not"),
    "a size that is open": (
        lambda c: c.output[1].dims.__setitem__(1, -1),
        "'cam_activations' has the shape",
    ),
    "another type": (
        lambda c: setattr(c.output[3], "data_type", 11),
        r"'cam_classes' is tensor\(int64\), not FP32",
    ),
    "no reshape": (lambda c: c.output[3].ClearField("reshape"), "'cam_classes' has the shape"),
    "no such output": (lambda c: setattr(c.output[0], "name", "y"), "the model has no 'y'"),
    "no labels": (lambda c: setattr(c.output[0], "label_filename", "n.txt"), "no file 'n.txt'"),
    "no batching": (lambda c: setattr(c, "max_batch_size", 0), "dynamic batching without"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_rules_find_what_is_wrong(change: str, tmp_path: Path) -> None:
    written = write_triton(exported(tmp_path, class_input="required"), tmp_path)
    config = config_of(written.folder)
    apply, expected = CHANGES[change]
    apply(config)
    problems = load_problems(written.folder, config)
    assert problems
    with pytest.raises(AssertionError, match=expected):
        raise AssertionError("; ".join(problems))


def served(folder: Path, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answer requests as Triton's scheduler and backend do: put together, run, taken apart."""
    config, session = config_of(folder), session_of(folder)
    names = [io.name for io in config.output]
    if not config.max_batch_size:
        return [dict(zip(names, session.run(names, r), strict=True)) for r in requests]
    reshaped = {io.name for io in (*config.input, *config.output) if io.HasField("reshape")}
    sizes = [len(next(iter(request.values()))) for request in requests]
    assert sum(sizes) <= config.max_batch_size
    feeds = {}
    for io in config.input:
        whole = np.concatenate([request[io.name] for request in requests])
        assert list(whole.shape[1:]) == [
            n if n > 0 else whole.shape[i + 1] for i, n in enumerate(io.dims)
        ]
        feeds[io.name] = whole[:, 0] if io.name in reshaped else whole
    outputs = dict(zip(names, session.run(names, feeds), strict=True))
    ends = np.cumsum(sizes)[:-1]
    parts = {name: np.split(value, ends) for name, value in outputs.items()}
    return [
        {n: p[i][:, None] if n in reshaped else p[i] for n, p in parts.items()}
        for i in range(len(requests))
    ]  # fmt: skip


def test_requests_that_are_put_together_get_their_own_answers(tmp_path: Path) -> None:
    path = exported(tmp_path, class_input="required")
    written = write_triton(path, tmp_path / "models")
    x, classes = images(5), np.array([[3], [-1], [0], [-2], [4]])
    cuts = [slice(0, 2), slice(2, 3), slice(3, 5)]
    answers = served(written.folder, [{"image": x[c], "cam_class": classes[c]} for c in cuts])
    explainer = load(path, device="cpu")
    for cut, answer in zip(cuts, answers, strict=True):
        alone = explainer.explain(x[cut], classes[cut, 0])
        np.testing.assert_allclose(answer["logits"], alone.scores, rtol=1e-6)
        np.testing.assert_array_equal(answer["cam_classes"][:, 0], alone.classes)
        np.testing.assert_allclose(answer["cam_gradients"], alone.gradients, rtol=1e-6)
        np.testing.assert_allclose(answer["cam_activations"], alone.activations, atol=1e-6)
        assert np.abs(answer["cam_gradients"]).max() > 1e-3


def test_a_request_may_leave_out_an_optional_class(tmp_path: Path) -> None:
    path = exported(tmp_path)
    written = write_triton(path, tmp_path / "models")
    (own,) = [io for io in config_of(written.folder).input if io.optional]
    assert (own.name, list(own.dims)) == ("cam_class", [-1])
    x = images(2)
    plain, asked, one = served(
        written.folder,
        [
            {"image": x},
            {"image": x, "cam_class": np.array([4, 0])},
            {"image": x, "cam_class": np.array([1])},
        ],
    )
    highest = load(path, device="cpu").explain(x)
    np.testing.assert_array_equal(plain["cam_classes"], highest.classes)
    np.testing.assert_allclose(plain["cam_gradients"], highest.gradients, rtol=1e-6)
    np.testing.assert_array_equal(asked["cam_classes"], [4, 0])
    np.testing.assert_array_equal(one["cam_classes"], [1, 1])
    assert written.obstacle == (
        "Triton has none with optional inputs (cam_class); export with --class-input required"
        " or fixed:K"
    )


def test_the_model_is_the_exported_file_and_the_same_each_time(tmp_path: Path) -> None:
    path = exported(tmp_path, class_input="required")
    first = write_triton(path, tmp_path / "one").folder
    second = write_triton(path, tmp_path / "two").folder
    assert files(first) == files(second)
    assert list(files(first)) == ["1/model.onnx", "config.pbtxt", "labels.txt"]
    assert files(first)["1/model.onnx"] == path.read_bytes()
    assert files(first)["labels.txt"].decode() == "".join(f"{label}\n" for label in LABELS)


def test_parameters_are_the_metadata_without_the_labels(tmp_path: Path) -> None:
    recipe = PRESETS["imagenet"].to_dict()
    path = exported(tmp_path, preprocessing=recipe)
    config = config_of(write_triton(path, tmp_path).folder)
    found = {entry.key: entry.value.string_value for entry in config.parameters}
    assert METADATA_PREFIX + "labels" not in found
    again = ExportMetadata.from_props(found)
    assert again == ExportMetadata.from_props(
        {p.key: p.value for p in onnx.load(path).metadata_props if not p.key.endswith("labels")}
    )
    assert again.preprocessing == recipe
    assert again.class_input == "optional"


def test_without_labels_there_is_no_file_of_labels(tmp_path: Path) -> None:
    folder = write_triton(exported(tmp_path, labels=None), tmp_path).folder
    assert sorted(files(folder)) == ["1/model.onnx", "config.pbtxt"]
    assert [io.label_filename for io in config_of(folder).output] == ["", "", "", ""]


def test_a_line_break_in_a_label_does_not_shift_the_others(tmp_path: Path) -> None:
    labels = ["one\ntwo", "b", "c", "d", "e"]
    folder = write_triton(exported(tmp_path, labels=labels), tmp_path).folder
    assert (folder / "labels.txt").read_text() == "one two\nb\nc\nd\ne\n"


def test_scores_of_a_map_have_no_labels(tmp_path: Path) -> None:
    model = objective_model("segmenter")
    path = tmp_path / "s.cam.onnx"
    export_model(model, path, objective="segmentation", labels=list("abcde"),
                 gradient_builder="reverse", class_input="required", verify=False)  # fmt: skip
    written = write_triton(path, tmp_path)
    config = config_of(written.folder)
    assert load_problems(written.folder, config) == []
    assert not any(io.label_filename for io in config.output)
    assert [(io.name, list(io.dims)) for io in config.input][1:] == [
        ("cam_class", [1]),
        ("cam_mask", [8, 10]),
    ]
    assert written.max_batch_size == 8


EXPORTS: dict[str, tuple[dict[str, Any], str]] = {
    "weights": ({"weights": True}, "Triton has none with optional inputs (cam_class, cam_weights);"
                " export with --class-input required"),
    "weights required": ({"weights": True, "class_input": "required"}, ""),
    "several": ({"several": True, "class_input": "required"}, ""),
    "gate": ({"gate": True, "class_input": "fixed:1"}, "cam_explain is one for all images; export"
             " without --gate"),
    "fused": ({"fuse_cam": "gradcam", "outputs": "cam", "class_input": "required",
               "cam_normalise": True}, ""),
    "full gradient": ({"full_gradient": True, "class_input": "required"}, ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPORTS)
def test_triton_would_load_every_kind_of_export(kind: str, tmp_path: Path) -> None:
    options, obstacle = EXPORTS[kind]
    path = tmp_path / "small.cam.onnx"
    report = export_model(small_model(), path, gradient_builder="reverse", labels=CLASSES,
                          verify=False, emit_triton=tmp_path / "models", **options)  # fmt: skip
    folder = tmp_path / "models" / "small_cam"
    assert load_problems(folder, config_of(folder)) == []
    assert str(folder) in report.triton
    assert report.triton in report.summary()
    expected = (
        f"without dynamic batching: {obstacle}"
        if obstacle
        else ("with dynamic batching up to 8 images")
    )
    assert report.triton == f"{folder}, {expected}"


def flattened(output: str) -> onnx.ModelProto:
    """Return the small model with another output, of an open first axis that is not the images'."""
    model = small_model()
    model.graph.node.append(onnx.helper.make_node("Reshape", ["features", "all"], ["flat"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1]), "all"))
    model.graph.output.append(onnx.parser.parse_graph(f"g () => ({output}) {{}}").output[0])
    return model


def test_an_open_axis_that_is_not_of_images_is_no_batch(tmp_path: Path) -> None:
    path = tmp_path / "m.cam.onnx"
    export_model(flattened("float[n] flat"), path, gradient_builder="reverse",
                 class_input="required", verify=False)  # fmt: skip
    written = write_triton(path, tmp_path)
    assert written.obstacle == "1 images give 'flat' of shape (8,)"
    assert load_problems(written.folder, config_of(written.folder)) == []


def test_external_data_lies_beside_the_model_under_its_own_name(tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    onnx.save(small_model(), source, save_as_external_data=True, location="w", size_threshold=100)
    path = tmp_path / "m.cam.onnx"
    export_model(source, path, gradient_builder="reverse", class_input="required")
    written = write_triton(path, tmp_path / "models")
    assert sorted(files(written.folder)) == [
        "1/m.cam.onnx.data", "1/model.onnx", "config.pbtxt",
    ]  # fmt: skip
    shutil.move(tmp_path / "models", tmp_path / "moved")
    folder = tmp_path / "moved" / "m_cam"
    assert load_problems(folder, config_of(folder)) == []
    x = np.random.default_rng(1).normal(size=(2, 3, 16, 16)).astype(np.float32)
    (answer,) = served(folder, [{"image": x, "cam_class": np.array([[0], [1]])}])
    alone = load(path, device="cpu").explain(x, [0, 1])
    np.testing.assert_allclose(answer["cam_gradients"], alone.gradients, rtol=1e-6)
