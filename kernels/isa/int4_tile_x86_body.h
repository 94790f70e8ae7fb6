/* Integer matmul of int4 weights on 256-bit registers, whose levels int4_levels_x86.h looks up.
 *
 * Needs INT4_ROWS, the most rows that registers have room for, and of the file that includes it
 *   void add_products(__m256i sums[INT4_ROWS][INT4_PAIRS], const int8_t *codes, size_t rows, size_t k,
 *                     __m256i weights[2][INT4_PAIRS])
 * which adds the products of INT4_STEP inputs, two runs of them, with `rows` rows of codes, k apart.
 *
 * A register has partial sums, four of each channel, which are added at the end. They begin at
 * -EG_INT4_OFFSET · Σ codes to undo the offset. Up to INT4_ROWS rows multiply levels as soon as they are looked
 * up. More rows share them through a buffer, in the order that suits the kernel. */
#include "isa/int4_levels_x86.h"

EG_ALWAYS_INLINE void load_run(const int4_inputs *inputs, int stored, int4_cursor from, __m256i levels[INT4_PAIRS])
{
    if (stored) {
        levels[0] = _mm256_load_si256((const __m256i *)from.levels);
        levels[1] = _mm256_load_si256((const __m256i *)(from.levels + INT4_TABLE));
    } else {
        unpack_run(inputs, from, levels);
    }
}

/* Two partial sums of each channel of `quarters` quarters from `first` on.
 *
 * With one row, lines are read once, at the speed of memory. With more rows they are read several times, and memory
 * would be idle after the first: so each pass prefetches its share of the next panel, which begins where these inputs
 * end. */
EG_ALWAYS_INLINE void multiply_quarters(const int4_inputs *inputs, size_t first, size_t quarters, int stored,
                                        const int8_t *codes, size_t rows, size_t k,
                                        __m256i partial[INT4_QUARTERS][INT4_ROWS])
{
    __m256i sums[INT4_QUARTERS][INT4_ROWS][INT4_PAIRS];
    EG_UNROLL
    for (size_t i = 0; i < quarters * rows; i++) {
        __m256i *pairs = sums[i / rows][i % rows];
        pairs[0] = pairs[1] = _mm256_setzero_si256();
        __asm__("" : "+x"(pairs[0]), "+x"(pairs[1])); /* GCC 12 copies and spills sums that begin equal */
    }
    int4_cursor from = begin_at(inputs, first);
    const size_t bytes = inputs->count * EG_PANEL / 2;
    const uint8_t *ahead = inputs->lines + bytes + first * bytes / INT4_QUARTERS;
    for (size_t i = 0; i < inputs->count; i += INT4_STEP) {
        EG_UNROLL
        for (size_t quarter = 0; quarter < quarters; quarter++) {
            __m256i weights[2][INT4_PAIRS];
            load_run(inputs, stored, advance(from, 0, quarter), weights[0]);
            load_run(inputs, stored, advance(from, 1, quarter), weights[1]);
            add_products(sums[quarter], codes + i, rows, k, weights);
            if (quarters < INT4_QUARTERS) {
                _mm_prefetch((const char *)ahead, _MM_HINT_T0);
                ahead += INT4_LINE;
            }
        }
        from = advance(from, 2, 0);
    }
    EG_UNROLL
    for (size_t i = 0; i < quarters * rows; i++) {
        const __m256i *pairs = sums[i / rows][i % rows];
        partial[first + i / rows][i % rows] = _mm256_hadd_epi32(pairs[0], pairs[1]);
    }
}

/* rows and stored are constants at every call, so that loops unroll and sums are registers. Few rows take more quarters
 * at once, so that 8 sums or more are in progress. */
