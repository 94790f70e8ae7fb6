"""The table of the C tokenizer: its trie, and the models that it is not made of."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from embgemma.export.tokenizer.double_array import BLOCK, LABEL_MASK, LEAF, PAYLOAD_SHIFT, VALUED, DoubleArray
from embgemma.export.tokenizer.merges import check_late_pieces, find_merges
from embgemma.export.tokenizer.tokenizer_table import build_tokenizer_table
from embgemma.kernels.errors import CheckpointError
from tests import tiny


def look_up(units: Any, offset: int, key: bytes) -> int | None:
    """The value of a key, by the layout that double_array.py states."""
    unit = None
    for byte in key:
        if unit is not None and unit & LEAF:
            return None
        child = offset ^ byte
        if child >= len(units) or units[child] & LABEL_MASK != byte:
            return None
        unit = int(units[child])
        offset = unit >> PAYLOAD_SHIFT
    if unit is None:
        return None
    if unit & LEAF:
        return offset
    return int(units[offset]) >> PAYLOAD_SHIFT if unit & VALUED else None


@pytest.mark.parametrize("alphabet", [b"ab", bytes(range(1, 256))])
def test_a_trie_holds_its_keys_and_no_others(alphabet: bytes) -> None:
    rng = random.Random(len(alphabet))
    trie = DoubleArray()
    roots = trie.new_node(), trie.new_node()
    keys = [{bytes(rng.choices(alphabet, k=rng.randrange(1, 9))): i for i in range(3000)} for _ in roots]
    for root, values in zip(roots, keys, strict=True):
        for key, value in values.items():
            trie.insert(root, key, value)
    units, offsets = trie.pack(*roots)
    assert len(units) % BLOCK == 0
    for offset, values in zip(offsets, keys, strict=True):
        for key, value in values.items():
            assert look_up(units, offset, key) == value
        for _ in range(10_000):
            key = bytes(rng.choices(range(256), k=1)) + bytes(rng.choices(alphabet, k=rng.randrange(8)))
            assert look_up(units, offset, key) == values.get(key)


def test_an_alias_shares_what_follows() -> None:
    trie = DoubleArray()
    root = trie.new_node()
    for value, key in enumerate([b" ", b" a", b" ab", b"x y", b"-+z"]):
        trie.insert(root, key, value)
    trie.alias(ord(" "), b"-+")
    units, (offset,) = trie.pack(root)
    found = [look_up(units, offset, key) for key in (b"-+", b"-+a", b"-+ab", b"x-+y", b"-", b"x-")]
    assert found == [0, 1, 2, 3, None, None]


def test_the_table_is_the_same_every_time() -> None:
    first, second = (build_tokenizer_table(tiny.tokenizer_model()) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.nbytes % 64 == 0


def trained(**settings: Any) -> bytes:
    """A model like that of tests/tiny.py, but for these settings."""
    lines = ["the of and to in is that for it as was with be by on not ▁ " * 9, "".join(map(chr, range(33, 127)))]
    return tiny.train_tokenizer(lines, **{"vocab_size": 420, **settings})


def test_a_plain_model_has_a_table() -> None:
    assert build_tokenizer_table(trained()).nbytes > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "unigram", "vocab_size": 360}, "does not merge byte pairs"),
        ({"byte_fallback": False, "vocab_size": 160}, "no piece for every byte"),
        ({"add_dummy_prefix": True}, "normalises texts"),
        ({"normalization_rule_name": "nmt_nfkc_cf"}, "normalises texts"),
        ({"remove_extra_whitespaces": True}, "normalises texts"),
        ({"user_defined_symbols": ["▁▁▁"]}, "special pieces with spaces"),
        ({"user_defined_symbols": ["t▁o"]}, "special pieces with spaces"),
    ],
)
def test_models_of_another_kind_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"not of Gemma's kind: .*({message})"):
        build_tokenizer_table(trained(**settings))


# Pieces that rank before their later part: " aaaaaa" is made of " aaaaa" and "a", " bbbc" of " b" and "bbc".
LATE = ["▁a", "aa", "aaaa", "▁aaaaaa", "▁aaaaa", "▁b", "bb", "▁bbbc", "bbc"]


def ranked(pieces: list[str]) -> dict[str, int]:
    """Ids of these pieces in this order, and of all characters after them."""
    return {name: i for i, name in enumerate([*pieces, *sorted({*"".join(pieces)})])}


def test_late_pieces_are_found_and_allowed_where_nothing_waits_for_them() -> None:
    normal = ranked(LATE)
    merges = find_merges(normal)
    assert merges["▁aaaaaa"] == ("▁aaaaa", "a")
    assert merges["▁bbbc"] == ("▁b", "bbc")
    check_late_pieces(normal, merges)


@pytest.mark.parametrize(
    "pieces",
    [
        [*LATE[:3], "▁aaaaaac", *LATE[3:]],  # is made of a late piece, and ranks before its later part
        [*LATE, "x▁", "x▁a"],  # a late piece may be joined on its left
        ["aa", "aaaa", "baaaaaa", "baaaa"],  # a late piece that begins no word
    ],
)
def test_late_pieces_that_matter_are_refused(pieces: list[str]) -> None:
    normal = ranked(pieces)
    with pytest.raises(CheckpointError, match="ranks before its parts"):
        check_late_pieces(normal, find_merges(normal))


def test_a_piece_that_its_own_spelling_does_not_give_has_no_merge() -> None:
    merges = find_merges(ranked(["▁Y", "YY", "▁YY", "▁YYYY"]))
    assert "▁YYYY" not in merges  # "▁YYYY" of the published vocabulary is ▁Y, YY, Y: nothing makes it
