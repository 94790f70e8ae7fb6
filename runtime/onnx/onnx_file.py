"""Opens an ONNX model so that its weights stay in the file, mapped and read as needed.

ONNX Runtime reads a single file into memory and then copies every tensor: an int4 file of 180 MB takes 400 MB at its
peak. It maps tensors that are stored outside of the model. So this module gives it a model whose large tensors are
references into the file that they came from.

A model that takes text begins with a tokenizer. It is removed, so that the model takes token ids like any other.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from ..kernels.errors import ModelFileError, reading
from ..kernels.model_file import MOST_METADATA
from ..kernels.safetensors_file import MAGIC_BYTES, kind_of_file, open_regular
from ..kernels.system import utf8_path
from .protobuf import VARINT, Field, fields, length_delimited, varint

LIBRARY = "ONNX Runtime"

# Numbers of fields in onnx.proto.
MODEL_GRAPH, MODEL_METADATA = 7, 14
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_VALUE_INFO = 1, 5, 11, 13
NODE_NAME, NODE_ATTRIBUTE = 3, 5
ATTRIBUTE_NAME, ATTRIBUTE_STRING = 1, 4
TENSOR_RAW_DATA, TENSOR_EXTERNAL_DATA, TENSOR_DATA_LOCATION = 9, 13, 14
ENTRY_KEY, ENTRY_VALUE = 1, 2
EXTERNAL = 1  # a TENSOR_DATA_LOCATION
EXTERNAL_KEY = b"location"  # of the TENSOR_EXTERNAL_DATA that names a file

LARGE_BYTES = 4096  # a page; tensors of this size and larger stay in the file

# Prefix of the first nodes, which turn text into token ids. One of them has the tokenizer as an attribute.
TOKENIZER_PREFIX = "tokenizer/"
TOKENIZER_ATTRIBUTE = b"model"


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX model without its large tensors and without its tokenizer.

    Attributes:
        model: the bytes of a model whose large tensors refer to the file by its name.
        metadata: keys and values.
        tokenizer_model: the SentencePiece model of the tokenizer in the graph, or None.
    """

    model: bytes
    metadata: dict[str, str]
    tokenizer_model: bytes | None


def read_onnx_file(path: Path, *, with_tokenizer: bool = False) -> OnnxFile:
    """Reads the model at `path`; raises ModelFileError if the file is cut or is no ONNX model.

    with_tokenizer keeps the tokenizer in the model.
    """
    with reading(path, ModelFileError):
        if not path.is_file():
            raise ModelFileError("this is a folder" if path.is_dir() else "there is no such file")
        place = utf8_path(path, LIBRARY)
        try:
            with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                kind = kind_of_file(data[:MAGIC_BYTES])
                if kind:
                    raise ModelFileError(f"this is {kind}, not an ONNX model")
                return _read(data, Path(place).name, with_tokenizer=with_tokenizer)
        except (IndexError, UnicodeDecodeError, ValueError) as error:  # ValueError: the file is empty
            reason = "this is not an ONNX model, or it is cut; export it again with `embgemma export-onnx`"
            raise ModelFileError(reason) from error


def _read(data: mmap.mmap, location: str, *, with_tokenizer: bool) -> OnnxFile:
    """The model in these bytes."""
    model = bytearray()
    metadata: dict[str, str] = {}
    tokenizer_model = None
    for field in fields(data, 0, len(data)):
        if field.number == MODEL_GRAPH:
            graph, tokenizer_model = _graph(data, field, location, with_tokenizer=with_tokenizer)
            model += length_delimited(MODEL_GRAPH, graph)
            continue
        if field.number == MODEL_METADATA:
            entry = {part.number: data[part.value : part.end].decode() for part in fields(data, field.value, field.end)}
            metadata[entry.get(ENTRY_KEY, "")] = entry.get(ENTRY_VALUE, "")
            if len(metadata) > MOST_METADATA:
                raise ModelFileError(f"it has more than {MOST_METADATA} keys of metadata; export it again")
            continue  # ONNX Runtime needs none of it
        model += _copied(data, field)
    return OnnxFile(bytes(model), metadata, tokenizer_model)


def _graph(data: mmap.mmap, graph: Field, location: str, *, with_tokenizer: bool) -> tuple[bytes, bytes | None]:
    """The graph with its large tensors replaced by references, and its tokenizer or None."""
    out = bytearray()
    tokenizer_model = None
    at_tokenizer = True
    for field in fields(data, graph.value, graph.end):
        if field.number == GRAPH_NODE and at_tokenizer:
            found = _tokenizer_node(data, field)
            at_tokenizer = found is not None
            tokenizer_model = tokenizer_model or found
            if at_tokenizer and not with_tokenizer:
                continue
        if field.number == GRAPH_INITIALIZER and field.end - field.value >= LARGE_BYTES:
            out += length_delimited(GRAPH_INITIALIZER, _tensor(data, field, location))
        elif tokenizer_model is None or with_tokenizer or field.number not in (GRAPH_INPUT, GRAPH_VALUE_INFO):
            out += _copied(data, field)
        elif field.number == GRAPH_VALUE_INFO:  # of the tokenizer's outputs, which become the inputs
            out += length_delimited(GRAPH_INPUT, data[field.value : field.end])
    return bytes(out), tokenizer_model


def _copied(data: mmap.mmap, field: Field) -> bytes:
    """A field as it is, unless it makes ONNX Runtime read another file: the model that we export is a single one."""
    copied = data[field.start : field.end]
    if EXTERNAL_KEY in copied:
        raise ModelFileError("it refers to another file for its weights; export it again with `embgemma export-onnx`")
    return copied


def _tokenizer_node(data: mmap.mmap, node: Field) -> bytes | None:
    """The tokenizer if this node has it, b"" if it is another node of the tokenizer, else None."""
    parts = list(fields(data, node.value, node.end))
    names = [data[part.value : part.end] for part in parts if part.number == NODE_NAME]
    if not names or not names[0].startswith(TOKENIZER_PREFIX.encode()):
        return None
    for part in parts:
        if part.number == NODE_ATTRIBUTE:
            entry = {item.number: data[item.value : item.end] for item in fields(data, part.value, part.end)}
            if entry.get(ATTRIBUTE_NAME) == TOKENIZER_ATTRIBUTE:
                return entry.get(ATTRIBUTE_STRING, b"")
    return b""


def _tensor(data: mmap.mmap, tensor: Field, location: str) -> bytes:
    """The tensor with its data replaced by a reference."""
    out = bytearray()
    for field in fields(data, tensor.value, tensor.end):
        if field.number != TENSOR_RAW_DATA:
            out += _copied(data, field)
            continue
        place = {"location": location, "offset": str(field.value), "length": str(field.end - field.value)}
        for key, value in place.items():
            entry = length_delimited(ENTRY_KEY, key.encode()) + length_delimited(ENTRY_VALUE, value.encode())
            out += length_delimited(TENSOR_EXTERNAL_DATA, entry)
        out += varint(TENSOR_DATA_LOCATION << 3 | VARINT) + varint(EXTERNAL)
    return bytes(out)
