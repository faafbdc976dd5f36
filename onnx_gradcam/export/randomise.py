"""Randomise a model's layers, the last one first: a model in, models that have unlearned it out.

For the model randomisation sanity check of Adebayo et al., arXiv:1810.03292: each stage keeps the
layers randomised before it (cascading). A tensor is randomised by a permutation of its own values,
all channels together, rather than by a draw from its initial distribution, which a file does not
tell: scale, sign balance and type stay, variances stay positive, quantized weights stay in range.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_gradcam.errors import UnsupportedModelError, UsageError
from onnx_gradcam.export.files.external_data import with_values
from onnx_gradcam.export.files.model_file import MESSAGE_LIMIT, LoadedModel, load_model
from onnx_gradcam.export.pipeline import export_model

WEIGHTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "ConvInteger": (1,),
    "QLinearConv": (3, 8),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3),
    "QGemm": (3, 6),
    "FusedMatMul": (0, 1),
    "FusedConv": (1, 2),
    "BatchNormalization": (1, 2, 3, 4),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
    "SkipLayerNormalization": (2, 3, 4),
    "PRelu": (1,),
    "Add": (0, 1),
    "Mul": (0, 1),
    "RNN": (1, 2, 3),
    "GRU": (1, 2, 3),
    "LSTM": (1, 2, 3),
}
"""Operator -> inputs that hold learned values where they are stored tensors of several values.

Add and Mul: biases, scales and position embeddings. Constants of one value, such as the sqrt(2) of
GELU, are left alone as any tensor of one value is."""

FLOATS_ONLY = {"Add", "Mul"}
"""Operators that compute shapes as well: their integers are no weights."""

FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
}

PASSED_THROUGH = {"Identity", "Cast", "DequantizeLinear", "Transpose", "Reshape", "Unsqueeze"}
"""Operators between a stored tensor and the one that uses it: the first input is followed."""

KERNELS = {"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "Gemm", "QGemm"} | {
    "MatMul",
    "MatMulInteger",
    "QLinearMatMul",
    "FusedMatMul",
    "RNN",
    "GRU",
    "LSTM",
}
"""Operators that begin a layer; the others belong to the layer whose output they work on."""


@dataclass(frozen=True)
class _Layer:
    """A node with a kernel and what follows it: its name, and its stored tensors."""

    name: str
    tensors: list[onnx.TensorProto]


def randomised_models(
    model: str | Path | bytes | onnx.ModelProto, *, stages: int | None = None, seed: int = 0
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield the model with more and more of its layers randomised, the last layer first.

    Args:
        model: path, bytes or `onnx.ModelProto`; left as it is.
        stages: how many models, evenly spread over the layers, the last with all randomised; None
            for one per layer.
        seed: of the permutations.

    Yields:
        the name of the layer that was reached, and the model: one object, changed between the
        yields.

    Raises:
        UsageError: `stages` is below one, or the model cannot be read.
        UnsupportedModelError: no layer with stored weights, or weights of more than 2 GB.
    """
    if stages is not None and stages < 1:
        raise UsageError(f"{stages} stages: at least one model has to be randomised")
    changed = _with_values(load_model(model))
    layers = _layers(changed.graph)
    if not layers:
        raise UnsupportedModelError("the model stores no weights that could be randomised")
    wanted = min(stages or len(layers), len(layers))
    shown = {round((stage + 1) * len(layers) / wanted) for stage in range(wanted)}
    random = np.random.default_rng(seed)
    for count, layer in enumerate(reversed(layers), start=1):
        for tensor in layer.tensors:
            _permute(tensor, random)
        if count in shown:
            yield layer.name, changed


def export_randomised(
    model: str | Path | bytes | onnx.ModelProto,
    folder: Path,
    *,
    stages: int | None = None,
    seed: int = 0,
    **options: Any,
) -> list[Path]:
    """Export the randomised models, and return the files in their order.

    Args:
        model: path, bytes or `onnx.ModelProto` of the model that was exported.
        folder: where the files go; it must exist.
        stages: see `randomised_models`.
        seed: see `randomised_models`.
        options: for `export_model`; the same as for the model itself, the layer by its name.

    Returns:
        files such as ``01-fc.cam.onnx``; the last has all layers randomised.

    Raises:
        OnnxGradCamError: what `randomised_models` and `export_model` raise.
    """
    files = []
    found = randomised_models(model, stages=stages, seed=seed)
    for number, (name, changed) in enumerate(found, start=1):
        stem = re.sub(r"[^\w.-]+", "_", name).strip("_.")[-80:]
        file = folder / f"{number:02}-{stem}.cam.onnx"
        export_model(changed.SerializeToString(), file, **{"verify": False, **options})
        files.append(file)
    return files


def _with_values(loaded: LoadedModel) -> onnx.ModelProto:
    """Return a copy with all values in it.

    Raises:
        UnsupportedModelError: it would be larger than a message may be.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(loaded.model)
    for tensor in changed.graph.initializer:
        if loaded.has_external_data:
            tensor.CopyFrom(with_values(tensor, loaded.base_dir))
    if changed.ByteSize() > MESSAGE_LIMIT:
        raise UnsupportedModelError("weights of more than 2 GB cannot be randomised")
    return changed


def _layers(graph: onnx.GraphProto) -> list[_Layer]:
    """Return the layers in graph order; a tensor that several use belongs to the last of them."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            stored[node.output[0]] = node.attribute[0].t
    sources = {node.output[0]: node for node in graph.node if node.op_type in PASSED_THROUGH}
    layers: list[_Layer] = []
    taken: set[str] = set()
    nodes = [node for node in graph.node if node.op_type in WEIGHTS]
    owner = {
        name: index
        for index, node in enumerate(nodes)
        for name in _stored_inputs(node, stored, sources)
    }
    for index, node in enumerate(nodes):
        names = [
            name
            for name in _stored_inputs(node, stored, sources)
            if owner[name] == index and name not in taken
        ]
        taken.update(names)
        tensors = [stored[name] for name in names]
        if not tensors:
            continue
        if node.op_type in KERNELS or not layers:
            layers.append(_Layer(node.name or node.output[0], tensors))
        else:
            layers[-1].tensors.extend(tensors)
    return layers


def _stored_inputs(
    node: onnx.NodeProto,
    stored: Mapping[str, onnx.TensorProto],
    sources: Mapping[str, onnx.NodeProto],
) -> list[str]:
    """Return the names of the stored tensors of several values that a node has learned."""
    names = []
    for place in WEIGHTS[node.op_type]:
        name = node.input[place] if place < len(node.input) else ""
        while name not in stored and name in sources:
            name = sources[name].input[0]
        if name not in stored or prod(stored[name].dims) < 2:
            continue
        if node.op_type not in FLOATS_ONLY or stored[name].data_type in FLOATS:
            names.append(name)
    return names


def _permute(tensor: onnx.TensorProto, random: np.random.Generator) -> None:
    """Put a tensor's values in another order."""
    values = numpy_helper.to_array(tensor)
    shuffled = random.permutation(values.ravel()).reshape(values.shape)
    tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
