"""If with a condition that is known at export: the branch that is taken.

Exporters write it where a shape decides, as in PyTorch's squeeze of an axis of unknown size.
"""

from __future__ import annotations

from onnx import GraphProto

from onnx_gradcam.export.expansion.registry import expansion
from onnx_gradcam.export.expansion.splice import splice
from onnx_gradcam.gradients.registry import Context


@expansion("If", domain="")
def _if(ctx: Context) -> list[str]:
    """Outputs = those of then_branch where the condition holds, else of else_branch."""
    holds = bool(ctx.constant(0, "condition").reshape(-1)[0])
    branch: GraphProto = ctx.attribute("then_branch" if holds else "else_branch")
    names = splice(ctx.emit, branch.node, {}, branch.initializer)
    return [names.get(output.name, output.name) for output in branch.output]
