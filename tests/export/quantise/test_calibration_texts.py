"""The calibration texts that ship share nothing with what quality is measured on."""

from __future__ import annotations

import gzip
import json
import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from embgemma.export.quantise.calibration import SHIPPED, SHIPPED_SHORT

if TYPE_CHECKING:
    from collections.abc import Iterator

# Two texts that share so much are taken one from the other, or both from a third.
SHINGLE_WORDS = 8  # in a row
SHINGLE_LETTERS = 16  # in a row, of scripts that have no spaces between words: Thai to Khmer, kana, Chinese

WORD = re.compile(r"[^\W_]+")
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+")

FIELDS = ("text", "title", "s1", "s2")  # of an evaluation set's rows that are texts


def shingles(text: str) -> set[tuple[str, ...]]:
    """Every SHINGLE_WORDS and SHINGLE_LETTERS of a text, without case, accents and punctuation; if short, all of it."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    words = WORD.findall(plain)
    runs = UNSPACED.findall(plain)
    letters = {(run[i : i + SHINGLE_LETTERS],) for run in runs for i in range(len(run) - SHINGLE_LETTERS + 1)}
    in_a_row = {tuple(words[i : i + SHINGLE_WORDS]) for i in range(max(len(words) - SHINGLE_WORDS, 0) + 1)}
    return letters | in_a_row - {()}


def shared(measured: Iterator[str]) -> dict[str, str]:
    """Calibration texts that share a shingle with a measured text, and the first such text."""
    texts = [
        json.loads(line)["text"] for path in (SHIPPED, SHIPPED_SHORT) for line in path.read_text("utf-8").splitlines()
    ]
    owners = {shingle: text for text in texts for shingle in shingles(text)}
    found: dict[str, str] = {}
    for text in measured:
        for shingle in shingles(text) & owners.keys():
            found.setdefault(owners[shingle], text)
    return found


def evaluation_texts(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield from (row[field] for field in FIELDS if field in row)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One two, three: four five six seven EIGHT nine!", 2),
        ("one two three four five six seven eight", 1),
        ("Hello.", 1),
        ("...", 0),
        ("一个女孩正在给自己的头发做造型。", 1),
        ("一个女孩正在给自己的头发做很新的造型。", 4),
        ("über_den Fluß", 1),
    ],
)
def test_shingles(text: str, count: int) -> None:
    assert len(shingles(text)) == count
    assert shingles(text.upper()) == shingles(text)


def test_an_excerpt_is_found() -> None:
    longest = max((json.loads(line)["text"] for line in SHIPPED.read_text("utf-8").splitlines()), key=len)
    words = longest.split()[5:20]
    assert list(shared(iter(["something else", "and " + " ".join(words)]))) == [longest]


def test_nothing_is_shared_with_the_golden_texts(golden: Path) -> None:
    rows = json.loads((golden / "texts.json").read_text("utf-8"))["rows"]
    assert shared(row["text"] for row in rows) == {}


def test_nothing_is_shared_with_the_evaluation_sets() -> None:
    folder = os.environ.get("EMBGEMMA_EVALDATA")
    if not folder:
        pytest.skip("the environment variable EMBGEMMA_EVALDATA is not set")
    assert shared(evaluation_texts(Path(folder))) == {}
