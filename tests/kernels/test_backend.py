"""Which backend runs: the one asked for, or the best one here, and never a slow one in silence."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from embgemma.kernels import available_backends, backend, create_backend
from embgemma.kernels.errors import BackendError
from embgemma.kernels.model_file import ModelFile, Scheme

PROBLEM = "this install has no C engine"


@pytest.fixture
def model(small_model: Callable[[Scheme], ModelFile]) -> ModelFile:
    return small_model("int8")


@pytest.fixture
def no_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "library_problem", lambda: PROBLEM)


@pytest.fixture
def no_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_numba_is_installed", lambda: False)


@pytest.mark.usefixtures("no_native")
def test_auto_without_the_engine_is_numba_and_says_so(model: ModelFile) -> None:
    pytest.importorskip("numba")
    with pytest.warns(UserWarning, match=f"1.5 times as long.*: {PROBLEM}.*install a C compiler") as caught:
        assert create_backend(model).name == "numba"
    assert caught[0].filename == __file__, "the warning points at the caller"
    assert available_backends() == ("numba", "reference")


@pytest.mark.usefixtures("no_native", "no_numba")
def test_auto_with_nothing_to_run_on_names_both_ways_out(model: ModelFile) -> None:
    with pytest.raises(BackendError, match=r"install a C compiler.*pip install .*\[numba\]"):
        create_backend(model)
    assert available_backends() == ("reference",)


@pytest.mark.usefixtures("no_numba")
def test_numba_that_is_not_installed_is_refused_by_name(model: ModelFile) -> None:
    with pytest.raises(BackendError, match=r"pip install .*\[numba\]"):
        create_backend(model, backend="numba")


def test_reference_is_there_for_the_asking(model: ModelFile) -> None:
    assert create_backend(model, backend="reference").name == "reference"


def test_unknown_backend_is_refused(model: ModelFile) -> None:
    with pytest.raises(BackendError, match="'cuda'; expected 'auto' or one of 'native', 'numba', 'reference'"):
        create_backend(model, backend="cuda")


def test_instruction_set_of_another_backend_is_refused(model: ModelFile) -> None:
    with pytest.raises(BackendError, match="isa='avx2' chooses code of the C engine"):
        create_backend(model, backend="reference", isa="avx2")
