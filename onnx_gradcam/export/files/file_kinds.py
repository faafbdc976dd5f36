"""What a file that is no ONNX model looks like: bytes in, a phrase for the error message out."""

from __future__ import annotations

from onnx_gradcam.errors import InvalidModelError
from onnx_gradcam.wire import BYTES, FIXED_SIZES, LONGEST_VARINT, VARINT, read_varint

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


def missing_bytes(data: bytes) -> int | None:
    """Return how many bytes a truncated protobuf message lacks, None when it is not truncated.

    Walks the fields of the outermost message only, as the encoding specification describes:
    https://protobuf.dev/programming-guides/encoding/.
    """
    position, end = 0, len(data)
    while position < end:
        try:
            tag, position = read_varint(data, position, end)
            kind, width = tag & 7, 0
            if kind in {VARINT, BYTES}:
                value, position = read_varint(data, position, end)
                width = value if kind == BYTES else 0
            elif kind in FIXED_SIZES:
                width = FIXED_SIZES[kind]
            else:
                return None
        except InvalidModelError:  # a number without end: at the end of the file, or no number
            return 1 if end - position < LONGEST_VARINT and _continues(data, position) else None
        position += width
    return position - end if position > end else None


def _continues(data: bytes, position: int) -> bool:
    """Return whether a number goes on behind the last byte."""
    return all(byte & 0x80 for byte in data[position:])
