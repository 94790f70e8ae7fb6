"""How fast Parquet files of short texts become files of vectors on a local cluster, beside `encode` on as many cores.

Every text must be there once, with the vector that `encode` gives, to the bit. The time of the cluster includes the
start of its workers, and with --kill what one of them had begun when it was ended, and another did again; it also
includes reading and writing files, that of `encode` does not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ...find import IN_THE_BOX
from ...integrations.base import needs
from ...kernels.errors import EmbgemmaError, InputError
from ...model import load
from ..harness.command import progress
from ..harness.page import Table, whole
from . import options as shared

Embed: TypeAlias = Callable[[Path, Path, Path], object]  # of a folder into another, by a model file
WORDS = (
    ["the doctor", "a tired farmer", "my neighbour", "every student", "the old captain", "a small dog"],
    ["buys", "looks for", "has forgotten", "paints", "repairs", "wants to sell"],
    ["a red bicycle", "the map of the town", "two loaves of bread", "an honest answer", "the garden wall"],
    ["before breakfast", "in the rain", "for the third time", "without a word", "near the station"],
)
TRIES = 4  # of a task of Spark
LIMIT, PAUSE = 3600.0, 0.01  # seconds: of a wait for the first files, and between looks


@dataclass(frozen=True)
class Bulk:
    """What was embedded, and the seconds that it took in a cluster and with `encode`.

    killed: the process that was ended meanwhile, or None.
    """

    engine: str
    model: str
    texts: int
    files: int
    cores: int
    killed: int | None
    in_cluster: float
    in_encode: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command `bulk`."""
    parser.description = __doc__
    parser.add_argument("model", nargs="?", default=IN_THE_BOX, metavar="MODEL", help="default: %(default)s")
    parser.add_argument("--on", choices=ENGINES, default="ray", help="what runs here (default: %(default)s)")
    parser.add_argument("--texts", type=shared.positive, default=1_000_000, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--files", type=shared.positive, default=50, metavar="N", help="that hold them (default: %(default)s)"
    )
    parser.add_argument(
        "--cores", type=shared.positive, default=2, metavar="N", help="workers, and threads (default: %(default)s)"
    )
    parser.add_argument("--kill", action="store_true", help="end a worker when a third of the files is there")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> str:
    names = (options.model, options.on, options.texts, options.files, options.cores)
    return table([measure_bulk(*names, kill=options.kill)]).text(markdown=False)


def table(found: Sequence[Bulk]) -> Table:
    """What several runs found; every text of each is there once, with the vector of encode."""
    return Table.of("Parquet files of short texts to files of vectors", found, COLUMNS, left=2)


COLUMNS: dict[str, Callable[[Bulk], str]] = {
    "on": lambda bulk: bulk.engine,
    "model": lambda bulk: bulk.model,
    "texts": lambda bulk: whole(bulk.texts),
    "files": lambda bulk: str(bulk.files),
    "cores": lambda bulk: str(bulk.cores),
    "worker killed": lambda bulk: "no" if bulk.killed is None else "yes",
    "texts/s": lambda bulk: whole(bulk.texts / bulk.in_cluster),
    "encode": lambda bulk: whole(bulk.texts / bulk.in_encode),
    "of encode": lambda bulk: f"{bulk.in_encode / bulk.in_cluster:.2f}",
}


