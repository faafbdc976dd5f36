from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnx_gradcam.batch.parts import ResultFolder, parts_of
from onnx_gradcam.batch.shards import Shard, shards
from onnx_gradcam.batch.sources import Sources
from onnx_gradcam.errors import (
    BatchError,
    ClassNotFoundError,
    ProviderError,
    UnavailableError,
    UsageError,
)
from onnx_gradcam.ray import Actors, RayEngine, Share
from onnx_gradcam.ray.culprits import TIMES
from onnx_gradcam.runtime import load
from tests.batch.examples import batch, rows, write_images, write_model
from tests.ray.examples import ALWAYS, OPTIONS, counted, deadly, parts, ray_batch, same

IMAGES = 22


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_images(tmp_path_factory.mktemp("images"), IMAGES)
    (folder / "0007.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def local(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that the local engine writes."""
    out = tmp_path_factory.mktemp("local")
    batch(model, images, out, OPTIONS)
    return parts(out)


def test_files_are_those_of_the_local_engine(
    ray: Any, model: Path, images: Path, tmp_path: Path
) -> None:
    options = replace(OPTIONS, overlays="jpg", arrays=True, thumbnails=16)
    told: list[int] = []
    expected = batch(model, images, tmp_path / "local", options, coco=True)
    found = ray_batch(model, images, tmp_path / "ray", options, coco=True, on_progress=told.append)
    assert same(found) == same(expected)
    assert (found.images, found.errors, found.parts) == (IMAGES, 1, 6)
    assert told == [1] * IMAGES
    assert parts(tmp_path / "ray") == parts(tmp_path / "local")


def test_each_engine_goes_on_where_the_other_was(
    ray: Any, model: Path, images: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    stopped(model, images, tmp_path)
    assert [part.file.name for part in parts_of(tmp_path)] == [
        "part-000000.parquet",
        "part-000001.parquet",
    ]
    assert ray_batch(model, images, tmp_path, actors=Actors(1)).done_before == 8
    assert parts(tmp_path) == local
    for number in (0, 4):
        (tmp_path / "parts" / f"part-{number:06d}.parquet").unlink()
    assert batch(model, images, tmp_path, OPTIONS).done_before == IMAGES - 8
    assert parts(tmp_path) == local


def stopped(model: Path, images: Path, out: Path) -> None:
    """Have the local engine stop after two shards."""
    with pytest.MonkeyPatch.context() as patched:
        commit = ResultFolder.commit

        def until(folder: ResultFolder, result: Any) -> None:
            if result.number == 2:
                raise KeyboardInterrupt
            commit(folder, result)

        patched.setattr(ResultFolder, "commit", until)
        with pytest.raises(KeyboardInterrupt):
            batch(model, images, out, OPTIONS)


def test_what_an_actor_had_when_it_died_is_done_by_another(
    ray: Any, model: Path, images: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    sources = deadly(images, tmp_path / "told", n5=("killed", 1), n17=("memory", 1))
    summary = ray_batch(model, sources, tmp_path / "out")
    assert summary.images == IMAGES
    assert counted(tmp_path / "told", 5) == counted(tmp_path / "told", 17) == 1
    assert parts(tmp_path / "out") == local


def test_an_image_that_kills_each_actor_is_a_row(
    ray: Any, model: Path, images: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    sources = deadly(images, tmp_path / "told", n10=("memory", ALWAYS))
    actors = Actors(1, attempts=1)
    summary = ray_batch(model, sources, tmp_path / "out", actors=actors)
    assert summary.errors == 2
    assert counted(tmp_path / "told", 10) == 1 + TIMES
    found = {row["image"]: row for row in rows(tmp_path / "out")}
    assert found.keys() == set(range(IMAGES))
    assert found[10]["error"] == "what explains it dies, 2 times: its memory was not enough"
    assert found[11]["error"] is None
    written = parts(tmp_path / "out")
    for name in local.keys() - {"manifest.json", "parts/part-000002.parquet"}:
        assert written[name] == local[name]


def test_a_shard_that_nobody_survives_is_one_error(
    ray: Any, model: Path, images: Path, local: dict[str, bytes], tmp_path: Path
) -> None:
    """Image 9 kills two actors, is innocent when it is tried alone, and kills a third one."""
    sources = deadly(images, tmp_path / "told", n9=("killed", ALWAYS))
    told = tmp_path / "told" / "9"

    def forgiving(shard: Shard, explain: Any) -> Shard:
        return shard

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("onnx_gradcam.ray.engine.without_culprits", forgiving)
        with pytest.raises(BatchError, match=r"shard 2 \(4 images from .*0008\.png on\) lost its"):
            ray_batch(model, sources, tmp_path / "out", actors=Actors(1, attempts=1))
    assert len(list(told.iterdir())) == 2
    written = parts(tmp_path / "out")
    for number in (0, 1):
        name = f"parts/part-{number:06d}.parquet"
        assert written[name] == local[name]
    assert batch(model, images, tmp_path / "out", OPTIONS).done_before >= 8
    assert parts(tmp_path / "out") == local


@pytest.mark.parametrize(
    ("actors", "message"),
    [
        (Actors(3), r"3 actors with 1 CPU each do not fit: .* 2 CPUs .*take --actors 2"),
        (Actors(1, Share(4)), r"1 actor with 4 CPUs each does not fit.*less with --cpus-per-actor"),
        (Actors(None, Share(1, 2)), r"1 CPU and 2 GPUs each does not fit: .* and 1 GPU in 1 node"),
    ],
)
def test_more_than_fits_is_refused(
    ray: Any, model: Path, images: Path, tmp_path: Path, actors: Actors, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ray_batch(model, images, tmp_path / "out", actors=actors)
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_others_use_is_not_waited_for_for_ever(
    ray: Any, model: Path, images: Path, tmp_path: Path
) -> None:
    other = ray.remote(Other).options(num_cpus=2).remote()
    try:
        ray.get(other.ping.remote())
        with pytest.raises(
            UnavailableError, match=r"no actor with 1 CPU could start within 0\.5 s"
        ):
            ray_batch(model, images, tmp_path / "out", actors=Actors(1, patience=0.5))
    finally:
        ray.kill(other)


class Other:
    def ping(self) -> int:
        return 1


def test_what_no_image_can_have_stops_before_the_first(
    ray: Any, model: Path, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ClassNotFoundError):
        ray_batch(model, images, tmp_path / "out", replace(OPTIONS, classes=("no such",)))
    assert not (tmp_path / "out").exists()


def test_what_an_actor_refuses_is_the_error(
    ray: Any, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("onnx_gradcam.ray.pool.__version__", "0.0")
    with pytest.raises(UnavailableError, match=r"has onnx-gradcam .*, the driver 0\.0; install"):
        ray_batch(model, images, tmp_path / "out")


def test_no_shard_is_read_before_there_is_an_actor_for_it(
    ray: Any, model: Path, images: Path
) -> None:
    read: list[int] = []

    def noted() -> Iterator[Shard]:
        for shard in shards(Sources((str(images),)).references(), 1):
            read.append(shard.number)
            yield shard

    explainer = load(model, device="cpu")
    with RayEngine(model, explainer, OPTIONS, Actors(1)) as engine:
        results = engine.results(noted(), lambda _path, _data: None, lambda _image: None)
        for done in range(1, IMAGES + 1):
            next(results)
            assert len(read) <= done + 2
        assert next(results, None) is None
    assert read == list(range(IMAGES))


def test_actors_are_gone_when_a_run_is_stopped(
    ray: Any, model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_folder: ResultFolder, _result: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ResultFolder, "commit", stop)
        with pytest.raises(KeyboardInterrupt):
            ray_batch(model, images, tmp_path / "out")
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_actors_with_gpus_run_on_cuda_or_not_at_all(
    ray: Any, model: Path, images: Path, tmp_path: Path
) -> None:
    """The GPU of this cluster is none: the actor gets it, and finds no CUDA."""
    with pytest.raises(ProviderError, match="CUDA"):
        ray_batch(model, images, tmp_path / "out", actors=Actors(1, Share(1, 0.5)))
