"""How long each row of the embedding table is: longest where texts are most often."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..tokenizer.pieces import UNUSED, Pieces

# A tokenizer lists merged pieces by frequency, and behind them single characters, by frequency too. Of four places in
# the order of frequency, about one is a character's.
_PLACES_OF_CHARACTER = 4

FREQUENT = Path(__file__).with_name("frequent_ids.json")  # declaration.py says how it was made
_GEMMA_PIECES = 262_144  # whose ids those are; a fine-tune may have added some


def rates_of_rows(
    pieces: Pieces, ids: npt.NDArray[np.int32], descending: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """The rate of each row, (vocab,).

    Args:
        pieces: of the tokenizer. Special ones, which a fine-tune may have added for texts of its own, get most.
        ids: the tokens of texts, any number; their pieces come next, by how often they occur, and then pieces that are
            frequent in many languages.
        descending: (vocab,) the rates to give.
    """
    places = np.arange(len(descending))
    characters = sorted(i for name, i in pieces.normal.items() if len(name) == 1)
    places[characters] = _PLACES_OF_CHARACTER * np.arange(len(characters))
    if pieces.count >= _GEMMA_PIECES:
        places[np.cumsum(json.loads(FREQUENT.read_text()))] = -1
    counts = np.bincount(ids, minlength=len(descending))
    counts[[i for name, i in pieces.special.items() if not UNUSED.fullmatch(name)]] = len(ids) + 1
    rates = np.empty(len(descending), np.uint8)
    rates[np.lexsort((places, -counts))] = descending
    return rates
