"""FORMAT.md keeps its own promises, and its example reads what the exporter writes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.kernels.config import EncoderConfig
from embgemma.kernels.layout import unpack_matrix
from embgemma.kernels.model_file import FORMAT_VERSION, METADATA_KEYS, SCHEMES
from embgemma.kernels.rotation import rotate_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from embgemma.kernels.model_file import ModelFile, Scheme

TEXT = (Path(__file__).parents[2] / "export" / "FORMAT.md").read_text("utf-8")


def test_it_has_at_most_25_rules_each_with_a_keyword() -> None:
    rules = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^\n?\*\*|^\|)", TEXT, re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _ in rules] == list(range(1, len(rules) + 1))
    assert 20 <= len(rules) <= 25
    assert [number for number, rule in rules if not re.search(r"\b(MUST|MAY)\b", rule)] == []


def test_it_names_the_version_the_metadata_and_the_config_fields() -> None:
    assert f"model file, version {FORMAT_VERSION}\n" in TEXT
    fields = {field.name for field in dataclasses.fields(EncoderConfig)}
    assert {name for name in METADATA_KEYS | fields | set(SCHEMES) if f"`{name}`" not in TEXT} == set()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_its_example_reads_a_matrix(small_model: Callable[[Scheme], ModelFile], scheme: Scheme) -> None:
    example: dict[str, Any] = {}
    (code,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    exec(code, example)
    tensors, path = small_model(scheme).tensors, small_model(scheme).path
    for name in ("layers.1.gate_up", "layers.2.down", "head"):
        expected = unpack_matrix(tensors, name).astype(np.float32)
        if scheme != "float32":
            expected = rotate_blocks(expected * tensors[f"{name}.scale"][:, None])
        np.testing.assert_allclose(
            example["read_matrix"](path, name), expected, rtol=0, atol=1e-6 * np.abs(expected).max()
        )
