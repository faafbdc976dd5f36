import errno
from pathlib import Path
from typing import Any, NoReturn

import pytest

from onnx_gradcam.errors import OutputError, WriteError
from onnx_gradcam.files import make_folder, write_whole


def failing_open(number: int) -> Any:
    """Return an open() for paths whose files fail at the first write."""
    original = Path.open

    def open_path(path: Path, *arguments: Any, **options: Any) -> Any:
        file = original(path, *arguments, **options)

        class Failing:
            def __enter__(self) -> "Failing":
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, _: bytes) -> NoReturn:
                raise OSError(number, "No space left on device")

        return Failing()

    return open_path


def test_a_file_is_written_with_its_bytes_and_nothing_beside_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.npy", b"content")
    assert (tmp_path / "a.npy").read_bytes() == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_an_existing_file_is_kept_without_force(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"a\.npy exists; replace it with --force"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    write_whole(path, b"new", force=True)
    assert path.read_bytes() == b"new"


def test_a_dangling_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "a.npy").symlink_to(tmp_path / "gone")
    with pytest.raises(OutputError, match="exists"):
        write_whole(tmp_path / "a.npy", b"new")


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, WriteError), (errno.EDQUOT, WriteError), (errno.EACCES, OutputError)],
)
def test_a_failing_device_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing_open(number))
        with pytest.raises(error, match="cannot write"):
            write_whole(path, b"new", force=True)
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_folders_are_made_with_those_above(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_the_way_of_a_folder_is_an_output_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot create the folder"):
        make_folder(tmp_path / name)
