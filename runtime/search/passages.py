"""Texts to passages: runs of whole sentences, of so many tokens at most, each with its place in the text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Count = Callable[[list[str]], list[int]]  # tokens of each text, without <bos> and <eos>

# A token counts for so many characters at least, so that white space and long words fill a passage as well.
MOST_CHARACTERS = 32

# A passage ends with a paragraph if it has one part in so many of its tokens: what is about one thing is found better.
FULL_ENOUGH = 4

# After a full stop and what closes a sentence, after an empty line, and before a point of a list or a row of a table.
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？]\s*|\n\s*\n\s*|\n(?=[ \t]*(?:[-*+|]|[0-9]{1,3}[.)])[ \t])")


@dataclass(frozen=True)
class Chunk:
    """A part of a text; those of a text come in order, and each ends where a sentence may.

    Attributes:
        line: of the file, on which it begins, from 1.
        start: characters of the text before it.
        title: what the text around it is called, or "".
        fresh: whether a new text or section begins here, so that no passage goes on into it.
        has_lines: whether its line breaks are those of the file.
    """

    text: str
    line: int
    start: int
    title: str = ""
    fresh: bool = False
    has_lines: bool = True


@dataclass(frozen=True)
class Passage:
    """What is embedded and found as one.

    Attributes:
        text: as it is in the file, without the white space around it.
        line, last_line: of the file, from 1.
        start: characters of the text before it.
        title: see `Chunk`.
    """

    text: str
    line: int
    last_line: int
    start: int
    title: str


@dataclass(frozen=True)
class _Sentence:
    """A sentence with the white space around it, or the part of one that is too long; its lines are without that."""

    text: str
    line: int
    last_line: int
    start: int
    tokens: int


def words(text: str) -> str:
    """The text with single spaces for all white space, as it is counted and embedded."""
    return " ".join(text.split())


def passages(chunks: Iterable[Chunk], count: Count, most: int, overlap: int) -> Iterator[Passage]:
    """Passages of at most `most` tokens; each begins with the last sentences before it, `overlap` tokens at most."""
    title = ""
    held: list[_Sentence] = []
    repeated = 0  # how many of them the passage before had too
    for chunk in chunks:
        if chunk.fresh:
            yield from _passage(held, repeated, title)
            held, repeated, title = [], 0, chunk.title
        for sentence in _sentences(chunk, count, most):
            if sum(each.tokens for each in held) + sentence.tokens > most:
                yield from _passage(held, repeated, title)
                held = _last(held, min(overlap, most - sentence.tokens))
                repeated = len(held)
            held.append(sentence)
            if _ends_paragraph(sentence) and sum(each.tokens for each in held) > most // FULL_ENOUGH:
                yield from _passage(held, repeated, title)
                held, repeated = [], 0
    yield from _passage(held, repeated, title)


def _ends_paragraph(sentence: _Sentence) -> bool:
    return sentence.text[len(sentence.text.rstrip()) :].count("\n") > 1


def _last(sentences: list[_Sentence], most: int) -> list[_Sentence]:
    """The last of these sentences that have so many tokens together; not all of them."""
    first = len(sentences)
    while first > 1 and sentences[first - 1].tokens <= most:
        first -= 1
        most -= sentences[first].tokens
    return sentences[first:]


def _passage(sentences: list[_Sentence], repeated: int, title: str) -> Iterator[Passage]:
    """The passage of these sentences, unless they say nothing new."""
    if not any(each.text.strip() for each in sentences[repeated:]):
        return
    while not sentences[0].text.strip():
        sentences = sentences[1:]
    text = "".join(each.text for each in sentences)
    last = next(each for each in reversed(sentences) if each.text.strip())
    start = sentences[0].start + len(text) - len(text.lstrip())
    yield Passage(text.strip(), sentences[0].line, last.last_line, start, title)


def _sentences(chunk: Chunk, count: Count, most: int) -> Iterator[_Sentence]:
    """The sentences of a chunk; those above `most` tokens are cut."""
    ends = [found.end() for found in _SENTENCE_END.finditer(chunk.text)]
    texts = [chunk.text[begin:end] for begin, end in zip([0, *ends], [*ends, len(chunk.text)], strict=True)]
    line, start = chunk.line, chunk.start
    for text, tokens in zip(texts, _tokens(texts, count, most), strict=True):
        for part, part_tokens in _cut(text, tokens, count, most):
            lines = part.count("\n") if chunk.has_lines else 0
            before = lines - part.lstrip().count("\n") if lines else 0
            after = lines - part.rstrip().count("\n") if lines else 0
            yield _Sentence(part, line + before, line + lines - after, start, part_tokens)
            line, start = line + lines, start + len(part)


def _tokens(texts: list[str], count: Count, most: int) -> list[int]:
    """The tokens of each text, or more; those of texts that are too long by their characters are not counted."""
    least = [len(text) // MOST_CHARACTERS for text in texts]
    counted = iter(count([words(text) for text, tokens in zip(texts, least, strict=True) if tokens <= most]))
    return [max(tokens, next(counted)) if tokens <= most else tokens for tokens in least]


def _cut(text: str, tokens: int, count: Count, most: int) -> Iterator[tuple[str, int]]:
    """The text with its tokens; one above `most` in parts of about the same length, and these likewise."""
    if tokens <= most or len(text) < 2:
        yield text, tokens
        return
    parts = _parts(text, max(1, len(text) // (tokens // most + 1)))
    for part, part_tokens in zip(parts, _tokens(parts, count, most), strict=True):
        yield from _cut(part, part_tokens, count, most)


def _parts(text: str, size: int) -> list[str]:
    """The text in parts of so many characters at most, cut at line breaks if there are some, else at spaces."""
    parts, begin = [], 0
    while len(text) - begin > size:
        places = (text.rfind(mark, begin + size // 2, begin + size) + 1 for mark in ("\n", " "))
        end = next((place for place in places if place > begin), begin + size)
        parts.append(text[begin:end])
        begin = end
    return [*parts, text[begin:]]
