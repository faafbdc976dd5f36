"""Stand-ins for onnxruntime-training: wheels as small as they can be, in pure Python.

The worker imports the extension module by its name, so a Python module of that name serves.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

from onnx_gradcam.export.builders.wheels import BUILDER_VERSION, DISTRIBUTION, Wheel

TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"

ECHO = f"""
class GradientGraphBuilder:
    def __init__(self, model, outputs, inputs, loss):
        self.model = model
    def build(self):
        print("noise on stdout")
    def get_model(self):
        return self.model

def set_default_logger_severity(level):
    pass

def get_version_string():
    return "{BUILDER_VERSION}"
"""
"""An extension that returns the model as it came."""


def write_wheel(
    folder: Path, extension: str = ECHO, *, version: str = BUILDER_VERSION, tag: str = TAG
) -> Path:
    """Write a wheel of onnxruntime-training-cpu whose extension module is this source."""
    name = DISTRIBUTION.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    files = {
        "onnxruntime/capi/onnxruntime_pybind11_state.py": extension,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}-none-any\n",
    }
    record = "".join(f"{path},,{len(text.encode())}\n" for path, text in files.items())
    files[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    wheel = folder / f"{name}-{version}-{tag}-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def pin(wheel: Path) -> Wheel:
    """Return the row of the table of pinned wheels that this file would have."""
    return Wheel(wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest())


def unpack(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel as ``pip install --target`` does; return the folder."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
