"""Reads a JSON file of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...kernels.errors import CheckpointError, ModelFileError
from ...kernels.safetensors_file import parse_json


def read_json(path: Path) -> Any:
    """The JSON of a file of the checkpoint; raises CheckpointError where there is none."""
    try:
        return parse_json("file", path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: the file is missing; download the checkpoint again") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read the file: {error.strerror or error}") from error
    except (ModelFileError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}") from error
