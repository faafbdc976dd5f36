"""Writes tests/attention/references.npz: small vision transformers, their rollout and LeGrad.

The tests compare the exported files with these arrays, so that they need no torch. Environment:
Python 3.11, torch 2.13.0 (CPU), onnx and onnxscript::

    pip install torch==2.13.0 onnx onnxscript
    PYTHONPATH=. python tools/make_attention_references.py

Per case ``{case}/model``, ONNX by one of PyTorch's two exporters, and what PyTorch says of it in
float64: ``{case}/image``, ``{case}/classes``, ``{case}/rollout``, ``{case}/legrad``.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch

from tools.attention_oracle import CLASSES, SHAPE, Transformer, legrad, rollout, transformer

OUTPUT = Path(__file__).resolve().parents[1] / "tests" / "attention" / "references.npz"
CASES = {
    "class_legacy": ("class", "products", 17),
    "class_old": ("class", "products", 13),
    "class_dynamo": ("class", "fused", 18),
    "class_operator": ("class", "fused", 23),
    "class_joined": ("class", "torch", 17),
    "distilled_dynamo": ("distilled", "fused", 18),
    "mean_legacy": ("mean", "products", 17),
    "mean_operator": ("mean", "fused", 23),
    "post_legacy": ("post", "torch", 17),
    "post_dynamo": ("post", "fused", 18),
    "pooled_legacy": ("pooled", "products", 17),
    "pooled_dynamo": ("pooled", "fused", 18),
}
"""Case -> kind and attention layer of the transformer, opset; from 18 on by the newer exporter."""


def main() -> None:
    """Write the file."""
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for case, (kind, layer, opset) in CASES.items():
        model = transformer(kind, layer)
        image = torch.randn(SHAPE, generator=torch.Generator().manual_seed(len(case)))
        exported = export(model, image, opset)
        arrays[f"{case}/model"] = np.frombuffer(exported, np.uint8)
        classes = [len(case) % CLASSES, (len(case) + 2) % CLASSES]
        precise = model.double()
        arrays[f"{case}/image"] = image.numpy()
        arrays[f"{case}/classes"] = np.array(classes)
        arrays[f"{case}/rollout"] = rollout(precise, image.double()).detach().numpy()
        arrays[f"{case}/legrad"] = legrad(precise, image.double(), classes).detach().numpy()
    np.savez_compressed(OUTPUT, allow_pickle=False, **arrays)


def export(model: Transformer, image: torch.Tensor, opset: int) -> bytes:
    """Return the model as ONNX with a free batch size, without what names files and modules."""
    newer = opset >= 18
    axes: dict[str, Any] = (
        {"dynamic_shapes": ({0: torch.export.Dim("N")},)}
        if newer
        else {"dynamic_axes": {"image": {0: "N"}, "logits": {0: "N"}}}
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            (image,),
            str(path),
            dynamo=newer,
            opset_version=opset,
            input_names=["image"],
            output_names=["logits"],
            **axes,
        )
        proto = onnx.load(path)
    graph = proto.graph
    for thing in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        thing.doc_string = ""
        del thing.metadata_props[:]
    del proto.metadata_props[:], graph.metadata_props[:]
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


if __name__ == "__main__":
    main()
