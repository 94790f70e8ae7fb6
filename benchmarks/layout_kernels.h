/* The kernels of layout_cost.c: one template for each instruction set, as in kernels/matmul_<isa>.c, that walks weights
 * in any layout. Matrices of any k, a multiple of 64; tiles of CHANNELS channels. */
#ifndef EG_BENCHMARKS_LAYOUT_KERNELS_H
#define EG_BENCHMARKS_LAYOUT_KERNELS_H

#include "compiler.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum { CHANNELS = 64 };

/* How a kernel walks the weights of 64 channels; all members are constants at every call. Steps in bytes. */
typedef struct walk {
    size_t step;    /* from one k-group (int4: pair of them) to the next */
    size_t side;    /* from one register's channels to the next register's that is multiplied along with it */
    size_t ahead;   /* prefetched from there on, in the order of memory */
    size_t vectors; /* registers of channels multiplied along with each other */
    int bits;       /* of a weight: 8 or 4; 16 for widened */
    int offset;     /* int8 weights are stored as unsigned */
} walk;

#define PREFETCH(address) _mm_prefetch((const char *)(address), _MM_HINT_T0)

/* Sums that begin equal must not look so to the compiler: GCC 12 copies and spills them. */
#define DISTINCT(vector) __asm__("" : "+v"(vector))

EG_ALWAYS_INLINE int32_t four_codes(const int8_t *codes)
{
    int32_t four;
    memcpy(&four, codes, sizeof four);
    return four;
}

/* ---- AVX-512 VNNI: 24 sums, rows x vectors x splits ----------------------------------------------------- */

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vnni")))

AVX512 EG_ALWAYS_INLINE void avx512_group(__m512i sums[12][4], const int8_t *codes, size_t rows, size_t k,
                                          const __m512i weights[4], walk w)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        const __m512i group = _mm512_set1_epi32(four_codes(codes + row * k));
        EG_UNROLL
        for (size_t v = 0; v < w.vectors; v++) {
            sums[row][v] = _mm512_dpbusd_epi32(sums[row][v], weights[v], group);
        }
    }
}

AVX512 EG_ALWAYS_INLINE void avx512_start(__m512i sums[12][4], const int32_t *code_sums, int32_t offset, size_t rows,
                                          walk w)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t v = 0; v < w.vectors; v++) {
            sums[row][v] = _mm512_set1_epi32(-offset * code_sums[row]);
            DISTINCT(sums[row][v]);
        }
    }
}

AVX512 EG_ALWAYS_INLINE void avx512_store(__m512i sums[8][12][4], size_t rows, size_t splits, int32_t *out, walk w)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t v = 0; v < w.vectors; v++) {
            __m512i sum = sums[0][row][v];
            EG_UNROLL
            for (size_t split = 1; split < splits; split++) {
                sum = _mm512_add_epi32(sum, sums[split][row][v]);
            }
            _mm512_storeu_si512(out + row * CHANNELS + v * 16, sum);
        }
    }
}

AVX512 EG_ALWAYS_INLINE __m512i avx512_weights(const uint8_t *line, size_t group, walk w)
{
    const __m512i stored = _mm512_loadu_si512(line);
    if (w.bits == 8) {
        return w.offset ? stored : _mm512_xor_si512(stored, _mm512_set1_epi8((char)0x80));
    }
    return _mm512_and_si512(group % 2 ? _mm512_srli_epi16(stored, 4) : stored, _mm512_set1_epi8(0xF));
}

/* rows and splits are constants too; splits: k-groups take turns in as many sets of sums. */
AVX512 EG_ALWAYS_INLINE void avx512_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t splits,
                                         size_t k, const uint8_t *tile, int32_t *out, walk w)
{
    static const int32_t zeros[12];
    const size_t groups = w.bits == 4 && splits == 1 ? 2 : splits;
    for (size_t first = 0; first < 4; first += w.vectors) {
        const uint8_t *lines = tile + first * 16 * k * (size_t)w.bits / 8;
        const uint8_t *ahead = lines + w.ahead;
        __m512i sums[8][12][4];
        avx512_start(sums[0], code_sums, w.bits == 8 ? 128 : 8, rows, w);
        EG_UNROLL
        for (size_t split = 1; split < splits; split++) {
            avx512_start(sums[split], zeros, 0, rows, w);
        }
        for (size_t i = 0; i < k; i += 4 * groups) {
            EG_UNROLL
            for (size_t group = 0; group < groups; group++) {
                __m512i weights[4];
                EG_UNROLL
                for (size_t v = 0; v < w.vectors; v++) {
                    const uint8_t *line = lines + (w.bits == 4 ? group / 2 : group) * w.step + v * w.side;
                    if (w.bits == 8 || group % 2 == 0) {
                        PREFETCH(ahead + v * 64);
                    }
                    weights[v] = avx512_weights(line, group, w);
                }
                avx512_group(sums[group % splits], codes + i + 4 * group, rows, k, weights, w);
                ahead += w.bits == 8 || group % 2 ? w.vectors * 64 : 0;
            }
            lines += (w.bits == 4 ? groups / 2 : groups) * w.step;
        }
        avx512_store(sums, rows, splits, out + first * 16, w);
    }
}

