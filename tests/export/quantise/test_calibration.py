"""The calibration texts that ship are what they say, and a user's own are checked line by line."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
import pytest

from embgemma.export.quantise.calibration import SHIPPED, SHIPPED_SHORT, read_calibration
from embgemma.kernels.errors import InputError
from tests import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from embgemma.export.checkpoint.checkpoint import Checkpoint

CONFIG = tiny.CONFIG


def shipped() -> list[dict[str, str]]:
    return [json.loads(line) for path in (SHIPPED, SHIPPED_SHORT) for line in path.read_text("utf-8").splitlines()]


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
    assert prompts == {None, "query", "document", "STS", "Classification", "Clustering", "InstructionRetrieval"}


def test_the_golden_texts_are_not_among_them(golden: Path) -> None:
    rows = json.loads((golden / "texts.json").read_text("utf-8"))["rows"]
    assert not {row["text"].strip().lower() for row in rows} & {row["text"].strip().lower() for row in shipped()}


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
