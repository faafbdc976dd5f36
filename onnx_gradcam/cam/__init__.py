"""Class activation maps in NumPy: (activations, gradients) in, heat maps out.

`methods` holds one function per published method, `components` the sums and principal components
that they end in, `registry` finds them by name, `postprocess` turns a raw map into a heat map of
the image's size with values in [0, 1], and `painting` does both and notes what shows nothing.
"""

from onnx_gradcam.cam import methods as methods  # importing it registers the methods
from onnx_gradcam.cam.painting import Painted, note_on, paint
from onnx_gradcam.cam.postprocess import heat_maps, resize_linear
from onnx_gradcam.cam.registry import (
    Method,
    Need,
    compute,
    get_method,
    method_names,
    register,
    require,
)

__all__ = [
    "Method",
    "Need",
    "Painted",
    "compute",
    "get_method",
    "heat_maps",
    "method_names",
    "note_on",
    "paint",
    "register",
    "require",
    "resize_linear",
]
