"""The command on a tiny model and tiny sets, and the numbers that it is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import embgemma
from embgemma.benchmarks.quality.quality_languages import LANGUAGES, read_languages
from embgemma.benchmarks.quality.quality_report import Quality, frontier
from embgemma.benchmarks.quality.quality_scores import NEIGHBOURS, Nearness, cut, loss, nearness, resampled_scores
from embgemma.benchmarks.quality.quality_tasks import Similarity
from embgemma.export.convert import convert
from tests import tiny
from tests.benchmarks.tiny_sets import write_rows

SCRIPTS = {language.script for language in read_languages()}
TEXTS = ["in the north", "that was it", "on and on", "be with it", "not by the", "the", "to be", "it is that"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in float32 and int8, float32's vectors of TEXTS, two evaluation sets, and the cache."""
    folder = tmp_path_factory.mktemp("quality")
    checkpoint = tiny.write_checkpoint(folder / "tiny")
    for scheme in ("float32", "int8"):
        convert(checkpoint, folder / f"{scheme}.safetensors", scheme, calibrated=False)
    with embgemma.load(folder / "float32.safetensors", backend="reference") as model:
        ids = model.token_ids(TEXTS)
        vectors = model.encode_ids(ids)
    np.savez(folder / "fp32.npz", ids=np.concatenate(ids), offsets=np.cumsum([0, *map(len, ids)]), embeddings=vectors)
    pairs = [{"s1": TEXTS[i], "s2": TEXTS[-i], "score": i} for i in range(len(TEXTS))]
    write_rows(folder / "STS13.jsonl.gz", pairs)
    write_rows(folder / "Tatoeba.jsonl.gz", [{"subset": "deu-eng", "s1": text, "s2": text} for text in TEXTS])
    return folder


