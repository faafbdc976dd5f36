"""What the corrected reference operators have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, np.dtype[Any]]


class Operator(OpRun):
    """An operator of the default domain, of any opset."""

    op_domain = ""

    @property
    def opset(self) -> int:
        """The version of the operator set that the model is written in."""
        return int(self.run_params["opsets"][""])

    def given(self, name: str, default: Any) -> Any:
        """Return an attribute if the node has it: defaults depend on the opset."""
        named = {attribute.name for attribute in self.onnx_node.attribute}
        return getattr(self, name) if name in named else default
