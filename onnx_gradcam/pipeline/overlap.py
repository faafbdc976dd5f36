"""A function applied to many things by several threads: results in order, a bounded way ahead.

Flows in: a function and an iterable. Flows out: what `map` would give, sooner. Threads and not
processes: onnxruntime, OpenCV and the writing of files let other Python threads run meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
R = TypeVar("R")

THREAD_NAME = "onnx-gradcam"
"""What the names of the threads begin with."""


def overlapped(
    work: Callable[[S], R], sources: Iterable[S], workers: int, ahead: int | None = None
) -> Generator[R, None, None]:
    """Yield ``work(source)`` of each source, in their order.

    Nothing starts before the first result is asked for. The sources are read in the thread that
    asks, and only as many as may be under way. However this ends (all done, an error of `work` or
    of the sources, Ctrl-C, the generator closed or forgotten), the threads are gone then: what they
    have begun they finish, the rest is dropped.

    Args:
        work: called by several threads at a time. What it raises is raised here, in its turn: the
            results before it have been yielded by then.
        sources: what to apply it to; may be endless.
        workers: the number of threads; with one, everything happens in the thread that asks.
        ahead: how many sources may be under way or wait to be asked for; without it four per
            worker.

    Yields:
        The result of each source.
    """
    if workers <= 1:
        yield from map(work, sources)
        return
    room = max(ahead or 4 * workers, 1)
    feed, end = iter(sources), None
    under_way: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix=THREAD_NAME)
    try:
        while end is None:
            try:
                under_way.append(pool.submit(work, next(feed)))
            except Exception as error:  # of the sources: in its turn, as one of the work
                end = error
            while under_way and (end is not None or len(under_way) >= room):
                yield under_way.popleft().result()
        if not isinstance(end, StopIteration):
            raise end
    finally:
        end = None  # it holds this frame, which would hold it
        pool.shutdown(wait=True, cancel_futures=True)