def measure_bulk(model: str, engine: str, texts: int, files: int, cores: int, *, kill: bool) -> Bulk:
    """The figures; raises EmbgemmaError if a text is lost, there twice, or has another vector."""
    if not 0 < files <= texts:
        raise InputError(f"--files {files} and --texts {texts}; expected 1 file or more, and a text for each")
    with tempfile.TemporaryDirectory() as name:
        source, destination, path = (Path(name) / each for each in ("texts", "vectors", "model.safetensors"))
        write_texts(source, texts, files)
        with load(model) as opened:
            title = f"{opened.path.stem}, {opened.scheme}"
            shutil.copyfile(opened.path, path)  # so that no other process has it open
        with ENGINES[engine](cores) as embed:
            progress(f"{cores} workers embed {texts} texts on {engine}")
            begin = time.perf_counter()
            killer = Killer(destination, path, files // 3) if kill else None
            embed(source, destination, path)
            in_cluster = time.perf_counter() - begin
            killed = killer.killed() if killer else None
        progress(f"encode embeds them with {cores} threads")
        in_encode = check_files(source, destination, path, cores)
    return Bulk(engine, title, texts, files, cores, killed, in_cluster, in_encode)


@contextmanager
def _ray(cores: int) -> Iterator[Embed]:
    with needs("ray", "ray"):
        import ray
        import ray.data
    from ...integrations.ray import embed_parquet

    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield embed_parquet
    finally:
        ray.shutdown()


@contextmanager
def _spark(cores: int) -> Iterator[Embed]:
    with needs("pyspark", "spark"):
        from pyspark.sql import SparkSession
    from ...integrations.spark import embed_parquet

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # of its workers
    local = f"local[{cores},{TRIES}]"
    session = SparkSession.builder.master(local).config("spark.ui.enabled", "false").getOrCreate()
    try:
        yield partial(embed_parquet, session)
    finally:
        session.stop()


@contextmanager
def _daft(cores: int) -> Iterator[Embed]:
    with needs("daft", "daft"):
        import daft
    from ...integrations.daft import embedding

    def embed(source: Path, destination: Path, model: Path) -> None:
        frame = daft.read_parquet(f"{source}/*.parquet")
        vectors = embedding(str(model), cpus=cores)(frame["text"])
        frame.with_column("embedding", vectors).write_parquet(str(destination))

    yield embed


PACKAGES = {"ray": "ray", "spark": "pyspark", "daft": "daft"}
ENGINES: dict[str, Callable[[int], AbstractContextManager[Embed]]] = {"ray": _ray, "spark": _spark, "daft": _daft}


def write_texts(folder: Path, texts: int, files: int) -> None:
    """Parquet files of short sentences by chance, with columns `id` and `text`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, ids in enumerate(np.array_split(np.arange(texts), files)):
        columns = [rng.choice(words, len(ids)).tolist() for words in WORDS]
        sentences = [f"{' '.join(row)}, {i}" for i, *row in zip(ids.tolist(), *columns, strict=True)]
        pq.write_table(pa.table({"id": ids, "text": sentences}), folder / f"{number:05}.parquet")


def check_files(source: Path, destination: Path, model_path: Path, threads: int) -> float:
    """The seconds that `encode` takes for all texts; raises EmbgemmaError unless each is there once with its vector."""
    import pyarrow.parquet as pq

    expected = pq.read_table(source)["text"].to_pylist()
    times = np.zeros(len(expected), int)  # that a text was found
    begin = time.perf_counter()
    with load(model_path, threads=threads) as model:
        seconds = time.perf_counter() - begin
        for path in sorted(destination.rglob("*")):
            found = pq.read_table(path, columns=["id", "text", "embedding"])
            ids, texts = found["id"].to_numpy(), found["text"].to_pylist()
            begin = time.perf_counter()
            vectors = model.encode_document(texts)
            seconds += time.perf_counter() - begin
            embedded = found["embedding"].combine_chunks().flatten().to_numpy()
            if texts != [expected[i] for i in ids] or not np.array_equal(embedded, vectors.reshape(-1)):
                raise EmbgemmaError(f"{path}: other texts or vectors than those of {source}")
            np.add.at(times, ids, 1)
    if (times != 1).any():
        raise EmbgemmaError(f"{destination}: {(times == 0).sum()} texts are lost, {(times > 1).sum()} there twice")
    return seconds


class Killer:
    """Ends one of the processes that have the model open, once there are so many files in a folder."""

    def __init__(self, folder: Path, model: Path, files: int) -> None:
        self._folder, self._model, self._files = folder, str(model), files
        self._killed: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def killed(self) -> int:
        """The process that was ended; raises EmbgemmaError if there was none."""
        if self._killed is None:
            raise EmbgemmaError("the work was done before a worker could be ended; embed more texts")
        return self._killed

    def _run(self) -> None:
        end = time.monotonic() + LIMIT
        while self._killed is None and time.monotonic() < end:
            time.sleep(PAUSE)
            if len(list(self._folder.glob("*.parquet"))) >= self._files:
                for process in self._workers()[:1]:
                    os.kill(process, signal.SIGKILL)
                    self._killed = process

    def _workers(self) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is another user's
                if int(folder.name) != os.getpid() and self._model in (folder / "maps").read_text():
                    found.append(int(folder.name))
        return found
