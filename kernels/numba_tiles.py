"""Register tiles for the Numba backend: the inner loops of its matrix products, written as LLVM vector code.

A tile multiplies a few rows of activations by one or two panels of 16 channels and keeps all sums in registers.
Numba's own Python loops over the same panels do not come close, because LLVM does not see that 16 channels by 4
inputs are one instruction. int8, 120 rows, 768 by 768, one core of a Zen 5 at 4 GHz, in 10^9 multiply-adds a second:

    loops over the panel, the sums in an array                                3
    the same with the four inputs written out, or the panel widened first     4
    panel unpacked to rows, dot products (LLVM finds vpmaddwd, 512 bits)     46
    these tiles: avx512vnni 500 (the limit is about 520), avxvnni 250, avx2 61, any 14

A sum is taken in the same order whatever the number of rows in the tile, so a row's result depends on nothing but
that row. Integer sums are exact: |x| <= 127, and weights are read as unsigned codes below 256 (stored code + offset),
so even MAX_DIMENSION of them stay below 2^31; the offset's share, offset * sum of x, is taken off at the end.

Panels of int4 are unpacked to panels of int8 before the tiles see them, by `unpack_int4`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from .layout import CODEBOOK_BYTE_INPUTS, CODEBOOK_INPUTS, INT4_CODEBOOKS, K_GROUP, PANEL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

LINE = 64  # bytes of int8 weights in one step: 16 channels of 4 inputs
INT8_OFFSET = 128  # makes an int8 code unsigned, as vpdpbusd wants one of its operands

I8, I16, I32, I64, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
Values = list[ir.Value]


def _cpu_features() -> frozenset[str]:
    """CPU features that Numba compiles for: the host's, unless NUMBA_CPU_NAME or NUMBA_CPU_FEATURES say otherwise."""
    _triple, _cpu, features = cpu_target.target_context.codegen().magic_tuple()
    return frozenset(feature[1:] for feature in features.split(",") if feature.startswith("+"))


TRIPLE: str
CPU_NAME: str
TRIPLE, CPU_NAME, _ = cpu_target.target_context.codegen().magic_tuple()
FEATURES = _cpu_features()
HAS_512_BITS = {"avx512f", "avx512bw", "avx512vl"} <= FEATURES  # 32 registers of 16 lanes

# Rows and panels whose sums fit the vector registers with room for the operands, and hide the latency of the
# multiply: 8 * 2 of AVX-512's 32; elsewhere a panel takes 2 of AVX2's 16 registers, or 4 of NEON's 32.
FLOAT_TILE = (8, 2) if HAS_512_BITS else (6, 1)


def _vector(element: ir.Type, lanes: int) -> ir.VectorType:
    return ir.VectorType(element, lanes)


_BYTES = _vector(I8, LINE)  # a line of a panel


def _bytes(value: int) -> ir.Constant:
    """A line of the same byte."""
    return ir.Constant(_BYTES, [value] * LINE)


def _pick(b: ir.IRBuilder, a: ir.Value, lanes: Sequence[int]) -> ir.Value:
    """The given lanes of a vector."""
    return b.shuffle_vector(a, ir.Constant(a.type, ir.Undefined), ir.Constant(_vector(I32, len(lanes)), list(lanes)))


