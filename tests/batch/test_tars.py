"""Tars as they are found in the wild, and the damaged ones."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from onnx_gradcam.batch.references import LostImage
from onnx_gradcam.batch.tars import images_in_tar
from onnx_gradcam.errors import ImageError, UsageError


def member(name: str | tarfile.TarInfo, content: bytes = b"", **more: Any) -> Any:
    info = tarfile.TarInfo(name) if isinstance(name, str) else name
    info.size = len(content)
    for field, value in more.items():
        setattr(info, field, value)
    return info, io.BytesIO(content)


def write_tar(file: Path, *members: Any, **options: Any) -> Path:
    with tarfile.open(file, "w", **options) as tar:
        for one in members:
            tar.addfile(*one)
    return file


def read_all(tar: Path) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for image in images_in_tar(str(tar)):
        name = image.name.removeprefix(f"{tar}/")
        found[name] = image.reason if isinstance(image, LostImage) else image.read()
    return found


def test_a_webdataset(tmp_path: Path) -> None:
    pieces = [
        member(f"{n:06d}.{ending}", f"{n}{ending}".encode())
        for n in range(3)
        for ending in ("jpg", "cls", "json", "seg.PNG")
    ]
    assert read_all(write_tar(tmp_path / "x.tar", *pieces)) == {
        f"{n:06d}.{ending}": f"{n}{ending}".encode()
        for n in range(3)
        for ending in ("jpg", "seg.PNG")
    }


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_length_and_script(tmp_path: Path, form: int) -> None:
    names = ["d/" * 120 + "x.jpg", "é象.jpg", "line\nbreak.png", "ends in byte \udcff.jpg"]
    tar = write_tar(tmp_path / "x.tar", *(member(n, n[:1].encode()) for n in names), format=form)
    assert read_all(tar) == {n: n[:1].encode() for n in names}


def test_links_within_a_tar_are_followed(tmp_path: Path) -> None:
    hard, soft = tarfile.LNKTYPE, tarfile.SYMTYPE
    tar = write_tar(
        tmp_path / "x.tar",
        member("early.jpg", type=soft, linkname="a/one.jpg"),
        member("a/one.jpg", b"one"),
        member("b/hard.jpg", type=hard, linkname="a/one.jpg"),
        member("b/soft.jpg", type=soft, linkname="../a/one.jpg"),
        member("b/gone.jpg", type=soft, linkname="/etc/passwd"),
        member("b/circle.jpg", type=soft, linkname="circle.jpg"),
        member("last.jpg", b"last"),
    )
    found = read_all(tar)
    assert [found[n] for n in ("early.jpg", "b/hard.jpg", "b/soft.jpg")] == [b"one"] * 3
    assert found["b/gone.jpg"] == "a link to /etc/passwd, which is no file of the tar"
    assert found["b/circle.jpg"] == "a link to circle.jpg, which is no file of the tar"
    assert found["last.jpg"] == b"last"
    assert list(found) == [
        *("early.jpg", "a/one.jpg", "b/hard.jpg", "b/soft.jpg", "b/gone.jpg", "b/circle.jpg"),
        "last.jpg",
    ]


def test_what_is_no_file_is_told_of(tmp_path: Path) -> None:
    sparse = {"GNU.sparse.map": "0,1,100,1", "GNU.sparse.size": "200"}
    tar = write_tar(
        tmp_path / "x.tar",
        member("pipe.jpg", type=tarfile.FIFOTYPE),
        member("folder.jpg", type=tarfile.DIRTYPE),
        member("holes.jpg", b"ab", pax_headers=sparse),
        member("x.jpg", b"x"),
    )
    found = read_all(tar)
    assert found == {
        "pipe.jpg": "a pipe or device, not a file",
        "holes.jpg": "stored with holes; pack the tar anew without --sparse",
        "x.jpg": b"x",
    }


def test_an_empty_tar_holds_no_images(tmp_path: Path) -> None:
    assert read_all(write_tar(tmp_path / "x.tar")) == {}
    (tmp_path / "zero.tar").touch()
    with pytest.raises(UsageError, match=r"zero\.tar: empty file; get it anew"):
        read_all(tmp_path / "zero.tar")


def whole_tar(folder: Path) -> bytes:
    content = [member(f"{n}.jpg", bytes([65 + n]) * 700) for n in range(4)]
    return write_tar(folder / "whole.tar", *content).read_bytes()


@pytest.mark.parametrize("at", [100, 900, 1536 + 3, 1536 * 2 + 200, 1536 * 3 + 600])
def test_a_tar_cut_anywhere_is_refused(tmp_path: Path, at: int) -> None:
    """Python's tarfile takes a header that is cut short for the end of the tar."""
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole_tar(tmp_path)[:at])
    with pytest.raises(UsageError, match=r"cannot read the tar .*cut\.tar: .*; get it anew"):
        list(images_in_tar(str(cut)))


def test_a_tar_without_its_last_zeros_is_whole(tmp_path: Path) -> None:
    bare = tmp_path / "bare.tar"
    bare.write_bytes(whole_tar(tmp_path)[: 4 * 1536])
    assert len(read_all(bare)) == 4


def test_damage_in_the_middle_is_no_end(tmp_path: Path) -> None:
    data = bytearray(whole_tar(tmp_path))
    data[2 * 1536 + 148] ^= 0xFF  # the checksum of the third header
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(data)
    with pytest.raises(UsageError, match=r"no header at byte 3072, or another tar behind it"):
        read_all(damaged)


def test_a_second_tar_behind_the_first_is_not_passed_over(tmp_path: Path) -> None:
    both = tmp_path / "both.tar"
    both.write_bytes(whole_tar(tmp_path) * 2)
    with pytest.raises(UsageError, match="another tar behind it"):
        read_all(both)


def test_a_tar_that_shrinks_afterwards(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", member("a.jpg", b"a" * 5000), member("b.jpg", b"b" * 5000))
    first, second = images_in_tar(str(tar))
    tar.write_bytes(tar.read_bytes()[:7000])
    assert first.read() == b"a" * 5000
    with pytest.raises(ImageError, match="the tar ends within this image"):
        second.read()
