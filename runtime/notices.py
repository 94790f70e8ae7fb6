"""What is said while texts are embedded: warnings at the caller's line, and a progress bar."""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .kernels.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


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
def progress_bar(
    total: int, unit: str, *, shown: bool | None, name: str = "Embedding"
) -> Iterator[Callable[[int], object]]:
    """Gives what counts the bar up; None shows it on a terminal alone.

    Without a bar nothing is imported; with one, no thread watches it.
    """
    closed = sys.stderr is None  # before the start, as in programs without a console
    if shown is False or closed or sys.is_finalizing():  # nothing can be imported any more
        yield lambda _: None
        return
    from tqdm import tqdm

    bar = type("Bar", (tqdm,), {"monitor_interval": 0})  # its monitor would outlive the bar and hold up the exit
    hidden = None if shown is None else False
    with bar(total=total, desc=name, unit=unit, unit_scale=unit == "B", disable=hidden) as progress:
        yield progress.update
