"""The command line as a user meets it: outputs, exit codes, and one clear sentence for everything that is wrong."""

from __future__ import annotations

import io
import json
import platform
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import embgemma
from embgemma.cli.main import main
from embgemma.kernels.native import library_problem, load_library

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = ["the of and", "", "is that for it", "you 你好 😀"]
JSON_LINES = [{"id": f"d{i}", "text": text, "n": i} for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def model(model_path: Path) -> embgemma.EmbeddingModel:
    return embgemma.load(model_path, backend="reference")


@pytest.fixture
def embed(model_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Any:
    """Runs `embgemma embed` in this process: (exit code, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, bytes, str]:
        code = main(["embed", str(model_path), "--backend", "reference", *map(str, arguments)])
        captured = capsysbinary.readouterr()
        return code, captured.out, captured.err.decode()

    return run


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes bytes the standard input."""

    def use(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return use


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def json_file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in JSON_LINES), encoding="utf-8")
    return path


def rows_of(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def matrix_of(output: bytes) -> Any:
    return np.array([row["embedding"] for row in rows_of(output)], np.float32)


def test_arguments_to_json_lines(embed: Any, model: embgemma.EmbeddingModel) -> None:
    code, out, err = embed(*TEXTS)
    assert (code, err) == (0, "")
    assert [row["line"] for row in rows_of(out)] == [1, 2, 3, 4]
    assert np.array_equal(matrix_of(out), model.encode(TEXTS))  # the digits written give back the same bits


def test_a_text_that_names_a_file_is_warned_of(embed: Any, text_file: Path) -> None:
    code, out, err = embed("a", text_file, "a " * 3000)
    assert (code, len(rows_of(out))) == (0, 3)
    assert err.startswith(f"embgemma: warning: the text '{text_file}' is also the name of a file; ")
    assert f"use --input {text_file}\n" in err


def test_text_file_to_npy(embed: Any, model: embgemma.EmbeddingModel, text_file: Path, tmp_path: Path) -> None:
    code, out, err = embed("--input", text_file, "-o", tmp_path / "out.npy", "--batch-size", 3)
    wrote = f"embgemma: wrote {tmp_path / 'out.npy'} (4 embeddings of 64 values, 1.5 kB) in "
    assert (code, out) == (0, b"")
    assert err.startswith(wrote)
    assert err.count("\n") == 1
    assert np.array_equal(np.load(tmp_path / "out.npy"), model.encode(TEXTS))


def test_quiet(embed: Any, tmp_path: Path) -> None:
    assert embed("a", "--quiet", "-o", tmp_path / "out.npy") == (0, b"", "")


def test_json_lines_with_ids(embed: Any, model: embgemma.EmbeddingModel, json_file: Path, tmp_path: Path) -> None:
    assert embed("--input", json_file, "--id-field", "id", "-o", tmp_path / "out.npz")[0] == 0
    with np.load(tmp_path / "out.npz") as archive:
        assert sorted(archive) == ["embeddings", "fingerprint", "ids", "lines"]
        assert np.array_equal(archive["embeddings"], model.encode(TEXTS))
        assert archive["lines"].tolist() == [1, 2, 3, 4]
        assert archive["ids"].tolist() == ["d0", "d1", "d2", "d3"]
    assert embed("--input", json_file, "--id-field", "n", "-o", tmp_path / "out.jsonl")[0] == 0
    out = (tmp_path / "out.jsonl").read_bytes()
    assert [row["id"] for row in rows_of(out)] == [0, 1, 2, 3]
    assert np.array_equal(matrix_of(out), model.encode(TEXTS))
    code, large_letters, _ = embed("--input", json_file.rename(tmp_path / "TEXTS.JSONL"))
    assert code == 0
    assert np.array_equal(matrix_of(large_letters), model.encode(TEXTS))


LINES = "\r\n".join(TEXTS).encode("utf-8-sig")  # with a byte order mark, as Windows has it; no final line break
FIELDS = b'{"body": "the of"}\n{"body": "to be"}\n'
ODD_BREAKS = "a\u2028b\x85c\x0bd\re"


@pytest.mark.parametrize(
    ("content", "arguments", "texts"),
    [
        (LINES, ("-o", "-"), TEXTS),
        (LINES, ("--input", "-", "-o", "-"), TEXTS),
        (FIELDS, ("--input-format", "jsonl", "--field", "body"), ["the of", "to be"]),
        (ODD_BREAKS.encode(), (), [ODD_BREAKS]),  # only line feeds break lines
    ],
)
def test_standard_input(
    embed: Any, model: embgemma.EmbeddingModel, stdin: Any, content: bytes, arguments: tuple[str, ...], texts: list[str]
) -> None:
    stdin(content)
    code, out, _ = embed(*arguments)
    assert code == 0
    assert np.array_equal(matrix_of(out), model.encode(texts))


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        (("--prompt-name", "query", "--dim", 16), {"prompt_name": "query", "truncate_dim": 16}),
        (("--truncate-dim", 16), {"truncate_dim": 16}),
        (("--prompt", "x: "), {"prompt": "x: "}),
    ],
)
def test_prompt_and_size(
    embed: Any, model: embgemma.EmbeddingModel, arguments: tuple[object, ...], same: dict[str, Any]
) -> None:
    expected = model.encode(["a b"], normalize_embeddings=True, **same)
    assert np.array_equal(matrix_of(embed("a b", *arguments)[1]), expected)


