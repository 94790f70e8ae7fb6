"""Cosines by language and script: of numbers, and as the command prints them."""

from __future__ import annotations

import numpy as np
import pytest

from embgemma.benchmarks.quality.quality_languages import Language, language_tables

LANGUAGES = [
    Language("aaa", "First", "Latin", ["a", "b"]),
    Language("bbb", "Second", "Greek", ["c"]),
    Language("ccc", "Third", "Latin", ["d", "e"]),
]


def test_cosines_are_told_by_script_and_by_language() -> None:
    cosines = {"int8": np.array([1, 1, 1, 0.9, 1]), "int4": np.array([0.9, 0.8, 0.7, 1, 1])}
    by_script, by_language = language_tables(LANGUAGES, cosines, "float32", everything=True)
    assert by_script.header == ["script", "languages", "int8", "int4"]
    assert by_script.rows == [
        ["all", "3", "0.9800 / 0.904 / 0.900", "0.8800 / 0.704 / 0.700"],
        ["Latin", "2", "0.9750 / 0.903 / 0.900", "0.9250 / 0.803 / 0.800"],
        ["Greek", "1", "1.0000 / 1.000 / 1.000", "0.7000 / 0.700 / 0.700"],
    ]
    assert "float32" in by_script.title
    assert [row[1] for row in by_language.rows] == ["bbb", "aaa", "ccc"]  # the farthest in any format first
    assert by_language.rows[1] == ["First", "aaa", "Latin", "1.0000 / 1.000 / 1.000", "0.8500 / 0.801 / 0.800"]


@pytest.mark.parametrize("everything", [True, False])
def test_few_languages_are_listed_unless_all_are_asked_for(*, everything: bool) -> None:
    languages = [Language(str(i), "", "Latin", ["a"]) for i in range(30)]
    _, by_language = language_tables(languages, {"int4": np.linspace(1, 0, 30)}, "float32", everything=everything)
    assert by_language.rows[0][1] == "29"
    assert len(by_language.rows) == (30 if everything else 12)


def test_one_format_has_nothing_to_be_compared_with() -> None:
    assert language_tables(LANGUAGES, {}, "float32", everything=False) == []
