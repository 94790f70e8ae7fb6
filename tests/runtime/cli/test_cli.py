"""The command line as a user meets it: outputs, exit codes, and one clear sentence for everything that is wrong."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import embgemma
from embgemma.cli.main import main
from tests.processes import PYTHON, run, start

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


def matrix_of(rows: list[dict[str, Any]]) -> Any:
    return np.array([row["embedding"] for row in rows], np.float32)


def test_arguments_to_json_lines(embed: Any, model: embgemma.EmbeddingModel) -> None:
    code, out, err = embed(*TEXTS)
    rows = rows_of(out)
    assert (code, err) == (0, "")
    assert [row["line"] for row in rows] == [1, 2, 3, 4]
    assert np.array_equal(matrix_of(rows), model.encode(TEXTS))  # the digits written give back the same bits


def test_a_text_that_names_a_file_is_warned_of(embed: Any, text_file: Path) -> None:
    code, out, err = embed("a", text_file, "a " * 3000)
    assert (code, len(rows_of(out))) == (0, 3)
    assert err.startswith(f"embgemma: warning: the text '{text_file}' is also the name of a file; ")
    assert f"use --input {text_file}\n" in err


def test_text_file_to_npy(embed: Any, model: embgemma.EmbeddingModel, text_file: Path, tmp_path: Path) -> None:
    code, out, err = embed("--input", text_file, "-o", tmp_path / "out.npy", "--batch-size", 3)
    wrote = f"embgemma: wrote {tmp_path / 'out.npy'} (4 embeddings of 64 values)\n"
    assert (code, out, err) == (0, b"", wrote)
    assert np.array_equal(np.load(tmp_path / "out.npy"), model.encode(TEXTS))


def test_json_lines_to_npz_with_ids(
    embed: Any, model: embgemma.EmbeddingModel, json_file: Path, tmp_path: Path
) -> None:
    assert embed("--input", json_file, "--id-field", "id", "-o", tmp_path / "out.npz")[0] == 0
    with np.load(tmp_path / "out.npz") as archive:
        assert sorted(archive) == ["embeddings", "ids", "lines"]
        assert np.array_equal(archive["embeddings"], model.encode(TEXTS))
        assert archive["lines"].tolist() == [1, 2, 3, 4]
        assert archive["ids"].tolist() == ["d0", "d1", "d2", "d3"]


def test_json_lines_to_json_lines_with_ids(
    embed: Any, model: embgemma.EmbeddingModel, json_file: Path, tmp_path: Path
) -> None:
    assert embed("--input", json_file, "--id-field", "n", "-o", tmp_path / "out.jsonl")[0] == 0
    rows = rows_of((tmp_path / "out.jsonl").read_bytes())
    assert [row["id"] for row in rows] == [0, 1, 2, 3]
    assert np.array_equal(matrix_of(rows), model.encode(TEXTS))


@pytest.mark.parametrize("arguments", [(), ("--input", "-")])
def test_standard_input(embed: Any, model: embgemma.EmbeddingModel, stdin: Any, arguments: tuple[str, ...]) -> None:
    stdin("\r\n".join(TEXTS).encode("utf-8-sig"))  # with a byte order mark, as Windows has it; no final line break
    code, out, _ = embed(*arguments, "-o", "-")
    assert code == 0
    assert np.array_equal(matrix_of(rows_of(out)), model.encode(TEXTS))


def test_standard_input_of_json_lines(embed: Any, model: embgemma.EmbeddingModel, stdin: Any) -> None:
    stdin(b'{"body": "the of"}\n{"body": "to be"}\n')
    code, out, _ = embed("--input-format", "jsonl", "--field", "body")
    assert code == 0
    assert np.array_equal(matrix_of(rows_of(out)), model.encode(["the of", "to be"]))


def test_only_line_feeds_break_lines(embed: Any, model: embgemma.EmbeddingModel, stdin: Any) -> None:
    text = "a\u2028b\x85c\x0bd\re"
    stdin(text.encode())
    rows = rows_of(embed()[1])
    assert np.array_equal(matrix_of(rows), model.encode([text]))


def test_prompt_and_size(embed: Any, model: embgemma.EmbeddingModel) -> None:
    by_name = matrix_of(rows_of(embed("a b", "--prompt-name", "query", "--dim", 16)[1]))
    assert np.array_equal(by_name, model.encode_query(["a b"], truncate_dim=16))
    assert np.array_equal(
        matrix_of(rows_of(embed("a b", "--truncate-dim", 16)[1])), model.encode(["a b"], truncate_dim=16)
    )
    by_text = matrix_of(rows_of(embed("a b", "--prompt", "x: ")[1]))
    assert np.array_equal(by_text, model.encode(["a b"], prompt="x: "))


BROKEN_LINES = [b"the of", b"caf\xe9", b"to be"]
BROKEN_JSON = [
    b'{"text": "the of"}',
    b"{nonsense",
    b'{"body": "no text"}',
    b'{"text": 3}',
    b"[1, 2]",
    b"",
    b'{"text": "\\ud800"}',
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"text": "to be"}',
]
BROKEN_JSON_MESSAGES = [
    "line 2: not valid JSON",
    "line 3: field 'text' is missing; the fields are 'body'",
    "line 4: field 'text' is number; expected a string",
    "line 5: expected a JSON object, found array",
    "line 6: not valid JSON",
    "line 7: the text has a lone surrogate",
    "line 8: not valid UTF-8: byte 0xff at byte 1 of the line",
    "line 9: not valid JSON",
    "8 of 10 could not be read; the rest is embedded",
]


@pytest.fixture
def broken_json(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jsonl"
    path.write_bytes(b"\n".join(BROKEN_JSON))
    return path


def test_broken_lines_are_named_and_the_rest_is_embedded(embed: Any, stdin: Any) -> None:
    stdin(b"\n".join(BROKEN_LINES))
    code, out, err = embed()
    assert code == 1
    assert [row["line"] for row in rows_of(out)] == [1, 3]
    assert err.splitlines() == [
        "embgemma: line 2: not valid UTF-8: byte 0xe9 at byte 4 of the line",
        "embgemma: 1 of 3 could not be read; the rest is embedded",
    ]


def test_broken_json_lines_and_npz(
    embed: Any, model: embgemma.EmbeddingModel, broken_json: Path, tmp_path: Path
) -> None:
    code, _, err = embed("--input", broken_json, "-o", tmp_path / "out.npz")
    assert code == 1
    *messages, last = err.splitlines()
    assert last == f"embgemma: wrote {tmp_path / 'out.npz'} (2 embeddings of 64 values)"
    assert len(messages) == len(BROKEN_JSON_MESSAGES)
    for message, expected in zip(messages, BROKEN_JSON_MESSAGES, strict=True):
        assert message.startswith(f"embgemma: {expected}")
    with np.load(tmp_path / "out.npz") as archive:
        assert archive["lines"].tolist() == [1, 10]
        assert np.array_equal(archive["embeddings"], model.encode(["the of", "to be"]))


def test_broken_json_lines_and_npy_keep_the_rows_in_place(
    embed: Any, model: embgemma.EmbeddingModel, broken_json: Path, tmp_path: Path
) -> None:
    assert embed("--input", broken_json, "-o", tmp_path / "out.npy")[0] == 1
    embeddings = np.load(tmp_path / "out.npy")
    assert embeddings.shape == (10, 64)
    assert np.array_equal(embeddings[[0, 9]], model.encode(["the of", "to be"]))
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
    if name == "out.npy":
        assert np.load(tmp_path / name).shape == (0, 64)
    elif name == "out.npz":
        with np.load(tmp_path / name) as archive:
            assert archive["embeddings"].shape == (0, 64)
    else:
        assert (tmp_path / name).read_bytes() == b""


def test_output_that_exists_is_kept_unless_forced(embed: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    path.write_bytes(b"precious")
    code, _, err = embed("a", "-o", path)
    assert code == 2
    assert err == f"embgemma: {path} exists; choose another name, or replace it with --force\n"
    assert path.read_bytes() == b"precious"
    assert embed("a", "-o", path, "--force")[0] == 0
    assert np.load(path).shape == (1, 64)


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
    ("arguments", "message"),
    [
        (("a", "-o", "out.csv"), "the name of the output, out.csv, must end in .npy, .npz, .jsonl"),
        (("a", "-o", "missing/out.npy"), "cannot write missing/out.npy: the folder missing does not exist"),
        (("a", "--input", "x.txt"), "texts were given as arguments and by --input; give one or the other"),
        (("a", "--dim", "65"), "truncate_dim=65; expected an integer from 1 to 64"),
        (("a", "--batch-size", "0"), "batch_size=0; expected an integer of at least 1"),
        (("a", "--prompt-name", "nonsense"), "prompt_name='nonsense' is not a prompt of this model; it has query"),
        (("a", "--threads", "0"), "threads=0; expected an integer of at least 1"),
    ],
)
def test_wrong_use_is_one_sentence(embed: Any, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = embed(*arguments)
    assert (code, out) == (2, b"")
    assert err.startswith(f"embgemma: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input", "missing.txt"), "missing.txt: No such file or directory"),
        (("--input", "."), ".: Is a directory"),
        (("a", "--isa", "avx2"), "isa='avx2'"),
        (("a", "--backend", "gpu"), "backend='gpu'"),
    ],
)
def test_failure_is_one_sentence(embed: Any, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = embed(*arguments)
    assert (code, out) == (1, b"")
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


@pytest.mark.parametrize("arguments", [["nonsense"], ["embed"], ["convert", "x"], ["embed", "m", "--dim", "many"]])
def test_usage_errors_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: embgemma" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--json=yes", "-x"])
def test_an_unknown_option_is_named_and_not_the_text(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["embed", "model", option, "hi"])
    assert exit_.value.code == 2
    message = f"embgemma embed: error: there is no option {option.removesuffix('=yes')}; see embgemma embed --help"
    assert capsys.readouterr().err.splitlines()[-1] == message


def test_no_command_gives_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    captured = capsys.readouterr()
    assert "make a model file of a checkpoint" in captured.out
    assert captured.err == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"embgemma {embgemma.__version__}\n"


def test_info(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(model_path), "--backend", "reference"]) == 0
    out = capsys.readouterr().out
    for expected in (
        f"file        {model_path} (",
        "scheme int8",
        "model       2 layers, hidden 64, feed-forward 64, 896 tokens",
        "embedding table",
        'query                    "task: search result | query: "',
        "in use      reference",
    ):
        assert expected in out
    whole, *parts = (float(size) for size in re.findall(r"([0-9.]+) MB", out))
    assert whole == pytest.approx(sum(parts), abs=0.1 * len(parts))


def test_convert_reports_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path / "missing"), "-o", str(tmp_path / "model.safetensors")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("embgemma: ")
    assert "missing" in err
    assert not (tmp_path / "model.safetensors").exists()


# ---- as a process of its own ----


@pytest.fixture
def embedding(model_path: Path) -> tuple[object, ...]:
    """The beginning of a command that embeds."""
    return PYTHON, "-m", "embgemma", "embed", model_path, "--backend", "reference"


def test_closed_standard_streams(embedding: tuple[object, ...], text_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    closing_output = ("sh", "-c", '"$@" >&-', "sh")
    done = run(*closing_output, *embedding, "--input", text_file, "-o", output, stderr=subprocess.PIPE)
    assert done.stderr == f"embgemma: wrote {output} (4 embeddings of 64 values)\n".encode()
    assert np.load(output).shape == (len(TEXTS), 64)
    done = run("sh", "-c", '"$@" <&-', "sh", *embedding, check=False, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.startswith(b"embgemma: no texts")


def test_reader_that_leaves_is_no_error(embedding: tuple[object, ...], tmp_path: Path) -> None:
    many = tmp_path / "many.txt"
    many.write_text("a\n" * 2000)
    with start(*embedding, "--input", many, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_interrupt_leaves_no_output(embedding: tuple[object, ...], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(*embedding, "-o", folder / "out.npy", **pipes) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"a\n")
        process.stdin.flush()
        while not list(folder.iterdir()) and process.poll() is None:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        assert process.stderr.read() == b"embgemma: interrupted\n"
        assert process.wait() == 130
    assert list(folder.iterdir()) == []
