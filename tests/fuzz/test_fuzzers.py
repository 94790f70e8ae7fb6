"""Short runs of the fuzzers in Python, and that they notice what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from embgemma.kernels import model_file
from embgemma.kernels.native import library_problem
from tests.fuzz.checkpoints import checkpoints_convert_or_not
from tests.fuzz.readers import readers_agree

pytestmark = pytest.mark.skipif(library_problem() is not None, reason=str(library_problem()))


def test_both_readers_accept_or_refuse_a_file(tmp_path: Path) -> None:
    assert readers_agree(1, range(4000), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_difference_is_noticed_and_its_file_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "check_prompts", lambda *_: None)
    assert not readers_agree(1, range(4000), tmp_path)
    assert list(tmp_path.iterdir())


def test_changed_checkpoints_convert_or_are_refused(tmp_path: Path) -> None:
    assert checkpoints_convert_or_not(1, range(150), tmp_path)
    assert not list(tmp_path.iterdir())
