"""What is said during work: warnings at the caller's line, and how far the work is."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from .kernels.errors import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

_PATIENCE = 2.0  # seconds: of shorter work nothing is said
_REDRAW = 0.2  # seconds between two looks at a line that is drawn again
_TRUST = 5.0  # seconds of a plan that count as done at its speed, until the machine has shown its own
_COLUMNS = 80  # of a terminal that does not say
_MINUTE = 60


class TruncationWarning(UserWarning):
    """Some texts had more tokens than the model takes; their ends were cut off.

    Attributes:
        indices: which of the texts.
    """

    def __init__(self, message: str, indices: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.indices = tuple(indices)


def warn(warning: str | Warning) -> None:
    """Warns at the line outside this package that led here."""
    package, level, frame = __name__.partition(".")[0], 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(one_line(warning) if isinstance(warning, str) else warning, stacklevel=level)


@contextmanager
def progress_bar(texts: int, *, shown: bool) -> Iterator[Callable[[int], object]]:
    """Gives what counts up the bar that callers of `encode` know from sentence-transformers.

    Without a bar nothing is imported; with one, no thread watches it.
    """
    closed = sys.stderr is None  # before the start, as in programs without a console
    if not shown or closed or sys.is_finalizing():  # nothing can be imported any more
        yield lambda _: None
        return
    from tqdm import tqdm

    bar = type("Bar", (tqdm,), {"monitor_interval": 0})  # its monitor would outlive the bar and hold up the exit
    with bar(total=texts, desc="Embedding", unit="text") as progress:
        yield progress.update


class Progress:
    """Says on standard error what long work does, how far it is, and how long it still takes.

    On a terminal this is one line that is drawn again and again, elsewhere a line for each stage. Of work of less than
    two seconds nothing is said, nor if quiet. The end of a `with` block removes what is drawn:

        with Progress() as progress:
            progress.plan({"calibrating layer": 150, "writing": 3})
            progress.begin("calibrating layer", 24)
            progress.advance()
            …
            progress.wrote(path)
    """

    def __init__(self, program: str = "embgemma", *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._program = program
        self._seconds: dict[str, float] = {}  # that each stage to come takes, if there is a plan
        self._planned = 0.0  # seconds of the plan that are behind us
        self._patience = _PATIENCE
        self._started = self._stage_started = self._plan_started = time.monotonic()
        self._doing, self._unit = "", ""
        self._done, self._total = 0.0, 0.0
        self._shown_at = -math.inf

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        _LINE.clear()

    def plan(self, seconds: Mapping[str, float], needs: str = "") -> None:
        """Says about how long each stage takes on some machine: the time left follows from how fast this one is.

        The present stage may be the first of them. If the work is long, `needs` is said before it.
        """
        self._seconds, self._planned = dict(seconds), 0.0
        self._plan_started = self._stage_started if self._doing in seconds else time.monotonic()
        if sum(seconds.values()) > _PATIENCE:
            self._patience = 0.0
            if needs and not self.quiet:
                tell(needs, self._program)

    def begin(self, doing: str, total: float = 0, unit: str = "") -> None:
        """Ends a stage and begins the next: `doing` number 1 of `total`, or `doing` so many units, or bytes ("B").

        A total of 0 is not known.
        """
        self._planned += self._seconds.pop(self._doing, 0)
        self._doing, self._total, self._unit = doing, total, unit
        self._done, self._stage_started, self._shown_at = 0.0, time.monotonic(), -math.inf
        self._show()

    def advance(self, amount: float = 1) -> None:
        """Counts what was done of the stage; a part of a step counts as well."""
        self._done += amount
        self._show()

    def wrote(self, path: Path, what: str = "") -> None:
        """Says at the end what was written, how large it is, and in what time."""
        if not self.quiet:
            size = size_text(path.stat().st_size)
            took = duration(time.monotonic() - self._started)
            tell(f"wrote {path} ({f'{what}, ' if what else ''}{size}) in {took}", self._program)

    def _show(self) -> None:
        now = time.monotonic()
        if self.quiet or now - self._started < self._patience:
            return
        drawn = _LINE.is_there()
        if now - self._shown_at < (_REDRAW if drawn else math.inf):
            return
        self._shown_at = now
        if drawn:
            _LINE.draw(self._texts(now))
        else:
            tell(self._texts(now)[0], self._program)

    def _texts(self, now: float) -> list[str]:
        """What is said, and shorter forms of it for narrow terminals."""
        count, rate = "", ""
        if self._unit:
            count, rate = _amounts(self._done, self._total, self._unit, now - self._stage_started)
        elif self._total:
            count = f"{min(int(self._done) + 1, int(self._total))} of {int(self._total)}"
        seconds = self._left(now)
        left = f"{about(seconds)} left" if seconds else ""
        what = printable(f"{self._doing} {count}".strip())
        forms = [(what, rate, left and f"about {left}"), (what, left), (count or what, left), (count or what,)]
        return [", ".join(filter(None, parts)) for parts in forms]

    def _left(self, now: float) -> float | None:
        """The seconds that are left of all stages; None if that is not known."""
        share = min(self._done / self._total, 1) if self._total else 0.0
        if self._seconds:
            planned = self._seconds.get(self._doing, 0.0)
            behind = self._planned + planned * share
            left = sum(self._seconds.values()) - planned * share
            return left * (now - self._plan_started + _TRUST) / (behind + _TRUST)
        return (now - self._stage_started) * (1 - share) / share if share else None


class _Line:
    """The line of the terminal that is drawn over; there is one for all that writes to standard error."""

    def __init__(self) -> None:
        self._width = 0  # columns that are drawn now
        self._lock = threading.RLock()  # downloads advance in threads

    def is_there(self) -> bool:
        """Whether standard error is a terminal that can go back to the beginning of a line."""
        with suppress(ValueError):  # it was closed
            return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        return False

    def draw(self, texts: list[str]) -> None:
        """Draws the first text that fits, else what fits of the last."""
        most = _columns() - 1  # a terminal may go to the next line after its last column
        text = next((text for text in texts if _width(text) <= most), texts[-1])
        while _width(text) > most:
            text = text[:-1]
        with self._lock:
            _write("\r" + text + " " * (self._width - _width(text)))
            self._width = _width(text)

    def clear(self) -> None:
        """Leaves the cursor at the beginning of an empty line."""
        with self._lock:
            if self._width:
                _write("\r" + " " * self._width + "\r")
                self._width = 0

    def tell(self, line: str) -> None:
        """Writes a line that stays."""
        with self._lock:
            self.clear()
            _write(line + "\n")


_LINE = _Line()


def tell(message: str, program: str = "embgemma") -> None:
    """Writes a line to standard error, in place of progress that is drawn there."""
    _LINE.tell(f"{program}: {one_line(message)}")


def _write(text: str) -> None:
    """Writes to standard error; nobody may read it any more, or it was closed, and the work goes on."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()


