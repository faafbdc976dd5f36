"""An exported file is evaluated: annotations, samples, table, command line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from onnx_gradcam import Preprocessing, export_model, load
from onnx_gradcam.cli.evaluate import _bar
from onnx_gradcam.cli.main import main
from onnx_gradcam.errors import ImageError, UsageError
from onnx_gradcam.evaluation import METRICS, Sample, Settings, evaluate, read_annotations
from onnx_gradcam.evaluation.metrics import choose_metrics
from onnx_gradcam.evaluation.samples import read_samples
from onnx_gradcam.evaluation.subject import Subject, centre_maps, noise_maps
from onnx_gradcam.export.randomise import export_randomised, randomised_models
from tests.contract_models import contract_model
from tests.end_to_end.small_model import CLASSES, small_model

VOC = """<annotation><object><name>green</name>
<bndbox><xmin>3</xmin><ymin>5</ymin><xmax>10</xmax><ymax>12</ymax></bndbox></object></annotation>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """small.onnx, its export, three photos, and boxes of both kinds."""
    made = tmp_path_factory.mktemp("evaluated")
    onnx.save(small_model(), made / "small.onnx")
    export_model(
        made / "small.onnx",
        made / "small.cam.onnx",
        gradient_builder="reverse",
        preprocess=Preprocessing(resize=(16, 16), scale=1 / 255),
        labels=CLASSES,
        verify=False,
    )
    random = np.random.default_rng(3)
    for name in ("a.png", "b.png", "c.png"):
        cv2.imwrite(str(made / name), random.integers(0, 256, (24, 32, 3), np.uint8))
    mask = np.zeros((24, 32), np.uint8)
    mask[:12] = 9
    cv2.imwrite(str(made / "mask.png"), mask)
    (made / "a.xml").write_text(VOC)
    box = {"label": "red", "box": [0, 0, 16, 24]}
    boxes = {"a.png": [box, {"label": "elk", "mask": "mask.png"}], "b.png": [{"box": [0, 0, 9, 9]}]}
    (made / "boxes.json").write_text(json.dumps(boxes))
    return made


def samples(folder: Path, *names: str, **options: Any) -> list[Sample]:
    explainer = load(folder / "small.cam.onnx")
    return [one for name in names for one in read_samples(explainer, folder / name, **options)]


def test_boxes_and_masks_reach_the_input(folder: Path) -> None:
    boxes = read_annotations(folder / "boxes.json")
    red, elk, unnamed = samples(folder, "a.png", "b.png", annotations=boxes)
    assert [red.name, elk.name, unnamed.name] == ["a.png: red", "a.png: elk", "b.png"]
    assert [red.wanted, elk.wanted, unnamed.wanted] == [CLASSES.index("red"), -1, -1]
    assert red.mask is not None
    assert elk.mask is not None
    assert red.mask[:, :8].all()
    assert not red.mask[:, 8:].any()
    assert elk.mask[:8].all()
    assert not elk.mask[8:].any()
    (asked,) = samples(folder, "b.png", annotations=boxes, wanted="blue")
    assert asked.wanted == CLASSES.index("blue")


def test_pascal_voc_counts_from_one(folder: Path) -> None:
    (found,) = read_annotations(folder).of(Path("a.png"))["green"]
    assert found.box == (2, 4, 10, 12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "photo name"),
        ("{", "no JSON"),
        ('{"a.png": 1}', "list"),
        ('{"a.png": [{"box": [1, 2]}]}', "neither"),
    ],
)
def test_annotations_of_another_form_are_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "boxes.json").write_text(text)
    with pytest.raises(UsageError, match=says):
        read_annotations(tmp_path / "boxes.json")


def test_annotations_that_are_not_there_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_annotations(tmp_path / "none.json")
    with pytest.raises(UsageError, match="no Pascal VOC"):
        read_annotations(tmp_path)
    with pytest.raises(UsageError, match=r"no boxes for c\.png"):
        samples(folder, "c.png", annotations=read_annotations(folder / "boxes.json"))


def test_the_samples_are_what_the_model_takes(folder: Path) -> None:
    explainer = load(folder / "small.cam.onnx")
    (photo,) = samples(folder, "a.png")
    np.save(folder / "x.npy", photo.image)
    (array,) = samples(folder, "x.npy")
    np.testing.assert_array_equal(array.image, photo.image)
    subject = Subject(explainer)
    expected = explainer.explain_image(folder / "a.png")
    maps, classes = subject.explained(photo.image[None], [photo.wanted], "gradcam")
    np.testing.assert_allclose(maps, expected.cams, atol=1e-6)
    assert classes.tolist() == expected.classes.tolist()
    np.save(folder / "y.npy", np.zeros((3, 4)))
    with pytest.raises(ImageError, match="does not fit"):
        samples(folder, "y.npy")


