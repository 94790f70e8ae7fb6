"""Protocol buffers, read field by field in place (protobuf.dev, "Encoding"): enough for the few that we look into."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types


class Field(NamedTuple):
    """A field of a message, stored at start … end; the value, without key and length, at value … end."""

    number: int
    wire_type: int
    start: int
    value: int
    end: int


def fields(data: bytes | mmap.mmap, start: int, end: int) -> Iterator[Field]:
    """The fields of the message at start … end; raises IndexError where they do not end with it."""
    while start < end:
        key, value = read_varint(data, start)
        wire_type = key & 7
        if wire_type == LENGTH_DELIMITED:
            length, value = read_varint(data, value)
            stop = value + length
        elif wire_type == VARINT:
            _, stop = read_varint(data, value)
        elif wire_type in (FIXED64, FIXED32):
            stop = value + (8 if wire_type == FIXED64 else 4)
        else:
            raise IndexError(f"wire type {wire_type}")
        if stop > end:
            raise IndexError(f"a field that ends at byte {stop} in a message that ends at {end}")
        yield Field(key >> 3, wire_type, start, value, stop)
        start = stop


def read_varint(data: bytes | mmap.mmap, start: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and where it ends; the eighth bit says that another follows."""
    number = shift = 0
    while True:
        byte = data[start]
        start += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, start
        shift += 7
        if shift > 63:
            raise IndexError("a number of more than ten bytes")


def varint(number: int) -> bytes:
    """A number as `read_varint` reads it."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def length_delimited(number: int, value: bytes) -> bytes:
    """A field of bytes: key, length, value."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(len(value)) + value