/* ---- AVX-VNNI and AVX2: a panel of 16 channels is two registers of 8, halves of a line -------------------- */

#define AVXVNNI __attribute__((target("avx2,avxvnni")))
#define AVX2    __attribute__((target("avx2")))

#define START_256(sums, rows, value)                                                                                   \
    EG_UNROLL                                                                                                          \
    for (size_t row = 0; row < (rows); row++) {                                                                        \
        (sums)[row][0] = (sums)[row][1] = _mm256_set1_epi32(value);                                                    \
        DISTINCT((sums)[row][0]);                                                                                      \
        DISTINCT((sums)[row][1]);                                                                                      \
    }

AVX2 EG_ALWAYS_INLINE void store_256(__m256i sums[5][2], size_t rows, int32_t *out)
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        _mm256_storeu_si256((__m256i *)(out + row * CHANNELS), sums[row][0]);
        _mm256_storeu_si256((__m256i *)(out + row * CHANNELS + 8), sums[row][1]);
    }
}

AVX2 EG_ALWAYS_INLINE __m256i load_256(const uint8_t *address) { return _mm256_loadu_si256((const __m256i *)address); }

AVX2 EG_ALWAYS_INLINE __m256i weights_256(const uint8_t *half, size_t group, walk w)
{
    const __m256i stored = load_256(half);
    if (w.bits == 8) {
        return w.offset ? stored : _mm256_xor_si256(stored, _mm256_set1_epi8((char)0x80));
    }
    return _mm256_and_si256(group % 2 ? _mm256_srli_epi16(stored, 4) : stored, _mm256_set1_epi8(0xF));
}

AVXVNNI EG_ALWAYS_INLINE void avxvnni_group(__m256i sums[5][2], const int8_t *codes, size_t rows, size_t k,
                                            const __m256i weights[2])
{
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        const __m256i group = _mm256_set1_epi32(four_codes(codes + row * k));
        sums[row][0] = _mm256_dpbusd_avx_epi32(sums[row][0], weights[0], group);
        sums[row][1] = _mm256_dpbusd_avx_epi32(sums[row][1], weights[1], group);
    }
}

AVXVNNI EG_ALWAYS_INLINE void avxvnni_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t splits,
                                           size_t k, const uint8_t *tile, int32_t *out, walk w)
{
    const size_t groups = w.bits == 4 && splits == 1 ? 2 : splits;
    for (size_t panel = 0; panel < 4; panel++) {
        const uint8_t *lines = tile + panel * (w.step == 256 ? 64 : 16 * k * (size_t)w.bits / 8);
        __m256i sums[4][5][2];
        START_256(sums[0], rows, (w.bits == 8 ? -128 : -8) * code_sums[row])
        EG_UNROLL
        for (size_t split = 1; split < splits; split++) {
            START_256(sums[split], rows, 0)
        }
        for (size_t i = 0; i < k; i += 4 * groups) {
            EG_UNROLL
            for (size_t group = 0; group < groups; group++) {
                const uint8_t *line = lines + (w.bits == 4 ? group / 2 : group) * w.step;
                if (w.bits == 8 || group % 2 == 0) {
                    PREFETCH(line + w.ahead);
                }
                const __m256i weights[2] = {weights_256(line, group, w), weights_256(line + w.side, group, w)};
                avxvnni_group(sums[group % splits], codes + i + 4 * group, rows, k, weights);
            }
            lines += (w.bits == 4 ? groups / 2 : groups) * w.step;
        }
        EG_UNROLL
        for (size_t split = 1; split < splits; split++) {
            EG_UNROLL
            for (size_t row = 0; row < rows; row++) {
                sums[0][row][0] = _mm256_add_epi32(sums[0][row][0], sums[split][row][0]);
                sums[0][row][1] = _mm256_add_epi32(sums[0][row][1], sums[split][row][1]);
            }
        }
        store_256(sums[0], rows, out + panel * 16);
    }
}

