"""Texts of translations: what a page has, and that calibration and development share nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from embgemma.benchmarks.quality.quality_languages import LANGUAGES, read_languages
from embgemma.export.quantise.calibration import SHIPPED_LANGUAGES
from embgemma.export.quantise.declaration import Translation, calibration_rows, main


def page(tag: str, language: str, letter: str, articles: int = 30) -> str:
    """A page as the package has them: article 7 has the letter 7 × 6 times, after its number."""
    body = "".join(
        f'<article data-number="{number}"><h2>Article</h2><p>{number}\n {letter * 6 * number} <b>.</b></p></article>'
        for number in range(1, articles + 1)
    )
    head = f'<html data-iso6393="{tag[:3]}" lang="{language}"><head><title>Name of {tag}</title></head>'
    return f"{head}<body><header><p>Preamble</p></header>{body}</body></html>"


def test_a_page_is_read() -> None:
    read = Translation(page("azj", "az-Cyrl-AZ", "ж"))
    assert (read.tag, read.name, read.script) == ("azj-Cyrl", "Name of azj", "Cyrillic")
    assert len(read.articles) == 30
    assert read.articles[2] == [f"2 {'ж' * 12} ."]
    assert [text.split()[0] for text in read.paragraphs(1, range(60))] == ["1", "3", "5", "7", "9"]


def test_even_articles_calibrate_and_odd_ones_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {
        "a": page("deu", "de", "a"),
        "b": page("deu", "de", "b"),  # another translation into the same language
        "c": page("ell", "el", "γ"),
        "d": page("und", "und", "d"),  # of no language
        "e": page("fra", "fr", "e", articles=3),
    }
    for name, text in pages.items():
        (tmp_path / f"{name}.html").write_text(text, encoding="utf-8")
    made = [tmp_path / "calibration", tmp_path / "development"]
    monkeypatch.setattr(sys, "argv", ["declaration", str(tmp_path), *map(str, made)])
    main()
    calibration, development = ([json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in made)
    assert [row["tag"] for row in development] == ["deu", "ell"]
    assert [len(row["texts"]) for row in development] == [2, 2]
    assert {row.get("prompt") for row in calibration} == {None, "query", "document", "STS", "Classification"}
    assert len({row["text"] for row in calibration}) == len(calibration) == 8  # four of a script
    odd = [int(text.split()[0]) % 2 for row in development for text in row["texts"]]
    even = [int(row["text"].split()[0]) % 2 for row in calibration]
    assert {*odd} == {1}
    assert {*even} == {0}
    assert not any("b" in row["text"] for row in calibration)


@pytest.mark.parametrize(("letter", "beginning"), [("ab ", "ab " * 59 + "ab"), ("ༀ", "ༀ" * 60), ("𞤀", "𞤀" * 45)])
def test_a_language_without_short_paragraphs_has_a_beginning(letter: str, beginning: str) -> None:
    body = "".join(f'<article data-number="{i}"><p>{letter * (100 + i)}</p></article>' for i in range(30))
    rows = [*calibration_rows([Translation(f'<html data-iso6393="und" lang="und">{body}</html>')])]
    assert [row["text"] for row in rows] == [beginning]


@pytest.mark.skipif(not LANGUAGES.exists(), reason="a wheel leaves them out")
def test_what_ships_is_in_hundreds_of_languages_and_compact() -> None:
    languages = read_languages()
    assert len(languages) == len({language.tag for language in languages}) > 400
    assert len({language.script for language in languages}) > 30
    assert all(language.texts for language in languages)
    assert sum(len(language.texts) for language in languages) > 900
    calibration = [json.loads(line)["text"] for line in SHIPPED_LANGUAGES.read_text("utf-8").splitlines()]
    assert len(calibration) == len({*calibration}) > 400
    assert not {*calibration} & {text for language in languages for text in language.texts}
    assert SHIPPED_LANGUAGES.stat().st_size < 150_000
    assert LANGUAGES.stat().st_size < 200_000
