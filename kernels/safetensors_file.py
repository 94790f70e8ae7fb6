"""Opens a safetensors file without trusting it: memory-mapped, and every entry of its header checked.

The format (https://github.com/huggingface/safetensors#format): the length of the header as uint64, the header as a
JSON object, then the tensors' bytes without holes. Everything is little-endian.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
import reprlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .errors import ModelFileError
from .system import open_shared

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 1 << 20  # the header of a 256-layer model takes 0.4 MB

MAX_RANK = 4  # dimensions of a tensor
MOST_DIGITS = 40  # of a number; 17 are enough for any double

_EXPONENT = re.compile("[eE].*")
_ESCAPED, _LONE = re.compile(r"\\u[dD][89a-fA-F]"), re.compile("[\ud800-\udfff]")
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxtuple = 4, 8, 8, 8
_SHORT.maxstring = _SHORT.maxother = 150  # characters

JSON = "a JSON file"

# What people take for a model, by bytes at its beginning. The C engine has the same list: safetensors.c.
MAGIC_BYTES = 64
KINDS = (
    (0, b"version https://git-lfs", "a pointer of Git LFS, with the file itself not downloaded (git lfs pull gets it)"),
    (0, b"GGUF", "a GGUF file of llama.cpp"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"PK\x03\x04", "a zip archive, such as a pytorch_model.bin or a .task file"),
    (0, b"\x80\x02", "a pickle, such as a pytorch_model.bin"),
    (0, b"\x80\x04", "a pickle"),
    (0, b"\x89HDF\r\n", "an HDF5 file of Keras"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"(\xb5/\xfd", "a Zstandard archive"),
    (0, b"SQLite format 3", "an SQLite database"),
    (0, b"\x93NUMPY", "an array of NumPy"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"<", "a web page or other XML, as a failed download leaves"),
    (0, b"{", JSON),
)
_ONNX = re.compile(rb"\x08[\x03-\x20][\x12\x1a\x22\x2a\x32\x3a\x42]")  # ModelProto: ir_version, then a text

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
    header, data_start = _read_header(mapping)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelFileError(f"the metadata is {shorten(metadata)}; expected an object of strings")
    entries = [(name, _entry(name, raw, data_start)) for name, raw in header.items()]
    entries.sort(key=lambda item: (item[1].begin, item[1].end))
    _check_tiling(entries, data_start, len(mapping))
    return SafetensorsFile(mapping, data_start, metadata, dict(entries))


def _map(path: Path) -> mmap.mmap:
    """The whole file as read-only memory."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= LENGTH_BYTES:
            raise ModelFileError(f"the file has {size} bytes, too few for any tensor; it was cut: get it again")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def open_regular(path: Path) -> BinaryIO:
    """The file, open for reading; raises ModelFileError for a pipe or a device, of which reading may never end."""
    file = open(path, "rb", opener=open_shared)  # noqa: SIM115  (the caller closes it)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ModelFileError("this is a pipe or a device; expected a file")
    return file


