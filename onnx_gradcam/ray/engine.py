"""`RayEngine`: has shards explained by the actors of a cluster; this process writes the results.

The shards, the folder and the manifest are those of `LocalEngine`: a batch that was begun with one
can go on with the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onnx_gradcam.batch.engine import OnImage
from onnx_gradcam.batch.options import BatchOptions
from onnx_gradcam.batch.shards import Shard
from onnx_gradcam.batch.worker import Save, ShardResult, ShardWorker
from onnx_gradcam.errors import BatchError, InvalidModelError, UsageError
from onnx_gradcam.ray.actor import ShardActor
from onnx_gradcam.ray.cluster import Cluster, Share, actors_that_fit
from onnx_gradcam.ray.culprits import without_culprits
from onnx_gradcam.ray.pool import Actors, Feed, Lost, Pool, Task
from onnx_gradcam.runtime import Explainer, load


class RayEngine:
    """Explains by actors of Ray, each with a session of its own. Close it, or use it by `with`."""

    def __init__(
        self,
        exported: Path,
        explainer: Explainer,
        options: BatchOptions,
        actors: Actors | None = None,
        *,
        device: str = "auto",
        address: str | None = None,
    ) -> None:
        """Connect to the cluster; its actors start when there is work.

        Args:
            exported: the exported file.
            explainer: it, loaded here on the CPU; refuses what no image can have.
            options: what is wanted.
            actors: how many there are; None for as many as the cluster has CPUs.
            device: as in `load`; ``auto`` is ``cuda`` for actors that take GPUs.
            address: of the cluster, as `Cluster` takes it.

        Raises:
            UsageError: more actors than fit, a device that they do not have, or what `ShardWorker`
                refuses.
            UnavailableError: there is no Ray, or no such cluster.
        """
        self._actors = actors or Actors()
        device = device_of(device, self._actors.share)
        ShardWorker(explainer, options, 1)
        model = _portable(exported)
        self._cluster = Cluster(address)
        try:
            ray, share = self._cluster.ray, self._actors.share
            count = actors_that_fit(self._actors.count, share, self._cluster.nodes())
            start = ray.remote(ShardActor).options(num_cpus=share.cpus, num_gpus=share.gpus)
            model = ray.put(model)  # once; nodes get it from each other
            arguments: Any = (model, options, device, share.threads)
            self._pool = Pool(lambda: start.remote(*arguments), count, self._actors)
        except BaseException:
            self._cluster.close()
            raise

    def __enter__(self) -> Self:
        """Return the engine."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Stop the actors, and Ray where we started it."""
        self._pool.close()
        self._cluster.close()

    def results(
        self, todo: Iterable[Shard], save: Save, on_image: OnImage
    ) -> Iterator[ShardResult]:
        """Yield what becomes of shards, in the order in which they are done.

        A shard whose actor dies is explained again by another one. Where it has taken down several,
        its images are tried one by one; those that kill an actor by themselves become rows that say
        so, the others are explained.

        Args:
            todo: the shards.
            save: takes files of results, in this process.
            on_image: is told of none.

        Raises:
            BatchError: a shard cannot be explained, whoever tries.
            UnavailableError: no actor can be started.
        """
        feed = Feed(todo)
        for outcome in self._pool.run(feed):
            if isinstance(outcome, Lost):
                feed.again(self._after(outcome))
                continue
            for name, data in outcome.files.items():
                save(name, data)
            yield outcome.result

    def _after(self, lost: Lost) -> Task:
        """Return what to do with a shard whose actor died.

        Raises:
            BatchError: nothing helps.
        """
        task = replace(lost.task, losses=lost.task.losses + 1)
        if task.losses < self._actors.attempts:
            return task
        shard = task.shard
        if task.probed:
            raise BatchError(
                f"shard {shard.number} ({len(shard.images)} images from {shard.images[0].name} on)"
                f" lost its actor {task.losses} times, though its images by themselves do no harm:"
                f" {lost.reason}; give actors more memory (fewer of them on a node), or take"
                " another --shard-size"
            )
        return Task(without_culprits(shard, self._pool.alone()), task.losses - 1, probed=True)


def device_of(device: str, share: Share) -> str:
    """Return the device for actors: Ray decides which GPU that is.

    Raises:
        UsageError: one that they do not have.
    """
    if device.startswith("cuda:"):
        raise UsageError(f"--device {device}: Ray decides which GPU an actor gets; take cuda")
    if device == "auto":
        return "cuda" if share.gpus else "cpu"
    if device == "cuda" and not share.gpus:
        raise UsageError("--device cuda: actors get no GPU; add --gpus-per-actor 1")
    if device == "cpu" and share.gpus:
        raise UsageError("--gpus-per-actor with --device cpu: leave one of them out")
    return device


def _portable(exported: Path) -> bytes | str:
    """Return what nodes can load: the file itself, or its path where data lies beside it."""
    data = exported.read_bytes()
    try:
        load(data, device="cpu")
    except InvalidModelError:
        return str(exported.resolve())
    return data
