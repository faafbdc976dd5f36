"""Many images: the steps of one overlap with those of others, results come in order.

In reading order: `cores` divides the machine, `overlap` runs a function ahead of its reader,
`images` explains whatever an iterable gives.
"""

from onnx_gradcam.pipeline.cores import Division, divide
from onnx_gradcam.pipeline.images import Explained, explain_images
from onnx_gradcam.pipeline.overlap import overlapped

__all__ = ["Division", "Explained", "divide", "explain_images", "overlapped"]
