"""The files that a model is measured with: the original, the exported, and that with the CAM.

Exporting is done by a process of its own, ``python -m tools.bench.files MODEL LAYER FOLDER``, so
that the driver stays small. It prints what it did as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench.protocol import ROOT
from tools.bench.subjects import Subject

EXPORTED, FUSED = "exported.onnx", "fused.onnx"


class FilesError(Exception):
    """A file could not be made; the message says why, and the way out."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model at one layer.

    Attributes:
        model: the original.
        folder: of the other two.
        target: name of the target tensor.
        builder: who built its gradient.
        shape: of one image, ``(C, H, W)``.
    """

    model: Path
    folder: Path
    target: str
    builder: str
    shape: tuple[int, ...]


def original(subject: Subject, folder: Path, peer_python: str | None) -> Path:
    """Return the ONNX file of a subject; of an architecture that is not there yet, make it.

    Raises:
        FilesError: it is not there, and there is nobody to make it.
    """
    if subject.file is not None:
        if not subject.file.exists():
            raise FilesError(f"{subject.file} is missing; run: python tools/make_models.py")
        return subject.file
    path = folder / f"{subject.name}.onnx"
    if not path.exists():
        if peer_python is None:
            raise FilesError(f"{path} is missing; --peer-python PYTHON with torch would make it")
        folder.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".part")
        code = (
            "import sys, pathlib; from tools.bench.torch_nets import write_onnx;"
            " write_onnx(sys.argv[1], pathlib.Path(sys.argv[2]))"
        )
        _run([peer_python, "-c", code, subject.name, str(staged)])
        staged.rename(path)
    return path


def export(model: Path, layer: str, folder: Path) -> ModelFiles:
    """Write both exported files.

    Raises:
        FilesError: the export refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tools.bench.files", str(model), layer, str(folder)]
    said = json.loads(_run(command).strip().splitlines()[-1])
    return ModelFiles(model, folder, said["target"], said["builder"], tuple(said["shape"]))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise FilesError(lines[-1])
    return done.stdout


def _export_here(model: Path, layer: str, folder: Path) -> dict[str, Any]:
    """Export a model twice, and return what `ModelFiles` says about it."""
    import onnx  # not above: the driver imports this module too

    import onnx_gradcam

    forms: dict[str, dict[str, Any]] = {
        EXPORTED: {},
        FUSED: {"fuse_cam": "gradcam", "outputs": "cam"},
    }
    for name, form in forms.items():
        report = onnx_gradcam.export_model(model, folder / name, layer=layer, verify=False, **form)
    (image, *_) = onnx.load(model, load_external_data=False).graph.input
    sizes = [d.dim_value or 224 for d in image.type.tensor_type.shape.dim]
    return {"target": report.target, "builder": report.builder, "shape": sizes[1:]}


if __name__ == "__main__":
    print(json.dumps(_export_here(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))))
