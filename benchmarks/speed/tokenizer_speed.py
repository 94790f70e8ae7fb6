"""How fast the C tokenizer is beside sentencepiece, and on texts made to be slow.

The texts are the lines of FILE, or help texts and code of Python and texts in other languages. Both tokenizers take
turns on one thread; the figures are medians of processor time.
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sentencepiece

from ...export.quantise.calibration import SHIPPED
from ...kernels.errors import InputError
from ...kernels.model_file import read_model_file
from ...kernels.native import load_library
from ...kernels.native_tokenizer import NativeTokenizer
from ..harness.command import progress

ROUNDS = 11
TEXTS_AT_ONCE = 64
LEAST_BYTES = 50_000  # of the texts of a kind: shorter ones are repeated
CODE_PART = 600  # characters
UNLIMITED = 1 << 30  # tokens
HOSTILE_BYTES = 1 << 20
HOSTILE = {
    "one letter": "a",
    "spaces": " ",
    "line breaks": "\n",
    "emoji": "😀",
    "joined emoji": "👨‍👩‍👧‍👦",
    "one Chinese character": "你",
    "a run of merges that come undone": "aaab",
    "words without spaces": "the",
    "digits": "0",
    "beginnings of special pieces": "<unused",
    "characters that are no pieces": "\U000e0061",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command `tokenizer`."""
    parser.description = __doc__
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model file, as `embgemma convert` writes it")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="a file of texts, one a line")
    parser.set_defaults(run=lambda options: measure_tokenizers(options.model, options.texts))


def measure_tokenizers(path: Path, texts_file: Path | None) -> str:
    """The figures, as text."""
    model_file = read_model_file(path)
    table, model, config = model_file.tokenizer_table, model_file.tokenizer_model, model_file.config
    if table is None or model is None:
        raise InputError(f"{path} lacks tokenizer.table or tokenizer.model; convert the checkpoint again")
    native = NativeTokenizer(table, config.bos_id, config.eos_id)
    kinds = {"file": read_texts(texts_file)} if texts_file else sample_texts()
    lines = []
    for kind, texts in kinds.items():
        progress(f"timing {kind}")
        calls = c_calls(table, config.bos_id, config.eos_id, texts)
        lines += compare(kind, native, calls, bytes(model), texts)
    progress("timing texts that are hostile")
    return "\n".join([*lines, *defy(native)])


def read_texts(path: Path) -> list[str]:
    """The lines of a file."""
    try:
        texts = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not valid UTF-8 ({error.reason} at byte {error.start}); expected one text a line"
        ) from error
    if not any(texts):
        raise InputError(f"{path}: it holds no text; expected one a line")
    return texts


def sample_texts() -> dict[str, list[str]]:
    """Texts by kind."""
    from pydoc_data.topics import topics

    paragraphs = (" ".join(text.split()) for topic in topics.values() for text in topic.split("\n\n"))
    source = inspect.getsource(argparse)
    others = [json.loads(line)["text"] for line in SHIPPED.read_text("utf-8").splitlines()]
    east_asian = [text for text in others if sum("\u3040" <= letter <= "\ud7af" for letter in text) > len(text) / 3]
    kinds = {
        "English": [text for text in paragraphs if text],
        "code": [source[start : start + CODE_PART] for start in range(0, len(source), CODE_PART)],
        "Chinese, Japanese, Korean": east_asian,
        "other languages": [text for text in others if not text.isascii() and text not in east_asian],
    }
    return {kind: texts * -(-LEAST_BYTES // sum(map(len, texts))) for kind, texts in kinds.items()}


def c_calls(table: npt.NDArray[np.uint8], bos_id: int, eos_id: int, texts: Sequence[str]) -> Callable[[], object]:
    """Calls of eg_tokenize_batch alone, on memory that is there."""
    library = load_library()
    ffi, c = library.ffi, library.c
    slot = ffi.new("eg_tokenizer **")
    library.check(c.eg_tokenizer_create(ffi.from_buffer(table), table.nbytes, bos_id, eos_id, ffi.NULL, slot))
    tokenizer = ffi.gc(slot[0], c.eg_tokenizer_free)
    calls = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        encoded = [text.encode() for text in texts[start : start + TEXTS_AT_ONCE]]
        capacity = sum(map(len, encoded)) + 2 * len(encoded)
        places = (ffi.new("int32_t[]", capacity), capacity, ffi.new("uint64_t[]", len(encoded) + 1))
        begins = ffi.new("uint64_t[]", [0, *accumulate(map(len, encoded))])
        truncated = ffi.new("uint8_t[]", len(encoded))
        text = ffi.new("char[]", b"".join(encoded))
        calls.append((tokenizer, text, begins, len(encoded), UNLIMITED, *places, truncated))
    return lambda: [c.eg_tokenize_batch(*call) for call in calls]


def compare(
    kind: str, native: NativeTokenizer, c_call: Callable[[], object], model_bytes: bytes, texts: Sequence[str]
) -> list[str]:
    """Lines of text: time per token of both, in batches and one text at a time."""
    reference = sentencepiece.SentencePieceProcessor(model_proto=model_bytes)
    tokens = len(native.encode_batch(texts, UNLIMITED).ids)

    def in_batches() -> None:
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            native.encode_batch(texts[start : start + TEXTS_AT_ONCE], UNLIMITED)

    times = _medians(
        {
            "C call alone": c_call,
            "C engine, batches": in_batches,
            "C engine, one by one": lambda: [native.encode(text, UNLIMITED) for text in texts],
            "sentencepiece": lambda: [reference.encode(text) for text in texts],
        }
    )
    size = sum(len(text.encode()) for text in texts)
    lines = [f"{kind}: {len(texts)} texts, {size} bytes, {tokens} tokens"]
    for name, seconds in times.items():
        ratio = times["sentencepiece"] / seconds
        speed = f"{seconds / tokens * 1e9:8.0f} ns a token{size / seconds / 1e6:8.1f} MB/s{ratio:7.1f} x"
        lines.append(f"  {name:<24}{speed}")
    return lines


def defy(native: NativeTokenizer) -> list[str]:
    """Time per byte of a sixteenth of a megabyte and of a whole one; in linear time both are equal."""
    lines = ["one megabyte of"]
    for name, unit in HOSTILE.items():
        sizes = (HOSTILE_BYTES // 16, HOSTILE_BYTES)
        texts = [unit * (size // len(unit.encode())) for size in sizes]
        times = _medians({text: partial(native.encode_batch, [text], UNLIMITED) for text in texts})
        per_byte = [seconds / size * 1e9 for seconds, size in zip(times.values(), sizes, strict=True)]
        lines.append(f"  {name:<34}{per_byte[1]:6.1f} ns a byte; of a sixteenth of it {per_byte[0]:.1f}")
    return lines


def _medians(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            run()  # fills the caches again
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