def test_a_model_with_channels_last_sees_the_same() -> None:
    first = Subject(load(contract_model()))
    last = Subject(load(contract_model(image="n, 8, 10, 3", channels_last=True)))
    images = np.random.default_rng(1).random((2, 3, 8, 10), np.float32)
    for subject in (first, last):
        subject.settle_confidence(images)
    assert first.confidence == "softmax"
    np.testing.assert_allclose(first.predict(images), last.predict(images), atol=1e-6)
    maps = [subject.explain(images, [0, 1], "gradcam") for subject in (first, last)]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-6)


def test_probabilities_stay_as_they_are() -> None:
    images = np.random.default_rng(1).random((2, 3, 8, 10), np.float32)
    plain, ready = Subject(load(contract_model())), Subject(load(contract_model(softmax=True)))
    for subject in (plain, ready):
        subject.settle_confidence(images)
    assert ready.confidence == "raw"
    np.testing.assert_allclose(plain.predict(images), ready.predict(images), atol=1e-6)


def test_the_floors_do_not_look_at_the_model() -> None:
    images = np.random.default_rng(1).random((3, 3, 20, 30), np.float32)
    noise = noise_maps(images, (4, 5))
    np.testing.assert_array_equal(noise, noise_maps(images, (4, 5)))
    np.testing.assert_array_equal(noise[1:], noise_maps(images[1:], (4, 5)))
    assert len({one.tobytes() for one in noise}) == 3
    centre = centre_maps(images, ())
    assert centre.shape == (3, 20, 30)
    assert np.unravel_index(centre[0].argmax(), (20, 30))[0] in {9, 10}
    assert np.unravel_index(centre[0].argmax(), (20, 30))[1] in {14, 15}
    np.testing.assert_allclose(centre, centre[:, ::-1, ::-1], atol=1e-6)


def test_every_metric_is_measured_and_the_same_again(folder: Path) -> None:
    explainer = load(folder / "small.cam.onnx")
    chosen = samples(folder, "a.png", "b.png", annotations=read_annotations(folder / "boxes.json"))
    calls: list[tuple[int, int]] = []
    results = [
        evaluate(
            explainer,
            chosen,
            methods=["gradcam", "noise", "centre"],
            randomised=[explainer],
            settings=Settings(steps=5, percentiles=(30, 70), samples=2, batch_size=size),
            progress=lambda done, total: calls.append((done, total)),
        )
        for size in (2, 16)
    ]
    for result in results:
        assert [metric.name for metric in result.metrics] == list(METRICS)
        np.testing.assert_allclose(result.values["gradcam"]["randomisation"], 1)
    for name in METRICS:
        for method in ("gradcam", "noise", "centre"):
            pair = [result.values[method][name] for result in results]
            np.testing.assert_allclose(pair[0], pair[1], atol=1e-4, err_msg=name)
    assert calls[-1] == (9, 9)
    assert results[0].values["centre"]["max-sensitivity"].tolist() == [0, 0, 0]
    assert (results[0].values["noise"]["max-sensitivity"] > 0.1).all()
    assert json.loads(json.dumps(results[0].to_dict()))["methods"]["noise"]["road"]["values"]


def test_the_table_counts_what_is_not_defined(folder: Path) -> None:
    explainer = load(folder / "small.cam.onnx")
    result = evaluate(
        explainer, samples(folder, "a.png", "b.png"), methods=["gradcam"], metrics=["sparseness"]
    )
    result.values["gradcam"]["sparseness"][:] = [0.5, np.nan]
    assert "0.500 (1)" in result.summary()
    assert "| gradcam | 0.500 (1) |" in result.markdown()
    found = result.to_dict()["methods"]["gradcam"]["sparseness"]
    assert found == {"mean": 0.5, "undefined": 1, "values": [0.5, None]}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"methods": ["gradcan"]}, "did you mean 'gradcam'"),
        ({"metrics": ["deletoin"]}, "did you mean 'deletion'"),
        ({"metrics": ["pointing"]}, "--boxes"),
        ({"metrics": ["randomisation"]}, "--randomise"),
        ({"confidence": "hope"}, "softmax"),
    ],
)
def test_what_cannot_be_had_is_refused(folder: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        evaluate(load(folder / "small.cam.onnx"), samples(folder, "a.png"), **options)


def test_no_images_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="no images"):
        evaluate(load(folder / "small.cam.onnx"), [])


