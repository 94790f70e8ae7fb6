"""Who may ask: the check of the host, of the origin, and of the key."""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from ..kernels.safetensors_file import shorten
from .answers import error_answer
from .requests import RequestError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

EVERY = "*"
OPEN_PATHS = ("/", "/health")  # the page holds nothing, and asks for the key itself
BEARER = "bearer"
UNAUTHORIZED, FORBIDDEN = 401, 403


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        hosts: names of the server beside localhost and addresses.
        origins: pages elsewhere that may ask, such as "https://example.org", or "*".
        api_key: what clients must know, or None.
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    api_key: str | None = None


class Guard:
    """An app that only those may ask who have access."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        try:
            self._check(Headers(scope=scope), scope["path"])
        except RequestError as error:
            answer = error_answer(error, scope["path"])
            if error.status == UNAUTHORIZED:
                answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _check(self, headers: Headers, path: str) -> None:
        """Raises RequestError for a request that may not be answered.

        A page of another site can let its own name lead to this machine (DNS rebinding), and a browser then takes our
        answers for that site's. So names that nobody gave us are refused; an address is nobody's name.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if host and not self._is_ours(host):
            message = f"the host {shorten(host)} is not known here; if it is yours, start the server with --allow-host"
            raise RequestError(FORBIDDEN, message, "unknown_host")
        if origin is not None and not self._may_come(origin, host):
            message = f"pages of {shorten(origin)} may not ask here; if they are to, start the server with --cors"
            raise RequestError(FORBIDDEN, message, "unknown_origin")
        key = self._access.api_key
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if key is None or path in OPEN_PATHS:
            return
        if scheme.lower() != BEARER or not hmac.compare_digest(given.strip().encode(), key.encode()):
            message = 'the API key is missing or wrong; send the header "Authorization: Bearer KEY"'
            raise RequestError(UNAUTHORIZED, message, "invalid_api_key")

    def _is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
            if name in self._access.hosts or name == "localhost" or name.endswith(".localhost"):
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _may_come(self, origin: str, host: str) -> bool:
        if {origin, EVERY} & self._access.origins:
            return True
        return bool(host) and origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
