"""The option ``--input NAME=FILE.npy``: arrays for inputs of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def input_option(help_text: str) -> Callable[[Any], Any]:
    """Return the option, which may be repeated, as a decorator."""
    return click.option("--input", "inputs", metavar="NAME=FILE.npy", multiple=True, help=help_text)


def read_inputs(given: tuple[str, ...]) -> dict[str, Any]:
    """Return an array for each ``NAME=FILE.npy``.

    Raises:
        UsageError: not of that form, or no array in the file.
    """
    from onnx_gradcam.arrays import read_array
    from onnx_gradcam.errors import UsageError

    arrays = {}
    for text in given:
        name, separator, file = text.rpartition("=")
        if not separator or not name:
            raise UsageError(f"--input {text!r} is not NAME=FILE.npy")
        arrays[name] = read_array(Path(file))
    return arrays
