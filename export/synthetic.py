"""Model files of any shape with random weights: what benchmarks run on where there is no checkpoint."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

import numpy as np

from ..inputs import check_path
from ..kernels.config import EncoderConfig
from ..kernels.embedding_rows import LOWEST, RATE_BITS, RATES, row_bytes
from ..kernels.layout import INT4_CODEBOOKS, MatrixFormat, Tensor, matrices
from ..kernels.model_file import EMBEDDING, TOKENIZER, TOKENIZER_TABLE, Scheme, TensorInfo, expected_tensors
from .check import check_model_file
from .scheme import planned_embedding, row_rates, scheme_formats
from .write import ModelFileWriter, model_metadata

_PART_BYTES = 16 << 20  # random numbers made at a time: more would only take more memory

# Standard deviation of what _random_weights draws: any of -127 … 127, any level of int4, or the standard normal.
_DEVIATION: dict[MatrixFormat, float] = {"int8": 73.6, "int4": float(INT4_CODEBOOKS.std()), "float32": 1.0}
# Levels of a row of the embedding table, by its rate: all words have one length, so that any bytes are a row.
_ROW_LEVELS = {rate: np.arange(1 << rate // RATE_BITS) - (1 << rate // RATE_BITS >> 1) for rate in range(RATES + 1)}
_ROW_DEVIATIONS = np.array([_ROW_LEVELS[rate].std() for rate in range(RATES + 1)])

# Norm multipliers and scales vary by this much, so that a backend that mixes up two channels shows it.
_VARIATION = 0.25


def write_synthetic_model(
    path: str | os.PathLike[str],
    config: EncoderConfig,
    scheme: Scheme,
    *,
    seed: int = 0,
    tokenizer_model: bytes = b"",
    tokenizer_table: bytes = b"",
    force: bool = False,
) -> None:
    """Writes a model file of this exact shape and scheme; the same arguments give the same bytes.

    Every matrix maps inputs of unit variance to outputs of about unit variance, so activations stay sane.
    Without a tokenizer_model the file can encode token ids, but no text; without the tokenizer_table that is made of
    it, text takes sentencepiece.
    """
    formats = scheme_formats(config.validate(), scheme)
    embedding = planned_embedding(config, scheme)
    tensors = expected_tensors(config, formats, embedding, len(tokenizer_model), len(tokenizer_table))
    random = np.random.default_rng(seed)
    rates = random.permutation(row_rates(config.vocab, scheme)) if embedding.dtype == np.uint8 else None
    metadata = model_metadata(
        config,
        scheme,
        prompts={"query": "task: search result | query: ", "document": "title: none | text: "},
        producer="embgemma synthetic weights",
    )
    path = check_path("path", path)
    check = functools.partial(check_model_file, name=path, with_text=False)  # whatever tokenizer was given
    with ModelFileWriter.create(path, metadata, tensors, force=force, check=check) as writer:
        for name, info in tensors.items():
            if name in (TOKENIZER, TOKENIZER_TABLE):
                writer.write(name, np.frombuffer({TOKENIZER: tokenizer_model}.get(name, tokenizer_table), np.uint8))
                continue
            for part in _random_tensor(random, config, formats, rates, name, info):
                writer.write(name, part)


def _random_tensor(
    random: np.random.Generator,
    config: EncoderConfig,
    formats: dict[str, MatrixFormat],
    rates: Tensor | None,
    name: str,
    info: TensorInfo,
) -> Iterator[Tensor]:
    """One tensor as it is stored, in parts. rates are those of the table's rows, if they have some."""
    in_features = {spec.name: spec.in_features for spec in matrices(config)}
    owner, _, kind = name.rpartition(".")
    if owner == EMBEDDING and kind != "scale" and rates is not None:
        yield from _random_rows(random, config, rates, kind, info)
        return
    if owner == EMBEDDING and kind == "scale":
        deviations = _DEVIATION["int8"] if rates is None else _ROW_DEVIATIONS[rates]
        yield (_around_one(random, info.shape) / deviations).astype(info.dtype)
        return
    if owner not in {*in_features, EMBEDDING}:
        folded = config.attention_scale if kind == "q_norm" else 1.0
        yield (folded * _around_one(random, info.shape)).astype(info.dtype)
        return
    unit = 1.0 if owner == EMBEDDING else in_features[owner] ** -0.5 / _DEVIATION[formats[owner]]
    if kind == "scale":
        yield (unit * _around_one(random, info.shape)).astype(info.dtype)
        return
    for part in _random_weights(random, info):
        yield part * np.float32(unit) if part.dtype == np.float32 else part


def _random_rows(
    random: np.random.Generator, config: EncoderConfig, rates: Tensor, kind: str, info: TensorInfo
) -> Iterator[Tensor]:
    """One of the tensors that hold the levels of a table of several rates, in parts."""
    if kind == "rate":
        yield rates
    elif kind == "code_length":
        lengths = np.zeros(info.shape, info.dtype)
        for rate in np.unique(rates).tolist():
            lengths[rate - 1, _ROW_LEVELS[rate] - LOWEST] = rate // RATE_BITS
        yield lengths
    else:
        left = int(row_bytes(rates, config.hidden).sum())  # bytes of rows; zeros follow
        for part in _random_weights(random, info):
            part[left:] = 0
            left -= min(left, len(part))
            yield part


def _around_one(random: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Values from 1 - _VARIATION to 1 + _VARIATION."""
    return random.uniform(1 - _VARIATION, 1 + _VARIATION, shape)


def _random_weights(random: np.random.Generator, info: TensorInfo) -> Iterator[Tensor]:
    """Random weights, codes or codebooks, drawn as stored, since packing would only shuffle them."""
    rows_at_once = max(1, _PART_BYTES * info.shape[0] // info.size_bytes)
    for start in range(0, info.shape[0], rows_at_once):
        shape = (min(rows_at_once, info.shape[0] - start), *info.shape[1:])
        if info.dtype == np.float32:
            yield random.standard_normal(shape, np.float32)
        else:
            low, high = (-127, 127) if info.dtype == np.int8 else (0, 255)
            yield random.integers(low, high, shape, info.dtype, endpoint=True)
