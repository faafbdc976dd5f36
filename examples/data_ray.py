"""A data set of Ray Data explained: any source that it reads, any sink that it writes.

    python examples/data_ray.py model.cam.onnx s3://bucket/photos/ s3://bucket/results/

Needs the packages of `[ray,cpu]`, or `[ray,gpu]` with ``num_gpus=1`` below, and a path of the
exported file that all nodes see. Ray Data repeats tasks
that die and has no resume: for that, `onnx-gradcam batch --engine ray`.
"""

import sys

import ray

from onnx_gradcam.batch import BatchOptions
from onnx_gradcam.ray import CamPredictor

exported, inputs, output = sys.argv[1:]
images = ray.data.read_binary_files(inputs, include_paths=True)
table = images.map_batches(
    CamPredictor,
    fn_constructor_args=[exported, BatchOptions(top_k=3)],
    num_cpus=1,
    concurrency=(1, int(ray.cluster_resources()["CPU"]) - 1),  # the others read and write
    batch_size=64,
)
table.write_parquet(output)
