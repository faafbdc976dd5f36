"""Actors kept busy: shards in, outcomes out; those that die are replaced.

What is under way is bounded: each actor has one shard in work and one waiting, and no shard is read
before there is an actor for it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from onnx_gradcam import __version__
from onnx_gradcam.batch.shards import Shard
from onnx_gradcam.batch.worker import ShardResult
from onnx_gradcam.errors import OnnxGradCamError, UnavailableError
from onnx_gradcam.ray.actor import Files
from onnx_gradcam.ray.cluster import Share, brief, import_ray

DEPTH = 2
"""Shards that an actor has at a time: one is explained while the next one is on its way."""

POLL = 1.0
"""Seconds after which an idle driver looks around."""


@dataclass(frozen=True)
class Actors:
    """How many actors there are, and what is borne with them.

    Attributes:
        count: how many; None for as many as fit.
        share: what each takes of its node.
        attempts: how many actors a shard may lose before its images are tried one by one.
        patience: seconds to wait for a first actor where others use the cluster.
    """

    count: int | None = None
    share: Share = field(default_factory=Share)
    attempts: int = 3
    patience: float = 300


@dataclass(frozen=True)
class Task:
    """A shard to explain.

    Attributes:
        shard: it.
        losses: how many actors it has taken down.
        probed: whether its images were tried one by one.
    """

    shard: Shard
    losses: int = 0
    probed: bool = False


@dataclass(frozen=True)
class Done:
    """A shard that is explained."""

    result: ShardResult
    files: Files


@dataclass(frozen=True)
class Lost:
    """A shard whose actor died, and why."""

    task: Task
    reason: str


class ActorLostError(Exception):
    """An actor died, or its memory was not enough; the message says which."""


class Feed:
    """Tasks, those that come again first; read no further than asked for."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        """Take the shards."""
        self._shards = iter(shards)
        self._ready: deque[Task] = deque()

    def again(self, task: Task) -> None:
        """Put a task in front of all others."""
        self._ready.appendleft(task)

    def take(self) -> Task:
        """Return the next task; there is one, as `__bool__` said."""
        return self._ready.popleft()

    def __bool__(self) -> bool:
        """Return whether there is another task."""
        if not self._ready:
            self._ready.extend(Task(shard) for shard in [next(self._shards, None)] if shard)
        return bool(self._ready)


@dataclass(eq=False)
class _Member:
    """An actor, and what it has to do.

    Attributes:
        actor: its handle.
        starting: what comes when it has started; None when that is over.
        tasks: what comes of each task -> the task, in the order of work.
    """

    actor: Any
    starting: Any
    tasks: dict[Any, Task] = field(default_factory=dict)


class Pool:
    """Actors of one kind."""

    def __init__(self, start: Callable[[], Any], count: int, actors: Actors) -> None:
        """Take what starts an actor and returns its handle, and how many there may be."""
        self._ray, self._start_actor = import_ray(), start
        self._count, self._actors = count, actors
        self._members: list[_Member] = []
        self._failed_starts = 0

    def run(self, feed: Feed) -> Iterator[Done | Lost]:
        """Yield what becomes of the tasks of a feed, in any order, until there are no more.

        Raises:
            UnavailableError: no actor can be started.
            OnnxGradCamError: what an actor refuses.
        """
        idle_since = time.monotonic()
        while True:
            self._assign(feed)
            waiting = {m.starting: m for m in self._members if m.starting is not None}
            running = {ref: m for m in self._members for ref in m.tasks}
            if not running and not feed:
                return
            ready, _ = self._ray.wait([*running, *waiting], num_returns=1, timeout=POLL)
            if any(member.starting is None for member in self._members):
                idle_since = time.monotonic()
            else:
                self._lose_patience(idle_since)
            for ref in ready:
                if ref in waiting:
                    self._started(waiting[ref])
                elif ref in running[ref].tasks:
                    yield from self._received(running[ref], ref, feed)

    def alone(self) -> Callable[[Shard], None]:
        """Return what explains a shard on an actor of its own and forgets the results.

        It raises ActorLostError where the actor dies.
        """
        own: list[_Member] = []

        def explain(shard: Shard) -> None:
            member = self._living(own)
            try:
                self._get(member.actor.run.remote(shard))
            except ActorLostError:
                self._drop(member)
                raise

        return explain

    def _living(self, own: list[_Member]) -> _Member:
        """Return the actor in a list, replaced where it died, when it has started.

        Raises:
            UnavailableError: it cannot be started.
        """
        began = time.monotonic()
        while True:
            if not own or own[0] not in self._members:
                own[:] = [self._new()]
            if own[0].starting is None:
                return own[0]
            ready, _ = self._ray.wait([own[0].starting], timeout=POLL)
            if ready:
                self._started(own[0])
            else:
                self._lose_patience(began)

    def close(self) -> None:
        """Stop all actors, whatever they are doing."""
        while self._members:
            self._drop(self._members[-1])

    def _assign(self, feed: Feed) -> None:
        """Give tasks to actors that have room for them, or start another actor."""
        while feed:
            able = [m for m in self._members if m.starting is None and len(m.tasks) < DEPTH]
            least = min(able, key=lambda member: len(member.tasks), default=None)
            if (least is None or least.tasks) and len(self._members) < self._count:
                self._new()
            if least is None:
                return
            task = feed.take()
            least.tasks[least.actor.run.remote(task.shard)] = task

    def _new(self) -> _Member:
        actor = self._start_actor()
        member = _Member(actor, actor.start.remote(__version__))
        self._members.append(member)
        return member

    def _drop(self, member: _Member) -> None:
        self._members.remove(member)
        self._ray.kill(member.actor)

    def _started(self, member: _Member) -> None:
        """Take note that an actor has started, or has not.

        Raises:
            UnavailableError: several in a row have not.
        """
        try:
            self._get(member.starting)
        except ActorLostError as error:
            self._drop(member)
            self._failed_starts += 1
            if self._failed_starts >= self._actors.attempts:
                raise UnavailableError(
                    f"{self._failed_starts} actors in a row died as they loaded the model: {error};"
                    " Ray's logs on that node say more"
                ) from error
        else:
            member.starting = None
            self._failed_starts = 0

    def _received(self, member: _Member, ref: Any, feed: Feed) -> Iterator[Done | Lost]:
        """Yield what became of a task; where its actor died, what became of all that it had."""
        try:
            done = Done(*self._get(ref))
        except ActorLostError:
            self._drop(member)
        else:
            del member.tasks[ref]
            yield done
            return
        lost: list[Lost] = []
        for other, task in member.tasks.items():
            try:
                yield Done(*self._get(other))
            except ActorLostError as error:
                lost.append(Lost(task, str(error)))
        for innocent in reversed(lost[1:]):  # they had not begun
            feed.again(innocent.task)
        yield from lost[:1]

    def _get(self, ref: Any) -> Any:
        """Return what an actor returned.

        Raises:
            ActorLostError: it died, or has no memory left.
            OnnxGradCamError: what it raised.
        """
        errors = self._ray.exceptions
        try:
            return self._ray.get(ref)
        except (MemoryError, errors.OutOfMemoryError) as error:
            raise ActorLostError("its memory was not enough") from error
        except (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.ObjectLostError,
        ) as error:
            raise ActorLostError(f"its process is gone: {brief(error)}") from error
        except errors.RayTaskError as error:
            if isinstance(error.cause, OnnxGradCamError):
                raise error.cause from error
            raise

    def _lose_patience(self, since: float) -> None:
        """Give up where nothing has started for long.

        Raises:
            UnavailableError: so it is.
        """
        if time.monotonic() - since > self._actors.patience:
            free = self._ray.available_resources().get("CPU", 0)
            raise UnavailableError(
                f"no actor with {self._actors.share} could start within"
                f" {self._actors.patience:g} s: others use the Ray cluster, {free:g} CPUs are free;"
                " wait for them, or take less with --cpus-per-actor"
            )
