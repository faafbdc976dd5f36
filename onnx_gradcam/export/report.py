"""What an export did, for people and for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnx_gradcam.export.score import format_shape
from onnx_gradcam.export.verification.verify import VerificationReport
from onnx_gradcam.gradients.emitter import Dim


@dataclass(frozen=True)
class LayerReport:
    """A target layer behind the first one: its tensor, why this one, and its shape as a map."""

    target: str
    target_reason: str
    target_shape: tuple[Dim, ...]


@dataclass(frozen=True)
class ExportReport:
    """What `export_model` wrote.

    Attributes:
        output: the exported file.
        builder: ``onnxruntime-training`` or ``reverse``.
        builder_version: its version.
        builder_reason: why this builder.
        target: tensor A.
        target_reason: why this layer.
        target_shape: shape of A, ``(N, C, *spatial)``.
        score: tensor y, the score before softmax.
        num_classes: number of classes K.
        opset: opset of the default domain, that of the model.
        nodes_added: number of nodes after the original ones.
        bytes_written: size of the file(s) in bytes.
        verification: what was checked, None with ``verify=False``.
        warnings: one line each.
        fused: the CAM in the graph, in words; empty without one.
        further_layers: the target layers behind the first one.
        triton: the folder in a Triton model repository, in words; empty without one.
    """

    output: Path
    builder: str
    builder_version: str
    builder_reason: str
    target: str
    target_reason: str
    target_shape: tuple[Dim, ...]
    score: str
    num_classes: int
    opset: int
    nodes_added: int
    bytes_written: int
    verification: VerificationReport | None
    warnings: tuple[str, ...] = ()
    fused: str = ""
    further_layers: tuple[LayerReport, ...] = ()
    triton: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        values = asdict(self)
        values["output"] = str(self.output)
        values["target_shape"] = list(self.target_shape)
        values["warnings"] = list(self.warnings)
        values["further_layers"] = [
            asdict(layer) | {"target_shape": list(layer.target_shape)}
            for layer in self.further_layers
        ]
        values["verification"] = None if self.verification is None else self.verification.to_dict()
        return values

    def summary(self) -> str:
        """Return a few lines of text."""
        shape = format_shape(self.target_shape)
        rows = [
            (
                "wrote",
                f"{self.output} ({self.bytes_written / 1e6:.1f} MB, {self.nodes_added} nodes added,"
                f" opset {self.opset})",
            ),
            ("layer", f"{self.target} {shape}: {self.target_reason}"),
            *(
                (
                    f"layer {number}",
                    f"{layer.target} {format_shape(layer.target_shape)}: {layer.target_reason}",
                )
                for number, layer in enumerate(self.further_layers, 2)
            ),
            ("score", f"{self.score}, {self.num_classes} classes"),
            ("gradient", f"{self.builder} {self.builder_version}: {self.builder_reason}"),
            *([("cam", self.fused)] if self.fused else []),
            *([("triton", self.triton)] if self.triton else []),
            *(("warning", text) for text in self.warnings),
        ]
        lines = [f"{name:9} {text}" for name, text in rows]
        if self.verification is None:
            return "\n".join([*lines, "verified  no (--no-verify)"])
        lines += ["verified", *(f"  {x}" for x in self.verification.summary().splitlines())]
        return "\n".join(lines)
