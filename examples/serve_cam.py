"""Heat maps over HTTP by Ray Serve: the rows of ``onnx-gradcam batch`` for each posted image.

    CAM_MODEL=model.cam.onnx serve run examples.serve_cam:app
    curl --data-binary @cat.jpg 'http://127.0.0.1:8000/?name=cat.jpg'

Needs the packages of `[ray,cpu]`, or `[ray,gpu]` with ``"num_gpus": 1`` below.
"""

import os

from ray import serve

from onnx_gradcam.batch import BatchOptions
from onnx_gradcam.ray import CamPredictor

service = serve.deployment(CamPredictor).options(
    ray_actor_options={"num_cpus": 1},
    max_ongoing_requests=2,  # one is explained, one is read meanwhile; the others wait in line
    autoscaling_config={"min_replicas": 1, "max_replicas": os.cpu_count() or 1},
)
app = service.bind(os.environ["CAM_MODEL"], BatchOptions(top_k=3))
