"""Installs the onnxruntime-training builder into a folder of its own.

In: a package index, or a wheel file. Out: the folder, whole, or none. Everything is put into a
temporary folder beside the place, tried there, and moved into place in one step, so a failure or
an interruption leaves what was there before.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from onnx_gradcam.errors import BuilderUnavailableError
from onnx_gradcam.export.builders.interpreter import (
    Interpreter,
    ask_interpreter,
    suggested_python,
)
from onnx_gradcam.export.builders.state import (
    ENVIRONMENT_VARIABLE,
    RECORD,
    BuilderStatus,
    builder_folder,
    inspect_builder,
)
from onnx_gradcam.export.builders.training_process import (
    WorkerError,
    isolation_flags,
    run_worker,
)
from onnx_gradcam.export.builders.wheels import (
    BUILDER_VERSION,
    DISTRIBUTION,
    Wheel,
    builder_wheels,
    requirements,
    supported_tags,
)


def install_builder(
    wheel: Path | None = None, python: Path | None = None, force: bool = False
) -> BuilderStatus:
    """Install onnxruntime-training-cpu 1.19.2, and numpy beside it for a Python without numpy.

    Args:
        wheel: a wheel that was downloaded before, for hosts without a package index; None lets
            the interpreter's pip fetch it. Either way its SHA-256 must be a pinned one.
        python: an interpreter that a wheel exists for (3.8 to 3.12); None is the running one.
        force: install again over one that is whole.

    Returns:
        The state of what is installed now; an installation that is whole is left as it is.

    Raises:
        BuilderUnavailableError: it cannot be installed, and what to do.
    """
    interpreter = ask_interpreter(Path(sys.executable) if python is None else python)
    _require_supported(interpreter)
    folder = _place(interpreter)
    state = inspect_builder(folder)
    if state.available and not force:
        return state
    _refuse_foreign(folder, state)
    with _staging(folder) as staging:
        source = _fill(staging, interpreter, wheel)
        record = {"python": str(interpreter.path), "python_tag": interpreter.tag, **source}
        (staging / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        _try_out(staging, interpreter, source["source"])
        _move_into_place(staging, folder)
    return inspect_builder(folder)


def _require_supported(interpreter: Interpreter) -> None:
    """Refuse a Python without a wheel.

    Raises:
        BuilderUnavailableError: naming one that has.
    """
    if interpreter.tag not in supported_tags():
        raise BuilderUnavailableError(
            f"{DISTRIBUTION} {BUILDER_VERSION} has no wheel for {interpreter.tag}"
            f" ({interpreter.path}), only for {', '.join(supported_tags())}; give it another"
            f" Python: onnx-gradcam setup-builder --python {suggested_python()}"
        )


def _place(interpreter: Interpreter) -> Path:
    """Return the folder to install to.

    Raises:
        BuilderUnavailableError: there is no home folder.
    """
    try:
        return builder_folder(interpreter.tag)
    except RuntimeError:
        raise BuilderUnavailableError(
            f"no home folder to install to; name a folder with {ENVIRONMENT_VARIABLE}"
        ) from None


def _refuse_foreign(folder: Path, state: BuilderStatus) -> None:
    """Refuse to replace a folder that is not a builder's.

    Raises:
        BuilderUnavailableError: naming the way out.
    """
    try:
        foreign = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise BuilderUnavailableError(_unwritable(folder, error)) from None
    if foreign and not state.version:
        raise BuilderUnavailableError(
            f"{folder} is not empty and holds no onnxruntime-training; remove it, or name another"
            f" folder with {ENVIRONMENT_VARIABLE}"
        )


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder`, gone at the end.

    Raises:
        BuilderUnavailableError: it cannot be written to.
    """
    staging: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".builder-", dir=folder.parent))
        staging.chmod(0o755)
        yield staging
    except OSError as error:
        raise BuilderUnavailableError(_unwritable(folder, error)) from None
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _unwritable(folder: Path, error: OSError) -> str:
    return (
        f"cannot install to {folder}: {error.strerror or error};"
        f" name another folder with {ENVIRONMENT_VARIABLE}"
    )