def test_metrics_come_in_the_order_of_the_table() -> None:
    assert [m.name for m in choose_metrics(["road", "deletion"])] == ["deletion", "road"]


def run(folder: Path, *arguments: str) -> Result:
    paths = [str(folder / a) if (folder / a).exists() else a for a in arguments]
    return CliRunner().invoke(main, ["evaluate", str(folder / "small.cam.onnx"), *paths])


def test_the_command_prints_a_table(folder: Path) -> None:
    done = run(folder, "a.png", "b.png", "--metric", "deletion", "--steps", "4")
    assert done.exit_code == 0, done.stderr
    head, row, note = done.stdout.splitlines()
    assert head.split() == ["method", "gradcam", "noise"]
    assert row.split()[:2] == ["deletion", "↓"]
    assert "2 images" in note
    assert done.stderr == ""


def test_the_command_prints_json_and_finds_boxes(folder: Path) -> None:
    arguments = ["a.png", "--boxes", "boxes.json", "--metric", "energy", "--method", "centre"]
    done = run(folder, *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["samples"] == ["a.png: red", "a.png: elk"]
    assert 0.4 < content["methods"]["centre"]["energy"]["mean"] < 0.6


def test_the_command_randomises_the_model(folder: Path) -> None:
    done = run(folder, "a.png", "b.png", "--randomise", "small.onnx", "--metric", "randomisation")
    assert done.exit_code == 0, done.stderr
    gradcam, noise = done.stdout.splitlines()[1].split()[-2:]
    assert noise == "1.000"
    assert gradcam != "1.000"


def test_another_model_is_not_randomised(folder: Path) -> None:
    onnx.save(small_model(size=8), folder / "other.onnx")
    done = run(folder, "a.png", "--randomise", "other.onnx")
    assert done.exit_code == 2
    assert "is not the model that was exported" in done.stderr


def test_a_terminal_sees_a_bar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", stream)
    with _bar() as progress:
        assert progress is not None
        progress(1, 4)
        progress(4, 4)
    assert "evaluating" in stream.getvalue()
    assert "25%" in stream.getvalue()
    assert "100%" in stream.getvalue()


def test_images_that_cannot_be_read_are_counted(folder: Path) -> None:
    done = run(folder, "a.png", "boxes.json", "--metric", "sparseness")
    assert done.exit_code == 6
    assert len(done.stderr.splitlines()) == 1
    assert "1 images" in done.stdout
    alone = run(folder, "boxes.json")
    assert alone.exit_code == 2
    assert run(folder, "boxes.json", "a.xml").exit_code == 6


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--metric", "nonsense"], 2),
        (["--method", "nonsense"], 2),
        (["--class", "nonsense"], 2),
        (["--boxes", "nonsense.json"], 2),
        (["--randomise", "nonsense.onnx"], 2),
        (["--confidence", "nonsense"], 2),
    ],
)
def test_errors_are_one_line_with_their_code(folder: Path, arguments: list[str], code: int) -> None:
    done = run(folder, "a.png", *arguments)
    assert done.exit_code == code
    assert len(done.stderr.splitlines()) == 1
    assert "nonsense" in done.stderr


def test_layers_are_randomised_from_the_last_one_on(folder: Path) -> None:
    original = {t.name: onnx.numpy_helper.to_array(t) for t in small_model().graph.initializer}
    changed = []
    for _, model in randomised_models(folder / "small.onnx", seed=1):
        values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        changed.append({n for n in original if not np.array_equal(original[n], values[n])})
        for name, value in values.items():
            np.testing.assert_array_equal(np.sort(value, axis=None), np.sort(original[name], None))
    head = {"head_weight", "head_bias"}
    assert changed == [head, head | {"second_weight"}, head | {"second_weight", "first_weight"}]


def test_stages_are_spread_and_seeded(folder: Path, tmp_path: Path) -> None:
    whole = [m.SerializeToString() for _, m in randomised_models(folder / "small.onnx", stages=1)]
    every = [m.SerializeToString() for _, m in randomised_models(folder / "small.onnx")]
    assert len(every) == 3
    assert whole == every[-1:]
    files = export_randomised(folder / "small.onnx", tmp_path, stages=2, gradient_builder="reverse")
    assert [file.name[:2] for file in files] == ["01", "02"]
    scores = [load(file).predict(np.ones((1, 3, 16, 16))) for file in files]
    assert np.abs(scores[0] - scores[1]).max() > 1e-3
    with pytest.raises(UsageError, match="0 stages"):
        list(randomised_models(folder / "small.onnx", stages=0))
