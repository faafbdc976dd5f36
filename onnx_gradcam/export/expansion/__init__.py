"""Operators without a gradient formula, but with a public definition, in standard operators.

In: a model. Out: `expand`'s `Graph`, in which each such node N is replaced by nodes that compute
the same: the *analysis graph*, on which score, layer, tail and gradient are found. The last of
them keep the names of N's results (and the first of these N's own name); what they need in
between is called ``onnx_gradcam/expanded/<N>/...``. The exported file keeps N as it is. Of the
new nodes only those are added that compute such an intermediate for the explanation:

    file        x ── FusedConv ──────────────── y     + onnx_gradcam/expanded/.../Conv if it is read
    analysis    x ── Conv ── .../Conv ── Relu ── y

A rule is one function, registered by ``@expansion("FusedConv", domain="com.microsoft")``. It gets
a `Context` (`gradients.registry`), writes through ``ctx.emit`` in the model's own opset, and
returns one name per output of the node:

    @expansion("QuickGelu")
    def _quick_gelu(ctx: Context) -> list[str]:
        \"\"\"y = x sigmoid(alpha x).\"\"\"
        scaled = ctx.emit.mul(ctx.inputs[0], ctx.attribute("alpha", 1.702))
        return [ctx.emit.mul(ctx.inputs[0], ctx.emit.unary("Sigmoid", scaled))]

- ``ctx.inputs`` has "" for an absent optional input; ``ctx.has_input(i)``, ``ctx.attribute``,
  ``ctx.shape(name)`` (the rank must be known), ``ctx.constant(i, what)``, ``ctx.emit.dtype(name)``.
- Types are known of the tensors that the model had; of those a rule has emitted itself, only the
  element type.
- What a rule does not cover is a `FormulaError` with the reason. The node then stays. It is tried
  again once more shapes are known, and refused by name, with the reason, if it lies in the tail.
- A result may be an input of the node, or another result.
- A node whose operator has a gradient formula is not expanded, unless the formula leaves it to the
  expansion (``unless=``); emitted nodes without one are expanded in turn.
- Rules modules are listed in `rules`. Each rule cites its definition.

Every rule is compared with onnxruntime's own kernel, values and central differences, by a row in
``tests/export/expansion/cases.py``.
"""

from onnx_gradcam.export.expansion.expand import expand, with_expansions

__all__ = ["expand", "with_expansions"]
