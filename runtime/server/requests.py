"""What a request is read from, and what is wrong with it: bodies of bounded size, fields of known types."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from starlette.requests import ClientDisconnect

from ..inputs import check_unicode
from ..kernels.errors import InputError, one_line
from ..kernels.safetensors_file import shorten

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Coroutine

    from starlette.requests import Request

Result = TypeVar("Result")

BODY_SECONDS = 60.0  # in which a body must have come
BODIES_AT_ONCE = 8  # so many of the largest may be in memory

KINDS = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array", dict: "an object"}
BAD_REQUEST, TIMEOUT, TOO_LARGE, WRONG_ENCODING, TOO_MANY = 400, 408, 413, 415, 429


@dataclass
class RequestError(Exception):
    """A request that is refused.

    Attributes:
        status: of HTTP.
        message: what was found, what was expected, and how to mend it.
        code: for programs.
        param: the field that is wrong.
        retry_after: seconds after which it may be sent again.
    """

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    retry_after: int | None = None

    def __post_init__(self) -> None:
        self.message = one_line(self.message)
        self.param = None if self.param is None else one_line(self.param)

    @property
    def headers(self) -> dict[str, str] | None:
        """Of the answer."""
        return None if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def wrong(param: str, message: str) -> RequestError:
    """A field that is not as it should be."""
    return RequestError(BAD_REQUEST, message, "invalid_value", param)


@dataclass
class Bodies:
    """Reads bodies. Those of all requests together are bounded as well: each counts until it is answered."""

    most: int  # bytes of one
    _held: int = field(default=0, init=False)

    @asynccontextmanager
    async def fields(self, request: Request, known: Collection[str]) -> AsyncIterator[dict[str, Any]]:
        """The JSON object of a request, without fields that are null; raises RequestError for what is none.

        A field that is not known is an error: if it were ignored, the vectors would not be those that were meant.
        """
        body = bytearray()
        try:
            await asyncio.wait_for(self._read(request, body), BODY_SECONDS)
            yield _parse(body, known)
        except (asyncio.TimeoutError, TimeoutError):
            raise RequestError(TIMEOUT, f"the body did not come within {BODY_SECONDS:.0f} s", "timeout") from None
        finally:
            self._held -= len(body)

    async def _read(self, request: Request, body: bytearray) -> None:
        if request.headers.get("content-encoding", "").lower() not in ("", "identity"):
            raise RequestError(WRONG_ENCODING, "the body is compressed; send it as it is", "unsupported_encoding")
        self._check(int(request.headers.get("content-length", "0")))  # which h11 has checked
        async for part in request.stream():
            self._held += len(part)
            body += part
            self._check(len(body))

    def _check(self, size: int) -> None:
        if size > self.most:
            message = f"the body is larger than {self.most} bytes; send fewer texts at a time"
            raise RequestError(TOO_LARGE, message, "request_too_large")
        if self._held > BODIES_AT_ONCE * self.most:
            raise RequestError(TOO_MANY, "too many large requests at once; send this one later", "busy", None, 1)


def _parse(body: bytearray, known: Collection[str]) -> dict[str, Any]:
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_refuse_constant, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise RequestError(BAD_REQUEST, f"the body is not UTF-8, from byte {error.start} on", "invalid_json") from None
    except RecursionError:
        raise RequestError(BAD_REQUEST, "the body is nested too deeply to be read", "invalid_json") from None
    except ValueError as error:
        raise RequestError(BAD_REQUEST, f"the body is not valid JSON: {error}", "invalid_json") from None
    if not isinstance(value, dict):
        raise RequestError(BAD_REQUEST, f"the body is {kind(value)}; expected a JSON object", "invalid_json")
    for name in value:
        if name not in known:
            expected = ", ".join(known)
            raise RequestError(BAD_REQUEST, f"there is no field {shorten(name)}; expected {expected}", "unknown", name)
    return {name: found for name, found in value.items() if found is not None}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no value of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError for a field that is there twice: nobody knows which of them was meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the field {shorten(twice)} is there twice")
    return found


def kind(value: Any) -> str:
    """What JSON calls a value, for messages."""
    return KINDS.get(type(value), "null")


def text_field(fields: dict[str, Any], name: str, default: str) -> str:
    """A field that holds text."""
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise wrong(name, f"{name} is {kind(value)}; expected a string")
    return value


def truth_field(fields: dict[str, Any], name: str, *, default: bool) -> bool:
    """A field that is true or false."""
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise wrong(name, f"{name} is {kind(value)}; expected true or false")
    return value


def integer_field(fields: dict[str, Any], name: str, default: int, most: int, *, least: int = 1) -> int:
    """A field from least to most."""
    value = fields.get(name, default)
    if type(value) is not int or not least <= value <= most:
        raise wrong(name, f"{name} is {shorten(value)}; expected a whole number from {least} to {most}")
    return value


def check_text(name: str, text: str) -> None:
    """Raises RequestError for a text that is empty, as OpenAI does, or not valid Unicode."""
    if not text:
        raise wrong("input", f"{name} is empty; expected a text: leave it out")
    try:
        check_unicode(name, text)
    except InputError as error:
        raise wrong("input", str(error)) from None


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of the work, which is given up if the client goes; then this raises ClientDisconnect."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        task.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
