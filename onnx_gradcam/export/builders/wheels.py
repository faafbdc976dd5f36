"""The pinned wheels of the onnxruntime-training builder: `wheels.txt`, read.

In: nothing. Out: which wheels fit a Python, their SHA-256, and the requirements pip is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BUILDER_VERSION = "1.19.2"
"""The last release of onnxruntime-training; its v1.20.0 release notes say so."""

DISTRIBUTION = "onnxruntime-training-cpu"

_TABLE = Path(__file__).with_name("wheels.txt")


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel.

    Attributes:
        filename: its name, as in the package index.
        sha256: its SHA-256, hex.
    """

    filename: str
    sha256: str

    @property
    def distribution(self) -> str:
        """Name of the project, with dashes."""
        return self.filename.split("-")[0].replace("_", "-")

    @property
    def version(self) -> str:
        """Version of the project."""
        return self.filename.split("-")[1]

    @property
    def python_tag(self) -> str:
        """The Python it is for, such as ``cp311``."""
        return self.filename.split("-")[2]


@cache
def pinned_wheels() -> tuple[Wheel, ...]:
    """Return every pinned wheel, in the order of the table: by Python, then by platform."""
    lines = _TABLE.read_text(encoding="utf-8").splitlines()
    return tuple(Wheel(*line.split()) for line in lines if line and not line.startswith("#"))


def builder_wheels(python_tag: str | None = None) -> tuple[Wheel, ...]:
    """Return the wheels of onnxruntime-training, of one Python (``cp311``) or of all."""
    return _wheels(DISTRIBUTION, python_tag)


def supported_tags() -> tuple[str, ...]:
    """Return the Pythons that have a wheel, oldest first: ``cp38`` and so on."""
    return tuple(dict.fromkeys(wheel.python_tag for wheel in builder_wheels()))


def requirements(python_tag: str, *, builder: bool, numpy: bool) -> str:
    """Return a requirements file with hashes for pip.

    Args:
        python_tag: the Python that installs, such as ``cp311``.
        builder: whether to name onnxruntime-training.
        numpy: whether to name numpy, which its extension module needs.
    """
    wanted: Mapping[str, bool] = {DISTRIBUTION: builder, "numpy": numpy}
    lines = []
    for distribution in (name for name, asked in wanted.items() if asked):
        wheels = _wheels(distribution, python_tag)
        hashes = " ".join(f"--hash=sha256:{wheel.sha256}" for wheel in wheels)
        lines.append(f"{distribution}=={wheels[0].version} {hashes}\n")
    return "".join(lines)


def _wheels(distribution: str, python_tag: str | None) -> tuple[Wheel, ...]:
    return tuple(
        wheel
        for wheel in pinned_wheels()
        if wheel.distribution == distribution and python_tag in {None, wheel.python_tag}
    )
