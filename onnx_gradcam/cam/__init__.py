"""Class activation maps in NumPy: (activations, gradients) in, heat maps out.

`methods`, `ablation` and `reciprocam` hold one function per published method, `components` the sums
and principal components that they end in, `runs` what those see of the model that run it again;
`registry` finds them by name, `postprocess` turns a raw map into a heat map of the image's size
with values in [0, 1], and `painting` does both and notes what shows nothing.
"""

# importing these registers the methods, in this order
# isort: off
from onnx_gradcam.cam import methods as methods
from onnx_gradcam.cam import ablation as ablation
from onnx_gradcam.cam import reciprocam as reciprocam

# isort: on
from onnx_gradcam.cam.painting import Painted, note_on, paint
from onnx_gradcam.cam.postprocess import heat_maps, resize_linear
from onnx_gradcam.cam.registry import (
    RERUNS,
    Method,
    Need,
    compute,
    get_method,
    method_names,
    register,
    require,
)

__all__ = [
    "RERUNS",
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
