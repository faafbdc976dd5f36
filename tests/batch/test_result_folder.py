"""The folder of results: what is ours in it, what is not, and what becomes of either."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnx_gradcam.batch import BatchOptions, layout, parts
from onnx_gradcam.batch.locks import Lock
from onnx_gradcam.batch.sources import Sources
from onnx_gradcam.errors import OutputError, WriteError
from onnx_gradcam.files import make_folder
from tests.batch.examples import batch, rows, write_images, write_model

OPTIONS = BatchOptions(shard_size=4, overlays="jpg", arrays=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "in", 6)


def everything(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}


RESULTS = {
    *("manifest.json", "coco.json", "parts/part-000000.parquet", "parts/part-000001.parquet"),
    *("arrays/part-000000.npz", "arrays/part-000001.npz"),
    *(f"overlays/{n // 4:06d}/{n:09d}.cam.jpg" for n in range(6)),
}


def test_results_among_the_images_are_no_images(model: Path, images: Path) -> None:
    """The folder of images is that of results as well; overlays are written while it is listed."""
    for _ in range(2):
        summary = batch(model, images, images, OPTIONS, coco=True)
        assert (summary.images, summary.errors) == (6, 0)
    assert everything(images) == RESULTS | {f"{n:04d}.png" for n in range(6)}
    assert batch(model, images, images, OPTIONS, coco=True, force=True).images == 6
    inside = images / "results"
    assert batch(model, images, inside, OPTIONS).images == 6
    assert batch(model, images, inside, OPTIONS, force=True).images == 6


def test_a_glob_passes_over_what_a_batch_has_written(model: Path, images: Path) -> None:
    out = images / "results"
    for _ in range(2):
        assert batch(model, f"{images}/**/*", out, OPTIONS, coco=True).images == 6
    every = Sources((f"{images}/**/*",)).beside(out).references()
    assert {Path(image.name).suffix for image in every} == {".png"}


def test_force_removes_nothing_of_others(model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch(model, images, out, OPTIONS, coco=True)
    kept = ["notes.txt", "parts/gears.csv", "overlays/mine.jpg", "overlays/000000/mine.jpg"]
    kept += ["arrays/part-0.npz", ".mine.1.tmp", "parts/.mine.tmp", ".lock"]
    for name in kept:
        (out / name).write_text("mine")
    (out / "overlays" / "link").symlink_to(images)
    (out / "parts" / ".part-000000.parquet.77.tmp").touch()
    batch(model, images, out, replace(OPTIONS, overlays=None), force=True)
    assert everything(out) - set(kept) - {"overlays/link"} == {
        *("manifest.json", "parts/part-000000.parquet", "parts/part-000001.parquet"),
        *("arrays/part-000000.npz", "arrays/part-000001.npz"),
    }
    assert all((out / name).read_text() == "mine" for name in kept)
    assert len(list(images.iterdir())) == 6


def test_drafts_of_a_killed_run_are_removed(model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch(model, images, out, OPTIONS)
    (out / "parts/part-000001.parquet").unlink()
    for name in (
        "parts/.part-000001.parquet",
        "overlays/000001/.000000004.cam.jpg",
        ".manifest.json",
    ):
        (out / f"{name}.4711.tmp").write_text("half")
    batch(model, images, out, OPTIONS)
    assert everything(out) == RESULTS - {"coco.json"}


def test_killed_while_it_begins_anew(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    batch(model, images, out, OPTIONS, coco=True)
    unlink, left = Path.unlink, [5]

    def killed(path: Path, missing_ok: bool = False) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    other = replace(OPTIONS, threshold=0.25)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            batch(model, images, out, other, coco=True, force=True)
    assert (out / "manifest.json").exists(), "it says until the end what the folder holds"
    with pytest.raises(OutputError, match="holds another batch: threshold was"):
        batch(model, images, out, other, coco=True)
    batch(model, images, out, other, coco=True, force=True)
    assert everything(out) == RESULTS


def test_a_manifest_that_is_cut_short(model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch(model, images, out, OPTIONS, coco=True)
    manifest = out / "manifest.json"
    for content in (manifest.read_bytes()[:100], b"", b"\xff\xfe"):
        manifest.write_bytes(content)
        with pytest.raises(OutputError, match=r"cannot read .*manifest\.json: .*--force"):
            batch(model, images, out, OPTIONS)
    batch(model, images, out, OPTIONS, coco=True, force=True)
    assert everything(out) == RESULTS


@pytest.mark.parametrize("content", [b'{"name": "my app", "icons": []}', b"[1]", b'{"half'])
@pytest.mark.parametrize("force", [False, True])
def test_the_manifest_of_something_else(
    model: Path, images: Path, tmp_path: Path, content: bytes, force: bool
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_bytes(content)
    with pytest.raises(OutputError, match="take another folder"):
        batch(model, images, tmp_path / "out", OPTIONS, force=force)
    assert everything(tmp_path / "out") == {"manifest.json"}
    assert (tmp_path / "out" / "manifest.json").read_bytes() == content


def test_the_coco_json_of_something_else(model: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "coco.json").write_text("mine")
    for _ in range(2):
        with pytest.raises(OutputError, match=r"coco\.json is of something else"):
            batch(model, images, out, OPTIONS, coco=True)
        for force in (False, True):
            batch(model, images, out, OPTIONS, force=force)
    assert (out / "coco.json").read_text() == "mine"


def test_killed_behind_the_coco_json(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx_gradcam.batch import engine

    once = engine.write_coco

    def killed(folder: Path, files: Any) -> None:
        once(folder, files)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(engine, "write_coco", killed)
        with pytest.raises(KeyboardInterrupt):
            batch(model, images, tmp_path / "out", OPTIONS, coco=True)
    assert batch(model, images, tmp_path / "out", OPTIONS, coco=True).done_before == 6


def test_a_coco_json_of_fewer_images_does_not_stay(
    model: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    whole = replace(OPTIONS, shard_size=6)
    batch(model, images, out, whole, coco=True)
    batch(model, images, out, whole)
    assert (out / "coco.json").exists(), "it is of these images"
    write_images(images, 12)
    batch(model, images, out, whole)
    assert not (out / "coco.json").exists()
    batch(model, images, out, whole, coco=True)
    assert len(json.loads((out / "coco.json").read_text())["images"]) == 12


def test_a_part_that_is_none_is_made_again(model: Path, images: Path, tmp_path: Path) -> None:
    batch(model, images, tmp_path / "out", OPTIONS)
    part = tmp_path / "out" / "parts" / "part-000000.parquet"
    whole = part.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"PAR1" + bytes(100)):
        part.write_bytes(content)
        assert batch(model, images, tmp_path / "out", OPTIONS).done_before == 2
        assert part.read_bytes() == whole


def test_a_part_whose_pages_are_damaged(model: Path, images: Path, tmp_path: Path) -> None:
    batch(model, images, tmp_path / "out", OPTIONS)
    part = tmp_path / "out" / "parts" / "part-000000.parquet"
    data = bytearray(part.read_bytes())
    data[4:400] = b"\xff" * 396
    part.write_bytes(data)
    with pytest.raises(
        OutputError, match=r"(?s)part-000000\.parquet is damaged .*; remove it and run"
    ):
        batch(model, images, tmp_path / "out", OPTIONS, coco=True)


def test_a_folder_that_cannot_be_written_to(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root is told by the file system alone: what is mounted to be read only."""
    once = Path.open

    def read_only(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        if "a" in mode or "w" in mode:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return once(path, mode, *more, **options)

    monkeypatch.setattr(Path, "open", read_only)
    with pytest.raises(OutputError, match=r"cannot write to .*out: Read-only file system"):
        batch(model, images, tmp_path / "out", OPTIONS)


def test_a_disk_without_room_for_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(WriteError, match="No space left"):
        make_folder(tmp_path / "x")


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = Lock(path)
    with pytest.raises(OutputError, match="another process writes to"):
        Lock(path)
    first.close()
    assert not path.exists()
    second = Lock(path)
    assert path.exists()
    second.close()


def test_a_lock_whose_file_is_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it, whoever held it may have removed it."""
    import fcntl

    path = tmp_path / "lock"
    flock, removed = fcntl.flock, []

    def late(file: Any, how: int) -> None:
        if not removed:
            removed.append(path.unlink())
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    lock = Lock(path)
    assert path.exists()
    with pytest.raises(OutputError):
        Lock(path)
    lock.close()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def unable(_file: Any, _how: int) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", unable)
    Lock(tmp_path / "lock").close()


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("manifest.json", True),
        ("parts/part-000012.parquet", True),
        ("parts/part-1234567.parquet", True),
        ("parts/part-12.parquet", False),
        ("overlays/000001/000001234.cam.png", True),
        ("overlays/000001/000001234.png", False),
        ("arrays/part-000012.npz", True),
        ("x/manifest.json", False),
    ],
)
def test_what_is_a_result(path: str, ours: bool) -> None:
    assert layout.is_result(Path(path)) is ours
    draft = Path(path).with_name(f".{Path(path).name}.99.tmp")
    assert layout.is_draft(draft) is ours
    assert not layout.is_draft(Path(path))


def test_the_paths_that_are_written_are_results() -> None:
    for path in (
        layout.part_path(3), layout.arrays_path(10**6), layout.overlay_path(7, 12, "jpg"),
    ):  # fmt: skip
        assert layout.is_result(Path(path))


def test_results_may_be_moved(model: Path, images: Path, tmp_path: Path) -> None:
    batch(model, images, tmp_path / "out", OPTIONS)
    shutil.move(tmp_path / "out", tmp_path / "moved")
    assert batch(model, images, tmp_path / "moved", OPTIONS).done_before == 6
    assert len(rows(tmp_path / "moved")) == 6
    assert len(list(parts.parts_of(tmp_path / "moved"))) == 2
