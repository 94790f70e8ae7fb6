"""`--compare` end to end on a tiny checkpoint, with the peers that are installed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from embgemma.benchmarks import results
from embgemma.benchmarks.cli import main
from embgemma.benchmarks.compare import compare as compare_module
from embgemma.benchmarks.compare.figure import spread
from embgemma.benchmarks.harness.limit import limits_for
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
def quick(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of all commands here: a tiny checkpoint, its cache, and few calls."""
    folder = tmp_path_factory.mktemp("compare")
    # transformers refuses a width that is no multiple of the number of heads.
    checkpoint = tiny.write_checkpoint(folder / "tiny", dataclasses.replace(tiny.CONFIG, hidden=192))
    return ["--checkpoint", str(checkpoint), "--cache", str(folder / "cache"), *QUICK]


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
    name: str, least: dict[str, float], quick: list[str], bench: Callable[..., str]
) -> None:
    if missing_packages(name):
        pytest.skip(f"not installed: {', '.join(missing_packages(name))}")
    found = json.loads(bench("compare", name, "--json", *quick))
    assert [note for note in found["notes"] if "failed" in note] == []
    measured = {one["precision"]: one for one in found["measured"] if one["runtime"] == name}
    assert measured.keys() == least.keys()
    for precision, one in measured.items():
        assert one["exactness"]["mean"] >= least[precision], precision
        assert len(one["times"]) == len(one["ratios"]) == 2
        assert min(one["ratios"]) > 0


def test_ours_in_several_schemes_and_peers_that_are_missing(
    quick: list[str], bench: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(compare_module, "prepare_peer", None)  # nothing is prepared for what is missing
    found = json.loads(bench("compare", "openvino", "--json", *quick, "--scheme", "float32,int8"))
    measured = [(one["runtime"], one["precision"]) for one in found["measured"]]
    assert measured == [("ours", "float32"), ("ours", "int8")]
    assert "openvino is not installed; to measure it: pip install openvino nncf" in found["notes"]
    assert found["measured"][0]["ratios"] == [1.0, 1.0]
    assert found["measured"][1]["exactness"]["mean"] > 0.99


@pytest.mark.parametrize("markdown", [[], ["--markdown"]])
def test_the_report_has_a_row_for_every_runtime(
    markdown: list[str], quick: list[str], bench: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    text = bench("--compare", "openvino", *quick, "--scheme", "float32,int8", *markdown)
    rows = re.findall(r"^(?:\| )?embgemma[ |]+(\w+)", text, re.MULTILINE)
    assert rows == ["float32", "int8", "int8", "float32", "int8"]  # times, ratios, the rest


def test_a_comparison_without_a_checkpoint_says_what_it_needs(
    bench: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBGEMMA_CHECKPOINT", raising=False)
    error = bench("--compare", "onnxruntime", fails=True)
    assert "give its folder with --checkpoint or EMBGEMMA_CHECKPOINT" in error


def test_an_unknown_peer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--compare", "onnxruntime,torch"])
    assert "torch: expected names of onnxruntime, openvino" in capsys.readouterr().err


def test_the_plot_is_drawn(quick: list[str], bench: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.svg"
    bench("--compare", "openvino" if missing_packages("openvino") else "onnxruntime", "--plot", path, *quick)
    assert "embgemma float32" in path.read_text()


def test_results_are_written_section_by_section(
    quick: list[str], bench: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n\n## What bounds a call\n\nold\n\n## Estimates\n\nkept\n")
    monkeypatch.setattr(results, "COMPARED", ())
    bench("results", "speed", "--output", path, *quick)
    text = path.read_text()
    assert re.findall("^## (.*)", text, re.MULTILINE) == ["What bounds a call", "Estimates", "Speed, memory, error"]
    assert "\n\nold\n\n" in text
    assert "\n\nkept\n\n" in text
    assert re.search(r"^\*\d{4}-\d\d-\d\d, embgemma ", text, re.MULTILINE)
    assert re.search(r"^\| embgemma +\| float32 ", text, re.MULTILINE)


def test_the_best_instruction_set_sets_no_limit_and_others_do() -> None:
    assert limits_for(None) == limits_for("amx") == {}
    assert limits_for("avx512vnni") == {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}


def test_a_section_is_replaced_where_it_stands() -> None:
    text = "# Results\n\n## A\n\n1\n\n## B\n\n2\n"
    assert results.replaced(text, "A", "3\n") == "# Results\n\n## A\n\n3\n\n## B\n\n2\n"
    assert results.replaced(text, "B", "3") == "# Results\n\n## A\n\n1\n\n## B\n\n3\n"


def test_names_at_line_ends_are_moved_apart_as_little_as_can_be() -> None:
    assert spread([0, 20, 21, 22, 50], 10) == pytest.approx([0, 11, 21, 31, 50])
    assert spread([], 10) == []
