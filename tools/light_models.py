"""The nine architectures that the onnx wheel ships without weights, given random ones.

They come with every weight equal to 0.02 (ConstantOfShape), where all windows of a MaxPool tie
and every gradient degenerates; here each such node is replaced by seeded random values that keep
signals alive: scaled by fan-in for products, around one for scales and variances.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_PRODUCTS = {"Conv", "Gemm"}


def light_model_names() -> list[str]:
    """Return the names of the nine, sorted."""
    return sorted(path.stem for path in _folder().glob("light_*.onnx"))


def light_model(name: str) -> onnx.ModelProto:
    """Return one of the nine with random weights."""
    return with_random_weights(onnx.load(_folder() / f"{name}.onnx"))


def _folder() -> Path:
    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def with_random_weights(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """Return a copy whose constant-filled and initializer weights are random."""
    rng = np.random.default_rng(seed)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    uses = _uses(graph)
    filled = [n for n in graph.node if n.op_type == "ConstantOfShape"]
    kept = [n for n in graph.node if n.op_type != "ConstantOfShape"]
    weights = {n.output[0]: tuple(int(d) for d in shapes[n.input[0]]) for n in filled}
    for name, values in shapes.items():
        if values.dtype == np.float32 and values.ndim == 1 and name in uses:
            weights[name] = values.shape
    drop = set(weights) | {n.input[0] for n in filled}
    initializers = [t for t in graph.initializer if t.name not in drop]
    inputs = [i for i in graph.input if i.name not in drop]
    for name, shape in weights.items():
        values = _random(rng, shape, *uses[name])
        initializers.append(numpy_helper.from_array(values, name))
        inputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    for field, rows in (("node", kept), ("initializer", initializers), ("input", inputs)):
        del getattr(graph, field)[:]
        getattr(graph, field).extend(rows)
    return copy


def _uses(graph: onnx.GraphProto) -> dict[str, tuple[str, int]]:
    """Return per tensor the operator that reads it and at which position; through Unsqueeze."""
    uses = {n: (node.op_type, i) for node in graph.node for i, n in enumerate(node.input)}
    for node in graph.node:
        if node.op_type == "Unsqueeze":
            uses[node.input[0]] = uses[node.output[0]]
    return uses


def _random(
    rng: np.random.Generator, shape: tuple[int, ...], op_type: str, position: int
) -> NDArray[np.float32]:
    if op_type in _PRODUCTS and position == 1:
        fan_in = int(np.prod(shape[1:]))
        values = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
    elif (op_type == "BatchNormalization" and position in {1, 4}) or op_type == "Mul":
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.standard_normal(shape) * 0.1
    return np.asarray(values, np.float32)
