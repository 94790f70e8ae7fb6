"""Writes a model file tensor by tensor: header first, then data. The file appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .. import __version__
from ..kernels.config import EncoderConfig
from ..kernels.errors import CheckpointError, InputError
from ..kernels.layout import ALIGNMENT, Tensor
from ..kernels.model_file import (
    CHECKSUM,
    DATA_DIGEST,
    DTYPE_NAMES,
    FORMAT_NAME,
    FORMAT_VERSION,
    TensorInfo,
    metadata_checksum,
)
from ..kernels.safetensors_file import LENGTH_BYTES, MAX_HEADER_BYTES
from ..output_file import check_destination, whole_file
from ..source import ONNX_SUFFIX


def check_model_path(path: Path, *, force: bool) -> None:
    """Raises InputError unless a model file may be written at `path`, and opens under this name."""
    if path.suffix.lower() == ONNX_SUFFIX:
        raise InputError(f"{path}: no model file opens under the ending {ONNX_SUFFIX}; end its name in .safetensors")
    check_destination(path, force=force)


def model_metadata(
    config: EncoderConfig,
    scheme: str,
    *,
    prompts: Mapping[str, str],
    default_prompt_name: str | None = None,
    similarity_fn_name: str = "cosine",
    producer: str = f"embgemma {__version__}",
    others: Mapping[str, str] | None = None,
    version: str = FORMAT_VERSION,
) -> dict[str, str]:
    """The `__metadata__` of a model file but for what `signed` adds; others are keys of the writer's own."""
    return {
        "format": FORMAT_NAME,
        "format_version": version,
        "scheme": scheme,
        "config": config.to_json(),
        "prompts": json.dumps(dict(prompts), ensure_ascii=False),
        "default_prompt_name": json.dumps(default_prompt_name, ensure_ascii=False),
        "similarity_fn_name": similarity_fn_name,
        "producer": producer,
        **(others or {}),
    }


def signed(metadata: Mapping[str, str], data_digest: str) -> dict[str, str]:
    """The metadata with the digest of the data, in hexadecimal digits, and with its own checksum."""
    stated = {**metadata, DATA_DIGEST: data_digest}
    return {**stated, CHECKSUM: metadata_checksum(stated)}


class ModelFileWriter:
    """Takes the tensors of a model file one by one; `create` makes one."""

    def __init__(self, file: BinaryIO, tensors: Mapping[str, TensorInfo]) -> None:
        self._file = file
        self._digest = hashlib.sha256()  # of the data written so far
        self._pending = dict(tensors)
        self._rows_written = 0  # of the tensor that is being written

    @classmethod
    @contextmanager
    def create(
        cls,
        path: Path,
        metadata: Mapping[str, str],
        tensors: Mapping[str, TensorInfo],
        *,
        force: bool = False,
        check: Callable[[Path], None] | None = None,
    ) -> Iterator[ModelFileWriter]:
        """A writer for a `with` block. If the block fails, `path` stays as it was.

        Args:
            path: the file to write; its folder must exist.
            metadata: as made by `model_metadata`.
            tensors: what will be written, in file order, as made by `model_file.expected_tensors`.
            force: whether a file that exists at `path` may be replaced.
            check: called with the whole file, before it takes the place of `path`.

        Raises:
            InputError: `path` exists and force is false, or its folder does not exist.
            CheckpointError: the metadata is too long.
        """
        check_destination(path, force=force)
        with whole_file(path, force=force) as file:
            file.write(_header(signed(metadata, hashlib.sha256().hexdigest()), tensors))
            writer = cls(file, tensors)
            yield writer
            if writer._pending:
                raise ValueError(f"tensors {list(writer._pending)[:4]} were promised and not written")
            file.seek(0)
            file.write(_header(signed(metadata, writer._digest.hexdigest()), tensors))  # of the same size
            file.flush()
            if check is not None:
                check(Path(file.name))

    def write(self, name: str, part: Tensor) -> None:
        """Writes a tensor, or the next rows of one that comes in parts, in the order promised."""
        expected, info = next(iter(self._pending.items()), ("nothing", TensorInfo(np.dtype(np.uint8), (0,))))
        rows = self._rows_written + part.shape[0]
        if (name, part.dtype, part.shape[1:]) != (expected, info.dtype, info.shape[1:]) or rows > info.shape[0]:
            raise ValueError(
                f"wrote {part.dtype} {part.shape} as {name!r} from row {self._rows_written}; expected {expected} {info}"
            )
        stored = np.ascontiguousarray(part).data
        self._file.write(stored)
        self._digest.update(stored)
        self._rows_written = rows
        if rows == info.shape[0]:
            del self._pending[name]
            self._rows_written = 0


def _header(metadata: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> bytes:
    """Length and JSON header, padded with spaces so that the data that follows is aligned."""
    header: dict[str, object] = {"__metadata__": metadata}
    begin = 0
    for name, info in tensors.items():
        end = begin + info.size_bytes
        header[name] = {"dtype": DTYPE_NAMES[info.dtype], "shape": list(info.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    padding = -(LENGTH_BYTES + len(text)) % ALIGNMENT
    if len(text) + padding > MAX_HEADER_BYTES:
        longest = max(metadata, key=lambda key: len(metadata[key]))
        raise CheckpointError(
            f"the header of the model file would have {len(text)} bytes; expected at most {MAX_HEADER_BYTES}: shorten "
            f"{longest}, which has {len(metadata[longest])} characters"
        )
    return (len(text) + padding).to_bytes(LENGTH_BYTES, "little") + text + b" " * padding
