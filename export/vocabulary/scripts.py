"""The scripts of pieces, such as Latin or Han, by the names that Unicode gives to characters."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter

import numpy as np
import numpy.typing as npt

from ...kernels.errors import InputError
from ..tokenizer.read_table import read_table

COMMON = "Common"  # digits, punctuation, symbols, and marks that any letter may have
OTHER = "Other"  # a script that is not listed here

# Scripts by the first word of the names of their letters and marks, where that is not the script's own name.
_WORDS = {"CJK": "Han", "IDEOGRAPHIC": "Han", "CANADIAN": "Canadian_Aboriginal"}
_NAMED = """Adlam Arabic Armenian Balinese Bengali Bopomofo Cherokee Coptic Cyrillic Devanagari Ethiopic Georgian Gothic
    Greek Gujarati Gurmukhi Hangul Hebrew Hiragana Javanese Kannada Katakana Khmer Lao Latin Malayalam Mongolian Myanmar
    Ogham Oriya Runic Sinhala Sundanese Syriac Tamil Telugu Thaana Thai Tibetan Tifinagh Vai Yi"""
_SCRIPTS = {name.upper(): name for name in _NAMED.split()} | _WORDS
_WIDTHS = ("FULLWIDTH ", "HALFWIDTH ")
_OF_NO_USE = ("Co", "Cn")  # private, or of no meaning yet
_ANY_WORDS = """COMBINING MODIFIER VARIATION MASCULINE FEMININE MICRO KELVIN ANGSTROM OHM PLANCK CARON
    SUPERSCRIPT SUBSCRIPT DOUBLE BLACK SCRIPT INFORMATION"""
_ANY = {*_ANY_WORDS.split()}


@functools.cache
def script_of(character: str) -> str:
    """The script of a character, COMMON or OTHER."""
    name = unicodedata.name(character, "")
    for width in _WIDTHS:
        name = name.removeprefix(width)
    word = name.split(" ")[0].split("-")[0]
    if word in _SCRIPTS:
        return _SCRIPTS[word]
    kind = unicodedata.category(character)
    return OTHER if kind in _OF_NO_USE or (kind[0] in "LM" and word not in _ANY) else COMMON


@functools.cache
def is_mark(character: str) -> bool:
    """Whether any text may have a character: punctuation, digits, signs of currencies, spaces and controls."""
    kind = unicodedata.category(character)
    return script_of(character) == COMMON and (kind[0] in "PZ" or kind in ("Nd", "Sc", "Cc"))


def scripts_of(text: str) -> frozenset[str]:
    """The scripts of a text, COMMON left out."""
    return frozenset(map(script_of, text)) - {COMMON}


def read_scripts(names: str) -> frozenset[str]:
    """The scripts in a list such as "Latin,Cyrillic"; raises InputError for one that is not known."""
    known = {name.upper(): name for name in _SCRIPTS.values()}
    wanted = [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name.upper() not in known]
    if unknown:
        raise InputError(
            f"{unknown[0]!r} is no script known here; expected a list such as Latin,Cyrillic, of "
            f"{', '.join(sorted(known.values()))}"
        )
    return frozenset(known[name.upper()] for name in wanted)


def count_scripts(table: npt.NDArray[np.uint8]) -> tuple[int, Counter[str]]:
    """How many pieces a tokenizer's table has, and how many of each script; those of several count for each."""
    pieces, _ = read_table(table)
    return pieces.count, Counter(script for name in pieces.normal for script in scripts_of(name))
