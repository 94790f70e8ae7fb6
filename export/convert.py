"""Checkpoint → model file, one tensor at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..inputs import check_path
from ..kernels.embedding_rows import table_bytes
from ..kernels.layout import MatrixFormat, Tensor, pack_codebooks, pack_panels
from ..kernels.model_file import ORIGIN, TOKENIZER, TOKENIZER_TABLE, Scheme, embedding_info, expected_tensors
from ..kernels.rotation import ROTATION
from ..notices import Progress, size_text, tell
from ..output_file import check_room, keep_inputs
from .check import check_model_file, check_stored, folding
from .checkpoint.checkpoint import Checkpoint, read_checkpoint
from .checkpoint.checkpoint_tensors import Float32
from .needs import BUILDING, CHECKING, READING, conversion_needs
from .part import part_of
from .quantise.calibrate import calibrated_parts, plain_parts
from .quantise.calibration import CalibrationBatch, calibration_files, read_calibration
from .quantise.embedding import EmbeddingTable, int8_rows
from .quantise.gptq import Float64, gptq
from .quantise.quantize import GRIDS, QuantizedRows, quantize_rows
from .quantise.row_order import rates_of_rows
from .quantise.row_rounder import RowRounder
from .scheme import (
    calibrates_on_short_sentences,
    embedding_format,
    keeps_tokenizer_model,
    planned_embedding,
    row_rates,
    scheme_formats,
)
from .tokenizer.pieces import Pieces, read_pieces
from .tokenizer.tokenizer_table import build_tokenizer_table
from .vocabulary.keep import Keep
from .write import ModelFileWriter, check_model_path, model_metadata


def convert(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    scheme: Scheme = "int8",
    *,
    calibrated: bool = True,
    calibration: str | os.PathLike[str] | None = None,
    sliding_window: int | None = None,
    base: str | os.PathLike[str] | None = None,
    keep: Keep | None = None,
    force: bool = False,
    progress: Progress | None = None,
    origin: str | None = None,
) -> Path:
    """Writes the model file of a checkpoint and gives its path.

    Args:
        checkpoint: folder of a checkpoint as sentence-transformers lays it out.
        output: the file to write; it appears complete and checked, or not at all.
        scheme: "float32", "int8", "balanced", "mixed" or "int4"; the README says which is for what.
        calibrated: whether to round so that the outputs of each matrix on calibration texts have the least error, which
            takes minutes. Otherwise each weight is rounded by itself. float32 needs neither.
        calibration: a file of texts to calibrate on instead of those that ship; see `read_calibration`.
        sliding_window: replaces the value in config.json; see `read_checkpoint`.
        base: folder of the model that a LoRA adapter was trained on; see `read_checkpoint`.
        keep: which pieces of the vocabulary to keep; None keeps all.
        force: whether to replace a file that exists.
        progress: what is told of the work, such as `embgemma.notices.Progress()`; by default nothing is said.
        origin: where the checkpoint came from, which the file then says.

    Raises:
        CheckpointError: the checkpoint is incomplete, damaged, or of another architecture.
        EmbgemmaError: the file that was made cannot be opened, or does not embed a text.
        InputError: the output exists or cannot be written, the scheme is unknown, or the calibration texts are wrong.
        OSError: the disk is full.
    """
    progress = progress or Progress(quiet=True)
    output = check_path("output", output)
    calibrated = calibrated and scheme != "float32"
    texts = calibration_files(calibration, used=calibrated)
    check_model_path(output, force=force)
    progress.begin(READING)
    source = read_checkpoint(checkpoint, sliding_window=sliding_window, base=base)
    keep_inputs(output, chain(source.files(), texts, () if keep is None else keep.texts))
    formats = scheme_formats(source.config, scheme)
    batch = None
    if calibrated:
        batch = read_calibration(source, calibration, short_sentences=calibrates_on_short_sentences(scheme))
    model_bytes = len(source.tokenizer_model)
    embedding = planned_embedding(source.config, scheme)
    promised = expected_tensors(
        source.config, formats, embedding, model_bytes * keeps_tokenizer_model(scheme), model_bytes
    )
    size = sum(info.size_bytes for info in promised.values())  # but for the table, of about that size
    check_room(output, size)
    needs = conversion_needs(source.config, formats, embedding_format(scheme), batch, size)
    progress.plan(needs.seconds, f"converting to {scheme} {needs}")
    progress.begin(BUILDING)
    pieces = read_pieces(source.tokenizer_model)
    part = part_of(source, build_tokenizer_table(source.tokenizer_model, pieces), keep, progress)
    tokenizer = {TOKENIZER_TABLE: part.table}
    if keeps_tokenizer_model(scheme):
        tokenizer[TOKENIZER] = np.frombuffer(part.model, np.uint8)
    rates, rows = _rates_of_rows(source, scheme, batch, pieces), None if part.kept is None else part.kept.rows
    del pieces  # they take more memory than a layer
    if rows is not None:
        size = 0 if rates is None else table_bytes(rates[rows], source.config.hidden)
        embedding = embedding_info(part.config, embedding_format(scheme), size)
    tensors = expected_tensors(
        part.config, formats, embedding, *(len(tokenizer.get(x, b"")) for x in (TOKENIZER, TOKENIZER_TABLE))
    )
    if part.kept is not None and not progress.quiet:
        tell(f"{part.kept}; the file takes {size_text(sum(info.size_bytes for info in tensors.values()))}")
    metadata = model_metadata(
        part.config,
        scheme,
        prompts=source.prompts,
        default_prompt_name=source.default_prompt_name,
        similarity_fn_name=source.similarity_fn_name,
        others={**part.metadata, **({} if origin is None else {ORIGIN: origin})},
    )

    def check(made: Path) -> None:
        progress.begin(CHECKING)
        check_model_file(made, name=output)

    with (
        folding(source.folder),
        ModelFileWriter.create(output, metadata, tensors, force=force, check=check) as writer,
    ):
        weights = _stored_tensors(source, formats, _table(source, scheme, rates), rows, batch, progress)
        for name, tensor in chain(weights, tokenizer.items()):
            check_stored(name, tensor)
            writer.write(name, tensor)
    return output


def _rates_of_rows(
    source: Checkpoint, scheme: Scheme, batch: CalibrationBatch | None, pieces: Pieces
) -> npt.NDArray[np.uint8] | None:
    """The rate of each row of the table; None for float32 and int8."""
    if embedding_format(scheme) != "int4":
        return None
    ids = np.zeros(0, np.int32) if batch is None else batch.ids
    return rates_of_rows(pieces, ids, row_rates(source.config.vocab, scheme))


def _table(source: Checkpoint, scheme: Scheme, rates: npt.NDArray[np.uint8] | None) -> EmbeddingTable:
    """The embedding table in the format of a scheme."""
    if rates is not None:
        return EmbeddingTable(source, {rate: RowRounder(rate) for rate in np.unique(rates).tolist()}, rates)
    return EmbeddingTable(source, {0: int8_rows()} if scheme == "int8" else None)


def _stored_tensors(
    source: Checkpoint,
    formats: dict[str, MatrixFormat],
    table: EmbeddingTable,
    rows: npt.NDArray[np.int64] | None,
    batch: CalibrationBatch | None,
    progress: Progress,
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor but those of the tokenizer as it is stored, in file order; a scale comes with its weight.

    rows: of the table, that are kept; None for all.
    """
    if batch is not None:
        table.calibrate(batch, progress)
    yield from table.tensors(progress, rows)

    def calibrated(name: str, weights: Float32, gram: Float64) -> QuantizedRows:
        return gptq(weights, gram, GRIDS[formats[name]])

    def plain(name: str, weights: Float32) -> QuantizedRows | Float32:
        return weights if formats[name] == "float32" else quantize_rows(weights, GRIDS[formats[name]])

    parts: Iterable[tuple[str, QuantizedRows | Float32]]
    if batch is not None:
        parts = calibrated_parts(source, batch, table, calibrated, progress)
    else:
        block = None if formats["head"] == "float32" else ROTATION
        parts = plain_parts(source, plain, progress, block=block)
    for name, part in parts:
        if isinstance(part, QuantizedRows):
            yield from _packed(name, part, formats[name])
        elif part.ndim > 1:
            yield f"{name}.weight", pack_panels(part, "float32")
        else:
            yield name, part


def _packed(name: str, rows: QuantizedRows, matrix_format: MatrixFormat) -> Iterator[tuple[str, Tensor]]:
    """A quantised matrix, its codebooks if it is int4, and its scales."""
    codebooks = rows.codebooks if matrix_format == "int4" else None
    yield f"{name}.weight", pack_panels(rows.codes, matrix_format, codebooks)
    if codebooks is not None:
        yield f"{name}.codebook", pack_codebooks(codebooks)
    yield f"{name}.scale", rows.scales[:, 0].astype(np.float32)
