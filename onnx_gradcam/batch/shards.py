"""Pieces of work: the images cut into shards, always in the same way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from onnx_gradcam.batch.sources import Reference


@dataclass(frozen=True)
class Shard:
    """Images that are explained, written and, when a run was killed, repeated together.

    Attributes:
        number: of the shard, from 0.
        first: number of its first image.
        images: in order.
    """

    number: int
    first: int
    images: tuple[Reference, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of what its images are called, and where they lie in a tar or table.

        Whether it is still the same shard; image files are not looked into.
        """
        names = "\0".join(image.identity for image in self.images)
        return hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()


def shards(images: Iterable[Reference], size: int) -> Iterator[Shard]:
    """Yield shards of `size` images; the last one may have fewer."""
    feed, number = iter(images), 0
    while piece := tuple(islice(feed, size)):
        yield Shard(number, number * size, piece)
        number += 1