def _fill(staging: Path, interpreter: Interpreter, wheel: Path | None) -> dict[str, str]:
    """Put onnxruntime-training, and numpy where needed, into the folder; say where from."""
    numpy = not interpreter.has_numpy
    if wheel is None:
        _pip(staging, interpreter, requirements(interpreter.tag, builder=True, numpy=numpy))
        return {"source": "pip"}
    pinned = _check_wheel(wheel, interpreter)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(staging)
    if numpy:
        _pip(staging, interpreter, requirements(interpreter.tag, builder=False, numpy=True))
    return {"source": pinned.filename, "sha256": pinned.sha256}


def _check_wheel(path: Path, interpreter: Interpreter) -> Wheel:
    """Return which pinned wheel a file is, by its SHA-256.

    Raises:
        BuilderUnavailableError: it is none, or one for another Python; naming what is expected.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BuilderUnavailableError(f"--wheel {path}: {error.strerror}") from None
    fitting = builder_wheels(interpreter.tag)
    found = next((wheel for wheel in builder_wheels() if wheel.sha256 == digest), None)
    if found in fitting:
        return found
    what = f"is {found.filename}" if found else f"has SHA-256 {digest}"
    expected = ", ".join(f"{wheel.filename} ({wheel.sha256})" for wheel in fitting)
    raise BuilderUnavailableError(
        f"--wheel {path}: {what}; expected for {interpreter.tag} is one of {expected}"
    )


def _pip(staging: Path, interpreter: Interpreter, lines: str) -> None:
    """Let the interpreter's pip install pinned requirements into the folder.

    Raises:
        BuilderUnavailableError: there is no pip, or it failed.
    """
    if not interpreter.has_pip:
        raise BuilderUnavailableError(
            f"{interpreter.path} has no pip; run: {interpreter.path} -m ensurepip,"
            " or give a downloaded wheel: onnx-gradcam setup-builder --wheel FILE"
        )
    pinned = staging / "requirements.txt"
    pinned.write_text(lines, encoding="utf-8")
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"]
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check"]
    python = [str(interpreter.path), *isolation_flags(interpreter.path)]
    command = [*python, "-m", "pip", "install", *quiet, *options, "--target", str(staging)]
    done = subprocess.run(
        [*command, "-r", str(pinned)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    pinned.unlink()
    if done.returncode:
        raise BuilderUnavailableError(
            f"pip could not install {DISTRIBUTION} {BUILDER_VERSION} for {interpreter.tag} on"
            f" {interpreter.platform} ({_reason(done.stderr)}); without a package index give a"
            " downloaded wheel: onnx-gradcam setup-builder --wheel FILE"
        )


def _reason(stderr: str) -> str:
    """Return the first error line of pip, which names the cause."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines[-1:] or ["no reason given"])[0][:300].rstrip(".:")


def _try_out(staging: Path, interpreter: Interpreter, source: str) -> None:
    """Load what was installed from `source`.

    Raises:
        BuilderUnavailableError: it cannot be loaded.
    """
    try:
        response = run_worker(staging, interpreter.path, {}, timeout=120.0)
        failure = "" if response.ok else response.error
    except WorkerError as error:
        failure = str(error)
    if failure:
        raise BuilderUnavailableError(
            f"{DISTRIBUTION} {BUILDER_VERSION} ({source}) does not load on {interpreter.platform}"
            f" in {interpreter.path} ({' '.join(failure.split())[:300]}); export with"
            " --gradient-builder reverse, which needs nothing installed"
        )


def _move_into_place(staging: Path, folder: Path) -> None:
    """Rename the finished folder into place; put back what was there if that fails.

    Raises:
        OSError: the folder cannot be renamed.
    """
    old = staging.with_name(staging.name + ".old")
    if folder.exists():
        folder.rename(old)
    try:
        staging.rename(folder)
    except OSError:
        with suppress(OSError):
            old.rename(folder)
        raise
    finally:
        if old.exists() and folder.exists():
            shutil.rmtree(old, ignore_errors=True)
