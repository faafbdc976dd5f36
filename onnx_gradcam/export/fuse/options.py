"""Which CAM is computed in the graph: the options of the export, checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnx_gradcam.cam import get_method
from onnx_gradcam.errors import UsageError
from onnx_gradcam.export.fuse.methods import FUSABLE

MAP, INPUT = "map", "input"
"""Sizes by name: that of the target layer, and that of the image."""

ALL, CAM = "all", "cam"
"""Which outputs a file has beside the CAM: A and G as well, or not."""

Size = str | tuple[int, ...]


@dataclass(frozen=True)
class Fusion:
    """A CAM in the graph.

    Attributes:
        method: its name, one of `FUSABLE`.
        size: ``map``, ``input``, or extents, one per spatial axis.
        normalise: whether it is stretched to [0, 1], with its scale as another output.
        alone: whether A and G are no outputs.
    """

    method: str
    size: Size = MAP
    normalise: bool = False
    alone: bool = False

    @classmethod
    def parse(
        cls,
        method: str | None,
        size: str | Sequence[int] = MAP,
        normalise: bool = False,
        outputs: str = ALL,
        *,
        further: bool = False,
    ) -> Fusion | None:
        """Return what the options ask for, None where nothing is to be fused.

        Args:
            method: name of a CAM method, or None.
            size: ``map``, ``input``, ``HxW`` or extents.
            normalise: stretch to [0, 1].
            outputs: ``all`` or ``cam``.
            further: whether an output is asked for that goes with A alone.

        Raises:
            UsageError: an unknown method, one that cannot be fused, a size or choice of outputs
                that is none, or options that go with a method alone.
        """
        if outputs not in {ALL, CAM}:
            raise UsageError(f"outputs {outputs!r} is none of {ALL}, {CAM}")
        sizes = _parse_size(size)
        if method is None:
            given = {
                "cam_size": sizes != MAP,
                "cam_normalise": normalise,
                "outputs": outputs == CAM,
            }
            if any(given.values()):
                name = next(name for name, is_given in given.items() if is_given)
                raise UsageError(f"{name} is about a CAM in the graph; name its method: fuse_cam")
            return None
        if get_method(method).name not in FUSABLE:
            raise UsageError(
                f"CAM method {method!r} cannot be computed in the graph; fuse_cam takes"
                f" {', '.join(FUSABLE)} (others: explain with --method)"
            )
        if further and outputs == CAM:
            raise UsageError(
                "second_order and full_gradient go with activations, which outputs 'cam' leaves out"
            )
        return cls(method, sizes, normalise, outputs == CAM)

    def to_dict(self) -> dict[str, Any]:
        """Return what the metadata says of it."""
        size = self.size if isinstance(self.size, str) else list(self.size)
        return {"method": self.method, "size": size, "normalised": self.normalise}

    def __str__(self) -> str:
        """Return one phrase for reports."""
        named = {MAP: "at the size of the layer", INPUT: "at the size of the image"}
        size = self.size if isinstance(self.size, str) else "x".join(map(str, self.size))
        parts = [f"{self.method} in the graph", named.get(size, f"at {size}")]
        parts += ["normalised"] * self.normalise + ["no activations and gradients"] * self.alone
        return ", ".join(parts)


def _parse_size(size: str | Sequence[int]) -> Size:
    """Return a size by name, or extents.

    Raises:
        UsageError: it is neither.
    """
    if size in {MAP, INPUT}:
        return str(size)
    if isinstance(size, str):
        extents = [int(n) for n in size.split("x")] if re.fullmatch(r"\d+(x\d+)*", size) else []
    else:
        extents = [n for n in size if isinstance(n, int)] if len(size) <= 3 else []
    if not 1 <= len(extents) <= 3 or min(extents) < 1 or len(extents) != _count(size):
        raise UsageError(f"CAM size {size!r} is none of {MAP}, {INPUT}, HxW")
    return tuple(extents)


def _count(size: str | Sequence[int]) -> int:
    return len(size.split("x")) if isinstance(size, str) else len(size)
