import subprocess
import sys
from typing import Any, NoReturn

import click
import pytest
from click.testing import CliRunner, Result

import onnx_gradcam
from onnx_gradcam import errors
from onnx_gradcam.cli import main as main_module
from onnx_gradcam.cli.main import COMMANDS, main

ERRORS = [
    getattr(errors, name)
    for name in onnx_gradcam.__all__
    if isinstance(getattr(errors, name, None), type)
]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="onnx-gradcam")


@pytest.fixture
def inspect_raises(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make `inspect` end with an exception."""

    def prepare(error: BaseException) -> None:
        def fail(*_: object, **__: object) -> NoReturn:
            raise error

        monkeypatch.setitem(vars(onnx_gradcam), "inspect_model", fail)

    return prepare


@pytest.mark.parametrize("error", ERRORS)
def test_each_error_is_one_line_and_its_exit_code(error: Any, inspect_raises: Any) -> None:
    inspect_raises(error("the thing broke\nat '/conv'; do this instead"))
    result = run("inspect", "model.onnx")
    assert result.exit_code == error.exit_code
    assert result.stderr == "error: the thing broke at '/conv'; do this instead\n"
    assert result.stdout == ""


def test_the_exit_codes_are_the_documented_ones() -> None:
    codes = {error.__name__: error.exit_code for error in ERRORS}
    lines = str(errors.__doc__).splitlines()
    drawn = [line.lstrip("│├└─ ").split() for line in lines if "Error  " in line]
    assert {words[0]: int(words[1]) for words in drawn} == codes


def test_an_unexpected_exception_is_one_line_with_a_hint(inspect_raises: Any) -> None:
    inspect_raises(RuntimeError("no\nway"))
    result = run("inspect", "model.onnx")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: internal error: RuntimeError: no way (set ONNX_GRADCAM_TRACEBACK=1 to see where)\n"
    )


def test_the_traceback_is_there_for_the_asking(
    inspect_raises: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_GRADCAM_TRACEBACK", "1")
    inspect_raises(RuntimeError("no way"))
    stderr = run("inspect", "model.onnx").stderr
    assert stderr.startswith("Traceback (most recent call last)")
    assert "error: internal error: RuntimeError: no way" in stderr.splitlines()[-1]


def test_a_missing_package_of_an_extra_is_named(inspect_raises: Any) -> None:
    inspect_raises(ModuleNotFoundError("No module named 'onnx'", name="onnx"))
    result = run("inspect", "model.onnx")
    assert result.exit_code == 5
    assert "pip install 'onnx-gradcam[export]'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_interrupt_is_130_without_a_traceback(inspect_raises: Any) -> None:
    inspect_raises(KeyboardInterrupt())
    result = run("inspect", "model.onnx")
    assert result.exit_code == 130
    assert result.stderr.strip() == ""


def test_without_standalone_mode_errors_are_passed_on(inspect_raises: Any) -> None:
    inspect_raises(errors.InvalidModelError("broken"))
    with pytest.raises(errors.InvalidModelError, match="broken"):
        main(["inspect", "model.onnx"], standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explort"], "No such command 'explort'"),
        (["export"], "Missing argument 'MODEL' (see: onnx-gradcam export --help)"),
        (["export", "model.onnx"], "Missing option '-o' / '--output'"),
        (["explain", "m", "i", "-o", "d", "--top-k", "0"], "Invalid value for '--top-k'"),
        (["export", "m", "-o", "o", "--gradient-builder", "magic"], "--gradient-builder"),
        (["inspect", "m", "--colour"], "No such option"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_command_shows_the_help() -> None:
    result = run()
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: onnx-gradcam")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    examples = result.stdout.split("Examples:\n")[1]
    assert f"  onnx-gradcam {command}" in examples


@pytest.mark.parametrize("command", COMMANDS)
def test_the_group_shows_every_command_with_a_summary(command: str) -> None:
    loaded = main.get_command(click.Context(main), command)
    assert loaded is not None
    assert loaded.name == command
    row = next(line for line in run("--help").stdout.splitlines() if f"  {command} " in line)
    assert row.split(command, 1)[1].strip() == loaded.short_help


def test_the_version_is_the_packages() -> None:
    assert run("--version").stdout == f"onnx-gradcam {onnx_gradcam.__version__}\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "onnx_gradcam", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, stderr = process.communicate(timeout=60)
    assert stderr == b""
    assert process.returncode == main_module.INTERNAL_ERROR
