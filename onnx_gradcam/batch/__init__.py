"""Images by the thousand to the billion: tables of what was found, shard by shard, resumable.

In reading order: `sources` says which images there are, `shards` cuts them into pieces of work,
`worker` explains a piece (`rows` and `regions` measure each map), `engine` has all pieces done and
`parts` puts the results of each into place, `manifest` says what a folder of results holds.
"""

from onnx_gradcam.batch.engine import BatchSummary, run_batch
from onnx_gradcam.batch.options import BatchOptions

__all__ = ["BatchOptions", "BatchSummary", "run_batch"]
