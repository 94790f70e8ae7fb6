"""Calibration texts: those that ship are varied and in no evaluation set; a user's own are checked line by line."""

from __future__ import annotations

import gzip
import json
import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from embgemma.benchmarks.quality.quality_languages import read_languages
from embgemma.export.quantise.calibration import SHIPPED, SHIPPED_LANGUAGES, SHIPPED_SHORT, read_calibration
from embgemma.kernels.errors import InputError
from tests import tiny

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embgemma.export.checkpoint.checkpoint import Checkpoint

CONFIG = tiny.CONFIG


def shipped() -> list[dict[str, str]]:
    files = (SHIPPED, SHIPPED_SHORT, SHIPPED_LANGUAGES)
    return [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]


def test_the_texts_that_ship_are_many_and_varied() -> None:
    texts = [row["text"] for row in shipped()]
    assert len(texts) == len(set(texts)) >= 500
    assert min(map(len, texts)) <= 5
    assert max(map(len, texts)) >= 1000
    scripts = {unicodedata.name(letter, "?").split()[0] for text in texts for letter in text}
    assert scripts >= {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "ARABIC", "HEBREW", "ETHIOPIC"}
    assert scripts >= {"DEVANAGARI", "BENGALI", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "THAI"}
    assert scripts >= {"CJK", "HIRAGANA", "HANGUL"}
    prompts = {row.get("prompt") for row in shipped()}
    tasks = {"STS", "Classification", "Clustering", "InstructionRetrieval", "Summarization"}
    assert prompts == {None, "query", "document"} | tasks


def test_texts_become_ids_with_their_prompts(tmp_path: Path, tiny_source: Checkpoint) -> None:
    path = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": "the of", "prompt": "query"}), json.dumps({"text": "and", "prompt": "unknown"})]
    path.write_text("\n".join(lines * 4), encoding="utf-8")
    batch = read_calibration(tiny_source, path)
    assert len(batch.offsets) == 9
    assert batch.ids[batch.offsets[:-1]].tolist() == [CONFIG.bos_id] * 8
    assert batch.offsets[1] - batch.offsets[0] > batch.offsets[2] - batch.offsets[1]


def test_long_texts_are_cut(tmp_path: Path, tiny_source: Checkpoint) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text((json.dumps({"text": "the of and " * 200}) + "\n") * 8, encoding="utf-8")
    assert np.diff(read_calibration(tiny_source, path).offsets).tolist() == [CONFIG.max_tokens] * 8


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "0 texts; expected at least 8"),
        (b"the\n", "line 1: not JSON"),
        (b'{"text": "a"}\n[]\n', r"line 2: found \[\]"),
        (b'{"text": 3}\n', r"expected an object with a string"),
        (b'{"text": "\\ud800"}\n', "lone surrogate"),
        (b"\xff\xfe", "expected UTF-8"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, tiny_source: Checkpoint, content: bytes, problem: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=problem):
        read_calibration(tiny_source, path)


def test_a_missing_file_is_refused(tmp_path: Path, tiny_source: Checkpoint) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl"):
        read_calibration(tiny_source, tmp_path / "none.jsonl")


def test_only_line_feeds_end_a_line(tmp_path: Path, tiny_source: Checkpoint) -> None:
    path = tmp_path / "texts.jsonl"
    line = json.dumps({"text": "the\u2028of\x85and"}, ensure_ascii=False)
    path.write_text(f"{line}\n" * 8, encoding="utf-8")
    assert len(read_calibration(tiny_source, path).offsets) == 9


def test_short_sentences_come_after_the_others(tiny_source: Checkpoint) -> None:
    batch, longer = read_calibration(tiny_source), read_calibration(tiny_source, short_sentences=True)
    assert longer.offsets[: len(batch.offsets)].tolist() == batch.offsets.tolist()
    assert longer.ids[: len(batch.ids)].tolist() == batch.ids.tolist()
    assert len(longer.offsets) - 1 == len(shipped())


def test_a_file_of_the_users_own_stands_alone(tmp_path: Path, tiny_source: Checkpoint) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "the"}\n' * 8, encoding="utf-8")
    assert len(read_calibration(tiny_source, path, short_sentences=True).offsets) == 9


def test_a_file_that_cannot_be_opened_is_named_once(tiny_source: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_calibration(tiny_source, tmp_path / "none")
    message = f"cannot read the calibration texts in {tmp_path / 'none'}: No such file or directory; expected UTF-8"
    assert str(caught.value) == f"{message}, JSON lines"


# ---- the texts that ship share nothing with what quality is measured on ---------------------------------------------

# Two texts that share this much have a common source.
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
    owners = {shingle: row["text"] for row in shipped() for shingle in shingles(row["text"])}
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
    longest = max((row["text"] for row in shipped()), key=len)
    words = longest.split()[5:20]
    assert list(shared(iter(["something else", "and " + " ".join(words)]))) == [longest]


def test_nothing_is_shared_with_the_development_texts() -> None:
    assert shared(text for language in read_languages() for text in language.texts) == {}


def test_nothing_is_shared_with_the_golden_texts(golden: Path) -> None:
    rows = json.loads((golden / "texts.json").read_text("utf-8"))["rows"]
    assert shared(row["text"] for row in rows) == {}
    assert not {row["text"].strip().lower() for row in rows} & {row["text"].strip().lower() for row in shipped()}


def test_nothing_is_shared_with_the_evaluation_sets() -> None:
    folder = os.environ.get("EMBGEMMA_EVALDATA")
    if not folder:
        pytest.skip("the environment variable EMBGEMMA_EVALDATA is not set")
    assert shared(evaluation_texts(Path(folder))) == {}
