"""Writes an ONNX file constant by constant, so that a gigabyte of weights is never in memory as a whole.

A file is one protocol buffer: fields one after another, each a key and a value (protobuf.dev, "Encoding"). The package
onnx writes the messages without weights. Only the two around the weights are put together here, since their lengths
come before their contents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO

import numpy as np
from onnx import GraphProto, ModelProto, StringStringEntryProto, TensorProto

from ...kernels.errors import InputError
from ..write import signed
from .graph import Constant

LARGEST_BYTES = (1 << 31) - 1  # of a protocol buffer

# Weights start at multiples of this many bytes in the file, so that a mapped file can be used in place.
ALIGNMENT = 64

_LENGTH_DELIMITED = 2  # the wire type of strings, bytes and messages
_LENGTH_BYTES = 5  # of every length: enough for 32 bits

_GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_DOC_STRING = TensorProto.DESCRIPTOR.fields_by_name["doc_string"].number
_RAW_DATA = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_FIELD_HEAD_BYTES = 1 + _LENGTH_BYTES  # the numbers of all four fields are below 16, and so their keys one byte


def write_file(
    file: BinaryIO,
    model: ModelProto,
    metadata: Mapping[str, str],
    constants: Iterable[Constant],
    wrote: Callable[[int], object],
) -> None:
    """Writes a model, its metadata and its constants to an empty file.

    wrote is called with the number of bytes after each part. Raises InputError where the file would be too large.
    """
    constants = list(constants)
    body = model.graph.SerializeToString()
    digest = hashlib.sha256(body)  # of the graph
    head = _head(model, signed(metadata, digest.hexdigest()))
    start = len(head) + _FIELD_HEAD_BYTES
    position = start + len(body)
    heads = []
    for constant in constants:
        heads.append(_initializer_head(constant, position))
        position += len(heads[-1]) + constant.size_bytes
    if position > LARGEST_BYTES:
        raise InputError(f"the model would take {position / 1e9:.1f} GB; an ONNX file ends at 2 GB: take int8 or int4")
    file.write(head + _field_head(_GRAPH, position - start) + body)
    for field_head, constant in zip(heads, constants, strict=True):
        file.write(field_head)
        digest.update(field_head)
        written = 0
        for part in constant.parts():
            stored = np.ascontiguousarray(part).data
            file.write(stored)
            digest.update(stored)
            written += part.nbytes
            wrote(part.nbytes)
        if written != constant.size_bytes:
            raise ValueError(f"{constant.name} has {written} bytes; {constant.size_bytes} were promised")
    file.seek(0)
    file.write(_head(model, signed(metadata, digest.hexdigest())))  # of the same size


def _head(model: ModelProto, metadata: Mapping[str, str]) -> bytes:
    """The fields of a model that come before its graph."""
    head = ModelProto(metadata_props=[StringStringEntryProto(key=key, value=value) for key, value in metadata.items()])
    head.MergeFrom(model)
    head.ClearField("graph")
    serialized: bytes = head.SerializeToString()
    return serialized


def _initializer_head(constant: Constant, position: int) -> bytes:
    """What comes before the data of a constant whose field starts at this position of the file.

    A doc_string of spaces moves the data to a multiple of ALIGNMENT.
    """
    message: bytes = TensorProto(
        dims=constant.shape, data_type=constant.onnx_type, name=constant.name
    ).SerializeToString()
    padding = -(position + len(message) + 3 * _FIELD_HEAD_BYTES) % ALIGNMENT
    message += _field_head(_DOC_STRING, padding) + b" " * padding + _field_head(_RAW_DATA, constant.size_bytes)
    return _field_head(_INITIALIZER, len(message) + constant.size_bytes) + message


def _field_head(number: int, length: int) -> bytes:
    """The key of a field and the length of its value: seven bits a byte, the eighth says that another follows."""
    digits = [length >> 7 * i & 0x7F for i in range(_LENGTH_BYTES)]
    return bytes([number << 3 | _LENGTH_DELIMITED, *(digit | 0x80 for digit in digits[:-1]), digits[-1]])
