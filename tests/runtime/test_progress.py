"""Progress of long work: what is said of it, where, and how long the work still takes."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from embgemma import notices
from embgemma.notices import Progress, duration, tell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Screen(io.StringIO):
    """A terminal that keeps what each line shows, and every state of the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.lines, self.states, self._column = [""], [""], 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for character in text:
            if character == "\r":
                self._column = 0
            elif character == "\n":
                self.lines, self._column = [*self.lines, ""], 0
            else:
                line = self.lines[-1]
                self.lines[-1] = line[: self._column] + character + line[self._column + 1 :]
                self._column += 1
        self.states.append(self.lines[-1].rstrip())
        return len(text)


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds go by, for all who ask for the time."""
    now = [1000.0]
    monkeypatch.setattr(notices, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    screen = Screen()
    monkeypatch.setattr(notices, "sys", SimpleNamespace(stderr=screen))  # pytest replaces that of sys itself
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    return screen


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error where it is no terminal."""
    log = io.StringIO()
    monkeypatch.setattr(notices, "sys", SimpleNamespace(stderr=log))
    return log


def work(wait: Callable[[float], None], progress: Progress) -> None:
    """Two stages: 4 layers of 30 s, then 3,000 texts in 6 s; the plan says half of it."""
    progress.plan({"calibrating layer": 60, "embedding": 3})
    progress.begin("calibrating layer", 4)
    for _ in range(4):
        wait(30)
        progress.advance()
    progress.begin("embedding", 3000, "texts")
    for _ in range(3):
        wait(2)
        progress.advance(1000)


def test_a_terminal_sees_one_line(screen: Screen, wait: Callable[[float], None]) -> None:
    with Progress() as progress:
        work(wait, progress)
    assert screen.states[1:7] == [
        "calibrating layer 1 of 4, about 2 min left",
        "calibrating layer 2 of 4, about 2 min left",
        "calibrating layer 3 of 4, about 2 min left",
        "calibrating layer 4 of 4, about 35 s left",
        "calibrating layer 4 of 4, about 10 s left",
        "embedding 3,000 texts, about 10 s left",
    ]
    assert "embedding 2,000 of 3,000 texts, 500 texts/s, about 5 s left" in screen.states
    assert [line.rstrip() for line in screen.lines] == [""]


def test_a_plan_counts_from_its_first_stage(screen: Screen, wait: Callable[[float], None]) -> None:
    with Progress() as progress:
        progress.begin("downloading", 100e6, "B")
        wait(1000)
        progress.begin("reading")
        wait(20)
        progress.plan({"reading": 10, "calibrating layer": 20}, "x needs 1 GB")
        progress.begin("calibrating layer", 4)
    assert screen.lines[0].rstrip() == "embgemma: x needs 1 GB"
    assert screen.states[-2] == "calibrating layer 1 of 4, about 35 s left"


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ("40", "embedding 1,000 of 3,000 texts, 5 s left"),
        ("39", "1,000 of 3,000 texts, 5 s left"),
        ("20", "1,000 of 3,000 text"),
        ("1", ""),
        ("0", "embedding 1,000 of 3,000 texts, 500 texts/s, about 5 s left"),
        ("x", "embedding 1,000 of 3,000 texts, 500 texts/s, about 5 s left"),
    ],
)
def test_a_narrow_terminal(
    screen: Screen, wait: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, columns: str, shown: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(int(columns) + 1) if columns in ("39", "40") else columns)
    with Progress() as progress:
        progress.begin("embedding", 3000, "texts")
        wait(2)
        progress.advance(1000)
        assert screen.states[-1] == shown


def test_a_file_has_one_line_a_stage(log: io.StringIO, wait: Callable[[float], None]) -> None:
    with Progress() as progress:
        work(wait, progress)
    assert log.getvalue().splitlines() == [
        "embgemma: calibrating layer 1 of 4, about 2 min left",
        "embgemma: embedding 3,000 texts, about 10 s left",
    ]


def test_a_dumb_terminal_has_one_line_a_stage(
    screen: Screen, wait: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with Progress() as progress:
        work(wait, progress)
    assert len(screen.lines) == 3


def test_nothing_is_said_of_short_work_or_if_quiet(screen: Screen, wait: Callable[[float], None]) -> None:
    with Progress(quiet=True) as progress:
        work(wait, progress)
    with Progress() as progress:
        progress.begin("embedding", 3000, "texts")
        for _ in range(3):
            wait(0.6)
            progress.advance(1000)
    assert screen.getvalue() == ""
    assert screen.states == [""]


def test_a_message_takes_the_place_of_the_line(screen: Screen, wait: Callable[[float], None]) -> None:
    with Progress() as progress:
        progress.begin("downloading 雨.bin", 100e6, "B")
        wait(4)
        progress.advance(30e6)
        tell("warning: \x1b[2J")
        wait(1)
        progress.advance(30e6)
    assert "downloading 雨.bin 30 of 100 MB, 7.5 MB/s, about 10 s left" in screen.states
    assert [line.rstrip() for line in screen.lines] == ["embgemma: warning: \\x1b[2J", ""]


def test_standard_error_that_is_gone(wait: Callable[[float], None], monkeypatch: pytest.MonkeyPatch) -> None:
    closed, left = Screen(), Screen()
    closed.close()
    monkeypatch.setattr(left, "write", Mock(side_effect=BrokenPipeError))
    for stream in (None, closed, left):
        monkeypatch.setattr(notices, "sys", SimpleNamespace(stderr=stream))
        with Progress() as progress:
            work(wait, progress)


def test_the_last_line(log: io.StringIO, wait: Callable[[float], None], tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(2_500_000))
    progress = Progress("embgemma-bench")
    wait(252)
    progress.wrote(path, "3 vectors")
    assert log.getvalue() == f"embgemma-bench: wrote {path} (3 vectors, 2.5 MB) in 4 min 12 s\n"
    assert [duration(seconds) for seconds in (0.04, 59.9, 60, 3599.6, 7260)] == [
        "0.0 s",
        "59.9 s",
        "1 min 0 s",
        "1 h 0 min",
        "2 h 1 min",
    ]
