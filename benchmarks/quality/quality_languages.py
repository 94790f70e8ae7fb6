"""How near formats come to float32 in each language: by script, and in the languages that lose most.

languages.jsonl has a short and a longer text in each of some 460 languages, from articles of the Universal Declaration
of Human Rights that calibration does not see (../../export/quantise/declaration.py). NOTICE has the licence.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..harness.page import Table

LANGUAGES = Path(__file__).with_name("languages.jsonl")

Cosines: TypeAlias = npt.NDArray[np.float64]  # (texts,): of all languages' texts, end to end

_FARTHEST = 12  # languages that are listed unless all are asked for


@dataclass(frozen=True)
class Language:
    """A language in one script, and texts in it, which have no prompt.

    Attributes:
        tag: ISO 639-3, and the script where there are several.
        name: in English.
        script: by Unicode's names.
        texts: the short one first.
    """

    tag: str
    name: str
    script: str
    texts: list[str]


def read_languages() -> list[Language]:
    """Those that come along; none in a wheel, which leaves them out."""
    if not LANGUAGES.exists():
        return []
    return [Language(**json.loads(line)) for line in LANGUAGES.read_text("utf-8").splitlines()]


def language_tables(
    languages: Sequence[Language], cosines: Mapping[str, Cosines], reference: str, *, everything: bool
) -> list[Table]:
    """Cosines to the reference by script, and by language, of formats by their names."""
    if not (cosines and languages):
        return []
    owners = np.repeat(np.arange(len(languages)), [len(language.texts) for language in languages])
    scripts = np.array([language.script for language in languages])
    rows = [["all", str(len(languages)), *map(_spread, cosines.values())]]
    for script, count in Counter(scripts.tolist()).most_common():
        chosen = scripts[owners] == script
        rows.append([script, str(count), *(_spread(of[chosen]) for of in cosines.values())])
    by_script = Table(
        f"Cosine to {reference} by script: mean / 1st percentile / min", ["script", "languages", *cosines], rows, left=1
    )
    means = {name: np.bincount(owners, of) / np.bincount(owners) for name, of in cosines.items()}
    order = np.argsort(np.min([*means.values()], axis=0), kind="stable")[: None if everything else _FARTHEST]
    rows = [
        [languages[i].name, languages[i].tag, scripts[i], *(_spread(of[owners == i]) for of in cosines.values())]
        for i in order.tolist()
    ]
    title = "by language" if everything else f"in the {len(order)} languages that lose most"
    by_language = Table(f"The same {title}", ["language", "tag", "script", *cosines], rows, left=3)
    return [by_script, by_language]


def _spread(cosines: Cosines) -> str:
    return f"{cosines.mean():.4f} / {np.percentile(cosines, 1):.3f} / {cosines.min():.3f}"
