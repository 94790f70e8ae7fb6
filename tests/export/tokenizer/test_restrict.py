"""A part of the vocabulary: covered texts keep their pieces, and every form of the tokenizer gives the same ids."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import numpy as np
import pytest
import sentencepiece

from embgemma.export.tokenizer.double_array import LABEL_MASK, LEAF, NO_LABEL, PAYLOAD_SHIFT, VALUED
from embgemma.export.tokenizer.pieces import NORMAL, piece_types, read_pieces
from embgemma.export.tokenizer.read_table import read_table
from embgemma.export.tokenizer.restrict import Closure, restrict_json, restrict_model, restrict_table
from embgemma.export.tokenizer.tokenizer_table import build_tokenizer_table
from embgemma.kernels.errors import ModelFileError
from embgemma.kernels.native import library_problem
from embgemma.kernels.native_tokenizer import NativeTokenizer
from embgemma.kernels.tokenizer_table import HEADER, JOIN_BYTES
from embgemma.tokenizer import Tokenizer
from tests import tiny

MODEL = tiny.tokenizer_model()
PIECES, MERGES = read_table(np.frombuffer(tiny.tokenizer_table(), np.uint8))
TYPES = piece_types(MODEL)
SHARES = [0.02, 0.3, 0.7, 1]


def some_pieces(share: float, seed: int = 1) -> list[int]:
    """All pieces that are always kept, and a random share of the others; characters may be left out."""
    rng = random.Random(seed)
    closure = Closure(PIECES, MERGES)
    closure.add(i for i, (name, kind) in enumerate(TYPES) if kind != NORMAL or name == "▁" or rng.random() < share)
    return sorted(closure.kept)


def texts(seed: int, count: int = 1000) -> Iterator[str]:
    """Texts of pieces, of characters that are pieces, and of others."""
    rng = random.Random(seed)
    parts = [name.replace("▁", " ") for name in PIECES.normal] + [*"aeio tnsh  ▁é好😀ж\n\t", "<bos>", "<unk>"]
    for _ in range(count):
        yield "".join(rng.choices(parts, k=rng.randrange(1, 12)))


def test_a_table_tells_its_pieces_and_merges() -> None:
    pieces = read_pieces(MODEL)
    assert (PIECES.count, PIECES.special, PIECES.runs, PIECES.byte_ids) == (
        pieces.count,
        pieces.special,
        pieces.runs,
        pieces.byte_ids,
    )
    assert PIECES.normal.items() <= pieces.normal.items()
    assert len(PIECES.normal) > 300
    assert all(left + right == name for name, (left, right) in MERGES.items())


@pytest.mark.parametrize("share", SHARES)
def test_covered_texts_keep_their_pieces(share: float) -> None:
    kept = some_pieces(share)
    whole, part = (Tokenizer(model, 2, 1) for model in (MODEL, restrict_model(MODEL, kept)))
    covered = 0
    for text in texts(seed=2):
        before, after = whole.encode(text, 10_000).ids, part.encode(text, 10_000).ids
        if {*before} <= {*kept}:
            assert [kept[i] for i in after] == before
            covered += 1
        else:
            assert max(after) < len(kept)
    assert covered > 10 * share


@pytest.mark.parametrize("share", SHARES)
def test_the_table_is_that_of_the_model(share: float) -> None:
    kept = some_pieces(share)
    table = restrict_table(PIECES, MERGES, kept)
    model = restrict_model(MODEL, kept)
    np.testing.assert_array_equal(table, build_tokenizer_table(model))
    if library_problem() is None:
        ours, oracle = NativeTokenizer(table, 2, 1), Tokenizer(model, 2, 1)
        assert ours.vocab == oracle.vocab == len(kept)
        for most in (2, 5, 1000):
            found, expected = (each.encode_batch([*texts(seed=6)], most) for each in (ours, oracle))
            assert found.split() == expected.split()
            np.testing.assert_array_equal(found.truncated, expected.truncated)


@pytest.mark.parametrize("share", SHARES)
def test_tokenizer_json_gives_the_ids_of_the_model(share: float) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    kept = some_pieces(share)
    part = restrict_json(tiny.tokenizer_json(), {old: new for new, old in enumerate(kept)})
    theirs = tokenizers.Tokenizer.from_str(json.dumps(part))
    oracle = Tokenizer(restrict_model(MODEL, kept), 2, 1)
    for text in texts(seed=7):
        assert theirs.encode(text).ids == oracle.encode(text, 10_000).ids


def test_a_part_may_be_restricted_again() -> None:
    first, second = some_pieces(0.7), some_pieces(0.5, seed=3)
    both = [i for i in first if i in second]
    inner = read_table(restrict_table(PIECES, MERGES, first))
    twice = restrict_table(*inner, [first.index(i) for i in both])
    np.testing.assert_array_equal(twice, restrict_table(PIECES, MERGES, both))
    models = restrict_model(restrict_model(MODEL, first), [first.index(i) for i in both]), restrict_model(MODEL, both)
    assert models[0] == models[1]
    assert sentencepiece.SentencePieceProcessor(model_proto=models[0]).get_piece_size() == len(both)


def test_a_damaged_table_is_refused() -> None:
    table = restrict_table(PIECES, MERGES, some_pieces(0.7))
    bad = table.copy()
    rng, refused = random.Random(5), 0
    for _ in range(200):
        at = rng.randrange(HEADER.itemsize, len(table))
        bad[at] ^= rng.randrange(1, 256)
        try:
            read_table(bad)
        except ModelFileError as error:
            refused += str(error).startswith("the tokenizer's table: ")
        bad[at] = table[at]
    assert refused > 50
    count = int(bad[: HEADER.itemsize].view(HEADER)["unit_count"][0])
    begin = HEADER.itemsize + JOIN_BYTES
    units = bad[begin : begin + 4 * count].view("<u4")
    nodes = np.flatnonzero((units & (LEAF | VALUED) == 0) & (units & LABEL_MASK != NO_LABEL))
    units[nodes] = units[nodes] & LABEL_MASK | (nodes ^ (units[nodes] & LABEL_MASK)) << PAYLOAD_SHIFT  # its own parent
    with pytest.raises(ModelFileError, match="a piece has no beginning"):
        read_table(bad)


def test_a_closure_stops_before_it_is_too_large() -> None:
    closure = Closure(PIECES, MERGES)
    wanted = [PIECES.normal[name] for name in MERGES]
    closure.add(wanted, most=40)
    assert 40 - max(map(len, MERGES)) <= len(closure.kept) <= 40
    assert all(closure.missing(i) == set() for i in closure.kept)
