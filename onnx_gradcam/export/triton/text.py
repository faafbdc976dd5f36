"""Protocol buffers as text: a message as a mapping in, its text format out.

Source: https://protobuf.dev/reference/protobuf/textformat-spec/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_INDENT = "  "

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
"""What a string in double quotes writes otherwise; other control characters go as octal numbers."""


class Word(str):
    """A value that stands without quotes: a name of an enumeration."""

    __slots__ = ()


def to_text(message: Mapping[str, Any]) -> str:
    """Return a message as text, a field a line, in the order of the mapping.

    Args:
        message: field -> str, `Word`, bool, int, another mapping, or a sequence of these; an empty
            sequence is written as such, which leaves the field empty.
    """
    return "".join(f"{line}\n" for line in _fields(message))


def _fields(message: Mapping[str, Any]) -> Iterator[str]:
    for name, value in message.items():
        first, *further = _lines(value)
        yield f"{name}: {first}"
        yield from further


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return ["{", *(_INDENT + line for line in _fields(value)), "}"] if value else ["{ }"]
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not any(isinstance(item, Mapping) for item in value):
            items = ", ".join(_scalar(item) for item in value)
            return [f"[ {items} ]" if items else "[ ]"]
        lines = ["["]
        for index, item in enumerate(value):
            *inner, last = (_INDENT + line for line in _lines(item))
            lines += [*inner, last + ("," if index + 1 < len(value) else "")]
        return [*lines, "]"]
    return [_scalar(value)]


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (Word, int)):
        return str(value)
    return '"' + "".join(map(_character, value)) + '"'


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    return f"\\{code:03o}" if code < 0x20 or code == 0x7F else character
