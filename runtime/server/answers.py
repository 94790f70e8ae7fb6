"""Vectors and errors as JSON."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response, StreamingResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from .requests import RequestError

PIECE = 1 << 16  # bytes that are sent before the client must have taken some
DIGITS = "%.9g"  # which every float32 needs, and none needs more
INLINE_VALUES = 50_000  # fewer are written in less time than anyone notices


def number_rows(vectors: npt.NDArray[np.float32]) -> Iterator[str]:
    """Each of the vectors (texts, dim) as an array of JSON."""
    form = f"[{','.join([DIGITS] * vectors.shape[1])}]"
    for row in vectors:
        yield form % tuple(row.tolist())


def base64_rows(vectors: npt.NDArray[np.float32]) -> Iterator[str]:
    """Each of the vectors (texts, dim) as a string of JSON: base64 of little-endian float32."""
    for row in vectors.astype("<f4", copy=False):
        yield f'"{base64.b64encode(row.tobytes()).decode()}"'


def json_answer(body: str) -> Response:
    """An answer, of which a slow client does not fill our memory with more than a piece."""
    data = body.encode()
    if len(data) <= PIECE:
        return Response(data, media_type="application/json")
    pieces = (data[start : start + PIECE] for start in range(0, len(data), PIECE))
    headers = {"Content-Length": str(len(data))}
    return StreamingResponse(_each(pieces), media_type="application/json", headers=headers)


async def _each(pieces: Iterator[bytes]) -> Any:
    for piece in pieces:
        yield piece


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
