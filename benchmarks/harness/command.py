"""What every command does: it says what it works on, and cleans up when it is ended."""

from __future__ import annotations

import signal
import sys


def progress(message: str) -> None:
    """Says on standard error what is going on, where somebody watches."""
    if sys.stderr.isatty():
        sys.stderr.write(f"{message} …\n")


def clean_up_when_ended() -> None:
    """Makes SIGTERM and SIGHUP leave through every `finally`, so that unfinished files are removed."""
    for number in (signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _leave)


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)  # the status that a shell gives to a process ended by a signal
