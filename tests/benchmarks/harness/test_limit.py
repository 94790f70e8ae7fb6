"""What keeps oneDNN to an instruction set."""

from __future__ import annotations

from embgemma.benchmarks.harness.limit import limits_for


def test_the_best_instruction_set_sets_no_limit_and_others_do() -> None:
    assert limits_for(None) == limits_for("amx") == {}
    assert limits_for("avx512vnni") == {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}
