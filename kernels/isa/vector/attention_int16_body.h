/* Attention in 16-bit integers on x86, which multiplies them twice as fast as float32: pairs are added up exactly in
 * int32.
 *
 * The including file chooses a register width (see simd.h) and defines
 *   vi add_pairs(vi sums, vi a, vi b)    sums += the products of int16 pairs, added two by two */
#include "common/compiler.h"
#include "isa/kernels.h"

enum {
    PAIR = 2,  /* elements of a k-group */
    LINE = 64, /* bytes */
    PANEL_VECTORS = EG_PANEL / VF_LANES,
};

#if VF_LANES == 16

enum { TILE_ROWS = 6, TILE_PANELS = 4 }; /* 24 sums, 4 lines and 1 input: 29 of 32 registers */

static inline vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
static inline vi vi_set(int32_t x) { return _mm512_set1_epi32(x); }
static inline vf vf_from_vi(vi a) { return _mm512_cvtepi32_ps(a); }

static inline void store_int16(int16_t *p, vf a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(a)));
}

/* Codes to the first or the second of each pair. */
static inline void store_alternate(int16_t *pairs, vf a, size_t second)
{
    const __m512i codes = _mm512_cvtps_epi32(a);
    if (second) {
        _mm512_mask_storeu_epi16(pairs, 0xAAAAAAAA, _mm512_slli_epi32(codes, 16));
    } else {
        _mm512_mask_storeu_epi16(pairs, 0x55555555, codes);
    }
}

#else

enum { TILE_ROWS = 6, TILE_PANELS = 1 }; /* 12 sums, 2 lines, 1 input and 1 product: all 16 registers */

static inline vi vi_load(const void *p) { return _mm256_loadu_si256(p); }
static inline vi vi_set(int32_t x) { return _mm256_set1_epi32(x); }
static inline vf vf_from_vi(vi a) { return _mm256_cvtepi32_ps(a); }

static inline void store_int16(int16_t *p, vf a)
{
    const __m256i codes = _mm256_cvtps_epi32(a);
    const __m128i low = _mm256_castsi256_si128(codes), high = _mm256_extracti128_si256(codes, 1);
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi32(low, high));
}

/* Codes to the first or the second of each pair, one by one: another thread may be storing the other. */
static inline void store_alternate(int16_t *pairs, vf a, size_t second)
{
    int32_t codes[VF_LANES];
    _mm256_storeu_si256((__m256i *)codes, _mm256_cvtps_epi32(a));
    for (size_t i = 0; i < VF_LANES; i++) {
        pairs[i * PAIR + second] = (int16_t)codes[i];
    }
}

#endif

#include "isa/vector/attention_codes.h"

/* ---- where keys and values lie ------------------------------------------------------------------------- */

/* A column of a panel: pairs of the key, one a line. */
static float store_key(const float *key, size_t head_dim, void *panel, size_t column)
{
    const float steps = steps_of(key, head_dim);
    char *lines = (char *)panel + column * PAIR * sizeof(int16_t);
    for (size_t i = 0; i < head_dim; i += VF_LANES) {
        int16_t codes[VF_LANES];
        store_codes(key + i, VF_LANES, steps, codes);
        for (size_t pair = 0; pair < VF_LANES / PAIR; pair++) {
            __builtin_memcpy(lines + (i / PAIR + pair) * LINE, &codes[pair * PAIR], PAIR * sizeof *codes);
        }
    }
    return steps > 0.0f ? 1.0f / steps : 0.0f;
}

/* Half a line of each panel: the even or the odd elements of the pairs. */
static float store_value(const float *value, size_t head_dim, void *panels, size_t slots, size_t slot)
{
    const float largest = largest_of(value, head_dim);
    const vf steps = vf_set(largest > 0.0f ? VALUE_CODE_MAX / largest : 0.0f);
    for (size_t i = 0; i < head_dim; i += VF_LANES) {
        int16_t *line = (int16_t *)panels + (i / EG_PANEL * slots * EG_PANEL) + slot / PAIR * (PAIR * EG_PANEL);
        store_alternate(line + i % EG_PANEL * PAIR, vf_mul(vf_load(value + i), steps), slot % PAIR);
    }
    return largest / VALUE_CODE_MAX;
}

