"""Class activation maps in NumPy: (activations, gradients) in, heat maps out.

`methods` holds one function per published method, as do `ablation` and `reciprocam` for those that
run the head again, `masking`, `smooth` and `black_box` for those that run the model again,
`second_order` and `full_gradient`, and `attention` for vision transformers. `runs` is what they see
of the model, `blocks` how they hand over changed images; `components` the sums and principal
components that maps end in, `registry` finds methods by name, `postprocess` turns a raw map into a
heat map of the image's size (`resize`) with values in [0, 1], `painting` does both and notes what
shows nothing (`finite`), and `fusion` makes one heat map of those of several layers. `finer` has
the weights of a gradient over several classes, and the method that takes it.
"""

# importing these registers the methods, in this order
# isort: off
from onnx_gradcam.cam import methods as methods
from onnx_gradcam.cam import ablation as ablation
from onnx_gradcam.cam import reciprocam as reciprocam
from onnx_gradcam.cam import second_order as second_order
from onnx_gradcam.cam import finer as finer
from onnx_gradcam.cam import masking as masking
from onnx_gradcam.cam import smooth as smooth
from onnx_gradcam.cam import black_box as black_box
from onnx_gradcam.cam import attention as attention
from onnx_gradcam.cam import full_gradient as full_gradient

# isort: on
from onnx_gradcam.cam.finer import finer_weights
from onnx_gradcam.cam.finite import all_finite
from onnx_gradcam.cam.fusion import FUSIONS, check_fusion, fuse
from onnx_gradcam.cam.painting import Painted, note_on, paint, painted
from onnx_gradcam.cam.postprocess import heat_maps
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
from onnx_gradcam.cam.resize import resize_linear

__all__ = [
    "FUSIONS",
    "RERUNS",
    "Method",
    "Need",
    "Painted",
    "all_finite",
    "check_fusion",
    "compute",
    "finer_weights",
    "fuse",
    "get_method",
    "heat_maps",
    "method_names",
    "note_on",
    "paint",
    "painted",
    "register",
    "require",
    "resize_linear",
]
