"""Reads the JSON files of a checkpoint, and numbers in them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ...kernels.errors import CheckpointError, reading
from ...kernels.safetensors_file import JSON, parse_json, read_bounded, shorten

MOST_BYTES = 128 << 20  # Gemma's tokenizer.json has 33 MB


def read_json(path: Path) -> Any:
    """The JSON of a file of the checkpoint; raises CheckpointError where there is none."""
    with reading(path, CheckpointError):
        try:
            return parse_json("file", read_bounded(path, MOST_BYTES, JSON))
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: the file is missing; download the checkpoint again") from error


def is_there(path: Path) -> bool:
    """Whether there is anything of this name, readable or not: an optional file must not be left out in silence."""
    return path.exists() or path.is_symlink()


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: it is {shorten(raw)}; expected a JSON object")
    return raw


def integer(path: Path, raw: dict[str, Any], key: str) -> int:
    """A positive integer of a JSON object."""
    return int(_number(path, raw, key, int, "integer"))


def positive(path: Path, raw: dict[str, Any], key: str) -> float:
    """A positive number of a JSON object."""
    return float(_number(path, raw, key, int | float, "number"))


def _number(path: Path, raw: dict[str, Any], key: str, kind: Any, expected: str) -> Any:
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < math.inf:
        raise CheckpointError(f"{path}: {key} is {shorten(value)}; expected a positive {expected}")
    return value
