"""A page in Chromium without a window, by its DevTools protocol over two pipes."""

from __future__ import annotations

import json
import os
import shutil
import time
from base64 import b64decode
from contextlib import contextmanager
from itertools import count
from typing import IO, TYPE_CHECKING, Any

import pytest

from tests.processes import start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
LIMIT = 120.0  # seconds of a browser
PATIENCE = 30.0  # seconds in which a page does what it should


class Page:
    """An open page.

    Attributes:
        requests: addresses that it asked for.
        problems: what it wrote to the console.
    """

    def __init__(self, commands: IO[bytes], answers: IO[bytes]) -> None:
        self._commands, self._answers, self._numbers = commands, answers, count(1)
        self.requests: list[str] = []
        self.problems: list[Any] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """One command; events that come before its answer are noted."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        self._commands.write(json.dumps({"id": number, "method": method, "params": parameters, **session}).encode())
        self._commands.write(b"\0")
        self._commands.flush()
        while (message := self._next()).get("id") != number:
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            elif message["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.problems.append(message["params"])
        assert "error" not in message, message
        return message["result"]

    def _next(self) -> Any:
        data = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            data += byte
        return json.loads(data)

    def value(self, expression: str) -> Any:
        """Of JavaScript."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def wait(self, condition: str) -> None:
        """Until it is true."""
        end = time.monotonic() + PATIENCE
        while not self.value(condition):
            assert time.monotonic() < end, f"never came true: {condition}: {self.value('document.body.innerText')}"
            time.sleep(0.05)

    def type(self, text: str) -> None:
        """Where the focus is."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        """A key, with its number in Windows."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)

    def heard(self) -> list[tuple[str, str]]:
        """Role and name of what a screen reader meets."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [(each["role"]["value"], each["name"]["value"]) for each in nodes if "name" in each and "role" in each]

    def picture(self, path: Path) -> None:
        """Of the whole page."""
        path.write_bytes(b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


def program() -> str:
    """The browser that is installed; skips the test, or fails where one must be, if none is."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        needed = os.environ.get("EMBGEMMA_REQUIRE_NATIVE") == "1"
        (pytest.fail if needed else pytest.skip)("needs Chromium: Debian's package chromium-headless-shell")
    return found


@contextmanager
def open_browser(profile: Path) -> Iterator[Page]:
    """A page of a browser that keeps what it writes in this folder."""
    (command_end, commands), (answers, answer_end) = os.pipe(), os.pipe()
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which root cannot have
    options = ["--headless", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--hide-scrollbars", *sandbox]
    redirect = ("bash", "-c", f'exec "$@" 3<&{command_end} 4>&{answer_end} 2>/dev/null', "bash")
    with start(*redirect, program(), *options, limit=LIMIT, pass_fds=(command_end, answer_end)) as process:
        os.close(command_end)
        os.close(answer_end)
        with os.fdopen(commands, "wb") as writer, os.fdopen(answers, "rb") as reader:
            try:
                yield Page(writer, reader)
            finally:
                process.kill()
