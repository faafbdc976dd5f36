import subprocess
import sys

import pytest

import onnx_gradcam
from onnx_gradcam import errors
from onnx_gradcam.extras import EXTRAS, missing_dependency

HEAVY = {"onnx", "onnxruntime", "cv2", "numpy", "click"}


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def loaded_by(statement: str) -> set[str]:
    printed = run_python(f"import sys; {statement}; print(' '.join(sys.modules))")
    return HEAVY & set(printed.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import onnx_gradcam") == set()


def test_using_errors_and_presets_loads_nothing_heavy() -> None:
    statement = "import onnx_gradcam as o; o.OnnxGradCamError, o.PRESETS, o.Preprocessing"
    assert loaded_by(statement) == set()


def test_the_command_line_loads_click_alone() -> None:
    assert loaded_by("import onnx_gradcam.cli.main") == {"click"}


def test_the_help_loads_click_and_no_command() -> None:
    printed = run_python(
        "import sys; from onnx_gradcam.cli.main import main;"
        "main(['--help'], standalone_mode=False);"
        "print(*sorted(n for n in sys.modules if n.startswith('onnx_gradcam')));"
        f"print('loaded', *sorted({HEAVY} & set(sys.modules)))"
    )
    *_, ours, heavy = printed.splitlines()
    assert "Prove that an exported file is right." in printed
    assert heavy == "loaded click"
    assert ours.split() == [
        "onnx_gradcam",
        *("onnx_gradcam.cli", "onnx_gradcam.cli.main", "onnx_gradcam.cli.output"),
        *("onnx_gradcam.errors", "onnx_gradcam.extras"),
    ]


def test_the_runtime_does_not_load_onnx() -> None:
    assert "onnx" not in loaded_by("import onnx_gradcam; onnx_gradcam.load")


def test_the_export_does_not_load_cv2() -> None:
    assert "cv2" not in loaded_by("import onnx_gradcam; onnx_gradcam.export_model")


@pytest.mark.parametrize("name", onnx_gradcam.__all__)
def test_every_public_name_can_be_loaded(name: str) -> None:
    assert getattr(onnx_gradcam, name) is not None
    assert name in dir(onnx_gradcam)


def test_every_error_is_public() -> None:
    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.OnnxGradCamError)
    }
    assert tree <= set(onnx_gradcam.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'grad_cam'"):
        _ = onnx_gradcam.grad_cam


@pytest.mark.parametrize(
    ("package", "name", "extras"),
    [("onnx", "export_model", ["export"]), ("onnxruntime", "load", ["cpu", "gpu"])],
)
def test_a_missing_extra_is_one_line_that_names_it(
    package: str, name: str, extras: list[str]
) -> None:
    # None in sys.modules makes `import PACKAGE` fail as if it were not installed
    use = "onnx_gradcam.load(b'model')" if name == "load" else f"onnx_gradcam.{name}"
    printed = run_python(f"""
import sys
sys.modules["{package}"] = None
import onnx_gradcam
try:
    {use}
except onnx_gradcam.MissingDependencyError as error:
    print(error)
""")
    assert len(printed.splitlines()) == 1
    assert package in printed
    for extra in extras:
        assert f"pip install 'onnx-gradcam[{extra}]'" in printed


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_submodule_counts_for_its_package(package: str) -> None:
    error = missing_dependency(ModuleNotFoundError("gone", name=f"{package}.helper"))
    assert isinstance(error, errors.MissingDependencyError)
    assert error.exit_code == 5


def test_a_missing_package_of_no_extra_is_not_ours() -> None:
    assert missing_dependency(ModuleNotFoundError("gone", name="tomli")) is None
