"""Opens a model file: memory-mapped, every offset, shape and dtype checked, nothing copied. See export/FORMAT.md."""

from __future__ import annotations

import json
import math
import mmap
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .kernels.config import EncoderConfig
from .kernels.errors import ModelFileError
from .kernels.layout import (
    DTYPE_FORMATS,
    EMBEDDING_GROUP_GRAIN,
    FORMAT_DTYPES,
    MatrixFormat,
    Tensor,
    embedding_shape,
    matrices,
    panel_shape,
    vectors,
)

FORMAT_NAME = "embgemma"
FORMAT_VERSION = "1"
SCHEMES = ("float32", "int8", "mixed", "int4")

ALIGNMENT = 64  # bytes: a cache line, the widest vector load, and a row of an AMX tile
LENGTH_BYTES = 8  # a safetensors file starts with the length of its header, uint64
MAX_HEADER_BYTES = 1 << 20  # the header of a 256-layer model takes 0.4 MB

EMBEDDING = "embedding"
TOKENIZER = "tokenizer.model"
CHECKSUM = "metadata_crc32"

DTYPE_NAMES: dict[np.dtype[Any], str] = {
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(np.int8): "I8",
    np.dtype(np.uint8): "U8",
}
NAMED_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


@dataclass(frozen=True)
class ModelFile:
    """A model file that passed every check.

    Attributes:
        path: where it lies.
        config: shapes and constants of the encoder.
        scheme: one of SCHEMES; tells how it was made, while each matrix's own dtype tells how to read it.
        prompts: prompt texts by name, as the checkpoint published them.
        default_prompt_name: the prompt used when the caller names none, or None.
        similarity_fn_name: how the checkpoint compares two embeddings, such as "cosine".
        tensors: read-only views into the mapped file, by name; shapes and layouts as in kernels/layout.py.
        tokenizer_model: (bytes,) uint8 view of the sentencepiece model; None if the file has none.
        metadata: the raw strings that all of the above was read from.
    """

    path: Path
    config: EncoderConfig
    scheme: str
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str
    tensors: dict[str, Tensor]
    tokenizer_model: npt.NDArray[np.uint8] | None
    metadata: dict[str, str]


@dataclass(frozen=True)
class TensorInfo:
    """What a model file holds under one name."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes that the tensor takes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def expected_tensors(
    config: EncoderConfig, formats: Mapping[str, MatrixFormat], embedding_groups: int, tokenizer_bytes: int
) -> dict[str, TensorInfo]:
    """Every tensor of a model file, in file order, which is the order in which a token meets them.

    formats tells the format of the embedding table ("embedding") and of every matrix by name. A row of a quantised
    table has embedding_groups scales. A file of tokenizer_bytes 0 has no tokenizer.
    """
    matrix_specs = {spec.name: spec for spec in matrices(config)}
    vector_lengths = dict(vectors(config))
    float32 = np.dtype(np.float32)
    infos: dict[str, TensorInfo] = {}

    def add_matrix(name: str) -> None:
        spec, matrix_format = matrix_specs[name], formats[name]
        shape = panel_shape(matrix_format, spec.out_features, spec.in_features)
        infos[f"{name}.weight"] = TensorInfo(FORMAT_DTYPES[matrix_format], shape)
        if matrix_format != "float32":
            infos[f"{name}.scale"] = TensorInfo(float32, (spec.out_features,))

    def add_vector(name: str) -> None:
        infos[name] = TensorInfo(float32, (vector_lengths[name],))

    table_shape = embedding_shape(formats[EMBEDDING], config.vocab, config.hidden)
    infos[f"{EMBEDDING}.weight"] = TensorInfo(FORMAT_DTYPES[formats[EMBEDDING]], table_shape)
    if formats[EMBEDDING] != "float32":
        infos[f"{EMBEDDING}.scale"] = TensorInfo(np.dtype(np.float16), (config.vocab, embedding_groups))
    for layer in (f"layers.{i}" for i in range(config.layers)):
        add_vector(f"{layer}.input_norm")
        add_matrix(f"{layer}.qkv")
        add_vector(f"{layer}.q_norm")
        add_vector(f"{layer}.k_norm")
        add_matrix(f"{layer}.o")
        add_vector(f"{layer}.post_attention_norm")
        add_vector(f"{layer}.pre_ffn_norm")
        add_matrix(f"{layer}.gate_up")
        add_matrix(f"{layer}.down")
        add_vector(f"{layer}.post_ffn_norm")
    add_vector("final_norm")
    add_matrix("head")
    if tokenizer_bytes:
        infos[TOKENIZER] = TensorInfo(np.dtype(np.uint8), (tokenizer_bytes,))
    return infos


def metadata_checksum(metadata: Mapping[str, str]) -> str:
    """CRC-32, in eight hexadecimal digits, of all metadata but the checksum itself: `key=value` lines sorted by key.

    A flipped bit in a rope base or an epsilon would otherwise give wrong numbers that no shape check can see.
    """
    lines = "".join(f"{key}={metadata[key]}\n" for key in sorted(metadata) if key != CHECKSUM)
    return f"{zlib.crc32(lines.encode('utf-8', 'surrogatepass')):08x}"


def read_model_file(path: str | os.PathLike[str]) -> ModelFile:
    """Maps and checks the model file at `path`; raises ModelFileError, naming the file, for any defect."""
    path = Path(path)
    try:
        mapping = _map(path)
        header, data_start = _read_header(mapping)
        return _open(path, mapping, header, data_start)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except RecursionError as error:
        raise ModelFileError(f"{path}: the header is nested too deeply; the file is corrupt") from error


def _map(path: Path) -> mmap.mmap:
    """The whole file as read-only memory."""
    if path.is_dir():
        raise ModelFileError("this is a folder, not a model file; make one of a checkpoint with `embgemma convert`")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= LENGTH_BYTES:
                raise ModelFileError(f"the file has {size} bytes, too few for a model; download or convert it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelFileError(f"cannot open the model file: {error.strerror or error}") from error


def _read_header(mapping: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header as JSON, and the offset at which the tensors' data starts."""
    length = int.from_bytes(mapping[:LENGTH_BYTES], "little")
    data_start = LENGTH_BYTES + length
    if length > MAX_HEADER_BYTES:
        raise ModelFileError(f"the header claims {length} bytes (at most {MAX_HEADER_BYTES}); not a model file")
    if data_start > len(mapping):
        raise ModelFileError(f"the file ends inside its header, at {len(mapping)} of {data_start} bytes; it was cut")
    header = _parse_json("header", mapping[LENGTH_BYTES:data_start])
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT_NAME:
        raise ModelFileError("this is not an embgemma model file; make one of a checkpoint with `embgemma convert`")
    if data_start % ALIGNMENT:
        raise ModelFileError(f"the data starts at byte {data_start}; expected a multiple of {ALIGNMENT}")
    return header, data_start


