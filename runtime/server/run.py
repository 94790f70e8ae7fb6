"""Runs the server until a signal ends it: what runs is finished, and nothing new is taken."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from ..kernels.errors import EmbgemmaError
from .app import make_app
from .connections import Connection

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from ..search import Index
    from .guard import Access
    from .service import Service

STOP_SECONDS = 60  # for what runs to be finished
HEAD_BYTES = 1 << 16  # of a request, with the longest query in any language
WAITING_CONNECTIONS = 512  # that the operating system holds until we take them


def serve(
    service: Service, access: Access, index: Index | None, host: str, port: int, ready: Callable[[str], object]
) -> None:
    """Answers at this address until SIGTERM or SIGINT; port 0 is any that is free.

    ready gets the address when connections are taken. Raises EmbgemmaError if the address cannot be had.
    """
    with listen(host, port) as listener:
        config = uvicorn.Config(
            make_app(service, access, index),
            http=Connection,
            ws="none",
            lifespan="off",
            log_level="critical",  # what is wrong is said by the app; what clients do wrong is answered
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=WAITING_CONNECTIONS,
            h11_max_incomplete_event_size=HEAD_BYTES,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        ready(address_of(host, listener.getsockname()[1]))
        with suppress(SystemExit, KeyboardInterrupt):  # uvicorn sends itself the signal once more, when all is done
            _Server(config).run(sockets=[listener])


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends all connections at a second SIGINT: since Python 3.12, uvicorn would wait for them nevertheless."""
        super().handle_exit(sig, frame)
        if self.force_exit:
            for connection in list(self.server_state.connections):
                connection.transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections; raises EmbgemmaError if the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        kind, *_, address = min(found, key=lambda each: each[0] != socket.AF_INET)  # which "localhost" means to most
        listener = socket.create_server(address[:2], family=kind, backlog=WAITING_CONNECTIONS)
        # For its connections, since asyncio sets it for none that comes of create_server: an answer whose body waits
        # until the client has confirmed the head takes 40 ms longer.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except (OSError, OverflowError, UnicodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]
        raise EmbgemmaError(
            f"cannot listen on {address_of(host, port)}: {reason}; give another address or port by --host and --port"
        ) from error


def address_of(host: str, port: int) -> str:
    """The URL of the server."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_local(host: str) -> bool:
    """Whether only this machine can reach an address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
