"""The CAM inside the graph: `options` says which, `emit` writes it, for readers without Python.

In: A and G as the export has emitted them. Out: the outputs ``cam`` and, where it is normalised,
``cam_scales``. `methods` holds the formulas, beside those of `onnx_gradcam.cam.methods` that they
equal; `resize` the interpolation, `spread` finds gradients that are the same at all positions.
"""

from onnx_gradcam.export.fuse.emit import Image, emit_cam
from onnx_gradcam.export.fuse.options import Fusion

__all__ = ["Fusion", "Image", "emit_cam"]