/* ---- products --------------------------------------------------------------------------------------------- */

/* `rows` and `count` are constants at every call, so that the sums are registers. */
EG_ALWAYS_INLINE void tile(const int16_t *x, size_t x_stride, size_t rows, size_t k, const char *panels,
                           size_t panel_bytes, size_t count, float *out, size_t out_stride)
{
    vi sums[TILE_ROWS][TILE_PANELS * PANEL_VECTORS];
    const size_t vectors = count * PANEL_VECTORS;
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            sums[row][v] = vi_zero();
        }
    }
    for (size_t i = 0; i < k; i += PAIR) {
        vi lines[TILE_PANELS * PANEL_VECTORS];
        EG_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            const char *panel = panels + v / PANEL_VECTORS * panel_bytes;
            lines[v] = vi_load(panel + i / PAIR * LINE + v % PANEL_VECTORS * sizeof(vi));
        }
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            int32_t pair;
            __builtin_memcpy(&pair, x + row * x_stride + i, sizeof pair);
            const vi inputs = vi_set(pair);
            EG_UNROLL
            for (size_t v = 0; v < vectors; v++) {
                sums[row][v] = add_pairs(sums[row][v], inputs, lines[v]);
                __asm__("" : "+v"(sums[row][v])); /* GCC 12 copies the sums in each iteration otherwise */
            }
        }
    }
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            vf_store(out + row * out_stride + v * VF_LANES, vf_from_vi(sums[row][v]));
        }
    }
}

static void product(const void *x, size_t x_stride, size_t rows, size_t k, const void *panels, size_t panel_stride,
                    size_t panel_count, float *out, size_t out_stride)
{
    enum { FEW_ROWS = TILE_ROWS / 2, FEW_PANELS = (TILE_PANELS + 1) / 2 };
    const size_t panel_bytes = panel_stride * EG_PANEL * sizeof(int16_t);
    for (size_t panel = 0; panel < panel_count;) {
        const size_t count = panel_count - panel >= TILE_PANELS ? TILE_PANELS : FEW_PANELS;
        const char *lines = (const char *)panels + panel * panel_bytes;
        for (size_t row = 0; row < rows;) {
            const int16_t *in = (const int16_t *)x + row * x_stride;
            float *to = out + row * out_stride + panel * EG_PANEL;
            const size_t taken = rows - row >= TILE_ROWS ? TILE_ROWS : rows - row >= FEW_ROWS ? FEW_ROWS : 1;
            if (count == TILE_PANELS) {
                switch (taken) {
                case TILE_ROWS:
                    tile(in, x_stride, TILE_ROWS, k, lines, panel_bytes, TILE_PANELS, to, out_stride);
                    break;
                case FEW_ROWS: tile(in, x_stride, FEW_ROWS, k, lines, panel_bytes, TILE_PANELS, to, out_stride); break;
                default: tile(in, x_stride, 1, k, lines, panel_bytes, TILE_PANELS, to, out_stride); break;
                }
            } else {
                switch (taken) {
                case TILE_ROWS: tile(in, x_stride, TILE_ROWS, k, lines, panel_bytes, FEW_PANELS, to, out_stride); break;
                case FEW_ROWS: tile(in, x_stride, FEW_ROWS, k, lines, panel_bytes, FEW_PANELS, to, out_stride); break;
                default: tile(in, x_stride, 1, k, lines, panel_bytes, FEW_PANELS, to, out_stride); break;
                }
            }
            row += taken;
        }
        panel += count;
    }
}

/* The table that the including file exports under its own name. */
#define EG_ATTENTION_OPS                                                                                               \
    {                                                                                                                  \
        .element_bytes = sizeof(int16_t),                                                                              \
        .narrow = narrow,                                                                                              \
        .store_key = store_key,                                                                                        \
        .store_value = store_value,                                                                                    \
        .scale_scores = scale_scores,                                                                                  \
        .narrow_weights = narrow_weights,                                                                              \
        .product = product,                                                                                            \
    }
