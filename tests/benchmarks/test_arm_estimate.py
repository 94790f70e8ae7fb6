"""The command that estimates milliseconds on ARM, as far as it needs neither QEMU nor llvm-mca."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from embgemma.benchmarks import arm_estimate
from embgemma.benchmarks.arm_estimate import LOOPS, TOKENS, body_of, macs_in, macs_of
from embgemma.export.synthetic import write_synthetic_model
from embgemma.model_file import read_model_file
from tests import tiny


@pytest.mark.skipif(shutil.which("aarch64-linux-gnu-gcc") is None, reason="there is no cross compiler for ARM")
def test_inner_loops_are_found_and_spill_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arm_estimate, "SOURCES", Path(__file__).resolve().parents[2] / "kernels")  # not in a wheel
    for loop in {loop for parts in LOOPS.values() for loops in parts for loop in loops}:
        body = body_of(loop)
        assert macs_in(loop, body) >= 16 * loop.macs
        assert not [line for line in body if "[sp" in line]


def test_work_is_that_of_the_shapes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_synthetic_model(path, tiny.CONFIG, "mixed")
    int8, int4, attention = macs_of(read_model_file(path))
    config = tiny.CONFIG
    assert int8 == TOKENS * config.layers * config.hidden * (config.qkv_width + config.q_width)
    assert int4 == TOKENS * config.layers * config.hidden * config.ffn * 3
    full = len(config.full_attention_layers) * TOKENS**2
    assert attention > full * config.heads * config.head_dim * 2
