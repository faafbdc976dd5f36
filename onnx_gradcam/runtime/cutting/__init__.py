"""Cuts sub-models out of a serialised ONNX file, without the package onnx.

`wire` reads and writes protobuf's encoding; `index` notes the names in a file and where its parts
lie; `cut` copies the parts that some tensors need into a model of their own; `head` finds where a
model divides into what comes before a layer and what comes behind.
"""

from onnx_gradcam.runtime.cutting.cut import cut
from onnx_gradcam.runtime.cutting.head import Division, divide
from onnx_gradcam.runtime.cutting.index import ModelIndex, index_model

__all__ = ["Division", "ModelIndex", "cut", "divide", "index_model"]
