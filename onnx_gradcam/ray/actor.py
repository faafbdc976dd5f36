"""What runs on a node: a session that explains shards and hands over what it would write."""

from __future__ import annotations

from typing import Any

from onnx_gradcam import __version__
from onnx_gradcam.batch.options import BatchOptions
from onnx_gradcam.batch.shards import Shard
from onnx_gradcam.batch.worker import ShardResult, ShardWorker
from onnx_gradcam.errors import UnavailableError
from onnx_gradcam.pipeline import divide
from onnx_gradcam.runtime import load
from onnx_gradcam.runtime.photo import allow_pixels, import_cv2

Files = dict[str, bytes]
"""Files of results by their path in the folder; the driver writes them."""


class ShardActor:
    """Explains shards, one after the other, as `LocalEngine` does."""

    def __init__(
        self, exported: bytes | str, options: BatchOptions, device: str, threads: int
    ) -> None:
        """Take what `start` needs; an actor whose constructor raises has died of unknown causes."""
        self._exported, self._options = exported, options
        self._device, self._threads = device, threads
        self._worker: ShardWorker | None = None

    def start(self, version: str) -> None:
        """Load the exported file.

        Args:
            version: of this package, where the driver runs.

        Raises:
            UnavailableError: this node has another version.
            OnnxGradCamError: what `load` and `ShardWorker` refuse.
        """
        if version != __version__:
            raise UnavailableError(
                f"a node of the Ray cluster has onnx-gradcam {__version__}, the driver {version};"
                " install the same on all nodes"
            )
        allow_pixels(self._options.max_pixels)
        import_cv2().setNumThreads(self._threads)  # by itself it takes all cores of the node
        division = divide(None, self._options.method, self._threads)
        explainer = load(
            self._exported, device=self._device, session_options=division.session_options()
        )
        workers = division.workers_on(explainer.providers)
        self._worker = ShardWorker(explainer, self._options, workers)

    def run(self, shard: Shard) -> tuple[ShardResult, Files]:
        """Return what became of a shard, and the files that go with it."""
        assert self._worker is not None, "an actor is started first"
        files: dict[str, Any] = {}
        return self._worker.run(shard, files.__setitem__), files
