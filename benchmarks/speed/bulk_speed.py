"""How fast Parquet files of short texts become files of vectors on local Ray, beside plain `encode` on as many cores.

Every text must be there once, with the vector that `encode` gives, to the bit. The time of Ray includes the start of
its workers, and with --kill what one of them had begun when it was ended, and another did again; it also includes
reading and writing files, that of `encode` does not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from ...find import IN_THE_BOX
from ...integrations.base import needs
from ...kernels.errors import EmbgemmaError, InputError
from ...model import load
from ..harness.command import progress

WORDS = (
    ["the doctor", "a tired farmer", "my neighbour", "every student", "the old captain", "a small dog"],
    ["buys", "looks for", "has forgotten", "paints", "repairs", "wants to sell"],
    ["a red bicycle", "the map of the town", "two loaves of bread", "an honest answer", "the garden wall"],
    ["before breakfast", "in the rain", "for the third time", "without a word", "near the station"],
)
LIMIT, PAUSE = 3600.0, 0.01  # seconds: of a wait for the first files, and between looks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command `bulk`."""
    parser.description = __doc__
    parser.add_argument("model", nargs="?", default=IN_THE_BOX, metavar="MODEL", help="default: %(default)s")
    parser.add_argument("--texts", type=int, default=1_000_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--files", type=int, default=50, metavar="N", help="that hold them (default: %(default)s)")
    parser.add_argument("--cores", type=int, default=2, metavar="N", help="workers, and threads (default: %(default)s)")
    parser.add_argument("--kill", action="store_true", help="end a worker when a third of the files is there")
    parser.set_defaults(run=measure_bulk)


def measure_bulk(options: argparse.Namespace) -> str:
    """The figures, as text; raises EmbgemmaError if a text is lost, there twice, or has another vector."""
    with needs("ray", "ray"):
        import ray
    from ...integrations.ray import embed_parquet

    texts, files, cores = options.texts, options.files, options.cores
    if not 0 < files <= texts:
        raise InputError(f"--files {files} and --texts {texts}; expected 1 file or more, and a text for each")
    with tempfile.TemporaryDirectory() as name:
        source, destination, model = (Path(name) / each for each in ("texts", "vectors", "model.safetensors"))
        write_texts(source, texts, files)
        shutil.copyfile(load(options.model).path, model)  # so that no other process has it open
        ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
        try:
            progress(f"{cores} workers of Ray embed {texts} texts")
            begin = time.perf_counter()
            killer = Killer(destination, model, files // 3) if options.kill else None
            embed_parquet(source, destination, model)
            in_ray = time.perf_counter() - begin
            killed = killer.killed() if killer else "none"
        finally:
            ray.shutdown()
        progress(f"encode embeds them with {cores} threads")
        in_encode = check_files(source, destination, model, cores)
    return (
        f"{texts} texts in {files} files, {cores} cores, worker killed: {killed}; every text is there once, with the "
        f"vector of encode\nRay {texts / in_ray:.0f} texts/s, encode {texts / in_encode:.0f} texts/s, "
        f"Ray / encode {in_encode / in_ray:.2f}"
    )


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
    """The seconds that `encode` takes for all texts; raises EmbgemmaError if a file does not hold what it gives."""
    import pyarrow.parquet as pq

    if (names := {path.name for path in destination.iterdir()}) != {path.name for path in source.iterdir()}:
        raise EmbgemmaError(f"{destination}: these are not the files of {source}: {', '.join(sorted(names))}")
    begin = time.perf_counter()
    model = load(model_path, threads=threads)
    seconds = time.perf_counter() - begin
    for path in sorted(source.iterdir()):
        texts, found = pq.read_table(path), pq.read_table(destination / path.name)
        sentences = texts["text"].to_pylist()
        begin = time.perf_counter()
        vectors = model.encode_document(sentences)
        seconds += time.perf_counter() - begin
        embedded = found["embedding"].combine_chunks().flatten().to_numpy()
        if not found.drop_columns("embedding").equals(texts) or not np.array_equal(embedded, vectors.reshape(-1)):
            raise EmbgemmaError(f"{destination / path.name}: other rows or vectors than those of {path}")
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