def _splat(b: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    """A vector whose lanes are all `scalar`."""
    single = b.insert_element(ir.Constant(_vector(scalar.type, lanes), ir.Undefined), scalar, I32(0))
    return b.shuffle_vector(single, single, ir.Constant(_vector(I32, lanes), [0] * lanes))


def _join(b: ir.IRBuilder, low: ir.Value, high: ir.Value) -> ir.Value:
    """The lanes of two vectors, one after the other."""
    return b.shuffle_vector(low, high, ir.Constant(_vector(I32, 2 * low.type.count), list(range(2 * low.type.count))))


def _load(b: ir.IRBuilder, kind: ir.Type, address: ir.Value, align: int) -> ir.Value:
    return b.load(b.inttoptr(address, kind.as_pointer()), align=align)


def _prefetch(b: ir.IRBuilder, address: ir.Value) -> None:
    """Asks for the cache line at an address, which need not exist.

    Hardware prefetchers lose two panels that are read side by side: without this, 8 tokens took 7.3 ms, with it 4.4.
    And while tiles work on unpacked panels, nothing else asks for the next ones: 9.3 and 6.4 ms.
    """
    pointer = I8.as_pointer()
    prefetch = b.module.declare_intrinsic(
        "llvm.prefetch", [pointer], ir.FunctionType(ir.VoidType(), [pointer] + [I32] * 3)
    )
    read, all_levels, data = I32(0), I32(3), I32(1)
    b.call(prefetch, [b.inttoptr(address, pointer), read, all_levels, data])


def _at(b: ir.IRBuilder, base: ir.Value, *terms: tuple[ir.Value, int]) -> ir.Value:
    """The address base + the sum of value * factor."""
    for value, factor in terms:
        base = b.add(base, b.mul(value, I64(factor)))
    return base


# ---- sum of 4 products in each of 16 channels, as the CPU does it best ------------------------------------
# Each takes sums, 64 unsigned weight codes [16][4] and 4 signed activations in an i32, and returns the new sums.


def _dot_vnni512(b: ir.IRBuilder, sums: ir.Value, weights: ir.Value, inputs: ir.Value) -> ir.Value:
    """AVX-512 VNNI: one vpdpbusd."""
    lanes = _vector(I32, PANEL)
    dot = cgutils.get_or_insert_function(b.module, ir.FunctionType(lanes, [lanes] * 3), "llvm.x86.avx512.vpdpbusd.512")
    return b.call(dot, [sums, b.bitcast(weights, lanes), _splat(b, inputs, PANEL)])


def _dot_vnni256(b: ir.IRBuilder, sums: ir.Value, weights: ir.Value, inputs: ir.Value) -> ir.Value:
    """AVX-VNNI: vpdpbusd on each half."""
    half = PANEL // 2
    lanes = _vector(I32, half)
    dot = cgutils.get_or_insert_function(b.module, ir.FunctionType(lanes, [lanes] * 3), "llvm.x86.avx512.vpdpbusd.256")
    weights, inputs = b.bitcast(weights, _vector(I32, PANEL)), _splat(b, inputs, half)
    low, high = (
        b.call(dot, [_pick(b, sums, part), _pick(b, weights, part), inputs])
        for part in (range(half), range(half, PANEL))
    )
    return _join(b, low, high)


def _dot_avx2(b: ir.IRBuilder, sums: ir.Value, weights: ir.Value, inputs: ir.Value) -> ir.Value:
    """AVX2: 16-bit products added in pairs by vpmaddwd; 32 sums, two neighbours to a channel."""
    quarter, sum_lanes, code_lanes = LINE // 4, _vector(I32, LINE // 8), _vector(I16, LINE // 4)
    dot = cgutils.get_or_insert_function(
        b.module, ir.FunctionType(sum_lanes, [code_lanes] * 2), "llvm.x86.avx2.pmadd.wd"
    )
    four = b.sext(b.bitcast(inputs, _vector(I8, K_GROUP)), _vector(I16, K_GROUP))
    x = b.bitcast(_splat(b, b.bitcast(four, I64), quarter // K_GROUP), code_lanes)
    parts = []
    for start in range(0, LINE, quarter):
        w = b.zext(_pick(b, weights, range(start, start + quarter)), code_lanes)
        part = _pick(b, sums, range(start // 2, (start + quarter) // 2))
        parts.append(b.add(part, b.call(dot, [w, x])))
    return _join(b, _join(b, *parts[:2]), _join(b, *parts[2:]))


def _dot_any(b: ir.IRBuilder, sums: ir.Value, weights: ir.Value, inputs: ir.Value) -> ir.Value:
    """Any CPU: four multiplications of 16 channels by one input."""
    four = b.bitcast(inputs, _vector(I8, K_GROUP))
    for i in range(K_GROUP):
        w = b.zext(_pick(b, weights, range(i, LINE, K_GROUP)), _vector(I32, PANEL))
        x = b.sext(b.extract_element(four, I32(i)), I32)
        sums = b.add(sums, b.mul(w, _splat(b, x, PANEL)))
    return sums


def _add_neighbours(b: ir.IRBuilder, sums: ir.Value) -> ir.Value:
    """The 16 sums of channels from what the dot function kept."""
    if sums.type.count == PANEL:
        return sums
    return b.add(_pick(b, sums, range(0, 2 * PANEL, 2)), _pick(b, sums, range(1, 2 * PANEL, 2)))


if HAS_512_BITS and "avx512vnni" in FEATURES:
    ISA, _dot, _SUMS, INTEGER_TILE = "avx512vnni", _dot_vnni512, _vector(I32, PANEL), (8, 2)
elif {"avxvnni", "avx2"} <= FEATURES:
    ISA, _dot, _SUMS, INTEGER_TILE = "avxvnni", _dot_vnni256, _vector(I32, PANEL), (6, 1)
elif "avx2" in FEATURES:
    ISA, _dot, _SUMS, INTEGER_TILE = "avx2", _dot_avx2, _vector(I32, 2 * PANEL), (3, 1)
else:
    ISA, _dot, _SUMS, INTEGER_TILE = "any", _dot_any, _vector(I32, PANEL), (4, 1)


# ---- levels of int4, as the CPU looks them up best --------------------------------------------------------
# Each takes 64 codes, 0 … 15, and the numbers of their codebooks, and returns the levels that they stand for.


def _table(levels: npt.NDArray[np.int8]) -> ir.Constant:
    return ir.Constant(_vector(I8, levels.size), levels.ravel().tolist())


def _places(b: ir.IRBuilder, codes: ir.Value, books: ir.Value) -> ir.Value:
    """Where the levels are in the table of all four codebooks."""
    return b.or_(codes, b.shl(books, _bytes(INT4_CODEBOOKS.shape[1].bit_length() - 1)))


def _choose(b: ir.IRBuilder, books: ir.Value, values: Values) -> ir.Value:
    """The value, of one for each codebook, that is for the codebook in each lane."""
    first, second, third, fourth = values
    odd, upper = (b.icmp_unsigned("!=", b.and_(books, _bytes(bit)), _bytes(0)) for bit in (1, 2))
    return b.select(upper, b.select(odd, fourth, third), b.select(odd, second, first))


def _look_up_vbmi(b: ir.IRBuilder, codes: ir.Value, books: ir.Value) -> ir.Value:
    """AVX-512 VBMI: one vpermb."""
    kind = ir.FunctionType(_BYTES, [_BYTES] * 2)
    permute = cgutils.get_or_insert_function(b.module, kind, "llvm.x86.avx512.permvar.qi.512")
    return b.call(permute, [_table(INT4_CODEBOOKS), _places(b, codes, books)])


def _look_up_avx2(b: ir.IRBuilder, codes: ir.Value, books: ir.Value) -> ir.Value:
    """AVX2: a vpshufb of each half for each codebook, of which one is chosen."""
    half = _vector(I8, LINE // 2)
    kind = ir.FunctionType(half, [half] * 2)
    shuffle = cgutils.get_or_insert_function(b.module, kind, "llvm.x86.avx2.pshuf.b")
    halves = [_pick(b, codes, range(start, start + half.count)) for start in (0, half.count)]
    tables = [_table(np.tile(book, 2)) for book in INT4_CODEBOOKS]  # vpshufb looks up 16 bytes in 16, twice
    return _choose(b, books, [_join(b, *(b.call(shuffle, [table, part]) for part in halves)) for table in tables])


def _look_up_neon(b: ir.IRBuilder, codes: ir.Value, books: ir.Value) -> ir.Value:
    """NEON on AArch64: one tbl of four registers for each quarter."""
    quarter = _vector(I8, LINE // 4)
    kind = ir.FunctionType(quarter, [quarter] * 5)
    look_up = cgutils.get_or_insert_function(b.module, kind, "llvm.aarch64.neon.tbl4.v16i8")
    tables, places = [_table(book) for book in INT4_CODEBOOKS], _places(b, codes, books)
    starts = range(0, LINE, quarter.count)
    parts = [b.call(look_up, [*tables, _pick(b, places, range(start, start + quarter.count))]) for start in starts]
    return _join(b, _join(b, *parts[:2]), _join(b, *parts[2:]))


def _look_up_any(b: ir.IRBuilder, codes: ir.Value, books: ir.Value) -> ir.Value:
    """Any CPU: adds up the steps from each level to the next, as codebooks are symmetric from 0 outwards."""
    upper = INT4_CODEBOOKS[:, INT4_CODEBOOKS.shape[1] // 2 :]  # (codebooks, 8)
    sign = b.sext(b.icmp_unsigned("<", codes, _bytes(upper.shape[1])), _BYTES)  # all bits, where negative
    place = b.and_(b.xor(codes, sign), _bytes(upper.shape[1] - 1))
    magnitude = _bytes(0)
    for i, steps in enumerate(np.diff(upper, axis=1, prepend=np.int8(0)).T):
        reached = b.sext(b.icmp_unsigned(">=", place, _bytes(i)), _BYTES)
        step = _choose(b, books, [_bytes(int(value)) for value in steps])
        magnitude = b.add(magnitude, b.and_(reached, step))
    return b.sub(b.xor(magnitude, sign), sign)


if HAS_512_BITS and "avx512vbmi" in FEATURES:
    _look_up = _look_up_vbmi
elif "avx2" in FEATURES:
    _look_up = _look_up_avx2
elif TRIPLE.startswith(("aarch64", "arm64")):
    _look_up = _look_up_neon
else:
    _look_up = _look_up_any


def _emit_unpack_int4(function: ir.Function) -> None:
    """levels = what the codes of `blocks` times 64 inputs of panels stand for."""
    weights, codebooks, blocks, levels = function.args
    lines = CODEBOOK_BYTE_INPUTS // (2 * K_GROUP)

    def body(b: ir.IRBuilder, block: ir.Value, nothing: Values) -> Values:
        numbers = _load(b, _vector(I8, PANEL), _at(b, codebooks, (block, PANEL)), align=1)
        numbers = _pick(b, numbers, [channel for channel in range(PANEL) for _ in range(K_GROUP)])
        for i in range(lines):
            line = _load(b, _BYTES, _at(b, weights, (block, lines * LINE), (I64(LINE), i)), align=1)
            books = b.and_(b.lshr(numbers, _bytes(i * 2 * K_GROUP // CODEBOOK_INPUTS * 2)), _bytes(3))
            for half, codes in enumerate((b.and_(line, _bytes(0xF)), b.lshr(line, _bytes(4)))):
                address = _at(b, levels, (block, 2 * lines * LINE), (I64(LINE), 2 * i + half))
                b.store(_look_up(b, codes, books), b.inttoptr(address, _BYTES.as_pointer()), align=1)
        return nothing

    b, _ = _sum_over(function, blocks, _BYTES, 0, body)
    b.ret_void()


# ---- tiles ------------------------------------------------------------------------------------------------


def _sum_over(
    function: ir.Function, steps: ir.Value, kind: ir.Type, count: int, body: Callable[..., Values]
) -> tuple[ir.IRBuilder, Values]:
    """Emits `for step in range(steps): sums = body(step, sums)` from `count` zero vectors of type `kind`; steps > 0."""
    entry, loop, end = (function.append_basic_block(name) for name in ("entry", "loop", "end"))
    b = ir.IRBuilder(entry)
    b.branch(loop)
    b.position_at_end(loop)
    step = b.phi(I64)
    sums = [b.phi(kind) for _ in range(count)]
    after = body(b, step, sums)
    next_step = b.add(step, I64(1))
    for phi, start, following in zip(
        [step, *sums], [I64(0), *[ir.Constant(kind, None)] * count], [next_step, *after], strict=True
    ):
        phi.add_incoming(start, entry)
        phi.add_incoming(following, loop)
    b.cbranch(b.icmp_unsigned("<", next_step, steps), loop, end)
    b.position_at_end(end)
    return b, after


def _emit_integer_tile(function: ir.Function, rows: int, panels: int) -> None:
    """out = (codes of x) times (codes of the panels), times the scale of the row and that of the channel."""
    x, x_stride, weights, panel_stride, steps, upcoming, upcoming_step = function.args[:7]
    out, out_stride, out_panel_stride, row_scales, row_sums, channel_scales = function.args[7:]

    def body(b: ir.IRBuilder, step: ir.Value, sums: Values) -> Values:
        sums = list(sums)
        for panel in range(panels):
            address = _at(b, weights, (panel_stride, panel), (step, LINE))
            _prefetch(b, b.add(upcoming, b.mul(_at(b, step, (steps, panel)), upcoming_step)))
            codes = b.xor(_load(b, _BYTES, address, align=1), _bytes(-INT8_OFFSET))
            for row in range(rows):
                inputs = _load(b, I32, _at(b, x, (x_stride, row), (step, K_GROUP)), align=K_GROUP)
                i = row * panels + panel
                sums[i] = _dot(b, sums[i], codes, inputs)
        return sums

    b, sums = _sum_over(function, steps, _SUMS, rows * panels, body)
    for row in range(rows):
        row_sum = _load(b, I32, _at(b, row_sums, (I64(4), row)), align=4)
        offset = _splat(b, b.mul(row_sum, I32(INT8_OFFSET)), PANEL)
        row_scale = _splat(b, _load(b, F32, _at(b, row_scales, (I64(4), row)), align=4), PANEL)
        for panel in range(panels):
            exact = b.sub(_add_neighbours(b, sums[row * panels + panel]), offset)
            channel_scale = _load(b, _vector(F32, PANEL), _at(b, channel_scales, (I64(4 * PANEL), panel)), align=4)
            scaled = b.fmul(b.fmul(b.sitofp(exact, _vector(F32, PANEL)), row_scale), channel_scale)
            address = _at(b, out, (out_stride, row), (out_panel_stride, panel))
            b.store(scaled, b.inttoptr(address, scaled.type.as_pointer()), align=4)
    b.ret_void()


def _emit_float_tile(function: ir.Function, rows: int, panels: int) -> None:
    """out = x times the panels, summed over k from the first to the last."""
    x, x_stride, weights, panel_stride, k, out, out_stride, out_panel_stride = function.args
    lanes = _vector(F32, PANEL)
    fma = cgutils.get_or_insert_function(function.module, ir.FunctionType(lanes, [lanes] * 3), "llvm.fmuladd.v16f32")

    def body(b: ir.IRBuilder, step: ir.Value, sums: Values) -> Values:
        sums = list(sums)
        columns = [
            _load(b, lanes, _at(b, weights, (panel_stride, panel), (step, 4 * PANEL)), align=4)
            for panel in range(panels)
        ]
        for row in range(rows):
            value = _splat(b, _load(b, F32, _at(b, x, (x_stride, row), (step, 4)), align=4), PANEL)
            for panel in range(panels):
                i = row * panels + panel
                sums[i] = b.call(fma, [value, columns[panel], sums[i]])
        return sums

    b, sums = _sum_over(function, k, lanes, rows * panels, body)
    for row in range(rows):
        for panel in range(panels):
            address = _at(b, out, (out_stride, row), (out_panel_stride, panel))
            b.store(sums[row * panels + panel], b.inttoptr(address, lanes.as_pointer()), align=4)
    b.ret_void()


def _tile(b: ir.IRBuilder, name: str, parameters: Values, emit: Callable[..., None], *shape: Any) -> ir.Function:
    """The function `name` of this module, emitted when first asked for."""
    signature = ir.FunctionType(ir.VoidType(), [I64] * len(parameters))
    tile = cgutils.get_or_insert_function(b.module, signature, f"embgemma_{name}")
    if not tile.blocks:
        tile.linkage = "internal"
        emit(tile, *shape)
    return tile


def _switch(
    b: ir.IRBuilder, number: ir.Value, cases: Mapping[int, Callable[[], ir.Function]], parameters: Values
) -> None:
    """Calls the function that `cases` has for `number`; none if it has none."""
    end = b.append_basic_block("tile.end")
    choice = b.switch(number, end)
    for case, function in cases.items():
        block = b.append_basic_block(f"tile.{case}")
        choice.add_case(I64(case), block)
        b.position_at_end(block)
        b.call(function(), parameters)
        b.branch(end)
    b.position_at_end(end)


@intrinsic  # type: ignore[misc]
def integer_tile(
    _typing: Any,
    rows: int,
    x: int,
    x_stride: int,
    panels: int,
    panel_stride: int,
    steps: int,
    upcoming: int,
    upcoming_step: int,
    out: int,
    out_stride: int,
    out_panel_stride: int,
    row_scales: int,
    row_sums: int,
    channel_scales: int,
) -> Any:
    """Multiplies `rows` rows, 1 … INTEGER_TILE[0], by INTEGER_TILE[1] panels. Addresses, and strides in bytes.

    Args:
        x: int8 codes, 4 for each step.
        panels: int8, of `steps` lines of LINE bytes.
        upcoming: the panels to be multiplied next, of upcoming_step bytes a step, which are prefetched.
        out: float32.
        row_scales, row_sums: float32 and int32, one a row; the sums are those of its codes.
        channel_scales: float32, one a channel.
    """
    most_rows, panel_count = INTEGER_TILE

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Values) -> ir.Value:
        row_count, *parameters = arguments
        cases = {
            rows: functools.partial(_tile, b, f"integer_tile_{rows}", parameters, _emit_integer_tile, rows, panel_count)
            for rows in range(1, most_rows + 1)
        }
        _switch(b, row_count, cases, parameters)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 14), generate


@intrinsic  # type: ignore[misc]
def unpack_int4(_typing: Any, weights: int, codebooks: int, blocks: int, levels: int) -> Any:
    """Makes int8 panels of int4 panels that lie one behind the other. Addresses.

    Args:
        weights: int4 panels.
        codebooks: theirs, PANEL bytes a block.
        blocks: of CODEBOOK_BYTE_INPUTS inputs of a panel; of all panels together.
        levels: the int8 panels.
    """

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Values) -> ir.Value:
        b.call(_tile(b, "unpack_int4", arguments, _emit_unpack_int4), arguments)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@intrinsic  # type: ignore[misc]
def float_tile(
    _typing: Any,
    rows: int,
    x: int,
    x_stride: int,
    panels: int,
    panel_stride: int,
    k: int,
    out: int,
    out_stride: int,
    out_panel_stride: int,
) -> Any:
    """Multiplies `rows` rows, 1 … FLOAT_TILE[0], of k float32 by FLOAT_TILE[1] panels (k, 16) of float32.

    Addresses, and strides in bytes.
    """
    most_rows, panel_count = FLOAT_TILE

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Values) -> ir.Value:
        row_count, *parameters = arguments
        cases = {
            rows: functools.partial(_tile, b, f"float_tile_{rows}", parameters, _emit_float_tile, rows, panel_count)
            for rows in range(1, most_rows + 1)
        }
        _switch(b, row_count, cases, parameters)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), generate
