"""What surrounds a command: streams that are closed, and the signals that end it.

A command ends through every `finally`, so that nothing unfinished stays.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..kernels.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGXCPU") if hasattr(signal, name)]


def prepare_standard_streams() -> None:
    """Makes output UTF-8, which holds every path and text, and messages vanish if standard error was closed before.

    Windows has another encoding for what goes to a file or a pipe. For a closed stream Python has None in its place.
    """
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  (as long as the process)
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # not so in a notebook
            stream.reconfigure(encoding="utf-8", errors=errors)


def check_standard_output() -> None:
    """Raises InputError if nothing can be written there."""
    if sys.stdout is None:
        raise InputError("standard output is closed, where the result would go; open it, or give -o FILE to `embed`")


@contextmanager
def clean_up_when_ended() -> Iterator[None]:
    """Makes the signals that end a program raise SystemExit in the block, unless its parent had them ignored."""
    mine = threading.current_thread() is threading.main_thread()  # no other may set handlers
    if mine and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as the package sets it for its start
        signal.signal(signal.SIGINT, signal.default_int_handler)
    taken = [number for number in _ENDING if mine and signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _leave(number: int, _: object) -> None:
    for other in _ENDING:  # a second one must not end the cleaning up
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)  # the status that a shell gives to a process ended by a signal
