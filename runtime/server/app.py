"""The server as one app: its routes, and what becomes of errors."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..kernels.errors import EmbgemmaError
from ..notices import tell
from .answers import error_answer
from .drained import Drained
from .guard import Access, Guard
from .metrics import Measured
from .ollama_calls import OllamaCalls
from .openai_calls import OpenAICalls
from .requests import Bodies, RequestError
from .search_page import SearchPage

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from ..search import Index
    from .service import Service

INTERNAL, CLIENT_GONE = 500, 499
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_app(service: Service, access: Access, index: Index | None = None) -> ASGIApp:
    """The app of a model, and of an index if there is one."""

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok", "model": service.name})

    async def metrics(_: Request) -> Response:
        return Response(service.metrics.text(), media_type=METRICS_TYPE)

    async def greeting(_: Request) -> Response:
        return Response(
            f"embgemma serves {service.name}: README.md of its server lists the calls\n", media_type="text/plain"
        )

    bodies = Bodies(service.limits.body)
    routes = [
        Route("/health", health),
        Route("/metrics", metrics),
        *OpenAICalls(service, bodies).routes,
        *OllamaCalls(service, bodies).routes,
        *(SearchPage(index, service).routes if index is not None else [Route("/", greeting)]),
    ]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=sorted(access.origins),
        allow_methods=("GET", "POST"),
        allow_headers=("*",),  # clients of OpenAI send several of their own
    )
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Drained),
            Middleware(Measured, metrics=service.metrics, paths={route.path for route in routes}),
            *([cors] if access.origins else []),
            Middleware(Guard, access=access),
        ],
        exception_handlers={
            RequestError: _refuse,
            HTTPException: _no_route,
            ClientDisconnect: _gone,
            EmbgemmaError: _failed,
            MemoryError: _failed,
            Exception: _failed,
        },
    )
    app.router.redirect_slashes = False  # to an address that a reverse proxy before us may not have
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)  # noqa: S101  (Starlette chose this handler)
    return error_answer(error, request.url.path)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    what = f"{request.method} {request.url.path}: {error.detail}; README.md of embgemma's server lists the calls"
    answer = error_answer(RequestError(error.status_code, what, "unknown_url"), request.url.path)
    answer.headers.update(error.headers or {})
    return answer


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


async def _failed(request: Request, error: Exception) -> Response:
    """Tells what is wrong to those who run the server; a client could do nothing about it."""
    lines = [] if isinstance(error, EmbgemmaError) else traceback.format_exception(error)
    tell(f"{request.method} {request.url.path} failed: {type(error).__name__}: {error}")
    for line in "".join(lines).splitlines():
        tell(line)
    message = "the server could not do it; its messages on standard error say why"
    return error_answer(RequestError(INTERNAL, message, "internal_error"), request.url.path)
