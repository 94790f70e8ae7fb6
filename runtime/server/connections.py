"""Connections that end when a client is too slow, or when there are too many of them."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import asyncio

REQUEST_SECONDS = 15.0  # for the head of a request to come; and for a body that nobody wants any more
WRITE_SECONDS = 30.0  # for a client to take the 64 KB that wait for it
MOST_CONNECTIONS = 1000
OTHER_FILES = 64  # that a process may need besides its connections


def most_connections() -> int:
    """How many connections may be open: as many as the process may have, less what else it needs."""
    if resource is None:
        return MOST_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files < 0 else max(1, min(MOST_CONNECTIONS, files - OTHER_FILES))


class Connection(H11Protocol):
    """One of them."""

    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            transport.abort()
        else:
            self._expect_request()

    def data_received(self, data: bytes) -> None:
        """Waits for the rest of a request, until there is one that is to be answered."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_reading()
        else:
            self._expect_request()

    def on_response_complete(self) -> None:
        """Begins a time of rest, which uvicorn ends."""
        self._stop_reading()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Waits for a client that takes less than it gets."""
        super().pause_writing()
        self._stop_writing()
        self._writing = self.loop.call_later(WRITE_SECONDS, self._reset)

    def resume_writing(self) -> None:
        """Goes on."""
        super().resume_writing()
        self._stop_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends all waiting."""
        self._stop_reading()
        self._stop_writing()
        super().connection_lost(exc)

    def _expect_request(self) -> None:
        if self._reading is None and not self.transport.is_closing():
            self._reading = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _stop_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _reset(self) -> None:
        """Ends the connection, and lets the system forget what waits to be sent."""
        now = struct.pack("ii", 1, 0)  # linger for no time
        with suppress(OSError):
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        self.transport.abort()
