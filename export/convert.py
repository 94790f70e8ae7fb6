"""Checkpoint → model file, one tensor at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import __version__
from ..kernels.layout import MatrixFormat, Tensor, pack_embedding, pack_panels
from ..model_file import EMBEDDING, TOKENIZER, expected_tensors
from .checkpoint import Checkpoint, read_checkpoint
from .folds import folded_embedding, folded_matrix, folded_norm
from .quantize import quantize_rows
from .scheme import Scheme, embedding_groups, scheme_formats
from .write import ModelFileWriter, check_destination, model_metadata

_EMBEDDING_ROWS = 8192  # rows of the table read at a time: 25 MB in float32


def convert(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    scheme: Scheme = "mixed",
    *,
    sliding_window: int | None = None,
    force: bool = False,
    progress: bool | None = None,
) -> Path:
    """Writes the model file of a checkpoint and gives its path.

    Args:
        checkpoint: folder of a checkpoint as sentence-transformers lays it out.
        output: the file to write; it appears when it is complete, or not at all.
        scheme: "float32", "int8", "mixed" or "int4".
        sliding_window: replaces the value in config.json; see `read_checkpoint`.
        force: whether to replace a file that exists.
        progress: whether to show a progress bar; by default, only on a terminal.

    Raises:
        CheckpointError: the checkpoint is incomplete, damaged, or of another architecture.
        InputError: the output exists or cannot lie there, or the scheme is unknown.
        OSError: the disk is full.
    """
    output = Path(output)
    check_destination(output, force=force)
    source = read_checkpoint(checkpoint, sliding_window=sliding_window)
    formats = scheme_formats(source.config, scheme)
    groups = embedding_groups(source.config, scheme)
    tensors = expected_tensors(source.config, formats, groups, tokenizer_bytes=len(source.tokenizer_model))
    metadata = model_metadata(
        source.config,
        scheme,
        prompts=source.prompts,
        default_prompt_name=source.default_prompt_name,
        similarity_fn_name=source.similarity_fn_name,
        producer=f"embgemma {__version__}",
    )
    total = sum(info.size_bytes for info in tensors.values())
    hidden = None if progress is None else not progress  # None: tqdm looks whether this is a terminal
    with (
        ModelFileWriter(output, metadata, tensors, force=force) as writer,
        tqdm(total=total, desc=output.name, unit="B", unit_scale=True, disable=hidden) as bar,
    ):
        for name, part in _stored_tensors(source, list(tensors), formats, groups):
            writer.write(name, part)
            bar.update(part.nbytes)
    return output


def _stored_tensors(
    source: Checkpoint, names: list[str], formats: dict[str, MatrixFormat], groups: int
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor as it is stored, in the order of `names`; a scale comes with its weight."""
    for name in names:
        owner, _, kind = name.rpartition(".")
        if name == TOKENIZER:
            yield name, np.frombuffer(source.tokenizer_model, np.uint8)
        elif owner == EMBEDDING and kind == "weight":
            yield from _stored_embedding(source, formats[owner], groups)
        elif kind == "weight":
            yield from _stored_matrix(source, owner, formats[owner])
        elif kind != "scale":
            yield name, folded_norm(source, name)


def _stored_matrix(source: Checkpoint, name: str, matrix_format: MatrixFormat) -> Iterator[tuple[str, Tensor]]:
    """One matrix, and its scales if it is quantised."""
    matrix = folded_matrix(source, name)
    if matrix_format == "float32":
        yield f"{name}.weight", pack_panels(matrix, matrix_format)
        return
    codes, scales = quantize_rows(matrix, matrix_format)
    yield f"{name}.weight", pack_panels(codes, matrix_format)
    yield f"{name}.scale", scales


def _stored_embedding(source: Checkpoint, matrix_format: MatrixFormat, groups: int) -> Iterator[tuple[str, Tensor]]:
    """The embedding table in parts, and its scales if it is quantised: one per row and group of columns."""
    vocab, hidden = source.config.vocab, source.config.hidden
    scales = np.empty((vocab, groups), np.float16)
    for start in range(0, vocab, _EMBEDDING_ROWS):
        stop = min(start + _EMBEDDING_ROWS, vocab)
        rows = folded_embedding(source, start, stop)
        if matrix_format == "float32":
            yield f"{EMBEDDING}.weight", rows
            continue
        codes, row_scales = quantize_rows(rows.reshape(-1, hidden // groups), matrix_format, np.float16)
        scales[start:stop] = row_scales.reshape(-1, groups)
        yield f"{EMBEDDING}.weight", pack_embedding(codes.reshape(-1, hidden), matrix_format)
    if matrix_format != "float32":
        yield f"{EMBEDDING}.scale", scales
