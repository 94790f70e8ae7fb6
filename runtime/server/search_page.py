"""A page that searches in an index while one types, and the call that it makes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import time
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from ..inputs import check_unicode
from ..kernels.errors import EmbgemmaError, InputError
from ..notices import tell
from .requests import TOO_MANY, RequestError, unless_gone, wrong

if TYPE_CHECKING:
    from starlette.requests import Request

    from ..search import Index, Result
    from .service import Service

DEFAULT_RESULTS, MOST_RESULTS = 10, 100
MOST_SEARCHES = 64  # at once
MOST_CHARACTERS = 4000  # of a query
UNAVAILABLE = 503
SECURITY = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}


class SearchPage:
    """Answers what the page asks."""

    def __init__(self, index: Index, service: Service) -> None:
        self._index, self._service = index, service
        self._searches = 0
        self._problem = ""  # of the last search, with the index
        self._page = (files(__package__) / "page.html").read_text("utf-8")
        self._headers = {**SECURITY, "Content-Security-Policy": _policy(self._page), "Cache-Control": "no-cache"}
        self.routes = [Route("/", self._show), Route("/search", self._search)]

    async def _show(self, _: Request) -> Response:
        return Response(self._page, media_type="text/html", headers=self._headers)

    async def _search(self, request: Request) -> Response:
        query, count = request.query_params.get("q", ""), request.query_params.get("k", str(DEFAULT_RESULTS))
        if not (count.isascii() and count.isdecimal() and len(count) <= 3 and 1 <= int(count) <= MOST_RESULTS):
            raise wrong("k", f"k is not a whole number from 1 to {MOST_RESULTS}")
        if not query.strip() or len(query) > MOST_CHARACTERS:
            raise wrong("q", f"q has {len(query)} characters; expected words to look for, {MOST_CHARACTERS} at most")
        try:
            check_unicode("q", query)
        except InputError as error:
            raise wrong("q", str(error)) from None
        if self._searches >= MOST_SEARCHES:
            raise RequestError(TOO_MANY, "too many searches at once; try again in 1 s", "rate_limit_exceeded", None, 1)
        self._searches += 1
        start = time.perf_counter()
        try:
            found = await unless_gone(request, self._find(query, int(count)))
        finally:
            self._searches -= 1
        answer = {"query": query, "results": [asdict(each) for each in found], "seconds": time.perf_counter() - start}
        return Response(json.dumps(answer), media_type="application/json", headers=SECURITY)  # in ASCII

    async def _find(self, query: str, count: int) -> list[Result]:
        prompt = self._service.prompt_name("query", "")
        try:
            settings = await asyncio.to_thread(lambda: self._index.settings)  # may open the file again
            embedded = await self._service.embed([query], prompt, settings.dim, truncate=True)
            found = await asyncio.to_thread(self._index.nearest, embedded.vectors[0], count)
        except EmbgemmaError as error:
            if str(error) != self._problem:  # or each letter that is typed would say so again
                tell(f"the index cannot be searched: {error}")
            self._problem = str(error)
            message = "the index cannot be searched now; the server's messages on standard error say why"
            raise RequestError(UNAVAILABLE, message, "index_unavailable") from None
        self._problem = ""
        return found


def _policy(page: str) -> str:
    """Lets the page run its own script and style and ask this server, and nothing else."""

    def hashes(tag: str) -> str:
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
