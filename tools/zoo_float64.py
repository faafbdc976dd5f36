"""An ONNX model in float64, with torch for the convolutions: the reference's own take minutes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch.nn import functional

from onnx_gradcam.export.reference.operators import CORRECTED
from tools.float64_model import to_float64

Array = NDArray[Any]
_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
_CORRECTED: dict[str, Any] = {op.__name__: op for op in CORRECTED}


def _torch_pads(pads: list[int]) -> list[int]:
    """Return ONNX's (begins, ends) as torch's pairs from the last axis on."""
    half = len(pads) // 2
    return [p for i in reversed(range(half)) for p in (pads[i], pads[half + i])]


class Conv(_CORRECTED["Conv"]):  # type: ignore[misc,valid-type]
    """Convolution by torch."""

    def _run(self, x: Array, w: Array, b: Array | None = None, **attributes: Any) -> Any:
        rank = x.ndim - 2
        if attributes.get("auto_pad") not in {None, "NOTSET"}:
            return super()._run(x, w, b, **attributes)
        padded = functional.pad(
            torch.from_numpy(np.ascontiguousarray(x)),
            _torch_pads(attributes.get("pads") or [0] * 2 * rank),
        )
        result = _CONVOLUTIONS[rank](
            padded,
            torch.from_numpy(np.ascontiguousarray(w)),
            None if b is None else torch.from_numpy(b),
            stride=attributes.get("strides") or [1] * rank,
            dilation=attributes.get("dilations") or [1] * rank,
            groups=attributes.get("group") or 1,
        )
        return (result.numpy(),)


class ConvTranspose(_CORRECTED["ConvTranspose"]):  # type: ignore[misc,valid-type]
    """Transposed convolution by torch; pads cut off what the full one makes."""

    def _run(self, x: Array, w: Array, b: Array | None = None, **attributes: Any) -> Any:
        rank = x.ndim - 2
        if attributes.get("auto_pad") not in {None, "NOTSET"} or attributes.get("output_shape"):
            return super()._run(x, w, b, **attributes)
        full = _TRANSPOSED[rank](
            torch.from_numpy(np.ascontiguousarray(x)),
            torch.from_numpy(np.ascontiguousarray(w)),
            None if b is None else torch.from_numpy(b),
            stride=attributes.get("strides") or [1] * rank,
            dilation=attributes.get("dilations") or [1] * rank,
            groups=attributes.get("group") or 1,
        )
        extra = attributes.get("output_padding") or [0] * rank
        pads = attributes.get("pads") or [0] * 2 * rank
        ends = [more - end for more, end in zip(extra, pads[rank:], strict=True)]
        cut = functional.pad(full, _torch_pads([*(-p for p in pads[:rank]), *ends]))
        if b is not None and any(e > 0 for e in ends):
            return super()._run(x, w, b, **attributes)  # what is added holds the bias
        return (cut.numpy(),)


def run_float64(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """Return all outputs of the float64 version of a model."""
    wide = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in feeds.items()}
    operators = {**_CORRECTED, "Conv": Conv, "ConvTranspose": ConvTranspose}
    evaluator = ReferenceEvaluator(to_float64(model), new_ops=list(operators.values()))
    return dict(zip(evaluator.output_names, evaluator.run(None, wide), strict=True))
