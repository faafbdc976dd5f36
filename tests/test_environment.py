import sys
from pathlib import Path

import pytest

from onnx_gradcam.environment import Package, Problem, diagnose, find_conflicts, installed


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of packages in which nothing is wrong."""
    for name, module in (("onnxruntime", "onnxruntime"), ("opencv-python-headless", "cv2")):
        add_distribution(tmp_path, name, "1.32.0")
        add_module(tmp_path, module)
    return tmp_path


def add_distribution(site: Path, name: str, version: str) -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def add_module(site: Path, module: str) -> None:
    (site / module).mkdir()
    (site / module / "__init__.py").touch()


def conflicts(site: Path) -> list[Problem]:
    return list(find_conflicts(installed([str(site)]), [str(site)]))


def pip(*arguments: str) -> tuple[str, ...]:
    return tuple(f"{sys.executable} -m pip {argument}" for argument in arguments)


def test_a_clean_environment_has_no_problem(site: Path) -> None:
    assert conflicts(site) == []


def test_both_onnxruntime_distributions_name_the_fix(site: Path) -> None:
    add_distribution(site, "onnxruntime-gpu", "1.31.0")
    [problem] = conflicts(site)
    assert "onnxruntime-gpu 1.31.0 and onnxruntime 1.32.0" in problem.what
    assert problem.fix == pip(
        "uninstall -y onnxruntime-gpu onnxruntime", "install onnxruntime-gpu==1.31.0"
    )


def test_both_opencv_distributions_keep_the_headless_one(site: Path) -> None:
    add_distribution(site, "opencv-python", "5.0.0")
    [problem] = conflicts(site)
    assert problem.fix == pip(
        "uninstall -y opencv-python-headless opencv-python",
        "install opencv-python-headless==1.32.0",
    )


def test_training_beside_onnxruntime_moves_to_its_own_folder(site: Path) -> None:
    add_distribution(site, "onnxruntime-training-cpu", "1.19.2")
    [problem] = conflicts(site)
    assert problem.fix == (
        *pip(
            "uninstall -y onnxruntime onnxruntime-training-cpu",
            "install onnxruntime==1.32.0",
        ),
        "onnx-gradcam setup-builder",
    )


def test_training_in_place_of_onnxruntime_is_a_problem(tmp_path: Path) -> None:
    add_distribution(tmp_path, "onnxruntime-training-cpu", "1.19.2")
    add_module(tmp_path, "onnxruntime")
    problem = conflicts(tmp_path)[0]
    assert "takes the place of onnxruntime" in problem.what
    assert problem.fix[-2:] == (*pip("install onnxruntime"), "onnx-gradcam setup-builder")


def test_a_package_gutted_by_another_uninstall_is_installed_again(site: Path) -> None:
    (site / "onnxruntime" / "__init__.py").unlink()
    [problem] = conflicts(site)
    assert "gutted" in problem.what
    assert problem.fix == pip("install --force-reinstall --no-deps onnxruntime==1.32.0")


def test_an_empty_folder_after_an_uninstall_is_told_from_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    hollow, missing = conflicts(tmp_path)
    assert hollow.what == "onnxruntime is an empty folder that an uninstall left behind"
    assert missing.what == "nothing that provides the package cv2 is installed"
    assert missing.fix == pip("install opencv-python-headless")


def test_names_are_compared_as_pip_does(tmp_path: Path) -> None:
    add_distribution(tmp_path, "OpenCV_Python.headless", "5.0")
    assert installed([str(tmp_path)]) == [Package("opencv-python-headless", "5.0")]


@pytest.mark.parametrize(("version", "count"), [("1.20.9", 1), ("1.21.0", 0), ("2.0", 0)])
def test_onnx_with_known_holes_is_a_problem(site: Path, version: str, count: int) -> None:
    add_distribution(site, "onnx", version)
    problems = [p for p in diagnose([str(site)]).problems if "attacks" in p.what]
    assert len(problems) == count


def test_the_running_environment_is_reported_as_it_is() -> None:
    diagnosis = diagnose()
    assert diagnosis.healthy, diagnosis.problems
    assert "CPUExecutionProvider" in diagnosis.providers
    assert diagnosis.to_dict()["packages"].keys() >= {"numpy", "click", "onnxruntime"}
    assert diagnosis.summary().endswith("all is well")


def test_the_summary_lists_problem_and_fix(site: Path) -> None:
    add_distribution(site, "onnxruntime-gpu", "1.31.0")
    diagnosis = diagnose([str(site)])
    assert not diagnosis.healthy
    assert f"    {sys.executable} -m pip install onnxruntime-gpu==1.31.0" in diagnosis.summary()


def test_a_missing_builder_is_told_but_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_GRADCAM_BUILDER", str(tmp_path / "none"))
    diagnosis = diagnose()
    assert diagnosis.healthy, diagnosis.problems
    assert "onnx-gradcam setup-builder" in diagnosis.summary()


def test_a_builder_of_the_wrong_version_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_distribution(tmp_path, "onnxruntime-training-cpu", "1.18.0")
    monkeypatch.setenv("ONNX_GRADCAM_BUILDER", str(tmp_path))
    [problem] = diagnose().problems
    assert "holds onnxruntime-training 1.18.0, not 1.19.2" in problem.what
    assert problem.fix == ("onnx-gradcam setup-builder --force",)
