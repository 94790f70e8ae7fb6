"""The texts that quantisation is calibrated on, as token ids.

None of the texts that ship is from an evaluation set. Two files were written for this purpose and are under the
project's licence: calibration.jsonl has prose, questions, product titles, logs and code in some forty languages, and
calibration_short.jsonl short sentences in some eighty, numbers and lines of code, without a prompt. The third,
calibration_languages.jsonl, has short texts in some 460 languages; declaration.py says where they come from. Only for
`mixed` and `int4` are all three used, else the first alone.

The kinds of texts matter more than their number: ../EXPERIMENTS.md.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...inputs import check_path, check_unicode
from ...kernels.batch import runs_of_texts
from ...kernels.errors import InputError, ModelFileError
from ...kernels.safetensors_file import JSON, read_bounded, shorten
from ...tokenizer import Tokenizer
from ..checkpoint.checkpoint import Checkpoint
from .forward import Offsets

# Longer texts are cut: their attention takes time and teaches little more.
_MAX_TOKENS = 512

# Tokens that go through layers together, at most: their gradients need their states before every layer, 157 MB.
RUN_TOKENS = 2048

SHIPPED = Path(__file__).with_name("calibration.jsonl")
SHIPPED_SHORT = Path(__file__).with_name("calibration_short.jsonl")
SHIPPED_LANGUAGES = Path(__file__).with_name("calibration_languages.jsonl")

_MOST_BYTES = 64 << 20  # of a file; a hundred thousand texts
_LEAST_TEXTS = 8  # with fewer, the statistics of a channel are noise


@dataclass(frozen=True)
class CalibrationBatch:
    """Texts as the model sees them: ids (tokens,) int32 end to end, and where each text begins and ends."""

    ids: npt.NDArray[np.int32]
    offsets: Offsets

    def runs(self) -> Iterator[tuple[slice, Offsets]]:
        """Texts that go through layers together: which tokens they are, and offsets from their first on."""
        for first, last in runs_of_texts(self.offsets, RUN_TOKENS):
            start, stop = self.offsets[[first, last]]
            yield slice(start, stop), self.offsets[first : last + 1] - start


def calibration_files(path: str | os.PathLike[str] | None, *, used: bool = True) -> list[Path]:
    """The file of a user, if there is one; raises InputError if it is not used."""
    if path is None:
        return []
    if not used:
        raise InputError(f"calibration={shorten(path)}: weights are not calibrated, nor those of float32; leave it out")
    return [check_path("calibration", path)]


def read_calibration(
    source: Checkpoint, path: str | os.PathLike[str] | None = None, *, short_sentences: bool = False
) -> CalibrationBatch:
    """The texts of a file, or those that ship, tokenized and with their prompts.

    Args:
        source: the checkpoint, which has tokenizer and prompts.
        path: a file of texts instead of those that ship.
        short_sentences: whether short sentences, in all languages, are among those that ship.

    Each line is a JSON object with a "text" and, if it has one, the name of a "prompt"; a prompt that the checkpoint
    does not have is left out. Raises InputError for a file that is not like that, or that has too few texts.
    """
    shipped = [SHIPPED, SHIPPED_SHORT, SHIPPED_LANGUAGES] if short_sentences else [SHIPPED]
    files = calibration_files(path) or shipped
    texts = [text for file in files for text in _texts(file, source.prompts)]
    tokenizer = Tokenizer(source.tokenizer_model, source.config.bos_id, source.config.eos_id)
    limit = min(_MAX_TOKENS, source.config.max_tokens)
    if len(texts) < _LEAST_TEXTS:
        raise InputError(f"{path} has {len(texts)} texts; expected at least {_LEAST_TEXTS}, better hundreds")
    ids = [tokenizer.encode(text, limit).ids for text in texts]
    offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    return CalibrationBatch(np.concatenate(ids).astype(np.int32), offsets)


def _texts(file: Path, prompts: dict[str, str]) -> list[str]:
    """The texts of a file, each after its prompt."""
    try:
        content = read_bounded(file, _MOST_BYTES, JSON).decode()
        lines = list(io.StringIO(content))  # by line feeds: other separators may be part of a text
    except (ModelFileError, OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"cannot read the calibration texts in {file}: {reason}; expected UTF-8, JSON lines"
        ) from error
    return [_text(f"{file}, line {number}", line, prompts) for number, line in enumerate(lines, start=1)]


def _text(place: str, line: str, prompts: dict[str, str]) -> str:
    """The text of one line, after its prompt."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f'{place}: not JSON ({error}); expected an object such as {{"text": "…"}}') from error
    text = record.get("text") if isinstance(record, dict) else None
    prompt = record.get("prompt") if isinstance(record, dict) else None
    if not isinstance(text, str) or not isinstance(prompt, (str, type(None))):
        raise InputError(f'{place}: found {shorten(record)}; expected an object with a string "text"')
    text = prompts.get(prompt or "", "") + text
    check_unicode(place, text)
    return text
