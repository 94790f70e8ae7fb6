"""The command line as a process of its own: its streams, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import embgemma
from tests import tiny
from tests.processes import PYTHON, run, start


@pytest.fixture
def embedding(model_path: Path) -> tuple[object, ...]:
    """The beginning of a command that embeds."""
    return PYTHON, "-m", "embgemma", "embed", model_path, "--backend", "reference"


def test_closed_standard_streams(embedding: tuple[object, ...], tmp_path: Path) -> None:
    text_file, output = tmp_path / "texts.txt", tmp_path / "out.npy"
    text_file.write_text("the\nof\n")
    closing_output = ("sh", "-c", '"$@" >&-', "sh")
    done = run(*closing_output, *embedding, "--input", text_file, "-o", output, stderr=subprocess.PIPE)
    assert done.stderr.startswith(f"embgemma: wrote {output} (2 embeddings of 64 values, 1.0 kB) in ".encode())
    assert np.load(output).shape == (2, 64)
    done = run("sh", "-c", '"$@" <&-', "sh", *embedding, check=False, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.startswith(b"embgemma: no texts")


@pytest.mark.parametrize("command", [("info",), ("embed",)])
def test_a_result_needs_standard_output(command: tuple[str, ...], model_path: Path) -> None:
    texts = ("a",) if command == ("embed",) else ()
    closing = ("sh", "-c", '"$@" >&-', "sh", PYTHON, "-m", "embgemma")
    done = run(*closing, *command, model_path, *texts, check=False, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.startswith(b"embgemma: standard output is closed")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize(
    ("stream", "command"),
    [
        ("stdout", ("cli.main", "info", "HOME/model.safetensors")),
        ("stdout", ("cli.main", "cache", "path")),
        ("stderr", ("cli.main", "info", "HOME/nothing.safetensors")),
        ("stderr", ("benchmarks.cli", "--model", "HOME/nothing.safetensors")),
    ],
)
def test_output_is_utf8_where_the_system_has_another(
    stream: str, command: tuple[str, ...], encoding: str, model_path: Path, tmp_path: Path
) -> None:
    home = tmp_path / "modèle 模型 🙂"
    home.mkdir()
    (home / "model.safetensors").symlink_to(model_path)
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "EMBGEMMA_HOME": str(home)}
    module, *arguments = (part.replace("HOME", str(home)) for part in command)
    code = f"import sys; from embgemma.{module} import main; sys.exit(main())"
    done = run(PYTHON, "-c", code, *arguments, check=False, env=environment, capture_output=True)
    assert str(home) in getattr(done, stream).decode()
    assert b"Traceback" not in done.stderr


def test_a_closed_standard_error_loses_messages_alone(embedding: tuple[object, ...], tmp_path: Path) -> None:
    closing = ("sh", "-c", '"$@" 2>&-', "sh")
    assert len(run(*closing, *embedding, "a" * 3000, stdout=subprocess.PIPE).stdout.splitlines()) == 1
    checkpoint, output = tiny.write_checkpoint(tmp_path / "checkpoint"), tmp_path / "x.safetensors"
    convert = (PYTHON, "-m", "embgemma", "convert", checkpoint, "-o", output, "--no-calibration")
    run(*closing, *convert)
    assert embgemma.load(output, backend="reference").encode("a").size
    assert run(*closing, *convert, check=False).returncode == 2


def test_a_bar_needs_standard_error(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    model = embgemma.load(model_path, backend="reference")
    assert model.encode(["a"], show_progress_bar=True).shape == (1, 64)


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


@pytest.mark.parametrize("name", ["out.npy", "out.parquet"])
def test_interrupt_leaves_no_output(embedding: tuple[object, ...], tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(*embedding, "-o", folder / name, **pipes) as process:
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


@pytest.mark.parametrize("module", ["numpy", "html"])  # of the first and the last that are imported
@pytest.mark.parametrize("ignored", [False, True])
def test_interrupt_of_the_start(tmp_path: Path, module: str, ignored: bool) -> None:
    interrupt = (
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(1)\nraise ImportError('late')\n"
    )
    (tmp_path / f"{module}.py").write_text(interrupt)
    command = ("sh", "-c", ("trap '' INT; " if ignored else "") + 'exec "$@"', "sh", Path(PYTHON).parent / "embgemma")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = run(*command, "info", check=False, stderr=subprocess.PIPE, env=environment)
    if ignored:  # as by nohup
        assert b"ImportError: late" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device without room")
@pytest.mark.parametrize("arguments", [("info",), ("embed", "some text"), ("embed", *["some text"] * 40)])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_standard_output_without_room(arguments: tuple[str, ...], unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("wb") as full:
        pipes = {"stdout": full, "stderr": subprocess.PIPE}
        done = run(PYTHON, "-m", "embgemma", *arguments, check=False, env=environment, **pipes)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == b"embgemma: standard output: No space left on device"


def test_no_output_replaces_what_is_piped_in(embedding: tuple[object, ...], tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("a\n")
    done = run("sh", "-c", f'"$@" < {texts}', "sh", *embedding, "-o", texts, "--force", check=False)
    assert (done.returncode, texts.read_text()) == (2, "a\n")
