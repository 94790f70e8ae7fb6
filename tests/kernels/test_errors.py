"""Messages are short and show nothing that a terminal obeys; whatever goes wrong in a reader is the reader's error."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest

from embgemma.kernels import errors
from embgemma.kernels.errors import CheckpointError, InputError, ModelFileError, reading
from embgemma.kernels.safetensors_file import shorten

if TYPE_CHECKING:
    from pathlib import Path


class StrangeError(Exception):
    """One that no reader knows."""


UNEXPECTED: list[type[Exception]] = [
    ValueError,
    OverflowError,
    RecursionError,
    MemoryError,
    KeyError,
    IndexError,
    TypeError,
    ArithmeticError,
]
UNEXPECTED += [UnicodeError, AssertionError, StopIteration, PermissionError, StrangeError]


@pytest.mark.parametrize("thrown", UNEXPECTED)
@pytest.mark.parametrize("error", [ModelFileError, CheckpointError])
def test_whatever_goes_wrong_is_the_error_of_the_reader(
    tmp_path: Path, thrown: type[Exception], error: type[errors.EmbgemmaError]
) -> None:
    with pytest.raises(error, match=f"^{tmp_path}: ") as caught, reading(tmp_path, error):
        raise thrown("\x1b[2J" * 10_000)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    assert "\x1b" not in str(caught.value)


def test_errors_raised_on_purpose_pass_and_have_one_name(tmp_path: Path) -> None:
    part = reading(tmp_path / "a.json", CheckpointError)
    with pytest.raises(CheckpointError) as caught, reading(tmp_path, CheckpointError), part:
        raise ModelFileError("it is damaged")
    assert str(caught.value) == f"{tmp_path}/a.json: it is damaged"
    with pytest.raises(InputError, match="wrong"), reading(tmp_path, ModelFileError):
        raise InputError("wrong")
    with pytest.raises(KeyboardInterrupt), reading(tmp_path, ModelFileError):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb\nc\x7f", "a\\rb\\nc\\x7f"),
        ("\x9b2J\x85", "\\x9b2J\\x85"),
        ("abc\u202edef\u2066", "abc\\u202edef\\u2066"),
        ("\ufeffx\u2028\U000e0041", "\\ufeffx\\u2028\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("Zürich 雨 हिन्दी עברית 👩\u200d🚀 می\u200cخواهم", "Zürich 雨 हिन्दी עברית 👩\u200d🚀 می\u200cخواهم"),
    ],
)
def test_a_message_shows_all_languages_and_obeys_nobody(text: str, shown: str) -> None:
    assert str(ModelFileError(f"{text}: wrong")) == f"{shown}: wrong"


def test_a_long_message_keeps_its_path_its_beginning_and_its_end() -> None:
    path = "/" + "folder/" * 200 + "file"
    message = str(ModelFileError(f"{path}: tensor {'x' * 100_000} is wrong; convert again"))
    assert message.startswith(f"{path}: tensor x")
    assert message.endswith("is wrong; convert again")
    assert len(message) < len(path) + 310
    assert len(str(InputError("x" * 100_000 + ": x"))) <= 310
    assert str(pickle.loads(pickle.dumps(ModelFileError(message)))) == message


def test_any_value_has_a_short_form() -> None:
    for value in ("x" * 10**6, 10**5000, [[[[[[1]]]]]] * 10**5, {str(i): i for i in range(10**4)}):
        assert len(shorten(value)) < 700


@pytest.mark.parametrize("value", [{"a" * i: ["b" * 90] * 9 for i in range(9)}, ["c" * 200] * 3, ValueError("d" * 400)])
def test_values_are_shown_in_few_characters(value: object) -> None:
    assert len(shorten(value)) == 150
