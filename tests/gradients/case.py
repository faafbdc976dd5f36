"""A forward model of one or two operators, written as ONNX text, with values for its input A.

A case is looked at in float64, float32 and float16; ``TYPE`` in the text is the number of the type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, defs, helper, numpy_helper, parser

from onnx_gradcam.gradients.registry import NEWEST_OPSET

Array = np.ndarray[Any, np.dtype[Any]]
Constant = float | list[int] | tuple[str, tuple[int, ...]] | Array

TORCH_REFERENCES = Path(__file__).with_name("torch_references")
"""What `tools/make_gradient_references.py` writes: a file per family, dL/dA per name of a case."""

OLDEST_OPSET = 7
NEWEST_BUILDER_OPSET = 21

FORM_CHANGES = (8, 9, 10, 11, 13, 18)
"""Opsets from which on the emitter writes one of its operations differently."""

_TYPES = {np.float64: "double", np.float32: "float", np.float16: "float16"}
_NUMBERS = {
    np.float64: TensorProto.DOUBLE,
    np.float32: TensorProto.FLOAT,
    np.float16: TensorProto.FLOAT16,
}
_AXIS_NAMES = "NCHWD"


def weights(*shape: int) -> tuple[str, tuple[int, ...]]:
    """A constant of random values between 0.3 and 1.5 of either sign."""
    return ("weights", shape)


def positive(*shape: int) -> tuple[str, tuple[int, ...]]:
    """A constant of random values between 0.3 and 1.5."""
    return ("positive", shape)


@dataclass(frozen=True, eq=False)
class Case:
    """A forward model from A to y.

    Attributes:
        name: what it shows; unique.
        body: its nodes, ONNX text.
        shape: shape of A.
        opsets: the first and last opset in which the text is valid.
        constants: floats are scalars of type T, lists int64 vectors, float32 arrays stay float32.
        inputs: tensors that by-pass A: shapes of random values; a first size of 0 is the batch.
        symbolic: axes of A whose size is a symbol in the model that is exported.
        images: whether the rows of axis 0 are independent of each other.
        values: how A is filled, see `values_of_a`.
        runtime: why onnxruntime is not asked: it cannot run the forward model; empty where it is.
        ad: why onnx-ad is not asked but PyTorch; empty where it is.
        training: why onnxruntime-training is not asked; empty where it is.
        half: whether the forward model can be typed in float16.
    """

    name: str
    body: str
    shape: tuple[int, ...] = (2, 3, 4, 5)
    opsets: tuple[int, int] = (OLDEST_OPSET, NEWEST_OPSET)
    constants: Mapping[str, Constant] = field(default_factory=dict)
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    symbolic: tuple[int, ...] = (0,)
    images: bool = True
    values: str = "distinct"
    runtime: str = ""
    ad: str = ""
    training: str = ""
    half: bool = True

    @property
    def main_opset(self) -> int:
        """The opset in which all engines are asked."""
        return max(self.opsets[0], min(self.opsets[1], NEWEST_BUILDER_OPSET))

    def checked_opsets(self) -> list[int]:
        """Return the borders of the range and every opset at which a form changes in it."""
        first, last = self.opsets
        changes = {since for op_type in self.op_types() for since in versions(op_type)}
        changes |= {*FORM_CHANGES, first, last}
        return sorted(opset for opset in changes if first <= opset <= last)

    def op_types(self) -> set[str]:
        """Return the operators of the body."""
        return {node.op_type for node in self.model(np.float32, self.opsets[0]).graph.node}

    def model(self, dtype: Any, opset: int, *, symbolic: bool = False) -> ModelProto:
        """Return the forward model: A and the by-passing tensors in, y out.

        Args:
            dtype: float64, float32 or float16.
            opset: within `opsets`.
            symbolic: use symbols for the sizes that `symbolic` names.
        """
        first = "N" if symbolic and 0 in self.symbolic else str((*self.shape, 1)[0])
        sizes = [
            _AXIS_NAMES[axis] if symbolic and axis in self.symbolic else str(size)
            for axis, size in enumerate(self.shape)
        ]
        others = "".join(
            f", T[{','.join(str(size) if size else first for size in shape)}] {name}"
            for name, shape in self.inputs.items()
        )
        body = self.body.replace("TYPE", str(int(_NUMBERS[dtype])))
        text = f"""<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>
            case (T[{",".join(sizes)}] A{others}) => (T[] y) {{
            {body}
        }}"""
        model = parser.parse_model(text.replace("T[", f"{_TYPES[dtype]}["))
        imports = [o for o in model.opset_import if not o.domain or "com.microsoft" in self.body]
        del model.opset_import[:]
        model.opset_import.extend(imports)
        model.ir_version = max(4, helper.find_min_ir_version_for(imports[:1]))
        for name, value in self.constant_values(dtype).items():
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        return model

    def constant_values(self, dtype: Any) -> dict[str, Array]:
        """Return the constants; the same values in every type, as exactly as it holds them."""
        rng = np.random.default_rng(7)
        values: dict[str, Array] = {}
        for name, value in self.constants.items():
            if isinstance(value, tuple):
                drawn = rng.uniform(0.3, 1.5, value[1])
                if value[0] == "weights":
                    drawn *= np.where(rng.random(value[1]) < 0.5, -1.0, 1.0)
                values[name] = drawn.astype(np.float16).astype(dtype)
            elif isinstance(value, list):
                values[name] = np.asarray(value, np.int64)
            else:
                array = np.asarray(value)
                fixed = array.dtype.kind != "f" or array.dtype == np.float32
                values[name] = array if fixed else array.astype(dtype)
        return values

    def feeds(self, dtype: Any) -> dict[str, Array]:
        """Return A and the by-passing tensors."""
        rng = np.random.default_rng(11)
        feeds = {"A": values_of_a(self.values, self.shape, rng).astype(dtype)}
        for name, shape in self.inputs.items():
            drawn = rng.uniform(0.5, 1.5, [size or self.shape[0] for size in shape])
            feeds[name] = drawn.astype(np.float16).astype(dtype)
        return feeds


def values_of_a(kind: str, shape: Sequence[int], rng: np.random.Generator) -> Array:
    """Return values for A that float32 holds exactly.

    ``distinct``: -2.5 to 2.5, no two near each other, none near 0 or another kink.
    ``positive``: 0.3 to 2.8, the same otherwise.
    ``steps``: small integers with many ties.
    """
    count = int(np.prod(shape))
    if kind == "steps":
        return rng.integers(-1, 2, shape).astype(np.float64)
    spread = (rng.permutation(count) - count // 2 + 0.37) * (5.0 / count)
    values = spread.reshape(shape) + {"distinct": 0.0, "positive": 2.8}[kind]
    return values.astype(np.float32).astype(np.float64)


def seed_like(shape: tuple[int, ...]) -> Array:
    """Return dL/dy: random values that float16 holds."""
    drawn = np.random.default_rng(5).uniform(0.3, 1.5, shape)
    return drawn.astype(np.float16).astype(np.float64)


@cache
def versions(op_type: str) -> tuple[int, ...]:
    """Return the opsets in which an operator of the default domain came or changed."""
    return tuple(
        schema.since_version
        for schema in defs.get_all_schemas_with_history()
        if schema.name == op_type and schema.domain == ""
    )


def version(op_type: str, opset: int) -> int:
    """Return the version of an operator in an opset."""
    return max(since for since in versions(op_type) if since <= opset)
