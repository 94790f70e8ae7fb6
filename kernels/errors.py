"""The errors that embgemma raises on purpose; each message says what was found, what was expected and the fix."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_CHARACTERS = 300  # of a message, besides the path that it begins with
_MOST_PATH, _MOST_NAME = 4096, 255  # characters of a path and of a name in it; no file has more
_SHOWN_END = 100  # characters at the end of a message that was too long: they say what to do

# What a terminal obeys instead of showing it: controls of C0 and C1, line separators, marks that turn or hide text,
# and halves of surrogate pairs.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


class EmbgemmaError(Exception):
    """Base class: catch this to catch every error that embgemma raises on purpose."""

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class ModelFileError(EmbgemmaError):
    """A model file is cut, corrupt, of another version, or contradicts its own config."""


class VectorError(ModelFileError):
    """A text has no vector: what the model gives for it is zero or not finite.

    Attributes:
        text: its number in the call.
    """

    def __init__(self, text: int, path: os.PathLike[str] | None = None) -> None:
        super().__init__(
            f"{'' if path is None else f'{path}: '}text {text} has no vector: it comes out as zero or not finite; the "
            "model file is damaged, or was made of damaged weights: check it with `embgemma info --check FILE`, or "
            "convert the checkpoint again"
        )
        self.text, self._path = text, path

    def __reduce__(self) -> tuple[type[VectorError], tuple[int, os.PathLike[str] | None]]:
        return VectorError, (self.text, self._path)


class CheckpointError(EmbgemmaError):
    """A training checkpoint is incomplete, has wrong shapes or values, or is of another architecture."""


class HubError(EmbgemmaError):
    """A model cannot be had by its name: the hub does not give it, cannot be reached, or there is no room for it."""


class BackendError(EmbgemmaError):
    """A backend or instruction set was asked for that this install or this CPU does not have."""


class InputError(EmbgemmaError, ValueError):
    """Arguments or texts that cannot be encoded."""


@contextmanager
def reading(path: str | os.PathLike[str], error: type[EmbgemmaError]) -> Iterator[None]:
    """Turns whatever goes wrong in a reader, in the block, into an `error` that begins with the path.

    A reader cannot list all exceptions that a hostile file provokes in the libraries that it uses. Errors raised on
    purpose pass; those of readers of parts become `error`, with a name if they have none.
    """
    place = str(path)
    try:
        yield
    except (ModelFileError, CheckpointError) as found:
        named = str(found).startswith(printable(place))
        if named and isinstance(found, error):
            raise
        raise error(str(found) if named else f"{place}: {found}") from found
    except (EmbgemmaError, Warning):  # a warning is raised where a user asks for that
        raise
    except OSError as found:
        raise error(f"{found.filename or place}: cannot open the file: {found.strerror or found}") from found
    except RecursionError as found:
        raise error(f"{place}: it is nested too deeply: the file is damaged; get it again") from found
    except MemoryError as found:
        raise error(f"{place}: the memory does not suffice to read it: the file is damaged, or too large") from found
    except Exception as found:
        reason = f"{type(found).__name__}: {found}"
        raise error(f"{place}: the file is damaged ({reason}); get it again") from found


def one_line(message: str) -> str:
    """A message as it may be shown: printable, and not much longer than MOST_CHARACTERS, whatever was put into it."""
    text = printable(message)
    place = Path(text.partition(": ")[0])
    may_exist = place.is_absolute() and len(str(place)) <= _MOST_PATH and max(map(len, place.parts)) <= _MOST_NAME
    most = MOST_CHARACTERS + (len(str(place)) if may_exist else 0)
    return text if len(text) <= most else f"{text[: most - _SHOWN_END - 3]} … {text[-_SHOWN_END:]}"


def printable(text: str) -> str:
    """The text with everything escaped that would act on a terminal; other characters of all languages stay."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
