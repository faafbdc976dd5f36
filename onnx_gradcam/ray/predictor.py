"""`CamPredictor`: one class for `ray.data.Dataset.map_batches` and for deployments of Ray Serve."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from onnx_gradcam.batch.frames import FrameExplainer
from onnx_gradcam.batch.options import BatchOptions
from onnx_gradcam.batch.rows import ImageResult
from onnx_gradcam.batch.sources import GivenImage
from onnx_gradcam.ray.cluster import Share, import_ray
from onnx_gradcam.ray.http import answer, is_request


class CamPredictor(FrameExplainer):
    """Explains images in columns, or one that is posted over HTTP.

    As ``dataset.map_batches(CamPredictor, fn_constructor_args=["model.cam.onnx"])`` it takes
    batches of columns and returns those of `onnx_gradcam.batch.schema`, a row for each image and
    class. As ``serve.deployment(CamPredictor).bind("model.cam.onnx")`` it answers each POST of an
    image with the same rows in JSON.
    """

    def __init__(
        self,
        exported: str | os.PathLike[str] | bytes,
        options: BatchOptions | None = None,
        *,
        column: str | None = None,
        name: str | None = None,
        number: str | None = None,
        root: str | None = None,
        device: str = "auto",
        threads: int | None = None,
        wait: float = 0.005,
    ) -> None:
        """Load an exported file.

        Args:
            exported: path, which each node must see, or bytes.
            options: as of `FrameExplainer`, like all that is not listed here.
            column: likewise.
            name: likewise.
            number: likewise.
            root: likewise.
            device: as in `load`; ``auto`` is the GPU where Ray gives this actor one, else the CPU.
            threads: how many to use; None for as many as Ray gives CPUs to this actor.
            wait: seconds for which a request waits for others, where ``options.batch`` says that
                several images go into a run.

        Raises:
            OnnxGradCamError: what `FrameExplainer` refuses.
        """
        share = share_of_this_worker()
        if share is not None:
            threads = threads or share.threads
            device = {"auto": "cuda" if share.gpus else "cpu"}.get(device, device)
        super().__init__(
            exported,
            options,
            column=column,
            name=name,
            number=number,
            root=root,
            device=device,
            threads=threads,
        )
        together = (options.batch if options else None) or 1
        self._batched = _batched(self._together, together, wait) if together > 1 else None

    def __call__(self, batch: Any) -> Any:
        """Return a ``pyarrow.Table`` for columns, and a response for a request.

        Args:
            batch: columns, as of `FrameExplainer`, or a ``starlette.requests.Request``.

        Raises:
            UsageError: a column that is not there or holds no images.
        """
        if is_request(batch):
            return _awaited(answer, batch, self.explain)
        return super().__call__(batch)

    async def explain(self, image: GivenImage) -> ImageResult:
        """Return what becomes of one image, while others are explained."""
        if self._batched is not None:
            result: ImageResult = await self._batched(image)
            return result
        (result,) = await asyncio.to_thread(self.results, [image])
        return result

    async def _together(self, images: list[GivenImage]) -> list[ImageResult]:
        return list(await asyncio.to_thread(self.results, images))


def share_of_this_worker() -> Share | None:
    """Return what Ray gives to this actor; None where this is none."""
    ray = import_ray()
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.get_actor_id() is None:
        return None
    given = context.get_assigned_resources()
    return Share(given.get("CPU", 0) or 1, given.get("GPU", 0))


def _awaited(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Return what an asynchronous function returns, from where Ray Serve calls a plain one.

    That is a thread beside its event loop; in earlier releases, and where
    RAY_SERVE_RUN_SYNC_IN_THREADPOOL is 0, the loop itself, which awaits what it gets.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # none in this thread
        from anyio import from_thread

        return from_thread.run(function, *arguments)
    return function(*arguments)


def _batched(together: Any, most: int, wait: float) -> Any:
    """Return a function of one image that has several of them explained in one call."""
    import_ray()
    from ray import serve

    return serve.batch(max_batch_size=most, batch_wait_timeout_s=wait)(together)