def _open(path: Path, mapping: mmap.mmap, header: dict[str, Any], data_start: int) -> ModelFile:
    """Checks the header against itself and the file's size, then makes the views."""
    metadata = _check_metadata(header.pop("__metadata__"))
    config = EncoderConfig.from_json(metadata["config"])
    infos = _expected_from(header, config)
    offsets = _check_entries(header, infos)
    end = data_start + sum(info.size_bytes for info in infos.values())
    if len(mapping) != end:
        raise ModelFileError(f"the file has {len(mapping)} bytes; expected {end}: it was cut or has something appended")
    tensors = {name: _view(mapping, info, data_start + offsets[name]) for name, info in infos.items()}
    tokenizer_model = tensors.pop(TOKENIZER, None)
    _check_finite(tensors)
    prompts, default_prompt_name = _read_prompts(metadata)
    return ModelFile(
        path=path,
        config=config,
        scheme=metadata["scheme"],
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        similarity_fn_name=metadata["similarity_fn_name"],
        tensors=tensors,
        tokenizer_model=tokenizer_model,
        metadata=metadata,
    )


def _check_metadata(raw: dict[str, Any]) -> dict[str, str]:
    """The metadata, if it is complete, of a version and scheme that this release reads, and not corrupt."""
    if not all(isinstance(value, str) for value in raw.values()):
        raise ModelFileError("the metadata holds values that are not strings; the header is corrupt")
    version = raw.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"the file has format version {version!r}, this release reads {FORMAT_VERSION!r}; "
            "update embgemma or convert the checkpoint again"
        )
    required = {"scheme", "config", "prompts", "default_prompt_name", "similarity_fn_name", "producer", CHECKSUM}
    if required - raw.keys():
        raise ModelFileError(f"the metadata lacks {sorted(required - raw.keys())}; convert the checkpoint again")
    checksum = metadata_checksum(raw)
    if raw[CHECKSUM] != checksum:
        raise ModelFileError(f"the metadata has checksum {checksum}, expected {raw[CHECKSUM]!r}: the header is corrupt")
    if raw["scheme"] not in SCHEMES:
        raise ModelFileError(f"the scheme is {raw['scheme']!r}; this release reads {', '.join(SCHEMES)}")
    return raw


