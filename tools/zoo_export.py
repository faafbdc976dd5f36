"""The ONNX files of the zoo: one network through both exporters of PyTorch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

INPUT = "image"
EXPORTERS = ("legacy", "dynamo")
"""``torch.onnx.export(dynamo=False)`` at opset 17 and ``dynamo=True`` at opset 18."""

UNFOLDED = {"dynamo": "dynamo-unfolded"}
"""Exporter -> the same without the optimisation that folds batch norms, which rounds weights."""

_OPSETS = {"legacy": (17, 18), "dynamo": (18,), "dynamo-unfolded": (18,)}  # Col2Im came with 18


def file_of(folder: Path, stem: str, exporter: str) -> Path:
    """Return where the file of an exporter stands."""
    return folder / f"{stem}.{exporter}.onnx"


def export_network(model: nn.Module, images: torch.Tensor, path: Path, exporter: str) -> None:
    """Write the network as ONNX with a free batch size, or with that of `images` where it must be.

    Raises:
        RuntimeError: the exporter refuses the network.
    """
    problems = []
    for fused, opset, free_batch in product((True, False), _OPSETS[exporter], (True, False)):
        if not fused and not _unfuse(model):
            break
        try:
            _WRITERS[exporter](model, images, path, opset, free_batch)
        except Exception as error:  # exporters raise anything
            problems.append(f"{type(error).__name__}: {_summary(error)}")
            path.unlink(missing_ok=True)
        else:
            return
    raise RuntimeError(problems[-1])


def load_exporters(exporters: Iterable[str]) -> None:
    """Have the exporters import all that they need, before processes are forked."""
    with tempfile.TemporaryDirectory() as folder:
        for exporter in exporters:
            path = Path(folder) / f"{exporter}.onnx"
            export_network(nn.Conv2d(3, 1, 1).eval(), torch.zeros(2, 3, 4, 4), path, exporter)


def _unfuse(model: nn.Module) -> bool:
    """Have the attention of timm written as products and a softmax, if there is any."""
    found = [m for m in model.modules() if hasattr(m, "fused_attn")]
    for module in found:
        module.fused_attn = False
    return bool(found)


def _write_legacy(
    model: nn.Module, images: torch.Tensor, path: Path, opset: int, free_batch: bool
) -> None:
    torch.onnx.export(
        model,
        (images,),
        str(path),
        dynamo=False,
        opset_version=opset,
        training=torch.onnx.TrainingMode.PRESERVE,  # keeps the weights as they are
        dynamic_axes={INPUT: {0: "N"}, "logits": {0: "N"}} if free_batch else None,
        input_names=[INPUT],
        output_names=["logits"],
    )


def _write_dynamo(
    model: nn.Module, images: torch.Tensor, path: Path, opset: int, free_batch: bool
) -> None:
    _dynamo_program(model, images, opset, free_batch, optimize=True).save(str(path))


def _write_unfolded(
    model: nn.Module, images: torch.Tensor, path: Path, opset: int, free_batch: bool
) -> None:
    """Fold constants, without the rewriting that folds batch norms."""
    program = _dynamo_program(model, images, opset, free_batch, optimize=False)
    import_module("onnxscript.optimizer").fold_constants(program.model)
    program.save(str(path))


def _dynamo_program(
    model: nn.Module, images: torch.Tensor, opset: int, free_batch: bool, optimize: bool
) -> Any:
    return torch.onnx.export(
        model,
        (images,),
        dynamo=True,
        opset_version=opset,
        dynamic_shapes=({0: torch.export.Dim("N")},) if free_batch else None,
        verbose=False,
        optimize=optimize,
        input_names=[INPUT],
        output_names=["logits"],
    )


_WRITERS: dict[str, Callable[[nn.Module, torch.Tensor, Path, int, bool], None]] = {
    "legacy": _write_legacy,
    "dynamo": _write_dynamo,
    "dynamo-unfolded": _write_unfolded,
}


def _summary(error: Exception) -> str:
    """Return the line of a long message that says what went wrong: mostly that of the cause."""
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(cause).__name__