EG_ALWAYS_INLINE void multiply_rows(const int4_inputs *inputs, int stored, const int8_t *codes, size_t rows, size_t k,
                                    int32_t *out)
{
    __m256i partial[INT4_QUARTERS][INT4_ROWS];
    const size_t quarters = rows == 1 ? 4 : rows == 2 ? 2 : 1;
    for (size_t first = 0; first < INT4_QUARTERS; first += quarters) {
        multiply_quarters(inputs, first, quarters, stored, codes, rows, k, partial);
    }
    for (size_t row = 0; row < rows; row++) {
        for (size_t half = 0; half < 2; half++) {
            const __m256i even = partial[2 * half][row], odd = partial[2 * half + 1][row];
            const __m256i sums = _mm256_blend_epi32(_mm256_add_epi32(even, _mm256_srli_epi64(even, 32)),
                                                    _mm256_add_epi32(odd, _mm256_slli_epi64(odd, 32)), ODD_LANES);
            __m256i *to = (__m256i *)(out + row * EG_TILE_CHANNELS + half * (EG_PANEL / 2));
            _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), sums));
        }
    }
}

/* Adds the products of up to INT4_ROWS rows to `out`. */
EG_ALWAYS_INLINE void multiply_inputs(const int4_inputs *inputs, int stored, const int8_t *codes, size_t rows, size_t k,
                                      int32_t *out)
{
    _Static_assert(INT4_ROWS == 4 || INT4_ROWS == 5, "the rows of the cases");
    if (rows == 1) {
        multiply_rows(inputs, stored, codes, 1, k, out);
    } else if (rows == 2) {
        multiply_rows(inputs, stored, codes, 2, k, out);
    } else if (rows == 3) {
        multiply_rows(inputs, stored, codes, 3, k, out);
    } else if (rows == 4 && INT4_ROWS > 4) {
        multiply_rows(inputs, stored, codes, 4, k, out);
    } else {
        multiply_rows(inputs, stored, codes, INT4_ROWS, k, out);
    }
}

/* Starts the sums at what undoes the offset of the levels. */
static void undo_offset(const int32_t *code_sums, size_t rows, int32_t *sums)
{
    enum { LANES_OF_SUMS = 8 };
    for (size_t row = 0; row < rows; row++) {
        const __m256i sum = _mm256_set1_epi32(-EG_INT4_OFFSET * code_sums[row]);
        for (size_t channel = 0; channel < EG_TILE_CHANNELS; channel += LANES_OF_SUMS) {
            _mm256_storeu_si256((__m256i *)(sums + row * EG_TILE_CHANNELS + channel), sum);
        }
    }
}

/* The same as multiply_inputs for more than INT4_ROWS rows, which share the levels through the buffer. */
typedef void int4_many_rows(int4_inputs *inputs, const int8_t *codes, size_t rows, size_t k, int32_t *out);

/* int4_tile of kernels.h, by that function. */
EG_ALWAYS_INLINE void multiply_int4(int4_many_rows *multiply_many_rows, const int8_t *codes, const int32_t *code_sums,
                                    size_t rows, size_t k, const void *weights, const uint8_t *codebooks, int32_t *sums)
{
    int4_inputs inputs;
    fill_tables(&inputs);
    undo_offset(code_sums, rows, sums);
    for (size_t panel = 0; panel < EG_TILE_CHANNELS / EG_PANEL; panel++) {
        for (size_t begin = 0; begin < k; begin += INT4_BUFFER_K) {
            const size_t before = (panel * k + begin) * EG_PANEL; /* elements */
            inputs.lines = (const uint8_t *)weights + before / 2;
            inputs.count = k - begin < INT4_BUFFER_K ? k - begin : INT4_BUFFER_K;
            choose_tables(&inputs, codebooks + before / EG_CODEBOOK_BYTE_INPUTS);
            if (rows <= INT4_ROWS) {
                multiply_inputs(&inputs, 0, codes + begin, rows, k, sums + panel * EG_PANEL);
            } else {
                multiply_many_rows(&inputs, codes + begin, rows, k, sums + panel * EG_PANEL);
            }
        }
    }
}