BROKEN_JSON: list[tuple[bytes, str | None]] = [  # lines and what is wrong with them
    (b'{"text": "the of"}', None),
    (b"{nonsense", "line 2: not valid JSON"),
    (b'{"body": "no text"}', "line 3: field 'text' is missing; the fields are 'body'"),
    (b'{"text": 3}', "line 4: field 'text' is number; expected a string"),
    (b"[1, 2]", "line 5: expected a JSON object, found array"),
    (b"", "line 6: not valid JSON"),
    (b'{"text": "\\ud800"}', "line 7: the text has a lone surrogate"),
    (b"\xff\xfe\x00", "line 8: not valid UTF-8: byte 0xff at byte 1 of the line"),
    (b"[" * 100_000, "line 9: not valid JSON"),
    (b'{"text": "to be"}', None),
]
BROKEN_JSON_MESSAGES = [message for _, message in BROKEN_JSON if message is not None]
BROKEN_JSON_MESSAGES += ["8 of 10 could not be read; the rest is embedded"]


def test_broken_lines_are_named_and_the_rest_is_embedded(embed: Any, stdin: Any) -> None:
    stdin(b"the of\ncaf\xe9\nto be")
    code, out, err = embed()
    assert code == 1
    assert [row["line"] for row in rows_of(out)] == [1, 3]
    assert err.splitlines() == [
        "embgemma: line 2: not valid UTF-8: byte 0xe9 at byte 4 of the line",
        "embgemma: 1 of 3 could not be read; the rest is embedded",
    ]


def test_broken_json_lines(embed: Any, model: embgemma.EmbeddingModel, tmp_path: Path) -> None:
    broken_json = tmp_path / "broken.jsonl"
    broken_json.write_bytes(b"\n".join(line for line, _ in BROKEN_JSON))
    expected = model.encode(["the of", "to be"])
    code, _, err = embed("--input", broken_json, "-o", tmp_path / "out.npz")
    assert code == 1
    *messages, last = err.splitlines()
    assert last.startswith(f"embgemma: wrote {tmp_path / 'out.npz'} (2 embeddings of 64 values, 1.5 kB) in ")
    for message, begins in zip(messages, BROKEN_JSON_MESSAGES, strict=True):
        assert message.startswith(f"embgemma: {begins}")
    with np.load(tmp_path / "out.npz") as archive:
        assert archive["lines"].tolist() == [1, 10]
        assert np.array_equal(archive["embeddings"], expected)
    assert embed("--input", broken_json, "-o", tmp_path / "out.npy")[0] == 1
    embeddings = np.load(tmp_path / "out.npy")  # keeps the rows in place
    assert embeddings.shape == (10, 64)
    assert np.array_equal(embeddings[[0, 9]], expected)
    assert np.isnan(embeddings[1:9]).all()


