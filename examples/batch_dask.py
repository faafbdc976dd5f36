"""A batch on a Dask cluster: the folder, the shards and the resume of ``onnx-gradcam batch``.

    python examples/batch_dask.py model.cam.onnx photos/ results --scheduler tcp://HOST:8786

Without an address it starts two workers on this machine. Needs the packages of `[batch,cpu]` and
``distributed``, on the workers too, and paths that they see. `DaskEngine` is all that Dask adds: it
has shards explained, `run_batch` does the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from distributed import Client, LocalCluster, as_completed, get_worker

from onnx_gradcam.batch import BatchOptions, run_batch
from onnx_gradcam.batch.shards import Shard
from onnx_gradcam.batch.sources import Sources
from onnx_gradcam.batch.worker import ShardResult, ShardWorker
from onnx_gradcam.pipeline import divide
from onnx_gradcam.runtime import load

RETRIES = 3


def explained(
    exported: str, options: BatchOptions, shard: Shard
) -> tuple[ShardResult, dict[str, bytes]]:
    """Return what became of a shard, and the files that go with it; runs on a worker of Dask."""
    host = get_worker()
    if not hasattr(host, "cam"):  # the session stays there for the next shard
        session_options = divide(threads=1).session_options()
        explainer = load(exported, device="cpu", session_options=session_options)
        host.cam = ShardWorker(explainer, options, 1)
    files: dict[str, bytes] = {}
    return host.cam.run(shard, files.__setitem__), files


class DaskEngine:
    """Has shards explained by the workers of Dask, one thread each."""

    def __init__(self, client: Client, exported: Path, options: BatchOptions) -> None:
        """Take a client, and what the workers need."""
        self._client, self._exported, self._options = client, str(exported.resolve()), options

    def results(
        self,
        todo: Iterable[Shard],
        save: Callable[[str, bytes], None],
        on_image: Callable[..., None],
    ) -> Iterator[ShardResult]:
        """Yield what becomes of shards; each worker has one in work and one waiting."""
        feed = iter(todo)
        room = 2 * len(self._client.scheduler_info()["workers"])
        under_way = as_completed([self._submit(shard) for shard in islice(feed, room)])
        for future in under_way:
            result, files = future.result()
            for name, data in files.items():
                save(name, data)
            yield result
            for shard in islice(feed, 1):
                under_way.add(self._submit(shard))

    def _submit(self, shard: Shard) -> object:
        arguments = (self._exported, self._options, shard)
        return self._client.submit(explained, *arguments, pure=False, retries=RETRIES)


def main() -> None:
    """Run the batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exported", type=Path)
    parser.add_argument("inputs")
    parser.add_argument("output", type=Path)
    parser.add_argument("--scheduler")
    parser.add_argument("--shard-size", type=int, default=1000)
    given = parser.parse_args()
    options = BatchOptions(shard_size=given.shard_size)
    own = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with Client(given.scheduler or LocalCluster(**own)) as client:
        summary = run_batch(
            given.exported,
            load(given.exported, device="cpu"),
            DaskEngine(client, given.exported, options),
            Sources((given.inputs,)),
            given.output,
            options,
        )
    print(f"{summary.images} images, {summary.errors} failed, {summary.seconds:.1f} s")


if __name__ == "__main__":
    main()
