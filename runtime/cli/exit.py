"""How a command ends: its exit code, and one line on standard error about what went wrong, or may have."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING

from ..kernels.errors import EmbgemmaError, InputError
from ..notices import tell
from ..output_file import FULL
from .signals import clean_up_when_ended

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_FAILURE = 1
EXIT_WRONG_USE = 2  # argparse's own
# Shells report 128 + the number of the signal that ended a program.
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def exit_code(program: str, run: Callable[[], int]) -> int:
    """Runs a command, and gives its exit code or that of the error that ended it."""

    def show_warning(message: Warning | str, *_: object, **__: object) -> None:
        tell(f"warning: {message}", program)

    try:
        with clean_up_when_ended(), warnings.catch_warnings():
            warnings.showwarning = show_warning  # one sentence, without the source line
            code = run()
            if sys.stdout is not None:  # None: it was closed before the start
                sys.stdout.flush()
    except KeyboardInterrupt:
        tell("interrupted", program)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left
        _discard_output()
        return EXIT_BROKEN_PIPE
    except EmbgemmaError as error:
        tell(str(error), program)
        return EXIT_WRONG_USE if isinstance(error, InputError) else EXIT_FAILURE
    except OSError as error:
        full = _cannot_flush() or error.errno in FULL  # what is written to files names them
        place = error.filename or ("standard output" if full else None)
        tell(": ".join(str(part) for part in (place, error.strerror or error) if part is not None), program)
        return EXIT_FAILURE
    return code


def _cannot_flush() -> bool:
    """Whether standard output does not take what was written to it, and so was what failed."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _discard_output()
        return True
    return False


def _discard_output() -> None:
    """Throws away what standard output did not take; else Python would complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
