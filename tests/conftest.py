"""Fixtures for tests in every folder: a small model of random weights, and the real model if there is one."""

from __future__ import annotations

import faulthandler
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TextIO

# NumPy reads it once. A second thread of BLAS gains nothing on small matrices, and costs much on a busy machine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest

from embgemma.export.convert import convert
from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels.config import EncoderConfig
from embgemma.kernels.model_file import ModelFile, Scheme, read_model_file
from tests import tiny

# Small enough for the float64 reference, and with every feature of the real one: two kinds of attention layer, several
# query heads over one key/value head, texts longer than the window, widths that are not powers of two.
SMALL_CONFIG = replace(tiny.CONFIG, hidden=192, ffn=320, vocab=512, max_tokens=128, window=16)

# Seconds for a test, its fixtures included; the longest convert the real model. A test that takes longer ends the run,
# with the stack of every thread.
TEST_LIMIT = 3000
ERROR_STREAM = pytest.StashKey[TextIO]()


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the standard error stream, since a test that hangs has captured it."""
    stream = os.fdopen(os.dup(2), "w")
    config.add_cleanup(stream.close)
    config.stash[ERROR_STREAM] = stream


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Ends the run if the test takes too long."""
    faulthandler.dump_traceback_later(TEST_LIMIT, exit=True, file=item.config.stash[ERROR_STREAM])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def synthetic_models(folder: Path, config: EncoderConfig) -> Callable[[Scheme], ModelFile]:
    """Gives a model of random weights in a scheme, without a tokenizer; its file is in the folder."""

    @cache
    def model(scheme: Scheme) -> ModelFile:
        path = folder / f"{scheme}.safetensors"
        write_synthetic_model(path, config, scheme)
        return read_model_file(path)

    return model


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Scheme], ModelFile]:
    """Gives the small model in a scheme: random weights, no tokenizer."""
    return synthetic_models(tmp_path_factory.mktemp("models"), SMALL_CONFIG)


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The folder of the published EmbeddingGemma-300M checkpoint."""
    return _folder_of("EMBGEMMA_CHECKPOINT")


@pytest.fixture(scope="session")
def converted(checkpoint: Path) -> Iterator[Callable[[Scheme], Path]]:
    """Gives the model file of that checkpoint in a scheme.

    EMBGEMMA_CONVERTED names a folder that keeps the files for further runs of the same source; they take 2 GB.
    """
    with ExitStack() as stack:
        # Not pytest's own temporary folder, which keeps the files of three runs.
        folder = os.environ.get("EMBGEMMA_CONVERTED") or stack.enter_context(tempfile.TemporaryDirectory())

        @cache
        def path(scheme: Scheme) -> Path:
            file = Path(folder) / f"{scheme}.safetensors"
            # Plain rounding: calibration takes minutes, and the tests do not depend on it.
            return file if file.is_file() else convert(checkpoint, file, scheme, calibrated=False)

        yield path


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of values that sentence-transformers computed from that checkpoint, in float32."""
    return _folder_of("EMBGEMMA_GOLDEN")


def _folder_of(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"the environment variable {variable} is not set")
    return Path(value)