@pytest.fixture
def arguments(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those of the command; the environment names the reference data."""
    monkeypatch.setenv("EMBGEMMA_GOLDEN", str(folder))
    monkeypatch.setenv("EMBGEMMA_EVALDATA", str(folder))
    monkeypatch.delenv("EMBGEMMA_CHECKPOINT", raising=False)
    files = [str(folder / f"{scheme}.safetensors") for scheme in ("float32", "int8")]
    return ["quality", *files, "--cache", str(folder), "--markdown"]


def rows(report: str) -> dict[str, list[str]]:
    """Cells of the first row of each name."""
    found: dict[str, list[str]] = {}
    for line in report.splitlines():
        if line.startswith("|"):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            found.setdefault(name, cells)
    return found


def test_the_report_is_made_once(
    arguments: list[str], bench: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = bench(*arguments)
    found = rows(report)
    assert found["Tatoeba"] == ["100.00", "100.00"]  # float32, int8
    assert found["cosine mean"][0] == "1.0000"
    assert 0.9 < float(found["cosine mean"][1]) < 1
    assert float(found["embgemma float32"][0].replace(",", "")) >= float(found["embgemma int8"][0].replace(",", ""))
    assert found["embgemma float32"][-4:-1] == [found["mean"][0], "-", "-"]
    assert float(found["embgemma int8"][-3]) == pytest.approx(
        float(found["mean"][0]) - float(found["mean"][1]), abs=0.02
    )

    monkeypatch.setattr("embgemma.benchmarks.quality.quality_vectors.Process", None)  # what is in the cache needs none
    assert bench(*arguments) == report


def test_all_data_but_the_languages_may_be_missing(
    arguments: list[str], bench: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "STS13" not in bench(*arguments, "--task", "Tatoeba")
    monkeypatch.delenv("EMBGEMMA_EVALDATA")
    assert "loss" not in rows(bench(*arguments))
    monkeypatch.delenv("EMBGEMMA_GOLDEN")
    found = rows(bench(*arguments))
    if LANGUAGES.exists():  # not in a wheel
        assert set(found) >= {"all", "Latin", "Armenian"}


@pytest.mark.skipif(not LANGUAGES.exists(), reason="a wheel leaves out the texts in all languages")
def test_languages_are_compared_with_float32(arguments: list[str], bench: Callable[..., str]) -> None:
    found = rows(bench(*arguments, "--task", "Tatoeba", "--all-languages"))
    assert int(found["all"][0]) == sum(int(cells[0]) for name, cells in found.items() if name in SCRIPTS)
    assert [*found["Swedish"][:2]] == ["swe", "Latin"]
    for name in ("all", "Cyrillic", "Swedish"):
        mean, percentile, least = map(float, found[name][-1].split(" / "))
        assert 0.9 < least <= percentile <= 1
        assert least - 0.001 < mean < 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--compare", "torch"], "--compare torch: expected names of onnxruntime, openvino, llama-cpp"),
        (["--compare", "openvino"], "a checkpoint to make them of: --checkpoint or EMBGEMMA_CHECKPOINT"),
        (["--task", "nothing"], "no evaluation set of these names"),
        (["--dims", "768,512"], "--dims 768,512: vectors of this model have 128 values"),
    ],
)
def test_what_cannot_be_done_is_said(
    more: list[str], message: str, arguments: list[str], bench: Callable[..., str]
) -> None:
    assert message in bench(*arguments, *more, fails=True)


def test_a_task_needs_evaluation_sets(
    arguments: list[str], bench: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBGEMMA_EVALDATA")
    assert "--task chooses evaluation sets; set EMBGEMMA_EVALDATA" in bench(*arguments, "--task", "STS", fails=True)


def test_files_are_opened_before_data_is_asked_for(bench: Callable[..., str]) -> None:
    assert "none.safetensors: cannot open the file" in bench("quality", "none.safetensors", fails=True)


def test_the_quantised_formats_of_a_peer_come_beside_ours(
    arguments: list[str], folder: Path, bench: Callable[..., str]
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    more = ["--compare", "onnxruntime", "--checkpoint", folder / "tiny", "--task", "Tatoeba"]
    found = rows(bench(*arguments, *more))
    assert {name for name in found if name.startswith("onnxruntime")} == {"onnxruntime int8", "onnxruntime int4"}
    assert 0.9 < float(found["onnxruntime int8"][1]) < 1


def test_size_against_error_is_drawn(arguments: list[str], folder: Path, bench: Callable[..., str]) -> None:
    pytest.importorskip("matplotlib")
    bench(*arguments, "--plot", folder / "plot.svg")
    assert "embgemma int8" in (folder / "plot.svg").read_text(encoding="utf-8")


def test_the_frontier_leaves_out_what_is_larger_and_farther() -> None:
    sizes_and_cosines = [(100, 0.97), (200, 0.96), (200, 0.99), (300, 0.99), (1200, 1.0)]
    formats = [
        Quality("ours", str(i), size, {8: Nearness(cosine, 0, 0, 0, 0)}, {8: np.empty((0, 0))}, np.empty(0))
        for i, (size, cosine) in enumerate(sizes_and_cosines)
    ]
    assert [one.precision for one in frontier(formats)] == ["0", "2", "4"]


def test_the_loss_is_paired(tmp_path: Path) -> None:
    gold = np.random.default_rng(0).random(50)
    pairs = [{"s1": f"a{i}", "s2": f"b{i}", "score": score} for i, score in enumerate(gold)]
    task = Similarity(write_rows(tmp_path / "STSx.jsonl.gz", pairs))
    angles = np.arccos(gold)
    ends = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    start = np.tile(np.float32([1, 0]), (50, 1))
    exact = resampled_scores(task, [start, ends])
    np.testing.assert_allclose(exact, 100)
    none = loss(exact, exact)
    assert (none.points, none.low, none.high) == (0, 0, 0)
    reverse = loss(exact, resampled_scores(task, [start, ends[::-1]]))
    assert reverse.points > 50
    assert reverse.low < reverse.points < reverse.high


def test_neighbours_and_similarities_of_the_same_vectors_agree() -> None:
    vectors = cut(np.random.default_rng(0).standard_normal((3 * NEIGHBOURS, 16)).astype(np.float32), 8)
    assert vectors.shape == (3 * NEIGHBOURS, 8)
    same = nearness(vectors, vectors)
    assert (same.overlap, same.similarity_error) == (1, 0)
    assert same.minimum == pytest.approx(1)
    others = cut(np.random.default_rng(1).standard_normal((3 * NEIGHBOURS, 8)).astype(np.float32), 8)
    unlike = nearness(vectors, others)
    assert unlike.overlap < 0.6
    assert unlike.similarity_error > 0.1
    assert unlike.minimum <= unlike.first_percentile <= unlike.mean < 0.5
