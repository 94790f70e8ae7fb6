"""Prints a digest of the vectors of each model file, which must be the same on every system.

digests.py MOST_TOKENS MODEL_FILE ...

The texts are a few of our own, and the golden ones of so many tokens where EMBGEMMA_GOLDEN names their folder and the
model has their prompts. Every instruction set that runs here computes them but `scalar`, which alone may differ.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import embgemma
from embgemma.kernels.native import instruction_sets

TEXTS: list[tuple[str | None, str]] = [
    ("query", "the cat"),
    (None, ""),
    ("document", "été 😀 of and to in is that\n\n\tfor it <h1> " * 3),
]


def golden(most_tokens: int) -> list[tuple[str | None, str]]:
    if "EMBGEMMA_GOLDEN" not in os.environ:
        return []
    rows = json.loads(Path(os.environ["EMBGEMMA_GOLDEN"], "texts.json").read_text("utf-8"))["rows"]
    return [(row["prompt"], row["text"]) for row in rows if len(row["ids"]) <= most_tokens]


def digest(path: Path, isa: str, most_tokens: int) -> str:
    with embgemma.load(path, backend="native", isa=isa, threads=2) as model:
        texts = [(name, text) for name, text in TEXTS + golden(most_tokens) if name in {None, *model.prompts}]
        vectors = b"".join(model.encode(text, prompt_name=name).tobytes() for name, text in texts)
    return f"{path.name}, {len(texts)} texts: {hashlib.sha256(vectors).hexdigest()[:16]}"


def main(most_tokens: str, *paths: str) -> None:
    names = [isa.name for isa in instruction_sets() if isa.supported and isa.name != "scalar"]
    sys.stderr.write(f"{sys.platform}, Python {sys.version.split()[0]}: {', '.join(names)}\n")
    for path in paths:
        found = {digest(Path(path), isa, int(most_tokens)) for isa in names}
        assert len(found) == 1, f"the instruction sets differ: {found}"
        print(found.pop())


main(*sys.argv[1:])
