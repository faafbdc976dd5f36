"""Beyond one machine, by Ray: batches of a folder of results, data sets, requests over HTTP.

In reading order: `cluster` connects and says what fits, `actor` is what runs on a node, `pool`
keeps actors busy and replaces those that die, `culprits` finds the image that kills them, `engine`
is what ``onnx-gradcam batch --engine ray`` uses; `predictor` is for Ray Data and Ray Serve, `http`
its answers.

Nothing of Ray is imported before it is used; `import ray` in here is the package of that name.
"""

from onnx_gradcam.ray.cluster import Share
from onnx_gradcam.ray.engine import RayEngine
from onnx_gradcam.ray.pool import Actors
from onnx_gradcam.ray.predictor import CamPredictor

__all__ = ["Actors", "CamPredictor", "RayEngine", "Share"]
