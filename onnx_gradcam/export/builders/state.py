r"""Where the onnxruntime-training builder lives, and whether it can be used.

onnxruntime-training shares its import name with onnxruntime, so it gets a folder of its own, which
only the worker process puts on its path:

- the folder that the environment variable ``ONNX_GRADCAM_BUILDER`` names, when it is set: what
  ``onnx-gradcam setup-builder`` or ``pip install --no-deps --target FOLDER
  onnxruntime-training-cpu==1.19.2`` made;
- else ``builder-1.19.2-cp311`` (the version, the Python it is for) in the user's data folder:
  ``$XDG_DATA_HOME/onnx_gradcam`` (``~/.local/share/onnx_gradcam``) on Linux,
  ``~/Library/Application Support/onnx_gradcam`` on macOS, ``%LOCALAPPDATA%\onnx_gradcam`` on
  Windows. One made for another Python is used too, run by the Python that it was made with.

In: the file system. Out: `BuilderStatus`. Nothing is imported or started to find out.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from onnx_gradcam.export.builders.interpreter import current_tag, suggested_python
from onnx_gradcam.export.builders.wheels import BUILDER_VERSION, DISTRIBUTION, supported_tags

ENVIRONMENT_VARIABLE = "ONNX_GRADCAM_BUILDER"
RECORD = "onnx_gradcam_builder.json"
"""File in the builder's folder that records the Python it was installed with."""

_SETUP = "onnx-gradcam setup-builder"
_EXTENSION_FOLDER = "onnxruntime/capi/"


@dataclass(frozen=True)
class BuilderStatus:
    """State of the onnxruntime-training builder.

    Attributes:
        available: whether it is there and whole, of the right version, with a Python to run it.
        version: its version as installed; empty when there is none.
        path: the folder it is in, or would be installed to; None when no folder can be named.
        python: the interpreter that runs it; None when there is none.
        problem: what is wrong, one line; empty when available.
        fix: what to do about it, one line; empty when available.
    """

    available: bool
    version: str
    path: Path | None
    python: Path | None
    problem: str = ""
    fix: str = ""

    def to_dict(self) -> dict[str, bool | str | None]:
        """Return it with JSON values."""
        return {
            "available": self.available,
            "version": self.version,
            "path": str(self.path) if self.path else None,
            "python": str(self.python) if self.python else None,
            "problem": self.problem,
            "fix": self.fix,
        }


def builder_status() -> BuilderStatus:
    """Return the state of the builder that an export would use.

    Without ``ONNX_GRADCAM_BUILDER``, the first usable one of the user's data folder, the one for
    this Python before those for others.
    """
    override = os.environ.get(ENVIRONMENT_VARIABLE)
    if override:
        return inspect_builder(Path(override).expanduser().absolute())
    try:
        folders = _default_folders()
    except RuntimeError:
        problem = "no home folder, so there is no place for the onnxruntime-training builder"
        fix = f"name a folder with the environment variable {ENVIRONMENT_VARIABLE}"
        return BuilderStatus(False, "", None, None, problem, fix)
    states = [inspect_builder(folder) for folder in folders]
    usable = (state for state in states if state.available)
    broken = (state for state in states if state.version)
    return next(usable, None) or next(broken, None) or states[0]


def builder_folder(python_tag: str) -> Path:
    """Return the folder to install to, for the Python of this tag.

    Raises:
        RuntimeError: the user has no home folder, and no environment variable names one.
    """
    override = os.environ.get(ENVIRONMENT_VARIABLE)
    if override:
        return Path(override).expanduser().absolute()
    return _data_folder() / f"builder-{BUILDER_VERSION}-{python_tag}"


