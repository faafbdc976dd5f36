"""What a Python interpreter is: its tag, and whether it has numpy and pip.

In: the path of an interpreter. Out: `Interpreter`, or an error that says what is wrong with it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from onnx_gradcam.errors import BuilderUnavailableError
from onnx_gradcam.export.builders.training_process import isolation_flags
from onnx_gradcam.export.builders.wheels import supported_tags

_QUESTION = """
import importlib.util, json, platform, sys
name = "cp" if platform.python_implementation() == "CPython" else platform.python_implementation()
print(json.dumps({
    "tag": name + "%d%d" % sys.version_info[:2],
    "platform": sys.platform + " " + platform.machine(),
    "has_numpy": importlib.util.find_spec("numpy") is not None,
    "has_pip": importlib.util.find_spec("pip") is not None,
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter.

    Attributes:
        path: the executable, absolute.
        tag: such as ``cp311``.
        platform: such as ``linux x86_64``.
        has_numpy: whether it can import numpy.
        has_pip: whether it can run pip.
    """

    path: Path
    tag: str
    platform: str
    has_numpy: bool
    has_pip: bool


def current_tag() -> str:
    """Return the tag of the Python that runs this, such as ``cp311``."""
    name = "cp" if sys.implementation.name == "cpython" else sys.implementation.name
    return f"{name}{sys.version_info.major}{sys.version_info.minor}"


def ask_interpreter(python: Path) -> Interpreter:
    """Ask an interpreter what it is.

    Args:
        python: path of the executable, or a command on the PATH.

    Raises:
        BuilderUnavailableError: it cannot be started, or is no Python 3.
    """
    found = shutil.which(str(python))
    if found is None:
        raise BuilderUnavailableError(f"--python {python}: no such executable")
    # Not resolved: a virtual environment's python is a link, and its packages hang on the link.
    path = Path(found).absolute()
    try:
        answer = subprocess.run(
            [str(path), *isolation_flags(path), "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return Interpreter(path=path, **json.loads(answer.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        raise BuilderUnavailableError(
            f"--python {python}: does not answer like a Python 3 interpreter"
        ) from None


def suggested_python() -> str:
    """Return the newest Python on the PATH that has a wheel, else ``python3.12``."""
    names = [f"python3.{tag.removeprefix('cp3')}" for tag in reversed(supported_tags())]
    return next((name for name in names if shutil.which(name)), names[0])
