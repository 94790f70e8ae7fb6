"""Where the texts of a batch have tokens, which of them see each other, and attention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...kernels.config import EncoderConfig
from .graph import BOOL, FLOAT, INT64, Graph
from .operators import Operators, Rotation

# Tokens of a sliding layer whose queries are multiplied with the same keys: their own and those of a window to both
# sides. Smaller blocks waste less on keys that only some tokens see, but copy each key more often.
BLOCK_TOKENS = 128

# ONNX Runtime sums in another order where a thread multiplies with 64 keys or fewer. Last bits would then depend on
# padding, and int8 codes on last bits. So there are never fewer keys, and at least as many rows of queries, since
# threads share the larger of the two. Padding short texts instead is slower (../EXPERIMENTS.md).
_LEAST_KEYS = 65

_UNSEEN = float(np.finfo(np.float32).min)  # the score of a token that is not seen


@dataclass(frozen=True)
class Batch:
    """The padded texts: names of int64 values in the graph.

    In sliding layers a text has `blocks` blocks of `block` tokens. Each block sees `keys` consecutive tokens. A short
    text is one block that sees itself.

    Attributes:
        ids: (batch, tokens), padded further to whole blocks.
        real: (batch, tokens) bool, false where there is padding.
        batch, tokens, rows: scalars; rows = batch * tokens.
        given_tokens: scalar, the length as given.
        blocks, block: scalars; tokens = blocks * block.
        key_index: (blocks, keys), the tokens that each block sees.
        key_padding: (6,), how keys (batch, tokens, head_dim) of full layers are padded to _LEAST_KEYS.
        bias_full: (batch, 1, 1, keys) float32, what is added to the scores of full layers.
        bias_sliding: (batch, blocks, block * heads or _LEAST_KEYS, keys) float32, the same of sliding layers.
    """

    ids: str
    batch: str
    tokens: str
    rows: str
    given_tokens: str
    real: str
    blocks: str
    block: str
    key_index: str
    key_padding: str
    bias_full: str
    bias_sliding: str


def longest_padded(config: EncoderConfig) -> int:
    """The most tokens that a text is padded to."""
    return config.max_tokens + -(-config.max_tokens // BLOCK_TOKENS)


def make_batch(graph: Graph, config: EncoderConfig, ids: str, mask: str) -> Batch:
    """The batch of the inputs ids and mask, (batch, tokens) int64 each."""
    shape = graph.op("Shape", ids)
    batch, given = (graph.op("Gather", shape, graph.integer(axis)) for axis in (0, 1))
    ids = _with_end(graph, config, graph.op("Add", ids, _refuse_long(graph, config, given)), given)
    blocks, block, keys = _blocks(graph, config, given)
    tokens = graph.op("Mul", blocks, block)
    padding = _end_padding(graph, 2, 1, graph.op("Sub", tokens, given))
    ids, mask = (graph.op("Pad", value, padding) for value in (ids, mask))
    real = graph.cast(mask, BOOL)
    first = graph.op("Mul", graph.op("Range", graph.integer(0), blocks, graph.integer(1)), block)
    last_start = graph.op("Sub", tokens, keys)
    start = graph.op("Sub", first, graph.integer(config.window))
    start = graph.op("Max", graph.op("Min", start, last_start), graph.integer(0))
    key_position = graph.op("Add", graph.op("Unsqueeze", start, graph.integers(1)), _range(graph, keys))
    last = graph.op("Sub", tokens, graph.integer(1))
    missing = graph.op("Max", graph.op("Sub", graph.integer(_LEAST_KEYS), tokens), graph.integer(0))
    padded_real = graph.op("Pad", graph.cast(real, INT64), _end_padding(graph, 2, 1, missing))
    return Batch(
        ids=ids,
        real=real,
        batch=batch,
        tokens=tokens,
        rows=graph.op("Mul", batch, tokens),
        given_tokens=given,
        blocks=blocks,
        block=block,
        key_index=graph.op("Min", key_position, last),
        key_padding=_end_padding(graph, 3, 1, missing),
        bias_full=_bias(graph, graph.op("Unsqueeze", graph.cast(padded_real, BOOL), graph.integers(1, 2))),
        bias_sliding=_sliding_bias(graph, config, padded_real, blocks, block, key_position),
    )


def _refuse_long(graph: Graph, config: EncoderConfig, tokens: str) -> str:
    """Zero, and an error that says what is wrong if texts have too many tokens: ONNX Runtime names the operation."""
    zeros = graph.constant("zero_for_each_token", np.zeros(config.max_tokens, np.int8))
    last = graph.op("Sub", tokens, graph.integer(1))
    name = f"texts_must_have_at_most_{config.max_tokens}_tokens"
    return graph.cast(graph.op("Gather", zeros, last, name=name), INT64)


def _with_end(graph: Graph, config: EncoderConfig, ids: str, tokens: str) -> str:
    """ids (batch, tokens) whose last place, if texts are as long as may be, holds <eos>, or padding.

    It does anyway, unless a library has cut the text together with its <eos>, as transformers.js does; without it, a
    text of 2,048 tokens had a vector with a cosine of 0.89 to the right one.
    """
    positions = graph.op("Range", graph.integer(0), tokens, graph.integer(1))
    is_last = graph.op("Equal", positions, graph.integer(config.max_tokens - 1))
    return graph.op("Where", is_last, graph.integer(config.eos_id), ids)


def _blocks(graph: Graph, config: EncoderConfig, tokens: str) -> tuple[str, str, str]:
    """How many blocks texts are cut into, of how many tokens each, and how many tokens each sees: scalars.

    Blocks are made of nearly equal size, so that hardly any padding fills the last one.
    """
    keys = BLOCK_TOKENS + 2 * config.window
    wanted = graph.op("Div", graph.op("Add", tokens, graph.integer(BLOCK_TOKENS - 1)), graph.integer(BLOCK_TOKENS))
    is_long = graph.op("Greater", tokens, graph.integer(keys))
    blocks = graph.op("Where", is_long, wanted, graph.integer(1))
    block = graph.op("Div", graph.op("Sub", graph.op("Add", tokens, blocks), graph.integer(1)), blocks)
    seen = graph.op("Add", block, graph.integer(2 * config.window))
    short = graph.op("Max", tokens, graph.integer(_LEAST_KEYS))
    return blocks, block, graph.op("Where", is_long, seen, short)


def _end_padding(graph: Graph, rank: int, axis: int, count: str) -> str:
    """How `Pad` appends count elements along one axis: numbers for the beginnings of all axes, then for their ends."""
    before, after = graph.integers(*[0] * (rank + axis)), [0] * (rank - axis - 1)
    parts = [before, graph.vector(count), *([graph.integers(*after)] if after else [])]
    return graph.op("Concat", *parts, axis=0)


def _sliding_bias(graph: Graph, config: EncoderConfig, real: str, blocks: str, block: str, key_position: str) -> str:
    """See `Batch.bias_sliding`."""
    heads = graph.integer(config.heads)
    block_rows = graph.op("Max", graph.op("Mul", block, heads), graph.integer(_LEAST_KEYS))
    query = graph.op("Div", _range(graph, graph.op("Mul", blocks, block_rows)), heads)  # the token of each row
    by_block = graph.vector(blocks, block_rows, graph.integer(1))
    query = graph.op("Reshape", graph.cast(query, FLOAT), by_block)  # exact, and faster than int64
    key = graph.cast(graph.op("Unsqueeze", key_position, graph.integers(1)), FLOAT)
    distance = graph.op("Abs", graph.op("Sub", query, key))  # (blocks, block_rows, keys)
    near = graph.op("LessOrEqual", distance, graph.number(config.window))
    real_keys = graph.op(
        "Unsqueeze", graph.op("Gather", graph.cast(real, BOOL), key_position, axis=1), graph.integers(2)
    )
    return _bias(graph, graph.op("And", real_keys, near))


def _bias(graph: Graph, seen: str) -> str:
    """0 where seen, else so low that no score outweighs it."""
    return graph.op("Where", seen, graph.number(0), graph.number(_UNSEEN))


def _range(graph: Graph, count: str) -> str:
    return graph.op("Range", graph.integer(0), count, graph.integer(1))


class Attention:
    """Attention of every layer over one batch.

    All query heads share the one key/value head, so that the queries of a token are rows of one product.

    Attributes:
        by_token: the shape (batch, tokens, -1).
    """

    def __init__(self, graph: Graph, config: EncoderConfig, operators: Operators, batch: Batch) -> None:
        self._graph = graph
        self._config = config
        self._operators = operators
        self._batch = batch
        block_rows = graph.op("Mul", batch.block, graph.integer(config.heads))
        # If there is one block, its rows. Several blocks have enough rows, and nothing is padded.
        self._given_rows = graph.vector(graph.op("Mul", batch.tokens, graph.integer(config.heads)))
        missing = graph.op("Max", graph.op("Sub", graph.integer(_LEAST_KEYS), block_rows), graph.integer(0))
        self._row_padding = _end_padding(graph, 4, 2, missing)
        self.by_token = graph.vector(batch.batch, batch.tokens, graph.integer(-1))
        self._query_blocks = graph.vector(batch.batch, batch.blocks, block_rows, graph.integer(config.head_dim))

    def heads(self, projected: str, heads: int, multiplier: str, rotation: Rotation) -> str:
        """Norm over each head and rotary embedding of projected (batch, tokens, heads * head_dim)."""
        graph, config = self._graph, self._config
        by_head = projected if heads == 1 else graph.op("Reshape", projected, graph.integers(0, -1, config.head_dim))
        normed = self._operators.norm(by_head, multiplier, config.rms_norm_eps)
        by_token = normed if heads == 1 else graph.op("Reshape", normed, graph.integers(0, -1, heads * config.head_dim))
        return self._operators.rotate(by_token, heads, rotation)

    def full(self, query: str, key: str, value: str) -> str:
        """Each token sees all: (rows, q_width) of query (batch, tokens, q_width) and key, value (batch, tokens, …)."""
        graph, head_dim = self._graph, self._config.head_dim
        query = graph.op("Reshape", query, graph.integers(0, 1, -1, head_dim))
        key, value = (graph.op("Pad", each, self._batch.key_padding) for each in (key, value))
        key, value = (graph.op("Unsqueeze", each, graph.integers(1)) for each in (key, value))
        return self._attended(query, key, value, self._batch.bias_full)

    def sliding(self, query: str, key: str, value: str) -> str:
        """The same where each token sees those within the window."""
        graph, batch = self._graph, self._batch
        query = graph.op("Reshape", query, self._query_blocks)
        key, value = (graph.op("Gather", each, batch.key_index, axis=1) for each in (key, value))
        return self._attended(query, key, value, batch.bias_sliding)

    def _attended(self, query: str, key: str, value: str, bias: str) -> str:
        """(rows, q_width) of query (batch, blocks, rows, head_dim) and key, value (batch, blocks, keys, head_dim)."""
        graph = self._graph
        query = graph.op("Pad", query, self._row_padding)
        scores = graph.op("Add", self._operators.scores(query, key), bias)
        attended = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
        attended = graph.op("Slice", attended, graph.integers(0), self._given_rows, graph.integers(2))
        return graph.op("Reshape", attended, graph.integers(-1, self._config.q_width))
