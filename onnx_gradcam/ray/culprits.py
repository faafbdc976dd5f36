"""The image that kills whatever explains it: a shard in, the same shard without it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnx_gradcam.batch.shards import Shard
from onnx_gradcam.batch.sources import LostImage
from onnx_gradcam.errors import BatchError
from onnx_gradcam.ray.pool import ActorLostError

TIMES = 2
"""How many actors an image must kill, all by itself, to be blamed."""

MOST = 5
"""More such images in one shard, and it is not they who are to blame."""


def without_culprits(shard: Shard, explain: Callable[[Shard], None]) -> Shard:
    """Return a shard in which images that kill an actor are lost ones, rows that say so.

    Args:
        shard: one that has killed actors.
        explain: explains a shard on an actor of its own.

    Raises:
        BatchError: nearly all images kill an actor.
    """
    images, culprits = list(shard.images), 0
    for place, image in enumerate(shard.images):
        fate = _fate(Shard(shard.number, shard.first + place, (image,)), explain)
        if fate is None:
            continue
        culprits += 1
        if culprits > MOST:
            raise BatchError(
                f"actors die of {culprits} images of shard {shard.number}, each by itself, the last"
                f" one {image.name}: {fate}; give actors more memory (fewer of them on a node,"
                " --cpus-per-actor), or smaller images (--max-pixels)"
            )
        images[place] = LostImage(image.name, f"what explains it dies, {TIMES} times: {fate}")
    return replace(shard, images=tuple(images))


def _fate(single: Shard, explain: Callable[[Shard], None]) -> str | None:
    """Return how actors die of an image; None where one lives."""
    fate = None
    for _ in range(TIMES):
        try:
            explain(single)
        except ActorLostError as error:
            fate = str(error)
        else:
            return None
    return fate
