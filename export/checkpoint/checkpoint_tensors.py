"""Reads the floating-point tensors of a checkpoint, a few rows at a time, as float32."""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...kernels.errors import CheckpointError, reading
from ...kernels.safetensors_file import ITEM_BYTES, Entry, SafetensorsFile, open_safetensors, shorten
from ..settings.json_file import is_there, read_json

Float32 = npt.NDArray[np.float32]

_FLOAT_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}  # NumPy has no BF16
_SINGLE_FILE = "model.safetensors"
_PICKLED = {_SINGLE_FILE: "pytorch_model.bin", "adapter_model.safetensors": "adapter_model.bin"}
_BUFFER = re.compile(r"(.*\.)?(rotary_emb\w*\.\w*inv_freq|position_ids)")  # of old versions; nothing reads them
_TABLE, _OUTPUT = "embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class LowRank:
    """What is added to a matrix (out, in): up (out, rank) · down (rank, in)."""

    up: Float32
    down: Float32


class Weights:
    """The tensors of a folder that holds `model.safetensors`, or another name, or shards of it and an index.

    Opening reads only headers. Names are those of the bare encoder: whatever its library puts before them all, such as
    `model.` or `0.auto_model.`, is taken off, and the output layer of a language model is left out.

    Raises:
        CheckpointError: a file is missing, cut or corrupt, or a tensor is not floating-point.
    """

    def __init__(self, folder: Path, file_name: str = _SINGLE_FILE) -> None:
        self.folder = folder
        self._added: Mapping[str, LowRank] = {}
        self._tensors: dict[str, tuple[SafetensorsFile, Entry]] = {}
        files = _files(folder, file_name)
        self.files = tuple(files)
        for path, names in files.items():
            file = _open(path)
            for name in names if names is not None else list(file.entries):
                if name not in file.entries:
                    raise CheckpointError(f"{path}: tensor {name!r} is missing, which its index promises")
                if _BUFFER.fullmatch(name):
                    continue
                entry = file.entries[name]
                if entry.dtype not in _FLOAT_DTYPES:
                    raise CheckpointError(
                        f"{path}: tensor {name!r} has dtype {entry.dtype}; expected {', '.join(_FLOAT_DTYPES)}: "
                        "convert the original checkpoint, not one that was quantised"
                    )
                self._tensors[name] = (file, entry)
        self._tensors = self._of_encoder()

    def _of_encoder(self) -> dict[str, tuple[SafetensorsFile, Entry]]:
        """The tensors by the names that they have in the bare encoder."""
        prefixes = {name.removesuffix(_TABLE) for name in self._tensors if f".{name}".endswith(f".{_TABLE}")}
        prefix = min(prefixes, key=len, default="")
        tensors = {}
        for name, tensor in self._tensors.items():
            short = name.removeprefix(prefix)
            if short in tensors:
                raise CheckpointError(f"{self.folder}: two tensors are called {short!r}, with and without {prefix!r}")
            if not f".{name}".endswith(f".{_OUTPUT}"):
                tensors[short] = tensor
        return tensors

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, by name."""
        return {name: entry.shape for name, (_, entry) in self._tensors.items()}

    def add(self, added: Mapping[str, LowRank]) -> None:
        """Adds these to the matrices of their names, from now on."""
        self._added = added

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raises CheckpointError unless the tensors are exactly those expected, by name and shape."""
        missing, unknown = expected.keys() - self._tensors.keys(), self._tensors.keys() - expected.keys()
        if any("lora_" in name for name in unknown):
            raise CheckpointError(
                f"{self.folder}: an adapter is among the weights; merge it with merge_and_unload() of peft, or save "
                "it by itself with save_pretrained() of peft"
            )
        if missing:
            raise CheckpointError(
                f"{self.folder}: tensors are missing: {_some(missing)}; download the checkpoint again"
            )
        if unknown:
            raise CheckpointError(f"{self.folder}: the architecture has no place for tensors {_some(unknown)}")
        for name, shape in expected.items():
            found = self._tensors[name][1].shape
            if found != shape:
                raise CheckpointError(f"{self.folder}: tensor {name!r} has shape {found}; config.json asks for {shape}")

    def read(self, name: str) -> Float32:
        """The tensor as float32; raises CheckpointError if a value is not finite."""
        rows = self._tensors[name][1].shape[0]
        return self.read_rows(name, 0, rows)

    def read_rows(self, name: str, start: int, stop: int) -> Float32:
        """Rows start … stop - 1 of the tensor as float32; raises CheckpointError if a value is not finite.

        Rows behind the last one are zeros: a model file has more than a vocabulary that is no multiple of its grain.
        """
        file, entry = self._tensors[name]
        missing = max(stop - max(start, entry.shape[0]), 0)
        shape = (stop - start - missing, *entry.shape[1:])
        row_bytes = math.prod(entry.shape[1:]) * ITEM_BYTES[entry.dtype]
        values = _as_float32(file, entry.dtype, math.prod(shape), entry.begin + min(start, entry.shape[0]) * row_bytes)
        if name in self._added:
            values = values + (self._added[name].up[start:stop] @ self._added[name].down).ravel()
        if not np.isfinite(values).all():
            raise CheckpointError(f"{self.folder}: tensor {name!r} holds NaN or infinity; the checkpoint is damaged")
        values = values.reshape(shape)
        return np.concatenate([values, np.zeros((missing, *shape[1:]), np.float32)]) if missing else values


def _as_float32(file: SafetensorsFile, dtype: str, count: int, offset: int) -> Float32:
    """`count` numbers of the file; float32 ones are a view, others a converted copy.

    What was read of the file before leaves the memory of this process: a view reads it again.
    """
    if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        file.mapping.madvise(mmap.MADV_DONTNEED)
    stored = np.frombuffer(file.mapping, _FLOAT_DTYPES[dtype], count, offset)
    if dtype == "BF16":  # the upper half of a float32
        return (stored.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # what overflows is found to be infinite
        return stored.astype(np.float32, copy=False)


def _files(folder: Path, file_name: str) -> dict[Path, list[str] | None]:
    """The safetensors files of the folder, and which tensors to take of each: None for all."""
    if is_there(folder / file_name):
        return {folder / file_name: None}
    index = folder / f"{file_name}.index.json"
    if not is_there(index):
        if any(folder.glob(f"{_PICKLED[file_name]}*")):
            raise CheckpointError(
                f"{folder / _PICKLED[file_name]}: weights are read from safetensors alone, as a pickle may run any "
                "code; make them with SentenceTransformer(FOLDER).save_pretrained(NEW_FOLDER)"
            )
        raise CheckpointError(
            f"{folder / file_name}: the file is missing, and so is {index.name}; download the checkpoint again"
        )
    raw = read_json(index)
    weight_map = raw.get("weight_map") if isinstance(raw, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: it has no weight_map; download the checkpoint again")
    shards: dict[str, list[str]] = {}
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or Path(shard).name != shard or shard == "..":
            raise CheckpointError(f"{index}: shard {shorten(shard)} is not the name of a file beside it")
        shards.setdefault(shard, []).append(tensor)
    return {folder / shard: tensors for shard, tensors in sorted(shards.items())}


def _open(path: Path) -> SafetensorsFile:
    """Opens one safetensors file of a checkpoint."""
    with reading(path, CheckpointError):
        return open_safetensors(path)


def _some(names: set[str]) -> str:
    """A few of the names."""
    limit = 4
    shown = ", ".join(shorten(name) for name in sorted(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
