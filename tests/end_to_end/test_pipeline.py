"""From a model file to heat maps, as a user does it: the tiny trained network on drawn shapes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

import onnx_gradcam
from tests.end_to_end.conftest import Run

PICTURES = ["01_square.png", "05_star.png", "12_circle_square.png", "16_ring_star.png"]
BUILDERS = ["reverse", "onnxruntime-training"]


def has_builder() -> bool:
    from onnx_gradcam.export.builders.environment import builder_status

    return builder_status().available


@pytest.fixture(scope="module", params=BUILDERS)
def exported(
    request: pytest.FixtureRequest, models_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    if request.param == "onnxruntime-training" and not has_builder():
        pytest.skip("no onnxruntime-training here: onnx-gradcam setup-builder")
    path = tmp_path_factory.mktemp("tiny") / "tiny.cam.onnx"
    report = onnx_gradcam.export_model(
        models_folder / "tiny_shapes.onnx",
        path,
        gradient_builder=request.param,
        preprocess=models_folder / "tiny_shapes" / "preprocessing.json",
        labels=models_folder / "tiny_shapes" / "labels.txt",
    )
    assert report.builder == request.param
    assert report.verification is not None
    assert report.verification.passed
    return path


@pytest.fixture(scope="module")
def boxes(models_folder: Path) -> dict[str, list[dict[str, object]]]:
    text = (models_folder / "tiny_shapes" / "annotations.json").read_text()
    content: dict[str, list[dict[str, object]]] = json.loads(text)
    return content


@pytest.mark.parametrize("picture", PICTURES)
def test_the_heat_map_of_each_shape_lies_on_it(
    exported: Path,
    models_folder: Path,
    tmp_path: Path,
    boxes: dict[str, list[dict[str, object]]],
    picture: str,
    run: Run,
) -> None:
    shapes = {str(shape["label"]): shape["box"] for shape in boxes[picture]}
    photo = models_folder / "tiny_shapes" / picture
    named = [argument for label in shapes for argument in ("--class", label)]
    done = run("explain", exported, photo, "-o", tmp_path, *named)
    assert done.code == 0, done.err
    labels = (models_folder / "tiny_shapes" / "labels.txt").read_text().split()
    for label, box in shapes.items():
        index = labels.index(label)
        raw = np.load(tmp_path / f"{photo.stem}.cam-{index}.npy")
        row, column = np.unravel_index(np.argmax(raw), raw.shape)
        x, y = (64 * (column + 0.5) / raw.shape[1], 64 * (row + 0.5) / raw.shape[0])
        left, top, right, bottom = box  # type: ignore[misc]
        assert left <= x <= right, f"{label}: {x, y} outside {box}"
        assert top <= y <= bottom, f"{label}: {x, y} outside {box}"
        assert any(line.split()[0] == str(index) for line in done.out.splitlines()[1:])
        assert label in done.out


def test_command_line_and_library_agree(
    exported: Path, models_folder: Path, tmp_path: Path, run: Run
) -> None:
    photo = models_folder / "tiny_shapes" / PICTURES[2]
    done = run("explain", exported, photo, "-o", tmp_path, "--top-k", "2", "--method", "layercam")
    explanation = onnx_gradcam.load(exported).explain_image(photo, [-1, -2], "layercam")
    lines = [line.split() for line in done.out.splitlines()[1:]]
    assert [int(words[0]) for words in lines] == explanation.classes.tolist()
    np.testing.assert_allclose(
        [float(words[1]) for words in lines], explanation.class_scores, atol=6e-5
    )
    for row, index in enumerate(explanation.classes):
        raw = np.load(tmp_path / f"{photo.stem}.cam-{index}.npy")
        assert raw.dtype == np.float32
        np.testing.assert_array_equal(raw, explanation.raw_maps[row])


def test_the_picture_is_one_panel_of_all_classes(
    exported: Path, models_folder: Path, tmp_path: Path, run: Run
) -> None:
    photo = models_folder / "tiny_shapes" / PICTURES[2]
    widths = []
    for count in (1, 2, 3):
        folder = tmp_path / str(count)
        assert run("explain", exported, photo, "-o", folder, "--top-k", str(count)).code == 0
        panel = cv2.imread(str(folder / f"{photo.stem}.cam.png"))
        assert panel is not None
        widths.append(panel.size)
        assert len(list(folder.glob("*.npy"))) == count
    assert widths[0] < widths[1] < widths[2]


def test_a_class_that_is_named_twice_is_explained_once(
    exported: Path, models_folder: Path, tmp_path: Path, run: Run
) -> None:
    photo = models_folder / "tiny_shapes" / "05_star.png"
    done = run(
        "explain",
        exported,
        photo,
        "-o",
        tmp_path,
        "--class",
        "star",
        "--class",
        "5",
        "--top-k",
        "1",
    )
    assert len(done.out.splitlines()) == 2
    assert [path.name for path in tmp_path.glob("*.npy")] == ["05_star.cam-5.npy"]


def test_images_of_one_name_do_not_meet(
    exported: Path, models_folder: Path, tmp_path: Path, run: Run
) -> None:
    photos = []
    for folder, picture in (("a", "05_star.png"), ("b", "01_square.png")):
        (tmp_path / folder).mkdir()
        photos.append(tmp_path / folder / "photo.png")
        photos[-1].write_bytes((models_folder / "tiny_shapes" / picture).read_bytes())
    done = run("explain", exported, *photos, "-o", tmp_path / "maps")
    assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {
        "photo.cam.png", "photo.cam-5.npy", "photo-2.cam.png", "photo-2.cam-1.npy",
    }  # fmt: skip


def test_check_proves_the_export(exported: Path, models_folder: Path, run: Run) -> None:
    done = run("check", exported, "--against", models_folder / "tiny_shapes.onnx", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["passed"]
    assert any("gradient" in check["name"] for check in report["checks"])


def test_a_wrong_gradient_does_not_pass_the_check(exported: Path, tmp_path: Path, run: Run) -> None:
    model = onnx.load(exported)
    producer = next(n for n in model.graph.node if "cam_gradients" in n.output)
    producer.output[0] = "onnx_gradcam/right"
    model.graph.node.append(
        onnx.helper.make_node(
            "Add", ["onnx_gradcam/right", "onnx_gradcam/right"], ["cam_gradients"]
        )
    )
    onnx.save(model, tmp_path / "wrong.cam.onnx")
    message = run("check", tmp_path / "wrong.cam.onnx").error(4)
    assert "gradient" in message


def test_inspect_recommends_what_the_export_takes(
    exported: Path, models_folder: Path, run: Run
) -> None:
    done = run("inspect", models_folder / "tiny_shapes.onnx", "--json")
    assert done.code == 0, done.err
    target = onnx_gradcam.load(exported).metadata.target
    assert target in done.out
    assert target in run("inspect", models_folder / "tiny_shapes.onnx").out


def test_export_as_json_is_machine_readable(models_folder: Path, tmp_path: Path, run: Run) -> None:
    output = tmp_path / "tiny.cam.onnx"
    model = models_folder / "tiny_shapes.onnx"
    done = run("export", model, "-o", output, "--json", "--no-verify")
    report = json.loads(done.out)
    assert report["output"] == str(output)
    assert report["bytes_written"] == output.stat().st_size
    assert report["verification"] is None


def test_the_same_export_gives_the_same_bytes(
    models_folder: Path, tmp_path: Path, start: Run
) -> None:
    contents = set()
    for number in range(2):
        output = tmp_path / f"{number}.onnx"
        model = models_folder / "tiny_shapes.onnx"
        done = start(
            "export", model, "-o", output, "--no-verify", "--gradient-builder", "reverse",
            PYTHONHASHSEED=str(number),
        )  # fmt: skip
        assert done.code == 0, done.err
        contents.add(output.read_bytes())
    assert len(contents) == 1


def test_a_process_of_its_own_prints_no_noise(
    exported: Path, models_folder: Path, tmp_path: Path, start: Run
) -> None:
    photo = models_folder / "tiny_shapes" / "05_star.png"
    done = start("explain", exported, photo, "-o", tmp_path)
    assert done.code == 0
    assert done.err == ""
    assert "star" in done.out
