"""A model file to one with a part of its vocabulary: fewer rows of the embedding table, and all else as it is."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..batches import open_tokenizer
from ..inputs import check_path
from ..kernels.embedding_rows import EmbeddingRows
from ..kernels.errors import InputError
from ..kernels.layout import Tensor
from ..kernels.model_file import (
    CHECKSUM,
    DATA_DIGEST,
    TOKENIZER,
    TOKENIZER_TABLE,
    VOCABULARY,
    ModelFile,
    TensorInfo,
    read_model_file,
)
from ..notices import Progress, size_text, tell
from ..output_file import check_room, keep_inputs
from .check import check_model_file
from .needs import CHECKING, CHOOSING
from .tokenizer.read_table import read_table
from .tokenizer.restrict import restrict_model
from .vocabulary.counts import Counter, Coverage
from .vocabulary.keep import Keep, Kept, Vocabulary, choose
from .write import ModelFileWriter, check_model_path

_WRITING = "writing the file"


def restrict(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    keep: Keep,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Kept:
    """Writes the model file with a part of its vocabulary as `output`, and tells what is kept.

    A text whose pieces are all kept has the same vector, to the last bit.

    Raises:
        ModelFileError: `model` is no valid model file.
        InputError: the output exists or cannot be written, a text cannot be read, or `keep` asks for too little.
    """
    progress = progress or Progress(quiet=True)
    output = check_path("output", output)
    check_model_path(output, force=force)
    model_file = read_model_file(model, every_byte=True)
    keep_inputs(output, [model_file.path, *keep.texts])
    progress.begin(CHOOSING)
    kept = choose(vocabulary_of(model_file), keep)
    table = EmbeddingRows(model_file.tensors, model_file.config.hidden).part(kept.rows)
    parts: dict[str, Tensor] = {**table, TOKENIZER_TABLE: kept.table}
    if model_file.tokenizer_model is not None:
        parts[TOKENIZER] = np.frombuffer(restrict_model(bytes(model_file.tokenizer_model), kept.ids), np.uint8)
    infos = {name: TensorInfo(tensor.dtype, tensor.shape) for name, tensor in {**model_file.tensors, **parts}.items()}
    size = sum(info.size_bytes for info in infos.values())
    check_room(output, size)
    if not progress.quiet:
        tell(f"{kept}; the file takes {size_text(size)}")
    progress.begin(_WRITING)
    metadata = {key: value for key, value in model_file.metadata.items() if key not in (CHECKSUM, DATA_DIGEST)}
    metadata |= {"config": kept.config(model_file.config).to_json(), VOCABULARY: metadata.get(VOCABULARY, str(kept.of))}

    def check(made: Path) -> None:
        progress.begin(CHECKING)
        check_model_file(made, name=output)

    with ModelFileWriter.create(output, metadata, infos, force=force, check=check) as writer:
        for name in infos:
            writer.write(name, parts[name] if name in parts else model_file.tensors[name])
    return kept


def vocabulary_of(model_file: ModelFile) -> Vocabulary:
    """The vocabulary of a model file; raises InputError where it cannot be read."""
    tokenizer, table = open_tokenizer(model_file), model_file.tokenizer_table
    if table is None:
        raise InputError(f"{model_file.path}: its tokenizer has no table; convert the checkpoint again, with --keep-…")
    if tokenizer is None:
        raise InputError(
            f"{model_file.path}: only the C engine, which this install has not, can tokenize with this file; take one "
            "of another scheme than int4, or the checkpoint"
        )
    return Vocabulary(table, tokenizer, model_file.config, (*model_file.prompts.values(),))


def coverage_of(part: ModelFile, whole: ModelFile, texts: Iterable[Path]) -> Coverage:
    """How much of the texts of files a model file covers that was made of another one, the whole.

    Raises InputError if that is itself a part, or has another vocabulary.
    """
    if VOCABULARY in whole.metadata:
        raise InputError(f"{whole.path}: it has a part of a vocabulary; give the model file that has all of it")
    vocabulary, kept = vocabulary_of(whole), vocabulary_of(part)
    counts, _ = Counter(vocabulary.tokenizer).of_files(texts)
    (before, _), (after, _) = read_table(vocabulary.table), read_table(kept.table)
    names = {**before.normal, **before.special}
    if not {*after.normal, *after.special} <= names.keys():
        raise InputError(
            f"{part.path} was not made of {whole.path}, which has other pieces; give the file it was made of"
        )
    covered = [*before.byte_ids, *(i for name, i in names.items() if name in after.normal or name in after.special)]
    return Coverage(int(counts[covered].sum()), int(counts.sum()))
