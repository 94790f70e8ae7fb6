"""Matrix products that Numba compiles: exact to the bit, of every shape, with every kind of instruction."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embgemma.kernels.config import MAX_DIMENSION
from embgemma.kernels.layout import (
    CODEBOOK_INPUTS,
    INT4_CODEBOOKS,
    INT4_MAX,
    MatrixFormat,
    pack_codebooks,
    pack_panels,
)

numba = pytest.importorskip("numba")

from embgemma.kernels.numba_engine.numba_matmul import FORMATS, MATRIX, WIDTH, Scratch, multiply  # noqa: E402
from embgemma.kernels.numba_engine.numba_team import make_teams  # noqa: E402

INTEGERS: tuple[MatrixFormat, ...] = ("int8", "int4")
EPS = float(np.finfo(np.float32).eps)
Array = npt.NDArray[Any]


@numba.njit(nogil=True)
def run_multiply(matrices: Any, scratch: Any, rows: int, n: int, team: Any) -> None:
    multiply(matrices[0], scratch, rows, n, team)


def product(
    matrix_format: MatrixFormat,
    x: Array,
    weights: Array,
    *,
    row_scales: Array | None = None,
    channel_scales: Array | None = None,
    codebooks: Array | None = None,
    threads: int = 1,
) -> npt.NDArray[np.float32]:
    """x (rows, k) times weights (n, k), transposed, as compiled code multiplies them. Memory around it is poisoned.

    codebooks (n, k / 16) are those that int4 weights are of; by default they follow from the place.
    """
    (rows, k), n = x.shape, len(weights)
    codebooks = codebooks_of(n, k) if codebooks is None else codebooks
    panels = pack_panels(weights, matrix_format, codebooks if matrix_format == "int4" else None)
    packed_codebooks = pack_codebooks(codebooks)
    channel_scales = np.ones(n, np.float32) if channel_scales is None else channel_scales
    addresses = (array.ctypes.data for array in (panels, packed_codebooks, channel_scales))
    nowhere = np.empty((1, 1, 1, 1), np.float32)
    scratch = Scratch(
        x=np.full((rows + 1, k + 16), np.nan, np.float32),
        codes=np.full((rows + 1, k + 64), -77, np.int8),
        scales=np.ones(rows, np.float32) if row_scales is None else row_scales,
        code_sums=x.astype(np.int64).sum(axis=1).astype(np.int32),
        levels=np.full((threads + 1, WIDTH * k), -77, np.int8),
        product=np.full((rows + 1, n + 16), np.nan, np.float32),
        keys=nowhere,
        values=nowhere,
        scores=nowhere[0],
    )
    (scratch.x if matrix_format == "float32" else scratch.codes)[:rows, :k] = x
    matrices = np.array([(FORMATS[matrix_format], n, k, *addresses)], MATRIX)
    teams, _counters = make_teams(threads, 1)
    calls = [threading.Thread(target=run_multiply, args=(matrices, scratch, rows, n, team)) for team in teams]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert np.all(scratch.levels[threads:] == -77), "only memory of the threads is written"
    assert np.isnan(scratch.product[rows:]).all(), "rows past the last are not written"
    assert np.isnan(scratch.product[:, n:]).all(), "columns past the last are not written"
    found: npt.NDArray[np.float32] = scratch.product[:rows, :n]
    return found


def exact(x: Array, weights: Array) -> npt.NDArray[np.float32]:
    """The product of codes: whole numbers, rounded to float32 once."""
    return np.asarray(x.astype(np.int64) @ weights.astype(np.int64).T, np.float32)


def codebooks_of(n: int, k: int) -> npt.NDArray[np.uint8]:
    """Numbers of codebooks (n, k / 16) that differ from channel to channel and along each."""
    channels, places = np.indices((n, k // CODEBOOK_INPUTS))
    return ((channels + channels // 4 + places + places // 4) % len(INT4_CODEBOOKS)).astype(np.uint8)


def codes_of(random: np.random.Generator, rows: int, k: int) -> npt.NDArray[np.int8]:
    return random.integers(-127, 128, (rows, k)).astype(np.int8)


def weights_of(random: np.random.Generator, matrix_format: str, n: int, k: int) -> npt.NDArray[np.int8]:
    """Codes (n, k) of int8, or levels of int4, each of its codebook."""
    return levels_of(random, codebooks_of(n, k)) if matrix_format == "int4" else codes_of(random, n, k)


def levels_of(random: np.random.Generator, codebooks: Array) -> npt.NDArray[np.int8]:
    numbers = np.repeat(codebooks, CODEBOOK_INPUTS, axis=1)
    levels: npt.NDArray[np.int8] = INT4_CODEBOOKS[numbers, random.integers(0, 16, numbers.shape)]
    return levels


@pytest.mark.parametrize("matrix_format", INTEGERS)
def test_integer_products_of_any_shape_are_exact(matrix_format: MatrixFormat) -> None:
    random = np.random.default_rng(0)
    shapes = [(rows, 32 * int(random.integers(1, 6)), 64 * int(random.integers(1, 5))) for rows in range(1, 71)]
    shapes += [(rows, n, k) for n in (32, 64, 96, 320) for k in (64, 128, 192, 1152) for rows in (1, 7, 300)]
    for rows, n, k in shapes:
        weights, x = weights_of(random, matrix_format, n, k), codes_of(random, rows, k)
        assert np.array_equal(product(matrix_format, x, weights), exact(x, weights)), (n, k, rows)


@pytest.mark.parametrize("matrix_format", INTEGERS)
def test_extreme_codes_of_the_longest_sum_do_not_overflow(matrix_format: MatrixFormat) -> None:
    k, most = MAX_DIMENSION, 127 if matrix_format == "int8" else INT4_MAX
    codebooks = np.full((32, k // CODEBOOK_INPUTS), int(INT4_CODEBOOKS.max(axis=1).argmax()), np.uint8)
    weights = np.repeat(np.array([most, -most, -1, 1], np.int8), 8)[:, None] * np.ones((1, k), np.int8)
    x = np.array([127, -127, 0, 1], np.int8)[:, None] * np.ones((1, k), np.int8)
    assert np.array_equal(product(matrix_format, x, weights, codebooks=codebooks), exact(x, weights))


@pytest.mark.parametrize("number", range(len(INT4_CODEBOOKS)))
def test_every_int4_code_meets_every_int8_code(number: int) -> None:
    k, book = 64, INT4_CODEBOOKS[number]
    weights = np.zeros((16 * k, k), np.int8)  # channel code * k + i has that code at input i, and code 0 elsewhere
    for code, level in enumerate(book):
        weights[code * k : (code + 1) * k] = np.where(np.eye(k), level, book[0])
    x = np.arange(-127, 128, dtype=np.int8)[:, None] * np.ones((1, k), np.int8)
    codebooks = np.full((16 * k, k // CODEBOOK_INPUTS), number, np.uint8)
    assert np.array_equal(product("int4", x, weights, codebooks=codebooks), exact(x, weights))


@pytest.mark.parametrize("seed", range(4))
def test_codebooks_are_those_of_their_inputs_and_channels(seed: int) -> None:
    random = np.random.default_rng(seed)
    codebooks = random.integers(0, len(INT4_CODEBOOKS), (96, 192 // CODEBOOK_INPUTS)).astype(np.uint8)
    weights, x = levels_of(random, codebooks), codes_of(random, 9, 192)
    assert np.array_equal(product("int4", x, weights, codebooks=codebooks), exact(x, weights))


@pytest.mark.parametrize("matrix_format", INTEGERS)
def test_scales_multiply_the_exact_sum(matrix_format: MatrixFormat) -> None:
    random = np.random.default_rng(0)
    weights, x = weights_of(random, matrix_format, 64, 128), codes_of(random, 11, 128)
    row_scales, channel_scales = (random.random(count).astype(np.float32) for count in (11, 64))
    expected = exact(x, weights) * row_scales[:, None] * channel_scales
    found = product(matrix_format, x, weights, row_scales=row_scales, channel_scales=channel_scales)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("rows", [*range(1, 20), 70, 300])
def test_float_products_are_within_their_rounding(rows: int) -> None:
    random = np.random.default_rng(rows)
    k = 192
    x, weights = (random.standard_normal((count, k)).astype(np.float32) for count in (rows, 96))
    found = product("float32", x, weights)
    bound = k * EPS * (np.abs(x).astype(np.float64) @ np.abs(weights).T)
    assert np.all(np.abs(found - x.astype(np.float64) @ weights.T) <= bound)
    assert np.array_equal(found[rows // 2], product("float32", x[rows // 2 : rows // 2 + 1], weights)[0])


@pytest.mark.parametrize("matrix_format", ["float32", *INTEGERS])
def test_products_have_the_same_bits_on_any_number_of_threads(matrix_format: MatrixFormat) -> None:
    random = np.random.default_rng(0)
    weights, x = weights_of(random, "int4", 320, 256), codes_of(random, 530, 256)
    expected = product(matrix_format, x, weights)
    for threads in (2, 3, 5):
        assert np.array_equal(product(matrix_format, x, weights, threads=threads), expected)


VARIANTS = {
    "avx512vnni": ("skylake-avx512", "+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512vnni,+avx2,+fma"),
    "avxvnni": ("haswell", "+avxvnni,+avx2,+fma"),
    "avx2": ("haswell", "+avx2,+fma"),
    "any": ("generic", ""),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_products_as_other_cpus_do_them(variant: str) -> None:
    import llvmlite.binding

    cpu, features = VARIANTS[variant]
    host = llvmlite.binding.get_host_cpu_features()
    missing = [feature for feature in features.replace("+", "").split(",") if feature and not host.get(feature)]
    if missing:
        pytest.skip(f"this CPU lacks {', '.join(missing)}")
    chosen = "any_shape or do_not_overflow or every_int4_code or codebooks_are or float_products"
    check = (
        "import sys, pytest; from embgemma.kernels.numba_engine.numba_dot import ISA; "
        f"assert ISA == {variant!r}, ISA; "
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {__file__!r}, '-k', {chosen!r}]))"
    )
    environment = {**os.environ, "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    run = subprocess.run([sys.executable, "-c", check], env=environment, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