AVX2 EG_ALWAYS_INLINE void avx2_int8(__m256i sums[5][2], const int8_t *codes, size_t rows, size_t k,
                                     const uint8_t *lines, walk w)
{
    for (size_t i = 0; i < k; i += 4, lines += w.step) {
        PREFETCH(lines + w.ahead);
        const __m256i weights[2] = {load_256(lines), load_256(lines + w.side)};
        const __m256i sizes[2] = {_mm256_abs_epi8(weights[0]), _mm256_abs_epi8(weights[1])};
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            const __m256i group = _mm256_set1_epi32(four_codes(codes + row * k + i));
            EG_UNROLL
            for (size_t v = 0; v < 2; v++) {
                const __m256i pairs = _mm256_maddubs_epi16(sizes[v], _mm256_sign_epi8(group, weights[v]));
                sums[row][v] = _mm256_add_epi32(sums[row][v], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            }
        }
    }
}

/* codes: as int16, two in 32 bits. */
AVX2 EG_ALWAYS_INLINE void avx2_widened(__m256i sums[5][2], const int8_t *codes, size_t rows, size_t k,
                                        const uint8_t *lines, walk w)
{
    for (size_t i = 0; i < k; i += 2, lines += w.step) {
        PREFETCH(lines + w.ahead);
        const __m256i weights[2] = {load_256(lines), load_256(lines + w.side)};
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            const __m256i group = _mm256_set1_epi32(four_codes(codes + 2 * (row * k + i)));
            sums[row][0] = _mm256_add_epi32(sums[row][0], _mm256_madd_epi16(group, weights[0]));
            sums[row][1] = _mm256_add_epi32(sums[row][1], _mm256_madd_epi16(group, weights[1]));
        }
    }
}

/* 8 k-groups add up in int16: 8 · 2 · 15 · 127 < 32768. */
AVX2 EG_ALWAYS_INLINE void avx2_int4(__m256i sums[5][2], const int8_t *codes, size_t rows, size_t k,
                                     const uint8_t *lines, walk w)
{
    for (size_t block = 0; block < k; block += 32) {
        __m256i pairs[5][2];
        START_256(pairs, rows, 0)
        for (size_t i = block; i < block + 32; i += 8, lines += w.step) {
            PREFETCH(lines + w.ahead);
            const __m256i low[2] = {weights_256(lines, 0, w), weights_256(lines + w.side, 0, w)};
            const __m256i high[2] = {weights_256(lines, 1, w), weights_256(lines + w.side, 1, w)};
            EG_UNROLL
            for (size_t row = 0; row < rows; row++) {
                const __m256i one = _mm256_set1_epi32(four_codes(codes + row * k + i));
                const __m256i two = _mm256_set1_epi32(four_codes(codes + row * k + i + 4));
                EG_UNROLL
                for (size_t v = 0; v < 2; v++) {
                    pairs[row][v] = _mm256_add_epi16(pairs[row][v], _mm256_maddubs_epi16(low[v], one));
                    pairs[row][v] = _mm256_add_epi16(pairs[row][v], _mm256_maddubs_epi16(high[v], two));
                }
            }
        }
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            EG_UNROLL
            for (size_t v = 0; v < 2; v++) {
                sums[row][v] = _mm256_add_epi32(sums[row][v], _mm256_madd_epi16(pairs[row][v], _mm256_set1_epi16(1)));
            }
        }
    }
}

AVX2 EG_ALWAYS_INLINE void avx2_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t splits,
                                     size_t k, const uint8_t *tile, int32_t *out, walk w)
{
    (void)splits;
    for (size_t panel = 0; panel < 4; panel++) {
        const uint8_t *lines = tile + panel * 16 * k * (size_t)w.bits / 8;
        __m256i sums[5][2];
        START_256(sums, rows, w.bits == 4 ? -8 * code_sums[row] : 0)
        if (w.bits == 16) {
            avx2_widened(sums, codes, rows, k, lines, w);
        } else if (w.bits == 8) {
            avx2_int8(sums, codes, rows, k, lines, w);
        } else {
            avx2_int4(sums, codes, rows, k, lines, w);
        }
        store_256(sums, rows, out + panel * 16);
    }
}

#endif
