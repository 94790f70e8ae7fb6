"""Ray, Spark and Daft, on this machine: the vectors of `encode`, and nothing lost or twice when a worker is killed."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embgemma
from embgemma.benchmarks.speed.bulk_speed import PACKAGES, Killer
from tests.processes import PYTHON, run

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs

OPTIONS: dict[str, Any] = {"truncate_dim": 64}
FILES, ROWS = 6, 500
CODEC = "zstd"  # Spark's Snappy takes every machine that has Debian's package musl, beside glibc, for one of musl


def text_of(i: int) -> str | None:
    return None if i % 50 == 7 else f"text number {i} " * (1 + i % 5)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for file in range(FILES):
        ids = range(file * ROWS, (file + 1) * ROWS)
        table = pa.table({"id": ids, "text": [text_of(i) for i in ids]})
        pq.write_table(table, folder / f"{file}.parquet", compression=CODEC)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that only the workers of the test have open."""
    return Path(shutil.copyfile(embgemma.load().path, tmp_path / "model.safetensors"))


@pytest.fixture(scope="module")
def expected() -> list[Any]:
    texts = [text_of(i) for i in range(FILES * ROWS)]
    there = [text for text in texts if text is not None]
    vectors = iter(embgemma.load(**OPTIONS).encode_document(there, normalize_embeddings=True).tolist())
    return [None if text is None else next(vectors) for text in texts]


def check(folder: Path, expected: list[Any]) -> None:
    rows = sorted(pq.read_table(folder).select(["id", "text", "embedding"]).to_pylist(), key=lambda row: int(row["id"]))
    assert [row["id"] for row in rows] == list(range(FILES * ROWS))
    assert [row["text"] for row in rows] == [text_of(i) for i in range(FILES * ROWS)]
    assert [row["embedding"] for row in rows] == expected


# ---- Ray ----


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    pytest.importorskip("ray", reason="Ray is not installed")
    module = importlib.import_module("embgemma.integrations.ray")
    module.ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield module
    module.ray.shutdown()


def test_ray_maps_batches(ray: Any, source: Path, expected: list[Any], tmp_path: Path) -> None:
    embedded = ray.ray.data.read_parquet(str(source)).map_batches(
        ray.Embed, fn_constructor_kwargs=OPTIONS, batch_format="pyarrow", batch_size=100, num_cpus=1
    )
    embedded.write_parquet(str(tmp_path / "out"))
    check(tmp_path / "out", expected)


def test_ray_gives_an_actor_as_many_threads_as_cpus(ray: Any) -> None:
    for cpus in (1, 2):
        actor = ray.ray.remote(num_cpus=cpus)(ray.Embed).remote()
        threads = actor.__ray_call__.remote(lambda self: self._embedder.embedding_model.threads)
        assert ray.ray.get(threads) == cpus
        ray.ray.kill(actor)


def test_ray_says_which_batches_it_takes(ray: Any) -> None:
    with pytest.raises(embgemma.InputError, match=r'map_batches.*batch_format="pyarrow"'):
        ray.Embed()({"text": np.array(["a"])})


@pytest.mark.parametrize("wrong", [{"cpus": 3}, {"cpus": 0}, {"workers": 0}])
def test_ray_does_not_wait_for_what_cannot_be(ray: Any, source: Path, tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(embgemma.InputError, match=r"cpus=3; expected .* 1 to 2|(cpus|workers)=0; expected an integer"):
        ray.embed_parquet(source, tmp_path / "out", **OPTIONS, **wrong)


def test_ray_loses_nothing_with_a_worker(
    ray: Any, source: Path, model: Path, expected: list[Any], tmp_path: Path
) -> None:
    killer = Killer(tmp_path / "out", model, 1)
    assert ray.embed_parquet(source, tmp_path / "out", model, **OPTIONS) == FILES * ROWS
    assert killer.killed()
    check(tmp_path / "out", expected)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in source.iterdir()}
    assert ray.embed_parquet(source, tmp_path / "out", model, **OPTIONS) == 0
    with pytest.raises(embgemma.InputError, match="another model, size or prompt"):
        ray.embed_parquet(source, tmp_path / "out", model)


# ---- Spark ----


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql", reason="Spark is not installed")
    options = {"spark.ui.enabled": "false", "spark.sql.parquet.compression.codec": CODEC}
    session = sql.SparkSession.builder.master("local[2,4]").config(map=options).getOrCreate()
    yield session
    session.stop()


def test_spark_embeds_a_column(spark: Any, source: Path, expected: list[Any], tmp_path: Path) -> None:
    embed = importlib.import_module("embgemma.integrations.spark").embedding(**OPTIONS)
    spark.read.parquet(str(source)).withColumn("embedding", embed("text")).write.parquet(str(tmp_path / "out"))
    check(tmp_path / "out", expected)


def test_spark_loses_nothing_with_a_worker(
    spark: Any, source: Path, model: Path, expected: list[Any], tmp_path: Path
) -> None:
    module = importlib.import_module("embgemma.integrations.spark")
    killer = Killer(tmp_path / "out", model, 1)
    assert module.embed_parquet(spark, source, tmp_path / "out", model, **OPTIONS) == FILES * ROWS
    assert killer.killed()
    check(tmp_path / "out", expected)
    assert module.embed_parquet(spark, source, tmp_path / "out", model, **OPTIONS) == 0


# ---- Daft ----


def test_daft_embeds_a_column(source: Path, expected: list[Any], tmp_path: Path) -> None:
    daft = pytest.importorskip("daft", reason="Daft is not installed")
    embed = importlib.import_module("embgemma.integrations.daft").embedding(**OPTIONS)
    frame = daft.read_parquet(f"{source}/*.parquet")
    frame.with_column("embedding", embed(frame["text"])).write_parquet(str(tmp_path / "out"))
    check(tmp_path / "out", expected)


# ---- all ----

BENCH = "import sys; from embgemma.benchmarks.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize("engine", PACKAGES)
def test_the_benchmark_finds_every_vector(engine: str) -> None:
    pytest.importorskip(PACKAGES[engine])
    found = run(PYTHON, "-c", BENCH, "bulk", "--on", engine, "--texts", 300, "--files", 3, capture_output=True).stdout
    assert found.decode().splitlines()[-1].split()[:5] == [engine, "embgemma-tiny,", "balanced", "300", "3"]
