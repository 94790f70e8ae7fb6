"""What every command does: it says what it works on."""

from __future__ import annotations

import sys

from ...notices import tell

PROGRAM = "embgemma-bench"


def progress(message: str) -> None:
    """Says on standard error what is going on, where somebody watches."""
    if sys.stderr.isatty():
        tell(message, PROGRAM)
