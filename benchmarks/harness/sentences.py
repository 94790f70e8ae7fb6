"""Texts that need no data set: to calibrate quantisers with, and to compare vectors on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ...export.checkpoint.checkpoint import Checkpoint
from ...tokenizer import Tokenizer
from .workload import Ids


def sentence_ids(source: Checkpoint) -> list[Ids]:
    """Token ids of each sentence, (1, tokens)."""
    config, sentences = source.config, json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    tokenizer = Tokenizer(source.tokenizer_model, config.bos_id, config.eos_id)
    return [np.array([tokenizer.encode(text, config.max_tokens).ids], np.int32) for text in sentences]
