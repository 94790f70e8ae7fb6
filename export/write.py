"""Writes a model file tensor by tensor: header first, then data. The file appears whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from ..kernels.config import EncoderConfig
from ..kernels.errors import InputError
from ..kernels.layout import Tensor
from ..model_file import (
    ALIGNMENT,
    CHECKSUM,
    DTYPE_NAMES,
    FORMAT_NAME,
    FORMAT_VERSION,
    TensorInfo,
    metadata_checksum,
)
from ..safetensors_file import LENGTH_BYTES


def model_metadata(
    config: EncoderConfig,
    scheme: str,
    *,
    prompts: Mapping[str, str],
    default_prompt_name: str | None,
    similarity_fn_name: str,
    producer: str,
) -> dict[str, str]:
    """The `__metadata__` of a model file, checksum included."""
    metadata = {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "scheme": scheme,
        "config": config.to_json(),
        "prompts": json.dumps(dict(prompts), ensure_ascii=False),
        "default_prompt_name": json.dumps(default_prompt_name, ensure_ascii=False),
        "similarity_fn_name": similarity_fn_name,
        "producer": producer,
    }
    return {**metadata, CHECKSUM: metadata_checksum(metadata)}


class ModelFileWriter:
    """Streams the tensors of a model file to disk; use it in a `with` block.

    The file grows under a temporary name beside `path` and takes its name when the block ends well. When it
    ends in an exception (a full disk, Ctrl-C), the temporary file is removed and `path` is as it was.

    Args:
        path: where the file shall lie; its folder must exist.
        metadata: as made by `model_metadata`.
        tensors: what will be written, in file order, as made by `model_file.expected_tensors`.
        force: whether a file that exists at `path` may be replaced.

    Raises:
        InputError: `path` exists and force is false, or its folder does not exist.
    """

    def __init__(
        self, path: Path, metadata: Mapping[str, str], tensors: Mapping[str, TensorInfo], *, force: bool = False
    ) -> None:
        check_destination(path, force=force)
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        self._header = _header(metadata, tensors)
        self._pending = dict(tensors)
        self._rows_written = 0  # of the tensor that is being written

    def __enter__(self) -> ModelFileWriter:
        self._file: BinaryIO = self._temporary.open("xb")
        try:
            self._file.write(self._header)
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, name: str, part: Tensor) -> None:
        """Writes a tensor, or the next rows of one that comes in parts, in the order promised."""
        expected, info = next(iter(self._pending.items()), ("nothing", TensorInfo(np.dtype(np.uint8), (0,))))
        rows = self._rows_written + part.shape[0]
        if (name, part.dtype, part.shape[1:]) != (expected, info.dtype, info.shape[1:]) or rows > info.shape[0]:
            raise ValueError(
                f"wrote {part.dtype} {part.shape} as {name!r} from row {self._rows_written}; expected {expected} {info}"
            )
        self._file.write(np.ascontiguousarray(part).data)
        self._rows_written = rows
        if rows == info.shape[0]:
            del self._pending[name]
            self._rows_written = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._discard()

    def _finish(self) -> None:
        """Makes the file durable under its final name."""
        if self._pending:
            raise ValueError(f"tensors {list(self._pending)[:4]} were promised and not written")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._path)

    def _discard(self) -> None:
        """Removes the temporary file, if it still has its temporary name."""
        try:
            self._file.close()  # flushes, which fails on a full disk
        finally:
            self._temporary.unlink(missing_ok=True)


def check_destination(path: Path, *, force: bool) -> None:
    """Raises InputError unless a file may be written at `path`: asked before minutes of work, not after."""
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give the name of a file")
    if path.exists() and not force:
        raise InputError(f"{path} exists; choose another name, or replace it with force=True (--force)")


def _header(metadata: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> bytes:
    """Length and JSON header, padded with spaces so that the data that follows is aligned."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    begin = 0
    for name, info in tensors.items():
        end = begin + info.size_bytes
        header[name] = {"dtype": DTYPE_NAMES[info.dtype], "shape": list(info.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    padding = -(LENGTH_BYTES + len(text)) % ALIGNMENT
    return (len(text) + padding).to_bytes(LENGTH_BYTES, "little") + text + b" " * padding
