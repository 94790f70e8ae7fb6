"""Keeps oneDNN, in OpenVINO and PyTorch, to the instruction set of --isa; other peers ignore it."""

from __future__ import annotations

LIMIT_VARIABLE = "ONEDNN_MAX_CPU_ISA"

# Our name -> oneDNN's, for every x86 instruction set but the best.
ONEDNN_ISAS = {
    "avx512vbmi": "AVX512_CORE_VNNI",
    "avx512vnni": "AVX512_CORE_VNNI",
    "avxvnni": "AVX2_VNNI",
    "avx2": "AVX2",
}


def limits_for(isa: str | None) -> dict[str, str]:
    """Environment variables that keep a runtime to `isa`; none where ours uses the best one anyway."""
    return {LIMIT_VARIABLE: ONEDNN_ISAS[isa]} if isa in ONEDNN_ISAS else {}