def _columns() -> int:
    """The width of the terminal."""
    with suppress(OSError, ValueError):
        found = int(os.environ.get("COLUMNS") or os.get_terminal_size(sys.stderr.fileno()).columns)
        return found if found > 0 else _COLUMNS
    return _COLUMNS


def _width(text: str) -> int:
    """The columns that a text takes: Chinese, Japanese and Korean characters take two."""
    from unicodedata import east_asian_width  # of no use where nothing is drawn

    return sum(1 + (east_asian_width(character) in "WF") for character in text)


def _amounts(done: float, total: float, unit: str, seconds: float) -> tuple[str, str]:
    """How much is done, and how fast that went."""
    scale = 1.0
    if unit == "B":
        scale, unit = (1e6, "MB") if max(done, total) >= 1e7 else (1e3, "kB")
    count = " of ".join(f"{amount / scale:,.0f}" for amount in (done, total) if amount)
    rate = done / seconds / scale if seconds else 0.0
    return f"{count} {unit}" if count else "", f"{rate:,.{0 if rate >= 10 else 1}f} {unit}/s" if rate else ""


def size_text(count: float) -> str:
    """Bytes in words, such as "186.4 MB"."""
    for size, unit in ((1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


def count_text(count: int, one: str) -> str:
    """How many there are, such as "1 file" and "2,000 files"."""
    return f"{count:,} {one}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Seconds in words, such as "4 min 12 s"."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def about(seconds: float) -> str:
    """The same, rounded up as befits an estimate."""
    if seconds <= _MINUTE - 5:
        return f"{math.ceil(seconds / 5) * 5} s"
    minutes = math.ceil(seconds / _MINUTE)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
