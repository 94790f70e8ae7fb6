"""Evaluation sets as files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes one JSON object a line, and gives the path back."""
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, rows)))
    return path
