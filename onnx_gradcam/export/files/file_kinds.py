"""What a file that is no ONNX model looks like: bytes in, a phrase for the error message out."""

from __future__ import annotations

SNIFFED_BYTES = 4096
"""How many bytes from the start of a file `describe_content` wants to see."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"BM", "a BMP image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"PK\x03\x04", "a zip archive (a PyTorch .pt checkpoint, a .keras file or an .npz)"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "a gzip archive; unpack it first"),
    (0, b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first"),
    (4, b"TFL3", "a TensorFlow Lite model; convert it with tf2onnx"),
    (4, b"ORTM", "a model in onnxruntime's own .ort format; use the .onnx it was made from"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (a Keras .h5 model); convert it with tf2onnx"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x7fELF", "a program or shared library"),
    (0, b"MZ", "a Windows program"),
    (0, b"%PDF", "a PDF document"),
    (0, b"version https://git-lfs", "a Git LFS pointer; fetch the real file with: git lfs pull"),
    (8, b'{"', "a safetensors file: weights without a graph"),
    (0, b"\x80\x02", "a Python pickle (a PyTorch checkpoint); export it to ONNX first"),
    (0, b"\x80\x03", "a Python pickle; export it to ONNX first"),
    (0, b"\x80\x04", "a Python pickle; export it to ONNX first"),
    (0, b"\x80\x05", "a Python pickle; export it to ONNX first"),
)
"""Offset, bytes found there, what such a file is."""


def describe_content(start: bytes) -> str | None:
    """Return what a file looks like from its first bytes, None when nothing is recognised."""
    for offset, magic, kind in _MAGIC:
        if start[offset : offset + len(magic)] == magic:
            return kind
    return _describe_text(start[:SNIFFED_BYTES])


def _describe_text(start: bytes) -> str | None:
    try:
        text = start.decode("utf-8", errors="strict" if len(start) < SNIFFED_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    if not text or not all(c.isprintable() or c.isspace() for c in text):
        return None
    lead = text.lstrip().lower()
    if lead.startswith(("<!doctype html", "<html")):
        return "an HTML page; the download probably failed"
    if "ir_version" in lead and "opset_import" in lead:
        return "an ONNX model in a text form; save it in the binary form"
    return "a text file"


_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED_WIDTHS: dict[int | None, int] = {1: 8, 5: 4}
"""Wire types of protobuf fields; bytes of those of fixed width."""


def missing_bytes(data: bytes) -> int | None:
    """Return how many bytes a truncated protobuf message lacks, None when it is not truncated.

    Walks the fields of the outermost message only, as the encoding specification describes:
    https://protobuf.dev/programming-guides/encoding/.
    """
    position, end = 0, len(data)
    while position < end:
        value, position = _varint(data, position)
        kind = None if value is None else value & 7
        width = _FIXED_WIDTHS.get(kind)
        if kind in {_VARINT, _LENGTH_DELIMITED}:
            value, position = _varint(data, position)
            width = 0 if kind == _VARINT else value
        if value is None:
            return 1 if position == end else None
        if width is None:
            return None
        position += width
    return position - end if position > end else None


def _varint(data: bytes, position: int) -> tuple[int | None, int]:
    value = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    return None, position
