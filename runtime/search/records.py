"""Reads texts line by line. A line that cannot be read becomes a record that says why; reading goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from ..inputs import check_unicode
from ..kernels.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

JSON_LINES = (".jsonl", ".ndjson")  # endings, in small letters, of files of JSON lines
MOST_LINE_BYTES = 16 << 20  # a model takes some 10,000 bytes of a text
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # of UTF-8; some editors on Windows write it at the start of a file
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Record:
    """One line of input.

    Attributes:
        line: its number, from 1.
        text: its text; "" if there is a problem.
        id: its id, if ids were asked for.
        problem: why it cannot be read, or None.
    """

    line: int
    text: str
    id: str | int | None = None
    problem: str | None = None


def argument_records(arguments: Iterable[str]) -> Iterator[Record]:
    """Command-line arguments, each a text."""
    for number, argument in enumerate(arguments, start=1):
        yield _checked(Record(number, argument))


def bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a file or a pipe; raises InputError for one that may never end, as of a device."""
    while line := stream.readline(MOST_LINE_BYTES + 1):
        if len(line) > MOST_LINE_BYTES:
            raise InputError(f"a line has more than {MOST_LINE_BYTES} bytes; expected one text a line")
        yield line


def line_records(lines: Iterable[bytes]) -> Iterator[Record]:
    """Lines of plain UTF-8, each a text; an empty line is the empty text."""
    for number, line in enumerate(lines, start=1):
        yield _decoded(number, line)


def json_records(
    lines: Iterable[bytes], text_field: str, id_field: str | None, *, skip_blank: bool = False
) -> Iterator[Record]:
    """Lines of JSON: objects with a text and, if id_field is given, an id under these names."""
    for number, line in enumerate(lines, start=1):
        record = _decoded(number, line)
        if record.problem is None:
            if skip_blank and not record.text.strip():
                continue
            try:
                record = _from_json(record, text_field, id_field)
            except InputError as error:
                record = Record(number, "", problem=str(error))
        yield record


def _decoded(number: int, line: bytes) -> Record:
    """A line as text, without its line break."""
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    if number == 1:
        if line.startswith(UTF_16_MARKS):
            raise InputError("the input is UTF-16; expected UTF-8: convert it, as with `iconv -f UTF-16 -t UTF-8`")
        line = line.removeprefix(BYTE_ORDER_MARK)
    try:
        return Record(number, line.decode())
    except UnicodeDecodeError as error:
        byte = line[error.start]
        return Record(number, "", problem=f"not valid UTF-8: byte {byte:#04x} at byte {error.start + 1} of the line")


def _from_json(record: Record, text_field: str, id_field: str | None) -> Record:
    """The record of a line of JSON; raises InputError if there is none."""
    try:
        value = json.loads(record.text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"expected a JSON object, found {_json_type(value)}")
    text = _field(value, text_field)
    if not isinstance(text, str):
        raise InputError(f"field {text_field!r} is {_json_type(text)}; expected a string")
    record_id = None if id_field is None else _field(value, id_field)
    if id_field is not None and type(record_id) not in (str, int):
        raise InputError(f"field {id_field!r} is {_json_type(record_id)}; expected a string or an integer")
    if isinstance(record_id, str):
        check_unicode(f"field {id_field!r}", record_id)
    return _checked(Record(record.line, text, record_id))


def _field(value: dict[str, Any], name: str) -> Any:
    if name not in value:
        found = ", ".join(map(repr, value)) or "none"
        raise InputError(f"field {name!r} is missing; the fields are {found}")
    return value[name]


def _checked(record: Record) -> Record:
    """The record, or one that says why its text has no UTF-8 form."""
    try:
        check_unicode("the text", record.text)
    except InputError as error:
        return Record(record.line, "", record.id, problem=str(error))
    return record


def _json_type(value: object) -> str:
    """The JSON name of the type of a parsed value."""
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
