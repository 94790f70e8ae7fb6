"""`--compare` end to end on a tiny checkpoint, with the peers that are installed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from embgemma.benchmarks import results
from embgemma.benchmarks.cli import main
from embgemma.benchmarks.compare import compare as compare_module
from embgemma.benchmarks.compare.figure import spread
from embgemma.benchmarks.peers import peer_module
from embgemma.kernels import available_backends
from tests import tiny

# float32 is the one scheme that needs no calibration, which takes a while.
QUICK = ["--lengths", "8,33", "--repeats", "1", "--scheme", "float32"]
QUICK += ["--backend", "native" if "native" in available_backends() else "reference"]


def missing_packages(name: str) -> list[str]:
    packages = peer_module(name).PACKAGES
    return [package for package, module in packages.items() if importlib.util.find_spec(module) is None]


@pytest.fixture(autouse=True)
def no_golden_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the real model say nothing of a tiny one."""
    monkeypatch.delenv("EMBGEMMA_GOLDEN", raising=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # transformers refuses a width that is no multiple of the number of heads.
    config = dataclasses.replace(tiny.CONFIG, hidden=192)
    return tiny.write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny", config)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def compare(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, cache: Path, names: str, *more: str
) -> dict[str, Any]:
    arguments = ["compare", names, "--checkpoint", str(checkpoint), "--cache", str(cache), "--json", *QUICK]
    assert main([*arguments, *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


# Mean cosine to float32 that no sane conversion of the tiny model misses; a wrong graph is far below.
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("onnxruntime", {"float32": 0.99999, "int8": 0.99, "int4": 0.9}),
        ("sentence-transformers", {"float32": 0.99999, "bfloat16": 0.999}),
        ("llama-cpp", {"Q8_0": 0.999, "Q4_0": 0.9}),
        ("embgemma-onnx", {"float32": 0.99999, "int8": 0.999, "int4": 0.95}),
        ("openvino", {"float32": 0.9999, "bfloat16": 0.999, "int8 weights": 0.99, "int8 (NNCF)": 0.9}),
    ],
)
def test_a_peer_computes_the_same_model(
    name: str, least: dict[str, float], checkpoint: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if missing_packages(name):
        pytest.skip(f"not installed: {', '.join(missing_packages(name))}")
    found = compare(capsys, checkpoint, cache, name)
    assert [note for note in found["notes"] if "failed" in note] == []
    measured = {one["precision"]: one for one in found["measured"] if one["runtime"] == name}
    assert measured.keys() == least.keys()
    for precision, one in measured.items():
        assert one["exactness"]["mean"] >= least[precision], precision
        assert len(one["times"]) == len(one["ratios"]) == 2
        assert min(one["ratios"]) > 0


def test_ours_in_several_schemes_and_peers_that_are_missing(
    checkpoint: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(compare_module, "prepare_peer", None)  # nothing is prepared for what is missing
    found = compare(capsys, checkpoint, cache, "openvino", "--scheme", "float32,int8")
    assert [(one["runtime"], one["precision"]) for one in found["measured"]] == [
        ("ours", "float32"),
        ("ours", "int8"),
    ]
    assert "openvino is not installed; to measure it: pip install openvino nncf" in found["notes"]
    assert found["measured"][0]["ratios"] == [1.0, 1.0]
    assert found["measured"][1]["exactness"]["mean"] > 0.99


@pytest.mark.parametrize("markdown", [False, True])
def test_the_report_has_a_row_for_every_runtime(
    markdown: bool, checkpoint: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    arguments = ["--compare", "openvino", "--checkpoint", str(checkpoint), "--cache", str(cache), *QUICK]
    arguments += ["--scheme", "float32,int8"]
    assert main([*arguments, *(["--markdown"] if markdown else [])]) == 0
    rows = re.findall(r"^(?:\| )?embgemma[ |]+(\w+)", capsys.readouterr().out, re.MULTILINE)
    assert rows == ["float32", "int8", "int8", "float32", "int8"]  # times, ratios, the rest


def test_a_comparison_without_a_checkpoint_says_what_it_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBGEMMA_CHECKPOINT", raising=False)
    assert main(["--compare", "onnxruntime"]) == 1
    assert "give its folder with --checkpoint or EMBGEMMA_CHECKPOINT" in capsys.readouterr().err


def test_an_unknown_peer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--compare", "onnxruntime,torch"])
    assert "torch: expected names of onnxruntime, openvino" in capsys.readouterr().err


def test_the_plot_is_drawn(checkpoint: Path, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.svg"
    arguments = ["--compare", "openvino" if missing_packages("openvino") else "onnxruntime", "--plot", str(path)]
    assert main([*arguments, "--checkpoint", str(checkpoint), "--cache", str(cache), *QUICK]) == 0
    assert "embgemma float32" in path.read_text()


def test_results_are_written_section_by_section(
    checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n\n## What bounds a call\n\nold\n\n## Estimates\n\nkept\n")
    arguments = ["results", "speed", "--output", str(path), "--checkpoint", str(checkpoint), "--cache", str(cache)]
    monkeypatch.setattr(results, "COMPARED", ())
    assert main([*arguments, *QUICK]) == 0
    text = path.read_text()
    assert re.findall("^## (.*)", text, re.MULTILINE) == ["What bounds a call", "Estimates", "Speed, memory, error"]
    assert "\n\nold\n\n" in text
    assert "\n\nkept\n\n" in text
    assert re.search(r"^\*\d{4}-\d\d-\d\d, embgemma ", text, re.MULTILINE)
    assert re.search(r"^\| embgemma +\| float32 ", text, re.MULTILINE)


def test_a_section_is_replaced_where_it_stands() -> None:
    text = "# Results\n\n## A\n\n1\n\n## B\n\n2\n"
    assert results.replaced(text, "A", "3\n") == "# Results\n\n## A\n\n3\n\n## B\n\n2\n"
    assert results.replaced(text, "B", "3") == "# Results\n\n## A\n\n1\n\n## B\n\n3\n"


def test_names_at_line_ends_are_moved_apart_as_little_as_can_be() -> None:
    assert spread([0, 20, 21, 22, 50], 10) == pytest.approx([0, 11, 21, 31, 50])
    assert spread([], 10) == []
