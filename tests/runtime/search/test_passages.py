"""Texts in passages: whole sentences, so many tokens, and each passage at its place."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embgemma.search.passages import Chunk, Passage, passages, words

WORDS = st.sampled_from(
    ["the", "of. ", "and ", " ", "\n", "\n\n", "is! ", "你好。", "x" * 40, "\t", "a" * 900, "\r\n", ".", "…"]
)


def count(texts: list[str]) -> list[int]:
    """Words stand for tokens."""
    return [len(text.split()) for text in texts]


def cut(*texts: str, most: int = 8, overlap: int = 0) -> list[Passage]:
    starts = [0, *itertools.accumulate(map(len, texts))]
    lines = [1, *itertools.accumulate((text.count("\n") for text in texts), initial=1)][1:]
    chunks = [
        Chunk(text, line, start, fresh=start == 0) for text, line, start in zip(texts, lines, starts, strict=False)
    ]
    return list(passages(chunks, count, most, overlap))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(WORDS).map("".join), max_size=4), st.integers(3, 12), st.integers(0, 6))
def test_passages_are_parts_of_the_text(texts: list[str], most: int, overlap: int) -> None:
    text, covered = "".join(texts), 0
    for found in cut(*texts, most=most, overlap=overlap):
        end = found.start + len(found.text)
        assert text[found.start : end] == found.text == found.text.strip() != ""
        assert found.line == 1 + text[: found.start].count("\n")
        assert found.last_line == found.line + found.text.count("\n")
        assert count([found.text])[0] <= most
        assert not text[covered : found.start].strip()
        assert end > covered  # something new
        covered = end
    assert not text[covered:].strip()


def test_passages_end_with_sentences_and_overlap() -> None:
    text = "One two three. Four five. Six seven! Eight nine ten. Eleven?"
    assert [found.text for found in cut(text, most=5)] == [
        "One two three. Four five.",
        "Six seven! Eight nine ten.",
        "Eleven?",
    ]
    assert [found.text for found in cut(text, most=5, overlap=2)] == [
        "One two three. Four five.",
        "Four five. Six seven!",
        "Six seven! Eight nine ten.",
        "Eleven?",
    ]


def test_rows_and_points_stay_whole() -> None:
    text = "| a | b |\n| c | d |\nHow so:\n- one two\n  three\n2. four five six\n"
    assert [found.text for found in cut(text)] == [
        "| a | b |",
        "| c | d |\nHow so:",
        "- one two\n  three\n2. four five six",
    ]


def test_passages_end_with_paragraphs() -> None:
    text = "One two three.\n \nFour five.\nSix. Seven.\n\nEight.\n\nNine."
    assert [found.text for found in cut(text, overlap=2)] == [
        "One two three.",
        "Four five.\nSix. Seven.",
        "Eight.\n\nNine.",  # one word is too little
    ]


@pytest.mark.parametrize(
    ("text", "most_characters"),
    [
        ("word " * 5000, 60),
        (" " * 100_000 + "x", 300),
        ("y" * 100_000, 300),
        ("a.b." * 9000, 300),
        ("\n \n" * 30_000, 0),
    ],
)
def test_text_without_sentences_is_cut(text: str, most_characters: int) -> None:
    assert all(len(found.text) <= most_characters for found in cut(text))


def test_white_space_is_not_counted() -> None:
    assert words("  a\n\t b ") == "a b"
