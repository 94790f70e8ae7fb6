"""The dot products of the Numba backend: the one place with LLVM vector code.

A tile multiplies a few rows by one or two panels of 16 channels and keeps all sums in registers. LLVM does not see by
itself that 16 channels by 4 inputs are one instruction: loops over the same panels reach a tenth of the speed.
Integer sums are exact. Some instructions want unsigned weights, which are then codes plus an offset, below 256:
MAX_DIMENSION products with -127 … 127 stay below 2^31. The offset's share, offset · Σ codes, is taken off at the end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from ..layout import CODEBOOK_BYTE_INPUTS, CODEBOOK_INPUTS, INT4_CODEBOOKS, INT4_MAX, K_GROUP, PANEL

LINE = PANEL * K_GROUP  # bytes: int8 weights of 16 channels by 4 inputs, or float32 weights of 16 channels by one
I8, I16, I32, I64, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
Values = list[ir.Value]
BYTES, SUMS, FLOATS = ir.VectorType(I8, LINE), ir.VectorType(I32, PANEL), ir.VectorType(F32, PANEL)

# Numba compiles for the CPU that it runs on, unless NUMBA_CPU_NAME and NUMBA_CPU_FEATURES say otherwise.
TRIPLE, CPU_NAME, _features = cpu_target.target_context.codegen().magic_tuple()
FEATURES = frozenset(feature[1:] for feature in _features.split(",") if feature.startswith("+"))
WIDE = {"avx512f", "avx512bw", "avx512vl"}  # registers of 512 bits
NEEDS = {"avx512vnni": {*WIDE, "avx512vnni"}, "avxvnni": {"avxvnni", "avx2"}, "avx2": {"avx2"}, "any": set()}
ISA = next(name for name, needed in NEEDS.items() if needed <= FEATURES)
OFFSETS = {"int8": 128 if "vnni" in ISA else 0, "int4": 0 if ISA == "any" else INT4_MAX}
# Sums of a tile fit the registers with room for the operands: 16 of AVX-512's 32, 8 to 12 of 16 elsewhere.
TILE_ROWS = {"avx512vnni": 8, "avxvnni": 6, "avx2": 4, "any": 4}[ISA]
TILE_PANELS = 2 if WIDE <= FEATURES else 1
LEVELS = (INT4_CODEBOOKS + OFFSETS["int4"]).tolist()  # (codebooks, 16)
ALL_LEVELS = [level for book in LEVELS for level in book]


def _vector(element: ir.Type, values: Iterable[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(element, len(values := list(values))), values)


def _bytes(value: int) -> ir.Constant:
    return _vector(I8, [value] * LINE)


def _lanes(b: ir.IRBuilder, a: ir.Value, lanes: Sequence[int], other: ir.Value | None = None) -> ir.Value:
    """The given lanes of a vector, or of two laid end to end."""
    return b.shuffle_vector(a, a if other is None else other, _vector(I32, lanes))


def _splat(b: ir.IRBuilder, scalar: ir.Value, count: int = PANEL) -> ir.Value:
    nothing = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
    return _lanes(b, b.insert_element(nothing, scalar, I32(0)), [0] * count)


def _call(b: ir.IRBuilder, name: str, result: ir.Type, *operands: ir.Value) -> ir.Value:
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), operands)


def _in_parts(b: ir.IRBuilder, count: int, operation: Callable[..., ir.Value], *vectors: ir.Value) -> ir.Value:
    """Calls operation with each of `count` equal parts of the vectors, and lays the results end to end."""
    parts = []
    for part in range(count):
        slices = [range(part * v.type.count // count, (part + 1) * v.type.count // count) for v in vectors]
        parts.append(operation(*map(_lanes, [b] * len(slices), vectors, slices)))
    while len(parts) > 1:
        lanes = range(2 * parts[0].type.count)
        parts = [_lanes(b, low, lanes, high) for low, high in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _at(b: ir.IRBuilder, base: ir.Value, *terms: tuple[ir.Value | int, int]) -> ir.Value:
    """The address base + the sum of value · factor."""
    for value, factor in terms:
        base = b.add(base, I64(value * factor) if isinstance(value, int) else b.mul(value, I64(factor)))
    return base


def _load(b: ir.IRBuilder, kind: ir.Type, address: ir.Value) -> ir.Value:
    return b.load(b.inttoptr(address, kind.as_pointer()), align=1)


def _dot_vnni(b: ir.IRBuilder, sums: ir.Value, lines: Values, inputs: Values, _signed: bool) -> ir.Value:
    """Sums of 16 channels + lines of 64 weights · 4 inputs each: vpdpbusd of AVX-512 VNNI, or twice of AVX-VNNI."""
    parts = 1 if ISA == "avx512vnni" else 2
    for line, four in zip(lines, inputs, strict=True):
        splat = _splat(b, four, PANEL // parts)

        def dot(part: ir.Value, codes: ir.Value, x: ir.Value = splat) -> ir.Value:
            return _call(b, f"llvm.x86.avx512.vpdpbusd.{512 // parts}", x.type, part, b.bitcast(codes, x.type), x)

        sums = _in_parts(b, parts, dot, sums, line)
    return sums


def _dot_avx2(b: ir.IRBuilder, sums: ir.Value, lines: Values, inputs: Values, signed: bool) -> ir.Value:
    """vpmaddubsw of unsigned weights adds pairs of products in int16, vpmaddwd those in int32.

    Of signed weights, the magnitude times the input with the weight's sign: a pair is at most 2 · 127². Levels of int4,
    at most 60, leave room for the pairs of both lines, at most 4 · 60 · 127.
    """
    half, pairs, ones = ir.VectorType(I8, LINE // 2), ir.VectorType(I16, PANEL), _vector(I16, [1] * PANEL)

    def products(codes: ir.Value, four: ir.Value) -> ir.Value:
        x, zero = b.bitcast(_splat(b, four, PANEL // 2), half), ir.Constant(half, None)
        if signed:
            x = _call(b, "llvm.x86.avx2.psign.b", half, x, codes)
            codes = b.select(b.icmp_signed("<", codes, zero), b.sub(zero, codes), codes)
        return _call(b, "llvm.x86.avx2.pmadd.ub.sw", pairs, codes, x)

    def dot(part: ir.Value, *codes: ir.Value) -> ir.Value:
        both = [products(*line) for line in zip(codes, inputs, strict=True)]
        for added in both if signed else [b.add(*both)]:
            part = b.add(part, _call(b, "llvm.x86.avx2.pmadd.wd", part.type, added, ones))
        return part

    return _in_parts(b, 2, dot, sums, *lines)


def _dot_any(b: ir.IRBuilder, sums: ir.Value, lines: Values, inputs: Values, _signed: bool) -> ir.Value:
    """Multiplications of 16 channels, signed, by one input."""
    for line, four in zip(lines, inputs, strict=True):
        for i in range(K_GROUP):
            x = b.sext(b.extract_element(b.bitcast(four, ir.VectorType(I8, K_GROUP)), I32(i)), I32)
            weights = b.sext(_lanes(b, line, range(i, LINE, K_GROUP)), SUMS)
            sums = b.add(sums, b.mul(weights, _splat(b, x)))
    return sums


def _dot_float(b: ir.IRBuilder, sums: ir.Value, lines: Values, inputs: Values, _signed: bool) -> ir.Value:
    return _call(b, "llvm.fmuladd.v16f32", FLOATS, _splat(b, inputs[0]), lines[0], sums)


_dot = {"avx512vnni": _dot_vnni, "avxvnni": _dot_vnni, "avx2": _dot_avx2, "any": _dot_any}[ISA]


def _look_up(b: ir.IRBuilder, codes: ir.Value, books: ir.Value) -> ir.Value:
    """What 64 codes of int4 stand for, by the numbers of their codebooks."""
    tables, places, levels = [_vector(I8, book) for book in LEVELS], b.or_(codes, b.shl(books, _bytes(4))), _bytes(0)
    if {*WIDE, "avx512vbmi"} <= FEATURES:  # vpermb looks up in all codebooks at once
        return _call(b, "llvm.x86.avx512.permvar.qi.512", BYTES, _vector(I8, ALL_LEVELS), places)
    if TRIPLE.startswith(("aarch64", "arm64")):  # tbl of four registers
        tbl = functools.partial(_call, b, "llvm.aarch64.neon.tbl4.v16i8", tables[0].type, *tables)
        return _in_parts(b, 4, tbl, places)
    if "avx2" in FEATURES:  # vpshufb gives 0 where the highest bit is set: in lanes of other codebooks
        for number, book in enumerate(tables):
            own, two = b.sext(b.icmp_unsigned("!=", books, _bytes(number)), BYTES), _lanes(b, book, [*range(16)] * 2)
            look_up = functools.partial(_call, b, "llvm.x86.avx2.pshuf.b", two.type, two)
            levels = b.or_(levels, _in_parts(b, 2, look_up, b.or_(codes, own)))
        return levels
    memory = cgutils.global_constant(b, "embgemma_levels", ir.Constant(ir.ArrayType(I8, LINE), ALL_LEVELS))
    for lane in range(LINE):
        place = b.zext(b.extract_element(places, I32(lane)), I32)
        levels = b.insert_element(levels, b.load(b.gep(memory, [I32(0), place])), I32(lane))
    return levels


@intrinsic  # type: ignore[misc]
def unpack_int4(_typing: Any, weights: int, codebooks: int, blocks: int, levels: int) -> Any:
    """levels = int8 panels of int4 panels of `blocks` times 64 inputs, offset included. Addresses."""

    def generate(context: Any, b: ir.IRBuilder, _signature: Any, arguments: Values) -> ir.Value:
        weights, codebooks, blocks, levels = arguments
        inputs, lines = 2 * K_GROUP, CODEBOOK_BYTE_INPUTS // (2 * K_GROUP)  # of a line, of a block
        with cgutils.for_range(b, blocks) as loop:
            numbers = _load(b, ir.VectorType(I8, PANEL), _at(b, codebooks, (loop.index, PANEL)))
            numbers = _lanes(b, numbers, [channel for channel in range(PANEL) for _ in range(K_GROUP)])
            for i in range(lines):
                line = _load(b, BYTES, _at(b, weights, (loop.index, lines * LINE), (i, LINE)))
                books = b.and_(b.lshr(numbers, _bytes(i * inputs // CODEBOOK_INPUTS * 2)), _bytes(len(LEVELS) - 1))
                for half, codes in enumerate((b.and_(line, _bytes(15)), b.lshr(line, _bytes(4)))):
                    to = _at(b, levels, (loop.index, 2 * lines * LINE), (2 * i + half, LINE))
                    b.store(_look_up(b, codes, books), b.inttoptr(to, BYTES.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


def _place(context: Any, b: ir.IRBuilder, kind: Any, value: ir.Value, indices: ir.Value) -> Values:
    """The address of an element of an array, and the bytes from one row to the next."""
    array, first = context.make_array(kind)(context, b, value), cgutils.unpack_tuple(b, indices)
    pointer = cgutils.get_item_pointer(context, b, kind, array, [*first, *[I64(0)] * (kind.ndim - len(first))])
    return [b.ptrtoint(pointer, I64), cgutils.unpack_tuple(b, array.strides)[0]]


def _emit_tile(b: ir.IRBuilder, matrix_format: str, rows: int, parameters: Values, scaling: Values) -> None:
    """Emits a tile of that many rows. A step takes a line of float32 and one input, or two of int8 and 8 inputs."""
    x, x_stride, k, panels, stride, out, out_stride = parameters
    lines, inputs_in_step, stored = {"float32": (1, 1, 0), "int8": (2, 8, 2), "int4": (2, 8, 1)}[matrix_format]
    line, four_bytes, zeros = (BYTES, I32, SUMS) if scaling else (FLOATS, F32, FLOATS)
    steps, offset = b.udiv(k, I64(inputs_in_step)), OFFSETS.get(matrix_format, 0)
    tile = [(row, panel) for row in range(rows) for panel in range(TILE_PANELS)]
    sums = [cgutils.alloca_once_value(b, ir.Constant(zeros, None)) for _ in tile]
    with cgutils.for_range(b, steps) as loop:
        weights: list[Values] = []
        for panel in range(TILE_PANELS):
            first = _at(b, panels, (stride, panel), (loop.index, lines * LINE))
            weights.append([_load(b, line, _at(b, first, (i, LINE))) for i in range(lines)])
            if matrix_format == "int8":
                weights[panel] = [b.xor(codes, _bytes(offset)) for codes in weights[panel]]
            for i in range(stored):  # asks for the panels that come next, as nothing else does; they need not exist
                upcoming = _at(b, scaling[0], (steps, panel * stored * LINE), (loop.index, stored * LINE), (i, LINE))
                pointer, read, second_level, data = b.inttoptr(upcoming, I8.as_pointer()), I32(0), I32(2), I32(1)
                _call(b, "llvm.prefetch.p0i8", ir.VoidType(), pointer, read, second_level, data)
        for (row, panel), total in zip(tile, sums, strict=True):
            first = _at(b, x, (x_stride, row), (loop.index, lines * 4))
            inputs = [_load(b, four_bytes, _at(b, first, (i, 4))) for i in range(lines)]
            dot = _dot if scaling else _dot_float
            b.store(dot(b, b.load(total), weights[panel], inputs, matrix_format == "int8"), total)
    for (row, panel), total in zip(tile, sums, strict=True):
        result = b.load(total)
        if scaling:
            _, code_sums, row_scales, channel_scales = scaling
            share = _splat(b, b.mul(_load(b, I32, _at(b, code_sums, (row, 4))), I32(offset)))
            row_scale = _splat(b, _load(b, F32, _at(b, row_scales, (row, 4))))
            channel_scale = _load(b, FLOATS, _at(b, channel_scales, (panel, LINE)))
            result = b.fmul(b.fmul(b.sitofp(b.sub(result, share), FLOATS), row_scale), channel_scale)
        to = _at(b, out, (out_stride, row), (panel, LINE))
        b.store(result, b.inttoptr(to, FLOATS.as_pointer()), align=1)


def _tile(matrix_format: str) -> Any:
    integer, pair = types.int64, types.UniTuple(types.int64, 2)

    @intrinsic  # type: ignore[misc]
    def tile(
        _typing: Any, x: Any, start: Any, rows: int, k: int, panels: int, stride: int, out: Any, to: Any, scaling: Any
    ) -> Any:
        """out[to] and on = x[start] and on (rows, k) times TILE_PANELS panels, addresses `stride` bytes apart.

        rows is at most TILE_ROWS. scaling is () for float32, else four addresses: the panels as stored that come next,
        code_sums and scales of the rows, and scales of the channels.
        """

        def generate(context: Any, b: ir.IRBuilder, signature: Any, arguments: Values) -> ir.Value:
            x, start, rows, k, panels, stride, out, to, scaling = arguments
            read = _place(context, b, signature.args[0], x, start)
            parameters = [*read, k, panels, stride, *_place(context, b, signature.args[6], out, to)]
            end = b.append_basic_block("tile.end")
            choice = b.switch(rows, end)
            for height in range(1, TILE_ROWS + 1):
                block = b.append_basic_block(f"tile.{height}")
                choice.add_case(I64(height), block)
                b.position_at_end(block)
                _emit_tile(b, matrix_format, height, parameters, cgutils.unpack_tuple(b, scaling))
                b.branch(end)
            b.position_at_end(end)
            return context.get_dummy_value()

        addresses = types.UniTuple(integer, 4) if len(scaling) else scaling
        return types.void(x, pair, *[integer] * 4, out, pair, addresses), generate

    return tile


float_tile, int8_tile, int4_tile = _tile("float32"), _tile("int8"), _tile("int4")