def inspect_builder(folder: Path) -> BuilderStatus:
    """Return the state of the builder in one folder."""
    setup = f"run: {_setup_command(None)}"
    distribution = _training_distribution(folder)
    if distribution is None:
        problem = (
            f"{folder} holds no onnxruntime-training"
            if folder.is_dir()
            else f"onnxruntime-training is not installed (no folder {folder})"
        )
        return BuilderStatus(False, "", folder, None, problem, setup)
    version = distribution.version
    if version.split("+")[0] != BUILDER_VERSION:
        problem = f"{folder} holds onnxruntime-training {version}, not {BUILDER_VERSION}"
        return BuilderStatus(False, version, folder, None, problem, f"{setup} --force")
    missing = _missing_file(distribution, folder)
    if missing:
        problem = f"onnxruntime-training in {folder} is damaged: {missing}"
        return BuilderStatus(False, version, folder, None, problem, f"{setup} --force")
    return _with_interpreter(distribution, folder)


def _with_interpreter(distribution: Distribution, folder: Path) -> BuilderStatus:
    """Return the state of a whole builder: does the Python that it is for exist?"""
    version, tags, recorded = distribution.version, _tags(distribution), _recorded_python(folder)
    if not tags or current_tag() in tags:
        return BuilderStatus(True, version, folder, Path(sys.executable))
    if recorded is None:
        problem = (
            f"onnxruntime-training in {folder} is for {tags[0]}, this Python is {current_tag()}"
        )
        return BuilderStatus(
            False, version, folder, None, problem, f"run: {_setup_command(tags[0])} --force"
        )
    if not os.access(recorded, os.X_OK) or recorded.is_dir():
        problem = f"{recorded}, the Python that runs onnxruntime-training in {folder}, is gone"
        return BuilderStatus(
            False, version, folder, None, problem, f"run: {_setup_command(tags[0])} --force"
        )
    return BuilderStatus(True, version, folder, recorded)


def _setup_command(python_tag: str | None) -> str:
    """Return the command that installs a builder, for this Python or another one."""
    if python_tag is None and current_tag() in supported_tags():
        return _SETUP
    name = f"python3.{python_tag.removeprefix('cp3')}" if python_tag else suggested_python()
    return f"{_SETUP} --python {name}"


def _default_folders() -> list[Path]:
    own = builder_folder(current_tag())
    prefix = f"builder-{BUILDER_VERSION}-"
    others = [own.with_name(prefix + tag) for tag in reversed(supported_tags())]
    return [own, *(folder for folder in others if folder != own and folder.is_dir())]


def _data_folder() -> Path:
    """Return the user's data folder for this package."""
    given = os.environ.get("XDG_DATA_HOME", "")
    if given and Path(given).is_absolute():
        return Path(given) / "onnx_gradcam"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "onnx_gradcam"
    local = os.environ.get("LOCALAPPDATA")
    if sys.platform == "win32" and local:
        return Path(local) / "onnx_gradcam"
    return Path.home() / ".local" / "share" / "onnx_gradcam"


def _training_distribution(folder: Path) -> Distribution | None:
    """Return the onnxruntime-training that is installed in a folder, whatever its version."""
    names = {DISTRIBUTION, DISTRIBUTION.removesuffix("-cpu")}
    found = distributions(path=[str(folder)]) if folder.is_dir() else ()
    return next((d for d in found if d.metadata["Name"] in names and d.metadata["Version"]), None)


def _tags(distribution: Distribution) -> list[str]:
    """Return the Pythons that an installed wheel is for, from its WHEEL file."""
    lines = (distribution.read_text("WHEEL") or "").splitlines()
    return [line.split(":")[1].strip().split("-")[0] for line in lines if line.startswith("Tag:")]


def _missing_file(distribution: Distribution, folder: Path) -> str:
    """Return which file of the extension is missing or of the wrong size; empty when none."""
    recorded = {
        file.as_posix(): file.size
        for file in distribution.files or ()
        if file.as_posix().startswith(_EXTENSION_FOLDER) and file.size is not None
    }
    if not any("onnxruntime_pybind11_state" in name for name in recorded):
        return "its extension module is not on record"
    for name, size in recorded.items():
        try:
            actual = (folder / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if actual != size:
            return f"{name} has {actual} bytes instead of {size}"
    return ""


def _recorded_python(folder: Path) -> Path | None:
    """Return the interpreter that the folder was installed with, as recorded."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return Path(record["python"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
