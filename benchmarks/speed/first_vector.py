"""What a Python process takes from start to first vector: milliseconds and memory. first_vector.c is the same in C.

    python -m embgemma.benchmarks.speed.first_vector MODEL [--threads N]

The text has 256 tokens, prompt included. Memory is that of the whole process, interpreter and NumPy included;
private is what is no page of a file.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence

import embgemma

from ..harness.memory import process_memory

TOKENS = 256
WORD = "river "  # a token
REPEATS = 20  # of the text, once it was embedded for the first time
MEGABYTE = 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures; returns the exit code."""
    parser = argparse.ArgumentParser(prog="first_vector", description="Measures a Python process to its first vector.")
    parser.add_argument("model", help="a model file")
    parser.add_argument("--threads", type=int, help="default: the physical cores")
    options = parser.parse_args(arguments)

    start = time.perf_counter()
    model = embgemma.load(options.model, threads=options.threads)
    model.max_seq_length = TOKENS
    loaded = time.perf_counter()
    text = WORD * TOKENS  # what is too much is cut off
    warnings.simplefilter("ignore", embgemma.TruncationWarning)
    model.encode_document(text)
    first = time.perf_counter()
    memory = process_memory()
    best = min(_seconds(model, text) for _ in range(REPEATS))

    figures = [("load", (loaded - start) * 1e3, "ms"), ("first text", (first - loaded) * 1e3, "ms")]
    figures += [("best of later texts", best * 1e3, "ms")]
    for name, size in (("resident, at most", memory.peak), ("of it private", memory.anonymous)):
        if size is not None:
            figures.append((name, size / MEGABYTE, "MB"))
    sys.stdout.write("".join(f"{name:<20}{value:7.1f} {unit}\n" for name, value, unit in figures))
    return 0


def _seconds(model: embgemma.EmbeddingModel, text: str) -> float:
    start = time.perf_counter()
    model.encode_document(text)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
