"""Whether this CPU multiplies uint8 by int8 exactly, and models that it computes exactly.

x86 CPUs without VNNI multiply with vpmaddubsw, which adds two products and saturates the sum at
16 bits. onnxruntime's integer operators then give other numbers there than their definition, and
than on other devices. An export is judged by the definition: on such a CPU, models are run with
products that go another way (`exact_products`).

In: a model. Out: the model to run for exact products, and a `Check` that says what it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnx_gradcam.export.files.model_file import LoadedModel
from onnx_gradcam.export.sessions import open_session
from onnx_gradcam.export.verification.compare_outputs import Difference
from onnx_gradcam.export.verification.exact_products import with_exact_products
from onnx_gradcam.export.verification.report import Check

_DEPTH = 64


@cache
def saturates() -> bool:
    """Return whether a product whose result is known comes out otherwise on this CPU."""
    node = helper.make_node("MatMulInteger", ["a", "w"], ["y"])
    weights = numpy_helper.from_array(np.full((_DEPTH, 16), 127, np.int8), "w")
    given = helper.make_tensor_value_info("a", TensorProto.UINT8, [4, _DEPTH])
    result = helper.make_tensor_value_info("y", TensorProto.INT32, [4, 16])
    graph = helper.make_graph([node], "product", [given], [result], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = open_session(model.SerializeToString(), optimise=False)
    (found,) = session.run(None, {"a": np.full((4, _DEPTH), 255, np.uint8)})
    return bool(np.any(found != 255 * 127 * _DEPTH))


def exact_here(
    model: ModelProto, tensor_values: Callable[[TensorProto], np.ndarray[Any, Any]]
) -> ModelProto:
    """Return the model to run for exact products on this CPU, nearly always itself."""
    return with_exact_products(model, tensor_values) if saturates() else model


def loaded_exact_here(model: LoadedModel) -> LoadedModel:
    """Return the same of a loaded model."""
    exact = exact_here(model.model, model.tensor_values)
    return model if exact is model.model else replace(model, model=exact, path=None)


def saturation_check(differences: Sequence[Difference], apart: str) -> Check:
    """Return what this CPU's products change: a warning, or that they change nothing.

    Args:
        differences: of the outputs of the exported file, from those with exact products.
        apart: how its outputs differ from those of the original model on this CPU, "" where they
            do not.
    """
    name = "int8 kernels"
    changed = [d for d in differences if not d.within_rounding]
    detail = "this CPU's kernels for uint8 times int8 saturate at 16 bits"
    if not changed and not apart:
        return Check(name, True, f"{detail}, which changes no output here", 0.0)
    if changed:
        detail += f"; from results on CPUs with VNNI, {'; '.join(map(str, changed))}"
    if apart:
        detail += f"; fused otherwise than in the original, {apart} from that"
    detail += "; quantize with reduce_range, or weights to uint8 (docs/quantization.md)"
    return Check(name, True, detail, max((d.relative for d in changed), default=0.0), warning=True)
