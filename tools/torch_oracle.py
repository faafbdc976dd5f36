"""PyTorch autograd as the independent engine: gradients of every intermediate tensor of a model.

Needs torch (see the head of `gradient_agreement`). Every tensor that a torch function returns is
recorded while the model runs, so that the tensor an ONNX graph calls A is found by its values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

Array = NDArray[np.float32]


def declare_torchvision_operators() -> torch.library.Library:
    """Declare the two compiled operators that torchvision looks for; keep the result alive."""
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


_OUT_OF_PLACE = {
    "__iadd__": torch.Tensor.__add__,
    "__isub__": torch.Tensor.__sub__,
    "__imul__": torch.Tensor.__mul__,
    "__itruediv__": torch.Tensor.__truediv__,
}
"""``x += y`` without overwriting x, which other variables may hold only as their own copy."""


class Recorder(TorchFunctionMode):  # type: ignore[misc]  # torch is not installed for checks
    """Keeps every differentiable tensor that is computed while it is active.

    Attributes:
        tensors: in the order in which they were computed, three axes or more.
    """

    def __init__(self) -> None:
        """Start with nothing recorded."""
        super().__init__()
        self.tensors: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function, out of place where it would overwrite, and record its tensors."""
        kwargs = dict(kwargs or {})
        if "inplace" in kwargs:  # would overwrite what was recorded before
            kwargs["inplace"] = False
        func = _OUT_OF_PLACE.get(getattr(func, "__name__", ""), func)
        result = func(*args, **kwargs)
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor) and value.requires_grad and value.dim() >= 3:
                self.tensors.append(value)
        return result


class TorchOracle:
    """Activations and gradients of a model on one batch.

    Args:
        model: in evaluation mode; in-place activations are switched off, they would overwrite
            what is recorded.
        x: input ``(N, C, H, W)`` float32.
    """

    def __init__(self, model: torch.nn.Module, x: Array) -> None:
        """Run the model once and keep all intermediate tensors."""
        for module in model.modules():
            if hasattr(module, "inplace"):
                module.inplace = False
        leaf = torch.from_numpy(x).requires_grad_()
        with Recorder() as recorder:
            scores = model(leaf)
        self._scores = scores
        self.scores: Array = scores.detach().numpy()
        self._recorded: dict[tuple[int, ...], list[torch.Tensor]] = {}
        for tensor in recorder.tensors:
            self._recorded.setdefault(tuple(tensor.shape), []).append(tensor)

    def gradient(self, activations: Array, classes: NDArray[np.int64]) -> tuple[Array, float]:
        """Return dy^c/dA of the recorded tensor that equals A, and how well A matches.

        Args:
            activations: A, ``(N, C, *spatial)`` or any permutation that the model computes.
            classes: class per image, ``(N,)``.

        Raises:
            LookupError: the model computes no tensor of this shape.
        """
        found = self._recorded.get(activations.shape)
        if not found:
            raise LookupError(f"no tensor of shape {activations.shape} in the torch model")
        scale = float(np.abs(activations).max()) or 1.0
        errors = [float(np.abs(t.detach().numpy() - activations).max()) / scale for t in found]
        # equal values may be recorded more than once (identity, dropout): the first one feeds all
        best = min(errors)
        tensor = found[next(i for i, e in enumerate(errors) if e <= best * 1.000001 + 1e-12)]
        total = self._scores[torch.arange(len(classes)), torch.from_numpy(classes)].sum()
        (gradient,) = torch.autograd.grad(total, tensor, retain_graph=True)
        return gradient.numpy(), best
