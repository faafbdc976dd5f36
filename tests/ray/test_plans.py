"""What is decided without a cluster."""

from __future__ import annotations

import sys

import pytest

from onnx_gradcam.batch.shards import Shard
from onnx_gradcam.batch.sources import FileImage, LostImage
from onnx_gradcam.errors import BatchError, MissingDependencyError, UsageError
from onnx_gradcam.ray.cluster import Cluster, Share, actors_that_fit
from onnx_gradcam.ray.culprits import MOST, without_culprits
from onnx_gradcam.ray.engine import device_of
from onnx_gradcam.ray.pool import ActorLostError, Feed, Task

NODES = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 2.0, "memory": 1e9}, {"memory": 1e9}]


@pytest.mark.parametrize(
    ("share", "room"),
    [
        (Share(), 6),
        (Share(0.5), 12),
        (Share(0.1), 60),
        (Share(2), 3),
        (Share(3), 1),  # there are six cores, but no other node has three
        (Share(1, 1), 1),
        (Share(1, 0.25), 4),
        (Share(2, 0.25), 2),
    ],
)
def test_actors_must_fit_on_nodes(share: Share, room: int) -> None:
    assert actors_that_fit(None, share, NODES) == room
    assert actors_that_fit(room, share, NODES) == room
    with pytest.raises(UsageError, match=f"room for {room}; take --actors {room}"):
        actors_that_fit(room + 1, share, NODES)


def test_where_none_fits_it_says_what_there_is() -> None:
    message = (
        "2 actors with 5 CPUs each do not fit: the Ray cluster has 6 CPUs and 1 GPU in 3 nodes,"
        " room for 0; take less with --cpus-per-actor, or start more nodes"
    )
    with pytest.raises(UsageError) as caught:
        actors_that_fit(2, Share(5), NODES)
    assert str(caught.value) == message
    with pytest.raises(UsageError, match="0 actors; take at least one"):
        actors_that_fit(0, Share(), NODES)


@pytest.mark.parametrize(
    ("cpus", "gpus", "message"),
    [
        (0, 0, "0 CPUs and 0 GPUs"),
        (-1, 0, "-1 CPUs"),
        (1, -1, "-1 GPUs"),
        (1.5, 0, "not 1.5 CPUs"),
        (1, 2.5, "not 2.5 GPUs"),
    ],
)
def test_shares_that_cannot_be(cpus: float, gpus: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Share(cpus, gpus)


@pytest.mark.parametrize(
    ("device", "share", "expected"),
    [
        ("auto", Share(), "cpu"),
        ("auto", Share(1, 0.5), "cuda"),
        ("cpu", Share(), "cpu"),
        ("cuda", Share(1, 1), "cuda"),
    ],
)
def test_devices(device: str, share: Share, expected: str) -> None:
    assert device_of(device, share) == expected


@pytest.mark.parametrize(
    ("device", "share", "message"),
    [
        ("cuda:1", Share(1, 1), "Ray decides which GPU"),
        ("cuda", Share(), "add --gpus-per-actor 1"),
        ("cpu", Share(1, 1), "leave one of them out"),
    ],
)
def test_devices_that_actors_do_not_have(device: str, share: Share, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        device_of(device, share)


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(MissingDependencyError) as caught:
        Cluster("local")
    assert str(caught.value) == "this needs the package ray: pip install 'onnx-gradcam[ray]'"


def test_ray_client_is_refused() -> None:
    pytest.importorskip("ray", reason="needs the extra [ray]")
    with pytest.raises(UsageError, match="ray://head:10001: Ray Client is not served"):
        Cluster("ray://head:10001")


SHARD = Shard(3, 30, tuple(FileImage(f"{n}.png", f"/{n}.png") for n in range(8)))


class Explainer:
    """Dies of some images, by number, so many times."""

    def __init__(self, **deaths: int) -> None:
        self.left = {int(name[1:]): times for name, times in deaths.items()}
        self.tried: list[int] = []

    def __call__(self, shard: Shard) -> None:
        assert len(shard.images) == 1
        assert shard.images[0].name == f"{shard.first - 30}.png"
        self.tried.append(shard.first)
        if self.left.get(shard.first, 0):
            self.left[shard.first] -= 1
            raise ActorLostError("its process is gone: killed")


def test_the_image_that_kills_is_lost_and_all_others_stay() -> None:
    explain = Explainer(n32=9, n35=1)  # the second one only once: whatever that was, it lives
    found = without_culprits(SHARD, explain)
    assert explain.tried == [30, 31, 32, 32, 33, 34, 35, 35, 36, 37]
    assert found.images[2] == LostImage(
        "2.png", "what explains it dies, 2 times: its process is gone: killed"
    )
    assert found.images[:2] + found.images[3:] == SHARD.images[:2] + SHARD.images[3:]
    assert (found.number, found.first, found.digest) == (3, 30, SHARD.digest)


def test_where_all_images_kill_it_is_not_the_images() -> None:
    explain = Explainer(**{f"n{n}": 9 for n in range(30, 38)})
    with pytest.raises(
        BatchError, match=rf"die of {MOST + 1} images of shard 3, .*5\.png: its pro"
    ):
        without_culprits(SHARD, explain)


def test_tasks_that_come_again_come_first() -> None:
    read: list[int] = []

    def noted() -> object:
        for number in range(3):
            read.append(number)
            yield Shard(number, 0, SHARD.images)

    feed = Feed(noted())  # type: ignore[arg-type]
    assert read == []
    assert feed
    assert feed
    assert read == [0]
    first = feed.take()
    feed.again(Task(first.shard, losses=1))
    assert read == [0]
    assert [feed.take().losses for _ in range(2) if feed] == [1, 0]
    assert feed
    assert feed.take().shard.number == 2
    assert not feed
