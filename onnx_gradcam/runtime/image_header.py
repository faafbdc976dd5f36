"""Image format and size, read from the first bytes of a file: what can be refused before decoding.

A picture of 20000 x 20000 pixels can be a file of some kilobytes and 2 GB once decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    Attributes:
        format: ``PNG``, ``JPEG``, ``WebP``, ``GIF``, ``BMP``, ``TIFF`` or ``PNM``.
        height: in pixels as stored, before any EXIF rotation; 0 where the header is damaged.
        width: likewise.
    """

    format: str
    height: int
    width: int

    @property
    def may_have_alpha(self) -> bool:
        """Whether the format has an alpha channel."""
        return self.format not in {"JPEG", "PNM"}


def read_header(data: bytes) -> ImageHeader | None:
    """Return format and size of an encoded image, None if it is of no format known here."""
    for name, is_format, read_size in _FORMATS:
        if is_format(data):
            try:
                height, width = read_size(data)
            except (struct.error, IndexError, ValueError):
                height = width = 0
            return ImageHeader(name, abs(height), abs(width))
    return None


Size = tuple[int, int]


def _png_size(data: bytes) -> Size:
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _gif_size(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return height, width


def _bmp_size(data: bytes) -> Size:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    return height, width


def _jpeg_size(data: bytes) -> Size:
    """Walk the segments up to a start-of-frame marker (C0 to CF but for C4, C8 and CC).

    Raises:
        ValueError: what should be a segment is none.
    """
    position = 2
    while True:
        if data[position] != 0xFF:
            raise ValueError
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            position += 2
        elif 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return height, width
        else:
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]


def _webp_size(data: bytes) -> Size:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF


def _tiff_size(data: bytes) -> Size:
    """Read ImageWidth (256) and ImageLength (257) from the first directory."""
    order = "<" if data[:2] == b"II" else ">"
    (offset,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, offset)
    values: dict[int, int] = {}
    for entry in range(offset + 2, offset + 2 + 12 * min(count, 256), 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in {256, 257}:
            values[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)[
                0
            ]
    return values.get(257, 0), values.get(256, 0)


def _pnm_size(data: bytes) -> Size:
    """Read the two numbers after the magic, past comments."""
    lines = (line.split(b"#")[0] for line in data[:4096].split(b"\n"))
    words = b" ".join(lines).split()
    return int(words[2]), int(words[1])


_FORMATS: tuple[tuple[str, Callable[[bytes], bool], Callable[[bytes], Size]], ...] = (
    ("PNG", lambda d: d.startswith(b"\x89PNG\r\n\x1a\n"), _png_size),
    ("JPEG", lambda d: d.startswith(b"\xff\xd8"), _jpeg_size),
    ("WebP", lambda d: d[:4] == b"RIFF" and d[8:12] == b"WEBP", _webp_size),
    ("GIF", lambda d: d.startswith((b"GIF87a", b"GIF89a")), _gif_size),
    ("BMP", lambda d: d.startswith(b"BM"), _bmp_size),
    ("TIFF", lambda d: d.startswith((b"II*\0", b"MM\0*")), _tiff_size),
    ("PNM", lambda d: d[:1] == b"P" and d[1:2] in b"123456" and d[2:3].isspace(), _pnm_size),
)

FORMAT_NAMES = tuple(name for name, _, _ in _FORMATS)
