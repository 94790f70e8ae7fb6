"""Vectors and errors as JSON."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response, StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    import numpy as np
    import numpy.typing as npt

    from .requests import RequestError

PIECE = 1 << 16  # bytes that are written at once
DIGITS = "%.9g"  # which every float32 needs, and none needs more
INLINE_VALUES = 100_000  # fewer are written in 0.1 s


def number_rows(vectors: npt.NDArray[np.float32]) -> Iterator[str]:
    """Each of the vectors (texts, dim) as an array of JSON."""
    form = f"[{','.join([DIGITS] * vectors.shape[1])}]"
    for row in vectors:
        yield form % tuple(row.tolist())


def base64_rows(vectors: npt.NDArray[np.float32]) -> Iterator[str]:
    """Each of the vectors (texts, dim) as a string of JSON: base64 of little-endian float32."""
    for row in vectors.astype("<f4", copy=False):
        yield f'"{base64.b64encode(row.tobytes()).decode()}"'


def rows_answer(head: str, rows: Iterable[str], tail: str, values: int) -> Response:
    """JSON with rows between a head and a tail; one of many values is written while the client takes it."""
    if values < INLINE_VALUES:
        return Response(f"{head}{','.join(rows)}{tail}", media_type="application/json")
    return StreamingResponse(_pieces(head, rows, tail), media_type="application/json")


async def _pieces(head: str, rows: Iterable[str], tail: str) -> AsyncIterator[bytes]:
    parts, size, comma = [head], 0, ""
    for row in rows:
        parts += comma, row
        size += len(row)
        comma = ","
        if size > PIECE:
            yield "".join(parts).encode()
            parts, size = [], 0
            await asyncio.sleep(0)  # lets others be answered
    yield "".join([*parts, tail]).encode()


def error_answer(error: RequestError, path: str) -> Response:
    """An error as the clients of a path expect it: Ollama's below /api, else OpenAI's."""
    if path.startswith("/api/"):
        return JSONResponse({"error": error.message}, error.status, error.headers)
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    server = "server_error" if error.status >= 500 else "invalid_request_error"
    details = {
        "message": error.message,
        "type": kinds.get(error.status, server),
        "param": error.param,
        "code": error.code,
    }
    return JSONResponse({"error": details}, error.status, error.headers)
