"""Files with a part of the vocabulary: same vectors to the bit, and what is kept."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embgemma
from embgemma.cli.main import main
from embgemma.export.restrict_file import coverage_of, restrict, vocabulary_of
from embgemma.export.scheme import _ROWS
from embgemma.export.tokenizer.pieces import read_pieces
from embgemma.export.vocabulary.counts import Counter
from embgemma.export.vocabulary.keep import Keep, choose
from embgemma.export.vocabulary.languages import words_of
from embgemma.export.vocabulary.scripts import read_scripts, scripts_of
from embgemma.kernels import available_backends
from embgemma.kernels.config import VOCAB_GRAIN
from embgemma.kernels.errors import InputError
from embgemma.kernels.model_file import SCHEMES, Scheme, read_model_file
from embgemma.kernels.native import instruction_sets, library_problem
from embgemma.kernels.tokenizer_table import HEADER
from tests import tiny

COVERED = ["the of and", "to the in is", "that for it as was with", "\n\nthe  of é"]
# Shares of rows and their bits, where others than the scheme's: some part then has no row of some bits.
ROWS = [((1, 8),), ((1, 6),), ((1, 3),), ((0.5, 6), (0.5, 3))]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in COVERED), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("scheme", "rows"), [*((scheme, None) for scheme in SCHEMES), *(("mixed", shares) for shares in ROWS)]
)
def test_covered_texts_have_the_same_vectors(
    tmp_path: Path,
    texts: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: Scheme,
    rows: tuple[tuple[float, float], ...] | None,
) -> None:
    if rows is not None:
        monkeypatch.setitem(_ROWS, scheme, rows)
    whole, part = tmp_path / "whole.safetensors", tmp_path / "part.safetensors"
    tiny.write_model(whole, scheme=scheme)
    kept = restrict(whole, part, Keep((texts,)))
    assert kept.coverage.covered == kept.coverage.tokens > 0
    file = read_model_file(part, every_byte=True)
    assert file.config.vocab == len(kept.rows) < tiny.PIECES
    assert coverage_of(file, read_model_file(whole), [texts]) == kept.coverage
    for choice in choices():
        with embgemma.load(whole, **choice) as old, embgemma.load(part, **choice) as new:
            assert np.isfinite(new.encode(["好 not covered 😀"])).all()
            for prompt in (None, "query", "document"):
                ids = [[model.token_ids(text, prompt_name=prompt) for text in COVERED] for model in (old, new)]
                assert [[kept.rows[i] for i in text] for text in ids[1]] == ids[0]
                vectors = [model.encode(COVERED, prompt_name=prompt) for model in (old, new)]
                np.testing.assert_array_equal(*vectors)


def choices() -> list[dict[str, Any]]:
    """Every backend that is here, and every instruction set of the C engine, as `embgemma.load` takes them."""
    others = [{"backend": name} for name in available_backends() if name != "native"]
    sets = instruction_sets() if library_problem() is None else ()
    return [*others, *({"backend": "native", "isa": isa.name} for isa in sets if isa.supported)]


def test_without_the_engine(tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schemes: tuple[Scheme, ...] = ("int8", "int4")
    for scheme in schemes:
        tiny.write_model(tmp_path / f"{scheme}.safetensors", scheme=scheme)
    with_engine = restrict(tmp_path / "int8.safetensors", tmp_path / "with.safetensors", Keep((texts,)))
    monkeypatch.setattr("embgemma.batches.library_problem", lambda: "no C engine")
    without = restrict(tmp_path / "int8.safetensors", tmp_path / "without.safetensors", Keep((texts,)))
    assert without.coverage == with_engine.coverage
    assert (tmp_path / "without.safetensors").read_bytes() == (tmp_path / "with.safetensors").read_bytes()
    if read_model_file(tmp_path / "int4.safetensors").tokenizer_model is None:
        with pytest.raises(InputError, match="only the C engine"):
            restrict(tmp_path / "int4.safetensors", tmp_path / "no.safetensors", Keep((texts,)))


def test_names_mean_files(tmp_path: Path, texts: Path, capsys: Any) -> None:
    part = tmp_path / "part.safetensors"
    assert run("embgemma-tiny", "-o", part, "--keep-texts", texts, "-q") == 0
    with embgemma.load("embgemma-tiny") as whole, embgemma.load(part) as small:
        np.testing.assert_array_equal(whole.encode(COVERED), small.encode(COVERED))
    assert run("nobody/nothing", "-o", tmp_path / "no", "--keep-texts", texts, "--base", "x") == 2
    assert "--base is for checkpoints" in capsys.readouterr().err
    assert run("nothing", "-o", tmp_path / "no", "--keep-texts", texts) != 0
    assert "there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_part_of_a_part_is_a_part(tmp_path: Path, texts: Path, scheme: Scheme) -> None:
    paths = [tmp_path / f"{i}.safetensors" for i in range(4)]
    tiny.write_model(paths[0], scheme=scheme)
    restrict(paths[0], paths[1], Keep((texts,), pieces=600))
    restrict(paths[1], paths[2], Keep((texts,), pieces=500))
    restrict(paths[0], paths[3], Keep((texts,), pieces=500))
    assert paths[2].read_bytes() == paths[3].read_bytes()


@pytest.mark.parametrize(
    ("text", "scripts"),
    [
        ("the", "Latin"),
        (" é1.", "Latin"),
        ("жa", "Cyrillic Latin"),
        ("世", "Han"),
        ("カー", "Katakana"),
        ("ｱＡ", "Katakana Latin"),
        ("12 !😀+\u0301", ""),
        ("한", "Hangul"),
        ("२،", "Arabic Devanagari"),
        ("𝐏", "Other"),
        ("𒌀", "Other"),
        ("ᐁ", "Canadian_Aboriginal"),
    ],
)
def test_scripts(text: str, scripts: str) -> None:
    assert scripts_of(text) == {*scripts.split()}


@pytest.mark.parametrize("prompt", ["say n", "n", "x: ", "a b:\n", "title: none | text:  "])
def test_first_words_are_counted_after_any_prompt(tmp_path: Path, prompt: str) -> None:
    file = read_model_file(tiny.write_model(tmp_path / "whole.safetensors"))
    (tmp_path / "texts.txt").write_text("ot", encoding="utf-8")
    tokenizer = vocabulary_of(file).tokenizer
    _, first = Counter(tokenizer).of_files([tmp_path / "texts.txt"], [prompt])
    assert first[tokenizer.encode_batch([f"{prompt}ot"], 100).ids[-2]]


def test_a_script_keeps_its_pieces(tmp_path: Path) -> None:
    tiny.write_model(tmp_path / "whole.safetensors")
    file = read_model_file(tmp_path / "whole.safetensors")
    kept = {*choose(vocabulary_of(file), Keep(scripts=read_scripts("latin"))).rows.tolist()}
    pieces = read_pieces(tiny.tokenizer_model())
    assert {pieces.normal[name] for name in ("▁the", "é", "▁", "t", "+")} <= kept
    assert {*pieces.special.values(), *pieces.byte_ids} <= kept
    others = [i for name, i in pieces.normal.items() if scripts_of(name) - {"Latin"}]
    assert len({*others} & kept) < VOCAB_GRAIN  # these make the last block whole


def test_a_script_keeps_no_other_script_of_the_texts(tmp_path: Path, texts: Path) -> None:
    file = read_model_file(tiny.write_model(tmp_path / "whole.safetensors"))
    kept = choose(vocabulary_of(file), Keep((texts,), scripts=read_scripts("Han")))
    alone = choose(vocabulary_of(file), Keep((texts,)))
    assert {i for name, i in read_pieces(tiny.tokenizer_model()).normal.items() if scripts_of(name) == {"Han"}} <= {
        *kept.rows.tolist()
    }
    assert len(kept.rows) == len(alone.rows)


@pytest.mark.parametrize(("languages", "kept"), [(("en",), {"▁the"}), (("en", "zh"), {"▁the", "你"})])
def test_a_language_keeps_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, languages: tuple[str, ...], kept: set[str]
) -> None:
    words = {"en": {"the": 0.9, "of": 0.1}, "zh": {"你": 0.6, "好": 0.4}}
    monkeypatch.setattr("embgemma.export.vocabulary.keep.words_of", words.__getitem__)
    tiny.write_model(tmp_path / "whole.safetensors")
    file = read_model_file(tmp_path / "whole.safetensors")
    rows = {*choose(vocabulary_of(file), Keep(languages=languages)).rows.tolist()}
    names = read_pieces(tiny.tokenizer_model()).normal
    assert {names[name] for name in kept} <= rows
    assert len(rows) < 640


def test_words_are_those_of_a_package() -> None:
    pytest.importorskip("wordfreq")
    assert 0.01 < words_of("en")["the"] < 0.1


def test_languages_need_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    tiny.write_model(tmp_path / "whole.safetensors")
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    assert run(tmp_path / "whole.safetensors", "-o", tmp_path / "part.safetensors", "--keep-languages", "en") == 2
    assert re.search(r"are in the package wordfreq; run `pip install .*\[languages\]", capsys.readouterr().err)


def run(*arguments: Any) -> int:
    return main(["convert", *map(str, arguments)])


@pytest.mark.parametrize("scheme", ["int8", "mixed"])
def test_the_command_takes_a_model_file_or_a_checkpoint(
    tmp_path: Path, texts: Path, capsys: Any, scheme: Scheme
) -> None:
    whole, part, direct = (tmp_path / f"{name}.safetensors" for name in ("whole", "part", "direct"))
    folder = tiny.write_checkpoint(tmp_path / "checkpoint")
    options = ["--no-calibration", "--scheme", scheme]
    assert run(folder, "-o", whole, *options) == 0
    assert run(whole, "-o", part, "--keep-texts", tmp_path) == 0
    assert "the file takes" in capsys.readouterr().err
    assert run(folder, "-o", direct, *options, "--keep-texts", texts) == 0
    assert part.read_bytes() == direct.read_bytes()
    assert read_model_file(part).config.vocab < tiny.PIECES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keep-pieces", 600], "give --keep-texts, --keep-languages or --keep-scripts"),
        (["--keep-scripts", "Latin", "--keep-pieces", 5], "5 pieces are too few"),
        (["--keep-scripts", "Latvian"], "'Latvian' is no script known here"),
        (["--keep-texts", "nothing.txt"], "nothing.txt"),
        (["--keep-texts", "empty"], "the folder has no texts"),
        (["--keep-texts", "blank.txt"], "blank.txt: there is no text to keep"),
        (["--keep-scripts", ""], "'' is no script known here"),
        ([], "this is a file; give the folder of a checkpoint, or say what to keep"),
        (["--keep-texts", "bad.jsonl"], "bad.jsonl: line 1: field 'text' is number"),
        (["--keep-texts", "LARGE"], "BAD.JSONL: line 1: field 'text' is number"),
        (["--keep-texts", "wide.txt"], "wide.txt: the input is UTF-16"),
        (["--keep-scripts", "Latin", "--scheme", "int4"], "--scheme is for checkpoints"),
        (["--keep-scripts", "Latin", "--no-calibration"], "--no-calibration is for checkpoints"),
    ],
)
def test_what_cannot_be_kept_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.write_model(Path("whole.safetensors"))
    Path("empty").mkdir()
    Path("bad.jsonl").write_text('{"text": 7}\n', encoding="utf-8")
    Path("LARGE").mkdir()
    Path("LARGE/BAD.JSONL").write_text('{"text": 7}\n', encoding="utf-8")
    Path("blank.txt").write_text("\n\n", encoding="utf-8")
    Path("wide.txt").write_text("the", encoding="utf-16")
    before = sorted(tmp_path.iterdir())
    assert run("whole.safetensors", "-o", "part.safetensors", *arguments) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_text_of_no_file_is_kept_in_whole_blocks(tmp_path: Path) -> None:
    tiny.write_model(tmp_path / "whole.safetensors")
    file = read_model_file(tmp_path / "whole.safetensors")
    for most in (random.Random(most).randrange(480, tiny.PIECES) for most in range(6)):
        kept = choose(vocabulary_of(file), Keep(scripts=read_scripts("Latin,Han,Greek"), pieces=most))
        assert len(kept.rows) == len({*kept.rows.tolist()})
        assert len(kept.rows) % VOCAB_GRAIN == 0


def test_info_tells_what_is_kept(tmp_path: Path, texts: Path, capsys: Any) -> None:
    whole, part, other = tmp_path / "whole.safetensors", tmp_path / "part.safetensors", tmp_path / "other.txt"
    tiny.write_model(whole)
    assert run(whole, "-o", part, "--keep-texts", texts, "-q") == 0
    other.write_text("the 你好", encoding="utf-8")
    info = ["info", str(part), "--coverage", str(texts), str(other)]
    assert main(info) == 2
    assert "give the model file that has it by --whole" in capsys.readouterr().err
    assert main([*info, "--whole", str(whole)]) == 0
    out = capsys.readouterr().out
    kept = read_model_file(part).tokenizer_table
    assert kept is not None
    kept = kept[: HEADER.itemsize].view(HEADER)["vocab"][0]
    assert f"{kept} of {tiny.PIECES} pieces are kept" in out
    assert "Latin" in out
    assert re.search(r"coverage +\d+\.\d+% of the \d+ tokens of the texts are covered", out)


def test_coverage_is_of_a_whole(tmp_path: Path, texts: Path, capsys: Any) -> None:
    whole, part, empty = tmp_path / "whole.safetensors", tmp_path / "part.safetensors", tmp_path / "empty.txt"
    tiny.write_model(whole)
    empty.write_text("", encoding="utf-8")
    assert run(whole, "-o", part, "--keep-texts", texts, "-q") == 0
    for file, name, message in ((part, part, "it has a part of"), (part, "embgemma-tiny", "has other pieces")):
        assert main(["info", str(file), "--coverage", str(texts), "--whole", str(name)]) == 2
        assert message in capsys.readouterr().err
    assert main(["info", str(part), "--whole", str(whole)]) == 2
    assert capsys.readouterr().err.startswith("embgemma: --whole is for --coverage")
    assert main(["info", str(part), "--coverage", str(empty), "--whole", str(whole)]) == 0
    assert re.search(r"coverage +there is no token", capsys.readouterr().out)


def test_no_input_is_lost(tmp_path: Path, texts: Path, capsys: Any) -> None:
    folder = tiny.write_checkpoint(tmp_path / "checkpoint")
    whole = tiny.write_model(tmp_path / "whole.safetensors")
    weights = folder / "model.safetensors"
    for source, output in ((folder, weights), (whole, whole), (whole, texts), (folder, texts)):
        before = output.read_bytes()
        assert (
            run(source, "-o", output, "--force", "--keep-texts", texts, *["--no-calibration"] * (source == folder)) == 2
        )
        assert "is read from there" in capsys.readouterr().err
        assert output.read_bytes() == before
    assert run(folder, "-o", tmp_path / "a.onnx", "--keep-texts", texts) == 2
    assert "a.onnx: no model file opens under" in capsys.readouterr().err
