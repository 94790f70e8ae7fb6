"""Changed model files: what a backend computes with, and a reader checks, is always a file."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embgemma.export.synthetic import write_synthetic_model
from embgemma.export.write import ModelFileWriter
from embgemma.kernels.model_file import CHECKSUM, TensorInfo, metadata_checksum
from embgemma.kernels.safetensors_file import LENGTH_BYTES
from tests import tiny

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from embgemma.kernels.layout import Tensor
    from embgemma.kernels.model_file import ModelFile

Header = dict[str, Any]

# As small as the format allows, for tests that read thousands of damaged copies.
SMALLEST = replace(
    tiny.CONFIG, layers=1, hidden=64, ffn=64, heads=1, vocab=64, max_tokens=16, full_attention_layers=(0,)
)
TOKENIZER_MODEL = b"not a real tokenizer"


def write_smallest(path: Path) -> Path:
    """Writes a valid file of that config, and gives its path back."""
    write_synthetic_model(path, SMALLEST, "balanced", tokenizer_model=TOKENIZER_MODEL)
    return path


def split(path: Path) -> tuple[Header, bytes]:
    """The header as JSON, and the data."""
    content = path.read_bytes()
    start = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    return json.loads(content[LENGTH_BYTES:start]), content[start:]


def as_text(header: Header, *, sign: bool = True) -> bytes:
    """The header's text; `sign` renews the checksum of the metadata."""
    if sign:
        header["__metadata__"][CHECKSUM] = metadata_checksum(header["__metadata__"])
    return json.dumps(header, separators=(",", ":")).encode()


def join(path: Path, text: bytes, data: bytes, *, alignment: int = 64) -> Path:
    """Writes a file of that header and data."""
    text += b" " * (-(LENGTH_BYTES + len(text)) % alignment)
    path.write_bytes(len(text).to_bytes(LENGTH_BYTES, "little") + text + data)
    return path


def write_changed(path: Path, model: ModelFile, changes: Mapping[str, Tensor | None]) -> Path:
    """Writes `model` with these tensors in place of its own, right or wrong; None leaves one out."""
    changed = {name: changes.get(name, tensor) for name, tensor in model.tensors.items()}
    tensors = {name: tensor for name, tensor in changed.items() if tensor is not None}
    infos = {name: TensorInfo(tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    with ModelFileWriter.create(path, model.metadata, infos) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    return path
