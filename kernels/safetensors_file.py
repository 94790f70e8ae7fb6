"""Opens a safetensors file without trusting it: memory-mapped, and every entry of its header checked.

The format (https://github.com/huggingface/safetensors#format): the length of the header as uint64, the header as a
JSON object, then the tensors' bytes without holes. Everything is little-endian.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ModelFileError

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 1 << 20  # the header of a 256-layer model takes 0.4 MB

ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}


@dataclass(frozen=True)
class Entry:
    """One tensor of a safetensors file; `begin` and `end` are byte offsets in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class SafetensorsFile:
    """A mapped file, its metadata, and its tensors by name in file order."""

    mapping: mmap.mmap
    data_start: int
    metadata: dict[str, str]
    entries: dict[str, Entry]


def open_safetensors(path: Path) -> SafetensorsFile:
    """Maps the file; raises ModelFileError, without naming the file, for anything that the format does not allow."""
    mapping = _map(path)
    try:
        header, data_start = _read_header(mapping)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ModelFileError(f"the metadata is {shorten(metadata)}; expected an object of strings")
        entries = [(name, _entry(name, raw, data_start)) for name, raw in header.items()]
    except RecursionError as error:
        raise ModelFileError("the header is nested too deeply; the file is corrupt") from error
    entries.sort(key=lambda item: (item[1].begin, item[1].end))
    _check_tiling(entries, data_start, len(mapping))
    return SafetensorsFile(mapping, data_start, metadata, dict(entries))


def _map(path: Path) -> mmap.mmap:
    """The whole file as read-only memory."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= LENGTH_BYTES:
                raise ModelFileError(f"the file has {size} bytes, too few for any tensor; it was cut: get it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelFileError(f"cannot open the file: {error.strerror or error}") from error


def _read_header(mapping: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header as JSON, and the offset at which the data starts."""
    length = int.from_bytes(mapping[:LENGTH_BYTES], "little")
    data_start = LENGTH_BYTES + length
    if length > MAX_HEADER_BYTES:
        raise ModelFileError(f"the header claims {length} bytes, more than {MAX_HEADER_BYTES}; not a safetensors file")
    if data_start > len(mapping):
        raise ModelFileError(f"the file ends in its header, at byte {len(mapping)} of {data_start}: get it again")
    header = parse_json("header", mapping[LENGTH_BYTES:data_start])
    if not isinstance(header, dict):
        raise ModelFileError(f"the header is {shorten(header)}; expected a JSON object")
    return header, data_start


def _entry(name: str, raw: Any, data_start: int) -> Entry:
    """The header's entry of one tensor, if its dtype, shape and offsets agree."""
    if not isinstance(raw, dict) or raw.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(f"tensor {name!r} is {shorten(raw)}; expected its dtype, shape and data_offsets")
    dtype, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ModelFileError(f"tensor {name!r} has dtype {shorten(dtype)}; expected one of {', '.join(ITEM_BYTES)}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ModelFileError(f"tensor {name!r} is {shorten(raw)}; expected a shape and two offsets, no number negative")
    size = math.prod(shape) * ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != size:
        raise ModelFileError(f"tensor {name!r} is {shorten(raw)}; expected {size} bytes between its offsets")
    return Entry(dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _are_sizes(value: Any) -> bool:
    """Whether `value` is a list of integers, none of them negative."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_tiling(entries: list[tuple[str, Entry]], data_start: int, file_bytes: int) -> None:
    """Checks that the tensors, sorted by offset, cover the data without overlap or hole."""
    end = data_start
    for name, entry in entries:
        if entry.begin != end:
            raise ModelFileError(f"tensor {name!r} starts at byte {entry.begin}; expected {end}: the header is corrupt")
        end = entry.end
    if file_bytes != end:
        raise ModelFileError(f"the file has {file_bytes} bytes, its header says {end}; it was cut: get it again")


def parse_json(what: str, text: str | bytes) -> Any:
    """Parses JSON; raises ModelFileError also for what Python's parser lets through: duplicate keys and NaN."""

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
        raise ModelFileError(f"the {what} is not valid JSON ({shorten(error)}); the file is corrupt") from error


def shorten(value: object) -> str:
    """`value` as a short text, so that a hostile file cannot flood the user's terminal."""
    limit = 200  # characters
    text = repr(value) if not isinstance(value, Exception) else str(value)
    return text if len(text) <= limit else text[:limit] + " …"
