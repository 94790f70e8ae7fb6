"""Connections that end when a client is too slow or gone, or when there are too many of them."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from .answers import error_answer
from .requests import BAD_REQUEST, RequestError

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

REQUEST_SECONDS = 15.0  # for the head of a request to come; and for a body that nobody wants any more
WRITE_SECONDS = 30.0  # for a client to take the 64 KB that wait for it
MOST_CONNECTIONS = 1000
OTHER_FILES = 64  # that a process may need besides its connections
ANSWER_BEGINS = b"HTTP/1.1 "  # whatever it is
FIRST_WAIT, MORE_WAIT = 0.05, 3  # seconds between its first bytes, where it is begun early, and growth of that


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
    _ended = False  # whether the client sends no more

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
        if self._ended and not self.eof_received():
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Goes on with a request that is whole, since its client may wait for the answer.

        One that is gone looks the same, until it is sent something: so the first bytes of the answer are sent early.
        """
        cycle = self.cycle
        waits = cycle is not None and not cycle.response_complete and not cycle.more_body
        if waits and not isinstance(cycle.transport, _Begun):
            cycle.transport = _Begun(self.transport)
            self._begin(cycle, cycle.transport, FIRST_WAIT)
        self._ended = True
        if not waits and (self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]):
            self.conn.receive_data(b"")  # so that h11 says what is cut off
            self.handle_events()
        return waits

    def send_400_response(self, msg: str) -> None:
        """Says what is wrong with what is not HTTP, as for other errors; uvicorn's answer is not JSON."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # no answer has begun
            _, found, _ = sys.exc_info()  # of h11, which uvicorn has caught
            status = getattr(found, "error_status_hint", BAD_REQUEST)
            answer = error_answer(RequestError(status, f"{msg} {found}", "invalid_http"), "")
            headers = [*answer.raw_headers, (b"connection", b"close")]
            head = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

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

    def _begin(self, cycle: RequestResponseCycle, answer: _Begun, wait: float) -> None:
        """Sends a byte. Where nobody is, the other system says so, and the next byte ends the connection."""
        if not cycle.response_started and not self.transport.is_closing():
            answer.begin()
            self.loop.call_later(wait, self._begin, cycle, answer, MORE_WAIT * wait)

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


class _Begun(asyncio.Transport):
    """Takes an answer of which the first bytes may have been sent."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport, self._sent = transport, 0

    def begin(self) -> None:
        """Sends one byte more of those that are known."""
        self._transport.write(ANSWER_BEGINS[self._sent : self._sent + 1])
        self._sent = min(self._sent + 1, len(ANSWER_BEGINS))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends what is left of it."""
        self._transport.write(data[self._sent :])
        self._sent = 0

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it ends."""
        return self._transport.is_closing()