def read_bounded(path: Path, most: int, expected: str) -> bytes:
    """The content of a file of at most this many bytes; raises ModelFileError, without naming it, for any other.

    expected: what kind of file it should be; one of another kind is refused.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
        if len(content) > most:
            raise ModelFileError(f"the file has more than {most} bytes; expected less")
    kind = kind_of_file(content)
    if kind not in (None, expected):
        raise ModelFileError(f"this is {kind}, not {expected}")
    return content


def _read_header(mapping: mmap.mmap) -> tuple[dict[str, Any], int]:
    """The header as JSON, and the offset at which the data starts."""
    length = int.from_bytes(mapping[:LENGTH_BYTES], "little")
    data_start = LENGTH_BYTES + length
    if length > MAX_HEADER_BYTES or mapping[LENGTH_BYTES] != ord("{"):
        begin = mapping[:MAGIC_BYTES]
        if _ONNX.match(begin):
            raise ModelFileError("this is an ONNX model, not a safetensors file; to load it, end its name in .onnx")
        kind = kind_of_file(begin)
        if kind:
            raise ModelFileError(f"this is {kind}, not a safetensors file")
    if length > MAX_HEADER_BYTES:
        raise ModelFileError(
            f"the header claims {length} bytes, more than {MAX_HEADER_BYTES}; this is not a safetensors file"
        )
    if data_start > len(mapping):
        raise ModelFileError(f"the file ends in its header, at byte {len(mapping)} of {data_start}: get it again")
    header = parse_json("header", mapping[LENGTH_BYTES:data_start])
    if not isinstance(header, dict):
        raise ModelFileError(f"the header is {shorten(header)}; expected a JSON object")
    return header, data_start


def kind_of_file(begin: bytes) -> str | None:
    """What a file is that begins with these bytes, if it is of a known kind."""
    return next((kind for at, magic, kind in KINDS if begin.startswith(magic, at)), None)


def _entry(name: str, raw: Any, data_start: int) -> Entry:
    """The header's entry of one tensor, if its dtype, shape and offsets agree."""
    if not isinstance(raw, dict) or raw.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(f"tensor {shorten(name)} is {shorten(raw)}; expected its dtype, shape and data_offsets")
    dtype, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ModelFileError(
            f"tensor {shorten(name)} has dtype {shorten(dtype)}; expected one of {', '.join(ITEM_BYTES)}"
        )
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ModelFileError(
            f"tensor {shorten(name)} is {shorten(raw)}; expected a shape and two offsets, no number negative"
        )
    if len(shape) > MAX_RANK:
        raise ModelFileError(f"tensor {shorten(name)} has {len(shape)} dimensions; expected at most {MAX_RANK}")
    size = math.prod(shape) * ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != size:
        raise ModelFileError(f"tensor {shorten(name)} is {shorten(raw)}; expected {size} bytes between its offsets")
    return Entry(dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _are_sizes(value: Any) -> bool:
    """Whether `value` is a list of integers, none of them negative."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_tiling(entries: list[tuple[str, Entry]], data_start: int, file_bytes: int) -> None:
    """Checks that the tensors, sorted by offset, cover the data without overlap or hole."""
    end = data_start
    for name, entry in entries:
        if entry.begin != end:
            raise ModelFileError(
                f"tensor {shorten(name)} starts at byte {entry.begin}; expected {end}: the header is corrupt"
            )
        end = entry.end
    if file_bytes != end:
        raise ModelFileError(f"the file has {file_bytes} bytes, its header says {end}; it was cut: get it again")


def parse_json(what: str, text: str | bytes) -> Any:
    """Parses JSON; raises ModelFileError also for what Python's parser lets through, and the C engine's does not.

    That is: keys that occur twice, NaN, halves of surrogate pairs, and numbers of more than MOST_DIGITS digits.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key occurs twice")
        return result

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    def number(digits: str) -> float:
        if len(digits) > MOST_DIGITS and sum(map(str.isdigit, _EXPONENT.sub("", digits))) > MOST_DIGITS:
            raise ValueError(f"a number has more than {MOST_DIGITS} digits")
        return float(digits)

    def integer(digits: str) -> float:
        return number(digits) if len(digits) > MOST_DIGITS or digits == "-0" else int(digits)

    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(
            decoded, object_pairs_hook=unique, parse_constant=refuse, parse_float=number, parse_int=integer
        )
        if _ESCAPED.search(decoded) and _LONE.search(json.dumps(value, ensure_ascii=False)):
            raise ValueError("a string has half of a surrogate pair")
    except ValueError as error:
        raise ModelFileError(f"the {what} is not valid JSON ({shorten(error)}); the file is corrupt") from error
    return value


def shorten(value: object) -> str:
    """`value` as a short text, so that a hostile file cannot flood the user's terminal."""
    try:
        text, most = str(value) if isinstance(value, Exception) else _SHORT.repr(value), _SHORT.maxother
        return text if len(text) <= most else f"{text[: most - 1]}…"
    except Exception:  # of a value's own, or an integer of more digits than Python prints
        if isinstance(value, int):
            return f"~{'-' * (value < 0)}1e{round(math.log10(abs(value)))}"
        return f"of type {type(value).__name__}"