def test_missing_or_odd_id_is_a_broken_line(embed: Any, stdin: Any) -> None:
    stdin(b'{"text": "a", "id": 1}\n{"text": "b"}\n{"text": "c", "id": null}\n{"text": "d", "id": true}\n')
    code, out, err = embed("--input-format", "jsonl", "--id-field", "id")
    assert code == 1
    assert [row["id"] for row in rows_of(out)] == [1]
    assert "line 2: field 'id' is missing" in err
    assert "line 3: field 'id' is null; expected a string or an integer" in err
    assert "line 4: field 'id' is boolean" in err


def test_argument_that_is_not_unicode(embed: Any) -> None:
    code, out, err = embed("a", b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert code == 1
    assert len(rows_of(out)) == 1
    assert "embgemma: text 2: the text has a lone surrogate" in err


def test_long_lines_are_cut_and_named(embed: Any, stdin: Any) -> None:
    long = b"the of " * 15_000
    stdin(b"\n".join([b"a", long, b"b", long]))
    code, out, err = embed("--batch-size", 2)
    assert code == 0
    assert len(rows_of(out)) == 4
    assert err == "embgemma: cut to 64 tokens: 2 too long, line 2, 4\n"


@pytest.mark.parametrize("name", ["out.npy", "out.npz", "out.jsonl"])
def test_empty_input(embed: Any, stdin: Any, tmp_path: Path, name: str) -> None:
    stdin(b"")
    assert embed("-o", tmp_path / name)[0] == 0
    if name == "out.jsonl":
        assert (tmp_path / name).read_bytes() == b""
        return
    loaded = np.load(tmp_path / name)
    assert (loaded["embeddings"] if name == "out.npz" else loaded).shape == (0, 64)


def test_output_that_exists_is_kept_unless_forced(embed: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    path.write_bytes(b"precious")
    code, _, err = embed("a", "-o", path)
    assert code == 2
    assert err == f"embgemma: {path} exists; choose another name, or replace it with --force\n"
    assert path.read_bytes() == b"precious"
    assert embed("a", "-o", path, "--force")[0] == 0
    assert np.load(path).shape == (1, 64)


def test_no_output_replaces_an_input(embed: Any, tmp_path: Path, model_path: Path) -> None:
    texts, model = tmp_path / "texts.jsonl", tmp_path / "model.npy"
    texts.write_text('{"text": "a"}\n')
    model.symlink_to(model_path)
    for path in (texts, model):
        code, _, err = embed("--input", texts, "-o", path, "--force")
        assert (code, err.count("\n")) == (2, 1)
        assert "is read from there; give the output another name" in err
    assert texts.stat().st_size == 14


def test_failure_leaves_no_output(embed: Any, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("embgemma.cli.embedding_files.NpyWriter.finish", fail)
    before = sorted(tmp_path.iterdir())
    for name in ("out.npy", "out.npz"):
        code, _, err = embed("--input", text_file, "-o", tmp_path / name)
        assert code == 1
        assert err == f"embgemma: {tmp_path / name}: No space left on device\n"
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("expected", "arguments", "message"),
    [
        (2, ("a", "-o", "out.csv"), "the name of the output, out.csv, must end in .npy, .npz, .jsonl, .parquet"),
        (2, ("a", "-o", "missing/out.npy"), "cannot write missing/out.npy: the folder missing does not exist"),
        (2, ("a", "--input", "x.txt"), "texts were given as arguments and by --input; give one or the other"),
        (2, ("a", "--field", "body"), "--field has no effect on texts that are arguments: leave it out"),
        (2, ("a", "--input-format", "jsonl"), "--input-format has no effect on texts that are arguments"),
        (2, ("a", "--id-field", "id"), "--id-field has no effect on texts that are arguments"),
        (2, ("--input", "x.txt", "--id-field", "id"), "--id-field has no effect on lines of plain text"),
        (2, ("--input", "x.jsonl", "--id-field", "id", "-o", "x.npy"), "x.npy: an npy file holds no ids; leave"),
        (2, ("a", "--dim", "65"), "truncate_dim=65; expected an integer from 1 to 64"),
        (2, ("a", "--batch-size", "0"), "batch_size=0; expected an integer from 1 to"),
        (2, ("a", "--prompt-name", "nonsense"), "prompt_name='nonsense' is not a prompt of this model; it has query"),
        (2, ("a", "--threads", "0"), "threads=0; expected an integer from 1 to"),
        (1, ("--input", "missing.txt"), "missing.txt: No such file or directory"),
        (1, ("--input", "."), ".: Is a directory"),
        (1, ("a", "--isa", "avx2"), "isa='avx2'"),
        (1, ("a", "--backend", "gpu"), "backend='gpu'"),
    ],
)
def test_wrong_use_and_failure_are_one_sentence(
    embed: Any, expected: int, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = embed(*arguments)
    assert (code, out) == (expected, b"")
    assert err.startswith(f"embgemma: {message}")
    assert err.count("\n") == 1


def test_utf_16_is_refused_as_a_whole(embed: Any, stdin: Any) -> None:
    stdin("the of\nto be\n".encode("utf-16"))
    code, out, err = embed()
    assert (code, out) == (2, b"")
    assert "the input is UTF-16; expected UTF-8" in err


def test_terminal_without_texts(embed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    code, _, err = embed()
    assert code == 2
    assert err.startswith("embgemma: no texts: give them as arguments")


@pytest.mark.parametrize("command", ["embed", "info"])
def test_model_file_that_is_none(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    arguments = [command, str(path)] + (["a"] if command == "embed" else [])
    assert main(arguments) == 1
    assert "No such file" in capsys.readouterr().err
    path.write_bytes(b"not a model file, but long enough")
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert str(path) in err
    assert err.count("\n") == 1


def code_of_exit(arguments: list[str]) -> object:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return exit_.value.code


@pytest.mark.parametrize("arguments", [["nonsense"], ["pull"], ["convert", "x"], ["embed", "m", "--dim", "many"]])
def test_usage_errors_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of_exit(arguments) == 2
    assert "usage: embgemma" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--json=yes", "-x"])
def test_an_unknown_option_is_named_and_not_the_text(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of_exit(["embed", "model", option, "hi"]) == 2
    message = f"embgemma embed: error: there is no option {option.removesuffix('=yes')}; see embgemma embed --help"
    assert capsys.readouterr().err.splitlines()[-1] == message


def test_no_command_gives_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    captured = capsys.readouterr()
    assert "make a model file of a checkpoint" in captured.out
    assert captured.err == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of_exit(["--version"]) == 0
    assert capsys.readouterr().out == f"embgemma {embgemma.__version__}\n"


def test_info(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model_path), "--backend", "reference"]) == 0
    out = capsys.readouterr().out
    for expected in (
        f"file        {model_path} (",
        "scheme int8",
        "model       2 layers, hidden 64, feed-forward 64, 896 pieces",
        "embedding table",
        'query                    "task: search result | query: "',
        "in use      reference",
        f"platform    {platform.system()} ",
        f", {platform.machine()}, ",
    ):
        assert expected in out
    if library_problem() is None:
        assert f"library     {load_library().path}\n" in out
    whole, *parts = (float(size) for size in re.findall(r"([0-9.]+) MB", out))
    assert whole == pytest.approx(sum(parts), abs=0.1 * len(parts))


def test_info_tells_how_long_rows_of_the_table_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--backend", "reference"]) == 0
    assert re.search(r"embedding table +2\.4 MB  4\.50 bits an element, 4 to 8 by row\n", capsys.readouterr().out)


def test_info_check_reads_every_byte(model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    shutil.copy(model_path, path)
    assert main(["info", "--check", str(path)]) == 0
    assert "checked     every byte is as written\n" in capsys.readouterr().out
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        changed = bytes([file.read(1)[0] ^ 4])
        file.seek(-1, 1)
        file.write(changed)
    assert main(["info", str(path)]) == 0
    assert main(["info", "--check", str(path)]) == 1
    assert f"embgemma: {path}: the checksum data_sha256 is " in capsys.readouterr().err
    assert main(["info", "--check", str(tmp_path / "a.onnx")]) != 0
    assert "has no checksum" in capsys.readouterr().err


def test_convert_reports_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path / "missing"), "-o", str(tmp_path / "model.safetensors")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("embgemma: ")
    assert "missing" in err
    assert not (tmp_path / "model.safetensors").exists()
