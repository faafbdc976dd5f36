"""Arrays from .npy files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_gradcam.errors import UsageError

SUFFIX = ".npy"


def read_array(path: Path) -> NDArray[Any]:
    """Return the array in a .npy file.

    Raises:
        UsageError: no such file, or no array of numbers in it.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UsageError(f"cannot read array {path}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise UsageError(f"{path}: no array in NumPy's format, or a damaged one") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise UsageError(f"{path} holds several arrays (.npz); give one as .npy")
    return array
