"""Requests that are answered before all of their body has come."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REST_SECONDS = 10.0  # for the rest of a body that is not wanted


class Drained:
    """An app that takes the rest of a body before it answers.

    Where a connection is closed with data that nobody has taken, the system resets it, and the client may not get the
    answer. A client that expects a word before it sends its body gets the answer at once.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        more = all(name != b"expect" for name, _ in scope["headers"])

        async def note() -> Message:
            nonlocal more
            message = await receive()
            more = more and message.get("more_body", False)
            return message

        async def drain() -> None:
            while more:
                await note()

        async def answer(message: Message) -> None:
            if more and message["type"] == "http.response.start":
                with suppress(asyncio.TimeoutError, TimeoutError):
                    await asyncio.wait_for(drain(), REST_SECONDS)
            await send(message)

        await self._app(scope, note, answer)
