"""Products of dynamically quantized tensors, in floats.

    file        x ── DynamicQuantizeLinear ── q ── MatMulInteger ── Cast ── Mul(s_x s_w) ── y
    analysis    x ── DynamicQuantizeLinear ── q ── DequantizeLinear ── MatMul(W) ── y

y is the same, apart from rounding. Its gradient then reads neither s_x nor the integers, which
would keep onnxruntime from fusing the nodes into DynamicQuantizeMatMul. ConvInteger likewise.
"""

from __future__ import annotations

from onnx import NodeProto, helper

from onnx_gradcam.export.graph import Graph
from onnx_gradcam.gradients.clipping import scalar_grid
from onnx_gradcam.gradients.emitter import Emitter
from onnx_gradcam.gradients.registry import FLOATS, attribute_of

_FLOAT_FORM = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}


def float_product(graph: Graph, emit: Emitter, node: NodeProto) -> list[NodeProto] | None:
    """Return the nodes that compute the result of a Mul in floats, None for another Mul."""
    if node.op_type != "Mul" or node.domain not in {"", "ai.onnx"}:
        return None
    for scaled, scales in (node.input, reversed(node.input)):
        product = _integer_product(graph, scaled)
        parts = None if product is None else _scales(graph, product, scales)
        if product is not None and parts is not None:
            return _written(graph, emit, product, parts, node)
    return None


def _integer_product(graph: Graph, name: str) -> NodeProto | None:
    cast = graph.producer_of(name)
    if cast is None or cast.op_type != "Cast" or attribute_of(cast, "to") not in FLOATS:
        return None
    product = graph.producer_of(cast.input[0])
    return product if product is not None and product.op_type in _FLOAT_FORM else None


def _scales(graph: Graph, product: NodeProto, name: str) -> tuple[NodeProto, str] | None:
    """Return the quantization of the first operand and the scale of the second, if they are it."""
    quantize, both = graph.producer_of(product.input[0]), graph.producer_of(name)
    if quantize is None or both is None or both.op_type != "Mul":
        return None
    zero = product.input[2] if len(product.input) > 2 else ""
    if quantize.op_type == "DynamicQuantizeLinear":
        scale, expected = quantize.output[1], quantize.output[2]
    elif quantize.op_type == "QuantizeLinear" and scalar_grid(graph.flow, quantize):
        scale, expected = quantize.input[1], [*quantize.input, ""][2]
    else:
        return None
    if zero != expected or scale not in both.input:
        return None
    return quantize, str(both.input[1 - list(both.input).index(scale)])


def _written(
    graph: Graph, emit: Emitter, product: NodeProto, parts: tuple[NodeProto, str], node: NodeProto
) -> list[NodeProto] | None:
    quantize, weight_scale = parts
    weight, rank = product.input[1], len(graph.shape(product.input[1]) or ())
    shape = graph.shape(weight_scale)
    if not rank or shape is None:
        return None
    is_conv = product.op_type == "ConvInteger"
    along = [-1] + [1] * (rank - 1) if is_conv else [1] * (rank - 1) + [-1]
    start = len(emit.nodes)
    with emit.scope(f"{node.name or node.output[0]}".strip("/")):
        value = emit.cast(weight, emit.dtype(weight_scale))
        if len(product.input) > 3 and product.input[3]:
            zero = emit.cast(product.input[3], emit.dtype(weight_scale))
            value = emit.node("Sub", [value, emit.reshape(zero, along)])
        factor = weight_scale if not shape else emit.reshape(weight_scale, along)
        value = emit.mul(value, factor)
        inputs = [product.input[0], *([*quantize.output[1:3]] or quantize.input[1:3])]
        left = emit.node("DequantizeLinear", inputs, dtype=emit.dtype(weight_scale))
        name = emit.unique("product")
    made = helper.make_node(_FLOAT_FORM[product.op_type], [left, value], node.output, name=name)
    made.attribute.extend(product.attribute)
    written = [*emit.nodes[start:], made]
    del emit.nodes[start:]
    return written
