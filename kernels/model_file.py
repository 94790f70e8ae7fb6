"""Opens a model file: memory-mapped, every offset, shape and dtype checked, nothing copied. See export/FORMAT.md."""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from .config import EncoderConfig
from .embedding_rows import LEVELS, RATES, check_table
from .errors import ModelFileError, reading
from .fingerprint import model_digest
from .layout import (
    ALIGNMENT,
    DTYPE_FORMATS,
    FORMAT_DTYPES,
    MatrixFormat,
    NormSpec,
    Tensor,
    codebook_shape,
    matrices,
    panel_shape,
    weights,
)
from .safetensors_file import Entry, SafetensorsFile, open_safetensors, parse_json, shorten
from .system import forget
from .tokenizer_table import check_tokenizer_table

FORMAT_NAME = "embgemma"
FORMAT_VERSION = "8"
Scheme = Literal["float32", "int8", "balanced", "mixed", "int4"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
DEFAULT_SCHEME: Scheme = "int8"  # the most exact of the small ones

EMBEDDING = "embedding"
TOKENIZER_TABLE = "tokenizer.table"
TOKENIZER = "tokenizer.model"
CHECKSUM = "metadata_crc32"
DATA_DIGEST = "data_sha256"
_SHA256 = re.compile("[0-9a-f]{64}")
METADATA_KEYS = {"format", "format_version", "scheme", "config", "prompts", "default_prompt_name"}
METADATA_KEYS |= {"similarity_fn_name", "producer", CHECKSUM, DATA_DIGEST}
ORIGIN = "origin"  # optional: which checkpoint of the Hugging Face hub it was made of, as NAME@COMMIT
VOCABULARY = "vocabulary"  # optional: how many pieces there were before a part of them was kept
MOST_METADATA, MOST_PROMPTS = 1024, 256
MOST_TOKENIZER_BYTES = 64 << 20  # of a sentencepiece model; Gemma's has 4.7 MB

DTYPE_NAMES: dict[np.dtype[Any], str] = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(np.int8): "I8",
    np.dtype(np.uint8): "U8",
}
_INFINITY = {2: 0x7C00, 4: 0x7F800000}  # its bits in float16 and in float32, by bytes
_DTYPE_NAME_FORMATS = {DTYPE_NAMES[dtype]: name for dtype, name in DTYPE_FORMATS.items()}


@dataclass(frozen=True)
class ModelFile:
    """A model file that passed every check.

    Attributes:
        path: the file.
        config: shapes and constants of the encoder.
        scheme: a label that says how it was made, as a rule one of SCHEMES; the dtype of each matrix says how to read
            it.
        prompts: prompt texts by name, as the checkpoint published them.
        default_prompt_name: the prompt used when the caller names none, or None.
        similarity_fn_name: how the checkpoint compares two embeddings, such as "cosine".
        tensors: read-only views into the mapped file, by name; shapes and layouts as in kernels/layout.py.
        tokenizer_table: (bytes,) uint8 view of what the C engine tokenizes with; None if the file has none.
        tokenizer_model: (bytes,) uint8 view of the sentencepiece model; None if the file has none.
        metadata: the raw strings that all of the above was read from.
        digest: names the weights, the tokenizer and how they are used: see `fingerprint.model_digest`.
        embedding_dim: size of a full embedding, where it is less than config.hidden.
    """

    path: Path
    config: EncoderConfig
    scheme: str
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str
    tensors: dict[str, Tensor]
    tokenizer_table: npt.NDArray[np.uint8] | None
    tokenizer_model: npt.NDArray[np.uint8] | None
    metadata: dict[str, str]
    digest: str
    embedding_dim: int | None = None


