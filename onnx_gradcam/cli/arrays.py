"""Arrays and numbers on the command line: inputs, weights, masks, embeddings, settings."""

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


def read_weights(given: tuple[str, ...]) -> dict[str, float] | None:
    """Return a number for each ``CLASS=W``; None for none.

    Raises:
        UsageError: not of that form.
    """
    from onnx_gradcam.errors import UsageError

    weights = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            weights[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f"--weight {text!r} is not CLASS=NUMBER")
    return weights or None


def read_mask(file: Path | None) -> Any:
    """Return an array from a .npy file, or a picture as 1 where it is light and 0 where dark.

    Raises:
        UsageError: neither.
    """
    from onnx_gradcam.arrays import SUFFIX, read_array

    if file is None or file.suffix == SUFFIX:
        return None if file is None else read_array(file)
    from onnx_gradcam.errors import ImageError, UsageError
    from onnx_gradcam.runtime import read_photo

    try:
        pixels = read_photo(file)
    except ImageError as error:
        raise UsageError(f"--mask: {error}") from error
    return (pixels.mean(axis=2) > 127).astype("float32")


def read_vectors(file: Path | None) -> Any:
    """Return the array of a .npy file; None for none."""
    from onnx_gradcam.arrays import read_array

    return None if file is None else read_array(file)


def read_settings(given: tuple[str, ...]) -> dict[str, Any]:
    """Return the value of each ``NAME=VALUE``: a number, or several with commas between.

    Raises:
        UsageError: not of that form.
    """
    from onnx_gradcam.errors import UsageError

    settings: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            numbers = [int(v) if v.strip().isdecimal() else float(v) for v in value.split(",")]
        except ValueError:
            numbers = []
        if not name or not numbers:
            raise UsageError(f"--set {text!r} is not NAME=NUMBER")
        settings[name] = numbers[0] if len(numbers) == 1 else numbers
    return settings
