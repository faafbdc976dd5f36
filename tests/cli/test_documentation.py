import re
from pathlib import Path

import click
import pytest

from onnx_gradcam.cli.main import COMMANDS, main

DOCUMENT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL))
EVERYWHERE = {"--help", "--json"}  # explained once, at the top


def options(command: str) -> set[str]:
    loaded = main.get_command(click.Context(main), command)
    assert loaded is not None
    return {
        option
        for parameter in loaded.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
        if option.startswith("--")
    } - EVERYWHERE


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_and_each_option_is_documented(command: str) -> None:
    missing = {option for option in options(command) if option not in SECTIONS[command]}
    assert missing == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_is_documented_that_does_not_exist(command: str) -> None:
    mentioned = set(re.findall(r"^\| `(?:-\w, )?(--[a-z-]+)", SECTIONS[command], re.MULTILINE))
    assert mentioned <= options(command)
