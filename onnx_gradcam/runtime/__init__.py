"""Run an exported file on stock onnxruntime: scores, heat maps, photos in.

`load` opens a file as an `Explainer`; what it returns is an `Explanation`. Needs numpy and
onnxruntime; cv2 is imported when the first photo is decoded or resized.
"""

from onnx_gradcam.runtime.explainer import Explainer, load
from onnx_gradcam.runtime.explanation import Explanation
from onnx_gradcam.runtime.layers import LayerMaps
from onnx_gradcam.runtime.options import ExplainOptions
from onnx_gradcam.runtime.photo import read_photo
from onnx_gradcam.runtime.preprocess import CropGeometry

__all__ = [
    "CropGeometry",
    "ExplainOptions",
    "Explainer",
    "Explanation",
    "LayerMaps",
    "load",
    "read_photo",
]
