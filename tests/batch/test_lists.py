from __future__ import annotations

import io

import pytest

from onnx_gradcam.batch import lists
from onnx_gradcam.batch.lists import names_in
from onnx_gradcam.errors import UsageError


def names(data: bytes) -> list[str]:
    return list(names_in(io.BytesIO(data), "the list"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a.jpg\n\n b.jpg \n", ["a.jpg", " b.jpg "]),
        (b"a.jpg\r\nb.jpg\r\n", ["a.jpg", "b.jpg"]),
        (b"\xef\xbb\xbfa.jpg\nb.jpg", ["a.jpg", "b.jpg"]),
        (b"line\nbreak.jpg\0b\r.jpg\0", ["line\nbreak.jpg", "b\r.jpg"]),
        (b"caf\xe9.jpg\n", ["caf\udce9.jpg"]),
        # separators of lines elsewhere, letters of names here
        ("a\x0bb.jpg\nc\u2028d.jpg\n".encode(), ["a\x0bb.jpg", "c\u2028d.jpg"]),
    ],
)  # fmt: skip
def test_names(data: bytes, expected: list[str]) -> None:
    assert names(data) == expected


@pytest.mark.parametrize("end", [b"\n", b"\0"])
def test_names_across_the_pieces_that_are_read(monkeypatch: pytest.MonkeyPatch, end: bytes) -> None:
    monkeypatch.setattr(lists, "PIECE", 10)
    wanted = [f"é{n}.jpg" for n in range(50)]
    assert names(end.join(n.encode() for n in wanted)) == wanted


def test_what_is_no_list() -> None:
    with pytest.raises(UsageError, match="UTF-16; write it as UTF-8"):
        names("a.jpg\n".encode("utf-16"))
    with pytest.raises(UsageError, match="the list is no list of names"):
        names(b"x" * 1_000_000)
