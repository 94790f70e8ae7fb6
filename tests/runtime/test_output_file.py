"""Files appear whole or not at all: commands that are ended leave nothing, and the next one clears up after a kill."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from embgemma.benchmarks.cli import main as bench
from embgemma.cli.main import main
from embgemma.kernels.errors import EmbgemmaError, InputError, ModelFileError
from embgemma.output_file import check_destination, whole_file, whole_folder
from tests import tiny
from tests.processes import PYTHON, start

# Runs a command up to the place where its file is complete and has no name yet.
UNFINISHED = """
import os, sys, time
os.fsync = lambda _: (print("ready", flush=True), time.sleep(600))
from embgemma.{} import main
sys.exit(main(sys.argv[1:]))
"""

# Of a checkpoint, a model file, and a folder to write in.
COMMANDS: dict[str, Callable[[Path, Path, Path], tuple[object, ...]]] = {
    "convert": lambda checkpoint, _, out: ("convert", checkpoint, "--no-calibration", "-o", out / "x.safetensors"),
    "embed": lambda _, model, out: ("embed", model, "the", "-o", out / "x.npz"),
    "export-onnx": lambda checkpoint, _, out: ("export-onnx", checkpoint, "--no-calibration", "-o", out / "x.onnx"),
    "bundle": lambda checkpoint, _, out: ("export-onnx", checkpoint, "--no-calibration", "--bundle", out / "x"),
    "bench": lambda checkpoint, _, out: (
        *("speed", "--checkpoint", checkpoint, "--cache", out),
        *("--lengths", 8, "--batch", 2, "--repeats", 1),
    ),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and a model file."""
    folder = tmp_path_factory.mktemp("sources")
    return tiny.write_checkpoint(folder / "checkpoint"), tiny.write_model(folder / "model.safetensors")


def unfinished(folder: Path) -> list[Path]:
    return [*folder.rglob(".embgemma-*")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_ended_command_leaves_nothing(
    command: str, number: signal.Signals, sources: tuple[Path, Path], tmp_path: Path
) -> None:
    if command in ("export-onnx", "bundle"):
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
    arguments = COMMANDS[command](*sources, tmp_path)
    program = UNFINISHED.format("benchmarks.cli" if command == "bench" else "cli.main")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with start(PYTHON, "-c", program, *arguments, limit=300, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert unfinished(tmp_path)
        process.send_signal(number)
        killed = number == signal.SIGKILL
        assert process.wait() == (-number if killed else 128 + number)
    assert bool(unfinished(tmp_path)) == killed
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and not unfinished(tmp_path)]
    if killed:
        assert (bench if command == "bench" else main)([str(argument) for argument in arguments]) == 0
        assert unfinished(tmp_path) == []


def test_what_others_are_working_on_stays(tmp_path: Path) -> None:
    with whole_file(tmp_path / "one") as one, whole_folder(tmp_path / "two") as two:
        with whole_file(tmp_path / "three"):
            assert len(unfinished(tmp_path)) == 3
        one.write(b"1")
        (two / "file").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "one", "three", "two"]


def test_a_folder_that_was_moved_aside_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").touch()
    rename = Path.rename
    with (
        monkeypatch.context() as patch,
        contextlib.suppress(KeyboardInterrupt),
        whole_folder(tmp_path / "x", force=True),
    ):

        def end_after_first(path: Path, target: Path) -> None:  # as a process that is killed between the two
            rename(path, target)
            patch.setattr("embgemma.output_file._remove", lambda _: None)
            raise KeyboardInterrupt

        patch.setattr(Path, "rename", end_after_first)
    assert not (tmp_path / "x").exists()
    with whole_file(tmp_path / "y"):
        assert (tmp_path / "x" / "old").exists()
    assert unfinished(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
def test_the_later_of_two_replaces_nothing_unless_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", raise_no_links)
    for force, expected in ((False, b"first"), (True, b"later")):
        with contextlib.suppress(InputError), whole_file(tmp_path / "x", force=force) as later:
            later.write(b"later")
            if not force:
                with whole_file(tmp_path / "x") as first:
                    first.write(b"first")
        assert (tmp_path / "x").read_bytes() == expected
    with (
        pytest.raises(InputError, match="two exists; choose"),
        whole_folder(tmp_path / "two"),
        whole_folder(tmp_path / "two"),
    ):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two", "x"]


def raise_no_links(*_: object) -> None:
    raise PermissionError


def test_only_files_are_replaced() -> None:
    with pytest.raises(InputError, match="no regular file"):
        check_destination(Path("/dev/null"), force=True)


def test_a_folder_that_takes_no_files_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))
    with pytest.raises(InputError, match=r"x\.npy: the folder .* takes no files from you; name another"):
        check_destination(tmp_path / "x.npy", force=True)


@pytest.mark.parametrize("kind", [InputError, ModelFileError])
def test_errors_name_no_unfinished_file(tmp_path: Path, kind: type[EmbgemmaError]) -> None:
    with pytest.raises(kind) as error, whole_folder(tmp_path / "x") as folder, whole_file(folder / "y") as file:
        raise kind(f"{file.name}: it is wrong, as is {folder}")
    assert str(error.value) == f"{tmp_path / 'x' / 'y'}: it is wrong, as is {tmp_path / 'x'}"


def test_a_file_is_no_folder_to_write_in(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"x\.npy: .*file is no folder; give the name of one"):
        check_destination(tmp_path / "file" / "x.npy", force=True)


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000, "y" * 256])
def test_a_name_that_is_too_long_is_refused_before_the_work(name: str) -> None:
    with pytest.raises(InputError, match=r"cannot write .*too long; give another name"):
        check_destination(Path(name), force=False)


def test_errors_name_what_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error, whole_folder(tmp_path / "x") as made:
        (made / "none" / "file").touch()
    assert error.value.filename == str(tmp_path / "x" / "none" / "file")
    long = tmp_path / ("n" * 300)
    with pytest.raises(OSError, match="too long") as raised, whole_file(long):
        pass
    assert raised.value.filename == str(long)
    assert list(tmp_path.iterdir()) == []