@dataclass(frozen=True)
class TensorInfo:
    """What a model file holds under one name."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes that the tensor takes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def embedding_info(config: EncoderConfig, table_format: MatrixFormat, size: int) -> TensorInfo:
    """The embedding table of a format: of float32 or int8 rows, or ("int4") of rows of several rates, `size` bytes."""
    shape = (size,) if table_format == "int4" else (config.vocab, config.hidden)
    return TensorInfo(FORMAT_DTYPES[table_format], shape)


def expected_tensors(
    config: EncoderConfig,
    formats: Mapping[str, MatrixFormat],
    embedding: TensorInfo,
    tokenizer_bytes: int,
    tokenizer_table_bytes: int = 0,
) -> dict[str, TensorInfo]:
    """Every tensor of a model file, in file order, which is the order in which a token meets them.

    Args:
        config: shapes of the encoder.
        formats: of every matrix, by name.
        embedding: of its weight; see `embedding_info`.
        tokenizer_bytes: size of the sentencepiece model; 0 if the file has none.
        tokenizer_table_bytes: size of the tokenizer's table for C; 0 if the file has none.
    """
    float32, uint8 = np.dtype(np.float32), np.dtype(np.uint8)
    infos = {f"{EMBEDDING}.weight": embedding}
    if embedding.dtype == uint8:
        infos[f"{EMBEDDING}.rate"] = TensorInfo(uint8, (config.vocab,))
        infos[f"{EMBEDDING}.code_length"] = TensorInfo(uint8, (RATES, LEVELS))
    if embedding.dtype != float32:
        infos[f"{EMBEDDING}.scale"] = TensorInfo(np.dtype(np.float16), (config.vocab,))
    for spec in weights(config):
        if isinstance(spec, NormSpec):
            infos[spec.name] = TensorInfo(float32, (spec.length,))
            continue
        name, matrix_format = spec.name, formats[spec.name]
        shape = panel_shape(matrix_format, spec.out_features, spec.in_features)
        infos[f"{name}.weight"] = TensorInfo(FORMAT_DTYPES[matrix_format], shape)
        if matrix_format == "int4":
            infos[f"{name}.codebook"] = TensorInfo(uint8, codebook_shape(spec.out_features, spec.in_features))
        if matrix_format != "float32":
            infos[f"{name}.scale"] = TensorInfo(float32, (spec.out_features,))
    if tokenizer_table_bytes:
        infos[TOKENIZER_TABLE] = TensorInfo(uint8, (tokenizer_table_bytes,))
    if tokenizer_bytes:
        infos[TOKENIZER] = TensorInfo(uint8, (tokenizer_bytes,))
    return infos


def metadata_checksum(metadata: Mapping[str, str]) -> str:
    """CRC-32, in eight hexadecimal digits, of all metadata but the checksum itself: `key=value` lines sorted by key.

    Otherwise a flipped bit in a rope base or an epsilon would give wrong vectors, and no check of shapes would see it.
    """
    lines = "".join(f"{key}={metadata[key]}\n" for key in sorted(metadata) if key != CHECKSUM)
    return f"{zlib.crc32(lines.encode('utf-8', 'surrogatepass')):08x}"


def read_model_file(path: str | os.PathLike[str], *, every_byte: bool = False) -> ModelFile:
    """Maps and checks the model file at `path`; raises ModelFileError, naming the file, for any defect.

    every_byte: whether to read the whole file too, and compare it with its checksum. Otherwise weights are not read.
    """
    with reading(path, ModelFileError):
        path = Path(path)
        if path.is_dir():
            raise ModelFileError("this is a folder, not a model file; make one of a checkpoint with `embgemma convert`")
        return _check(path, open_safetensors(path), every_byte)


def _check(path: Path, file: SafetensorsFile, every_byte: bool) -> ModelFile:
    """The model file, if its tensors are those that its config asks for."""
    metadata = file.metadata
    if metadata.get("format") != FORMAT_NAME:
        raise ModelFileError("this is not an embgemma model file; make one of a checkpoint with `embgemma convert`")
    check_version(metadata, FORMAT_VERSION, "convert the checkpoint again with `embgemma convert`")
    check_metadata(metadata)
    if every_byte:
        import hashlib  # here, as few processes need it: it loads OpenSSL

        with memoryview(file.mapping) as content:
            _compare(metadata, DATA_DIGEST, hashlib.sha256(content[file.data_start :]).hexdigest())
    config = EncoderConfig.from_json(metadata["config"])
    infos = _expected(config, file.entries)
    _check_entries(file, infos)
    tensors = {name: _view(file, name, info) for name, info in infos.items()}
    tokenizer_table = tensors.pop(TOKENIZER_TABLE, None)
    tokenizer_model = tensors.pop(TOKENIZER, None)
    if tokenizer_table is not None:
        check_tokenizer_table(tokenizer_table, config.vocab, config.bos_id, config.eos_id)
    _check_numbers(tensors)
    check_table(tensors, config.hidden)
    forget(file.mapping)  # the checks have read pages all over the file
    prompts, default_prompt_name = read_prompts(metadata)
    return ModelFile(
        path=path,
        config=config,
        scheme=metadata["scheme"],
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        similarity_fn_name=metadata["similarity_fn_name"],
        tensors=tensors,
        tokenizer_table=tokenizer_table,
        tokenizer_model=tokenizer_model,
        metadata=metadata,
        digest=model_digest([*stated_lines(metadata), *map(_entry_line, file.entries, file.entries.values())]),
    )


def stated_lines(metadata: Mapping[str, str]) -> list[str]:
    """What the metadata states about vectors."""
    return [f"{key}={metadata[key]}" for key in ("config", DATA_DIGEST)]


def _entry_line(name: str, entry: Entry) -> str:
    return " ".join(map(str, (name, entry.dtype, *entry.shape)))


def check_version(metadata: Mapping[str, str], readable: str, again: str) -> None:
    """Raises ModelFileError unless the metadata states the version that this release reads.

    again: how to make an older file anew.
    """
    version = metadata.get("format_version", "none")
    if version != readable:
        newer = version.isdecimal() and (len(version), version) > (len(readable), readable)
        raise ModelFileError(
            f"the file has format version {shorten(version)}, this release reads {readable!r}; "
            + ("update embgemma" if newer else again)
        )


def check_metadata(metadata: dict[str, str]) -> None:
    """Checks that the metadata has all keys, and is not corrupt."""
    if len(metadata) > MOST_METADATA:
        raise ModelFileError(f"there are {len(metadata)} keys of metadata; expected at most {MOST_METADATA}")
    missing = METADATA_KEYS - metadata.keys()
    if missing:
        raise ModelFileError(f"the metadata lacks {sorted(missing)}; convert the checkpoint again")
    _compare(metadata, CHECKSUM, metadata_checksum(metadata))
    if not _SHA256.fullmatch(metadata[DATA_DIGEST]):
        raise ModelFileError(
            f"{DATA_DIGEST} is {shorten(metadata[DATA_DIGEST])}; expected 64 digits of 0 … 9 and a … f: the file is "
            "corrupt; get it again"
        )


def _compare(metadata: Mapping[str, str], key: str, checksum: str) -> None:
    """Raises ModelFileError unless the metadata states this checksum under this key."""
    if metadata[key] != checksum:
        stated = metadata[key]
        raise ModelFileError(
            f"the checksum {key} is {checksum:.20}, not {stated:.20}: the file is corrupt; get it again"
        )


def _expected(config: EncoderConfig, entries: dict[str, Entry]) -> dict[str, TensorInfo]:
    """The tensors that the file must hold, given its config and the choices that the format leaves to the writer."""
    formats = {spec.name: _format_of(spec.name, entries) for spec in matrices(config)}
    size = _elements(f"{EMBEDDING}.weight", entries)
    embedding = embedding_info(config, _format_of(EMBEDDING, entries), size)
    tokenizer_bytes, tokenizer_table_bytes = (
        _elements(name, entries) if name in entries else 0 for name in (TOKENIZER, TOKENIZER_TABLE)
    )
    if tokenizer_table_bytes % ALIGNMENT:
        raise ModelFileError(
            f"tensor {TOKENIZER_TABLE!r} has {tokenizer_table_bytes} bytes; expected a multiple of {ALIGNMENT}"
        )
    return expected_tensors(config, formats, embedding, tokenizer_bytes, tokenizer_table_bytes)


def _format_of(matrix: str, entries: dict[str, Entry]) -> MatrixFormat:
    """The format of a matrix, given by the dtype of its stored weight."""
    entry = _find(f"{matrix}.weight", entries)
    if entry.dtype not in _DTYPE_NAME_FORMATS:
        raise ModelFileError(f"tensor '{matrix}.weight' has dtype {entry.dtype}; expected F32, I8 or U8")
    return _DTYPE_NAME_FORMATS[entry.dtype]


def _elements(name: str, entries: dict[str, Entry]) -> int:
    """The elements, at least 1, of a tensor whose size the config does not state."""
    shape = _find(name, entries).shape
    if 0 in shape:
        raise ModelFileError(f"tensor {name!r} has shape {shape}; expected no dimension of 0; convert again")
    return math.prod(shape)


def _find(name: str, entries: dict[str, Entry]) -> Entry:
    """The entry of a tensor that every model file has."""
    if name not in entries:
        raise ModelFileError(f"tensor {name!r} is missing; convert the checkpoint again")
    return entries[name]


def _check_entries(file: SafetensorsFile, infos: dict[str, TensorInfo]) -> None:
    """Checks names, dtypes, shapes, order and alignment."""
    if file.data_start % ALIGNMENT:
        raise ModelFileError(f"the data starts at byte {file.data_start}; expected a multiple of {ALIGNMENT}")
    unknown = file.entries.keys() - infos.keys()
    if unknown:
        raise ModelFileError(f"the config has no place for the tensors {shorten(sorted(unknown)[:4])}; convert again")
    for name, info in infos.items():
        entry = _find(name, file.entries)
        if (entry.dtype, entry.shape) != (DTYPE_NAMES[info.dtype], info.shape):
            raise ModelFileError(
                f"tensor {name!r} is {entry.dtype} {entry.shape}; expected {DTYPE_NAMES[info.dtype]} {info.shape}; "
                "convert the checkpoint again"
            )
    if list(file.entries) != list(infos):
        raise ModelFileError("the tensors are not in the order of the format; convert the checkpoint again")


def _view(file: SafetensorsFile, name: str, info: TensorInfo) -> Tensor:
    """A read-only view of one tensor in the mapped file."""
    flat = np.frombuffer(file.mapping, info.dtype, math.prod(info.shape), file.entries[name].begin)
    return flat.reshape(info.shape)


def _check_numbers(tensors: dict[str, Tensor]) -> None:
    """Checks that norms and scales (1.3 MB) are finite, and none all zeros. Weights are not read."""
    for name, tensor in tensors.items():
        if tensor.dtype == np.float16 or (tensor.dtype == np.float32 and tensor.ndim == 1):
            largest = _largest_bits(tensor)
            if largest >= _INFINITY[tensor.itemsize] or largest == 0:
                wrong = "holds a value that is not finite" if largest else "is all zeros"
                raise ModelFileError(f"tensor {name!r} {wrong}; convert the checkpoint again")


def _largest_bits(tensor: Tensor) -> int:
    """The bits of the largest magnitude as an integer: NaN is above infinity, which is above all numbers."""
    bits = tensor.reshape(-1).view(f"i{tensor.itemsize}")
    magnitude = np.iinfo(bits.dtype).max  # all bits but the sign
    at_once = 1 << 16  # their copy stays in a cache
    return max(int((bits[i : i + at_once] & magnitude).max()) for i in range(0, len(bits), at_once))


def read_prompts(metadata: dict[str, str]) -> tuple[dict[str, str], str | None]:
    """The prompts by name, and the name of the default one."""
    prompts = parse_json("prompts", metadata["prompts"])
    default = parse_json("default_prompt_name", metadata["default_prompt_name"])
    check_prompts(prompts, default)
    return prompts, default


def check_prompts(prompts: Any, default: Any) -> None:
    """Raises ModelFileError unless these are prompts by name and the name of one of them, or None: rule 7."""
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ModelFileError(f"the prompts are {shorten(prompts)}; expected an object of strings")
    if len(prompts) > MOST_PROMPTS:
        raise ModelFileError(f"there are {len(prompts)} prompts; expected at most {MOST_PROMPTS}")
    for name, prompt in prompts.items():
        if "\0" in name + prompt:
            raise ModelFileError(f"the prompt {shorten(name)} has a zero character, {shorten(prompt)}; leave it out")
    if default is not None and (not isinstance(default, str) or default not in prompts):
        names = shorten(sorted(prompts))
        raise ModelFileError(f"the default prompt is {shorten(default)}; expected null or one of {names}")
