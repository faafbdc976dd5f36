"""Class activation maps in NumPy: (activations, gradients) in, heat maps out.

`methods` holds one function per published method, `registry` finds them by name, and
`postprocess` turns a raw map into a heat map of the image's size with values in [0, 1].
"""

from onnx_gradcam.cam import methods as methods  # importing it registers the methods
from onnx_gradcam.cam.postprocess import heat_maps, resize_linear
from onnx_gradcam.cam.registry import Method, compute, get_method, method_names, register

__all__ = [
    "Method",
    "compute",
    "get_method",
    "heat_maps",
    "method_names",
    "register",
    "resize_linear",
]
