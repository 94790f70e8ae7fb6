"""Texts that need no data set: to calibrate quantisers with, and to compare vectors on."""

from __future__ import annotations

import json
from pathlib import Path

SENTENCES: tuple[str, ...] = tuple(json.loads(Path(__file__).with_suffix(".json").read_text("utf-8")))