def _expected_from(header: dict[str, Any], config: EncoderConfig) -> dict[str, TensorInfo]:
    """The tensors that the file must hold, given its config and the choices that the format leaves to the writer."""
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ModelFileError(f"tensor {name!r} has no plain dtype, shape and data_offsets; the header is corrupt")
    formats = {name: _format_of(header, name) for name in (EMBEDDING, *(spec.name for spec in matrices(config)))}
    groups = 0
    if formats[EMBEDDING] != "float32":
        groups = _last_dimension(header, f"{EMBEDDING}.scale")
        if config.hidden % groups or (config.hidden // groups) % EMBEDDING_GROUP_GRAIN:
            raise ModelFileError(
                f"an embedding row has {groups} scales; expected groups of a multiple of {EMBEDDING_GROUP_GRAIN} "
                f"of its {config.hidden} elements"
            )
    tokenizer_bytes = _last_dimension(header, TOKENIZER) if TOKENIZER in header else 0
    return expected_tensors(config, formats, groups, tokenizer_bytes)


def _format_of(header: dict[str, Any], matrix: str) -> MatrixFormat:
    """The format of a matrix, which the dtype of its stored weight tells."""
    name = f"{matrix}.weight"
    if name not in header:
        raise ModelFileError(f"tensor {name!r} is missing; convert the checkpoint again")
    dtype_name = header[name]["dtype"]
    dtype = NAMED_DTYPES.get(dtype_name) if isinstance(dtype_name, str) else None
    if dtype not in DTYPE_FORMATS:
        raise ModelFileError(f"tensor {name!r} has dtype {dtype_name!r}; expected F32, I8 or U8")
    return DTYPE_FORMATS[dtype]


def _last_dimension(header: dict[str, Any], name: str) -> int:
    """The last dimension of a tensor whose size the config does not tell: at least 1."""
    shape = header[name]["shape"] if name in header else None
    if not isinstance(shape, list) or not shape or type(shape[-1]) is not int or shape[-1] < 1:
        raise ModelFileError(f"tensor {name!r} has shape {shape!r}; expected a list of positive integers")
    return shape[-1]


def _check_entries(header: dict[str, Any], infos: dict[str, TensorInfo]) -> dict[str, int]:
    """Each tensor's offset in the data. Since the order and every size are known, each entry has one right value."""
    missing, unknown = infos.keys() - header.keys(), header.keys() - infos.keys()
    if missing or unknown:
        raise ModelFileError(
            f"tensors missing: {sorted(missing)[:4]}, not of this config: {sorted(unknown)[:4]}; "
            "convert the checkpoint again"
        )
    offsets: dict[str, int] = {}
    begin = 0
    for name, info in infos.items():
        end = begin + info.size_bytes
        expected = {"dtype": DTYPE_NAMES[info.dtype], "shape": list(info.shape), "data_offsets": [begin, end]}
        # Compared as text, for in Python 1 == 1.0 == True.
        if any(repr(header[name][key]) != repr(value) for key, value in expected.items()):
            raise ModelFileError(f"tensor {name!r} is {_shorten(header[name])}; expected {expected}")
        offsets[name] = begin
        begin = end
    return offsets


def _view(mapping: mmap.mmap, info: TensorInfo, offset: int) -> Tensor:
    """A read-only view of one tensor in the mapped file."""
    return np.frombuffer(mapping, info.dtype, math.prod(info.shape), offset).reshape(info.shape)


def _check_finite(tensors: dict[str, Tensor]) -> None:
    """Checks the norms and the matrices' scales (0.8 MB); weights and embedding scales stay on disk until used."""
    for name, tensor in tensors.items():
        is_scale = name.endswith(".scale") and not name.startswith(EMBEDDING)
        if (name.endswith("norm") or is_scale) and not np.isfinite(tensor).all():
            raise ModelFileError(f"tensor {name!r} holds a value that is not finite; convert the checkpoint again")


def _read_prompts(metadata: dict[str, str]) -> tuple[dict[str, str], str | None]:
    """The prompts by name, and the name of the default one."""
    prompts = _parse_json("prompts", metadata["prompts"])
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise ModelFileError(f"the prompts are {_shorten(prompts)}; expected an object of strings")
    default = _parse_json("default_prompt_name", metadata["default_prompt_name"])
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise ModelFileError(f"the default prompt is {_shorten(default)}; expected null or one of {sorted(prompts)}")
    return prompts, default


def _parse_json(what: str, text: str | bytes) -> Any:
    """Parses JSON and refuses what Python's parser lets through: duplicate keys and NaN."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key occurs twice")
        return result

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=unique, parse_constant=refuse)
    except ValueError as error:
        raise ModelFileError(f"the {what} is not valid JSON ({_shorten(error)}); the file is corrupt") from error


def _shorten(value: object) -> str:
    """`value` in at most a line, so that a hostile header cannot flood the user's terminal."""
    limit = 200  # characters
    text = str(value)
    return text if len(text) <= limit else text[:limit] + " …"
