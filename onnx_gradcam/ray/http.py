"""An image posted over HTTP in, the rows of the table of results in JSON out.

What is wrong with a request is one line, ``{"error": ...}``, and a status from 400 to 499.
"""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from onnx_gradcam.batch.rows import ImageResult
from onnx_gradcam.batch.schema import COLUMNS, Row, table_of
from onnx_gradcam.batch.sources import GivenImage

MOST_BYTES = 64 * 2**20
"""Of a posted image."""

NAME = "name"
"""The part of a query that says what the image is called."""


def is_request(given: Any) -> bool:
    """Return whether something is a ``starlette.requests.Request``."""
    requests = sys.modules.get("starlette.requests")  # where it is not loaded, there are none
    return requests is not None and isinstance(given, requests.Request)


async def answer(request: Any, explain: Callable[[GivenImage], Awaitable[ImageResult]]) -> Any:
    """Return a ``starlette.responses.JSONResponse``.

    Args:
        request: a ``starlette.requests.Request``.
        explain: explains an image.
    """
    if request.method != "POST":
        return _refused(405, f"{request.method} shows nothing: POST an image", {"Allow": "POST"})
    if request.headers.get("content-type", "").startswith("multipart/"):
        return _refused(415, "a form: post the image itself, curl --data-binary @cat.jpg")
    body = await _body(request)
    if body is None:
        return _refused(413, f"more than {MOST_BYTES} bytes; post a smaller image")
    result = await explain(GivenImage(request.query_params.get(NAME, "posted"), body))
    if result.failed:
        return _refused(400, str(result.rows[0]["error"]))
    rows = table_of(result.rows).to_pylist()  # of the precision that tables have
    return _json({"rows": [json_row(row) for row in rows]})


def json_row(row: Row) -> Row:
    """Return a row as JSON has it: bytes in base64, numbers that are none as null."""
    return {name: _json_value(row.get(name)) for name in COLUMNS if name != "overlay"}


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


async def _body(request: Any) -> bytes | None:
    """Return what was posted; None where it is too much."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)


def _refused(status: int, line: str, headers: dict[str, str] | None = None) -> Any:
    return _json({"error": line}, status, headers)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse(content, status, headers)
