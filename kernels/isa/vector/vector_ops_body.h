/* Every operation of eg_vector_ops, written once in the vocabulary of simd.h. Each vector_ops_<isa>.c chooses a
 * register width, includes this file, and exports the table. Contracts are in kernels.h. Needs a choice of simd.h. */
#include "common/compiler.h"
#include "isa/kernels.h"
#include "isa/vector/row_sums.h"
#include "isa/vector/simd.h"

#include <math.h>
#include <string.h>

/* ---- the rotation ------------------------------------------------------------------------------------- */

enum { BLOCK_VECTORS = EG_ROTATION / VF_LANES };

#define ROTATION_LENGTH 8.0f /* sqrt(EG_ROTATION): the fast transform makes a block this many times as long */

/* H · x · ROTATION_LENGTH for one block: Hadamard's matrix in Sylvester's order, by its fast transform. The butterflies
 * of each stage add and subtract elements 1, 2, 4 … apart, in this order for any vector width, so that every
 * instruction set gets the same bits. Returns the elementwise maximum of `largest` and the magnitudes. */
EG_ALWAYS_INLINE vf rotate_block(vf *block, float *out, vf largest)
{
    EG_UNROLL
    for (size_t i = 0; i < BLOCK_VECTORS; i++) {
        block[i] = vf_hadamard(block[i]);
    }
    EG_UNROLL
    for (size_t stride = 1; stride < BLOCK_VECTORS; stride *= 2) {
        EG_UNROLL
        for (size_t i = 0; i < BLOCK_VECTORS; i++) {
            if ((i & stride) == 0) {
                const vf a = block[i], b = block[i + stride];
                block[i] = vf_add(a, b);
                block[i + stride] = vf_sub(a, b);
            }
        }
    }
    EG_UNROLL
    for (size_t i = 0; i < BLOCK_VECTORS; i++) {
        vf_store(out + i * VF_LANES, block[i]);
        largest = vf_larger_magnitude(largest, block[i]);
    }
    return largest;
}

/* H · x · ROTATION_LENGTH of a whole row, in place. */
static void rotate_row(float *x, size_t n)
{
    for (size_t start = 0; start < n; start += EG_ROTATION) {
        vf block[BLOCK_VECTORS];
        EG_UNROLL
        for (size_t i = 0; i < BLOCK_VECTORS; i++) {
            block[i] = vf_load(x + start + i * VF_LANES);
        }
        rotate_block(block, x + start, vf_set(0.0f));
    }
}

/* ---- token embeddings -------------------------------------------------------------------------------- */

/* IEEE 754 binary16 to float32. */
static float half_to_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t exponent = half >> 10 & 0x1F;
    const uint32_t fraction = half & 0x3FF;
    if (exponent == 0) {
        return (sign ? -0x1p-24f : 0x1p-24f) * (float)fraction;
    }
    const uint32_t bits = sign | (exponent == 0x1F ? 0xFF : exponent + (127 - 15)) << 23 | fraction << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void embed_int8(const int8_t *row, uint16_t half, size_t hidden, float *out)
{
    const vf scale = vf_set(half_to_float(half) / ROTATION_LENGTH);
    for (size_t i = 0; i < hidden; i += VF_LANES) {
        vf_store(out + i, vf_mul(vf_from_int8(row + i), scale));
    }
    rotate_row(out, hidden);
}

/* ---- sums over a row --------------------------------------------------------------------------------- */

/* 1 / sqrt(mean(x²) + eps), given the sum of squares; NaN if that is not finite: 0 would let the row vanish. */
static float inverse_root(float squares, size_t n, float eps)
{
    const float mean = squares / (float)n + eps;
    return 1.0f / sqrtf(mean) + unless_finite(mean);
}

static float inverse_rms(const float *x, size_t n, float eps) { return inverse_root(sum_of_squares(x, n), n, eps); }

static void add(float *sum, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += VF_LANES) {
        vf_store(sum + i, vf_add(vf_load(sum + i), vf_load(x + i)));
    }
}

static void scale(const float *x, float factor, size_t n, float *out)
{
    const vf factors = vf_set(factor);
    for (size_t i = 0; i < n; i += VF_LANES) {
        vf_store(out + i, vf_mul(vf_load(x + i), factors));
    }
}

/* ---- norms and quantisation --------------------------------------------------------------------------- */

static void norm(const float *x, const float *multiplier, size_t n, float eps, float *out)
{
    const vf inverse = vf_set(inverse_rms(x, n, eps));
    for (size_t i = 0; i < n; i += VF_LANES) {
        vf_store(out + i, vf_mul(vf_mul(vf_load(x + i), inverse), vf_load(multiplier + i)));
    }
}

static void add_norm(float *hidden, const float *branch, const float *multiplier, size_t n, float eps)
{
    const vf inverse = vf_set(inverse_rms(branch, n, eps));
    for (size_t i = 0; i < n; i += VF_LANES) {
        const vf normed = vf_mul(vf_mul(vf_load(branch + i), inverse), vf_load(multiplier + i));
        vf_store(hidden + i, vf_add(vf_load(hidden + i), normed));
    }
}

/* The codes of a rotated row whose largest magnitude is max; returns their sum. A row that is not finite has a scale
 * that is not, so its codes do not matter. */
static int32_t round_row(const float *rotated, size_t n, float max, int8_t *codes)
{
    const vf to_code = vf_set(max > 0.0f ? (float)EG_CODE_MAX / max : 0.0f);
    const vf limit = vf_set((float)EG_CODE_MAX);
    vi total = vi_zero();
    for (size_t i = 0; i < n; i += VF_LANES) {
        const vf code = vf_mul(vf_load(rotated + i), to_code);
        total = vf_store_codes(codes + i, vf_max(vf_min(code, limit), vf_sub(vf_set(0.0f), limit)), total);
    }
    return vi_reduce_add(total);
}

static void quantize(const float *x, size_t n, float *rotated, int8_t *codes, float *row_scale, int32_t *sum)
{
    vf largest = vf_set(0.0f);
    for (size_t start = 0; start < n; start += EG_ROTATION) {
        vf block[BLOCK_VECTORS];
        EG_UNROLL
        for (size_t i = 0; i < BLOCK_VECTORS; i++) {
            block[i] = vf_load(x + start + i * VF_LANES);
        }
        largest = rotate_block(block, rotated + start, largest);
    }
    const float max = vf_reduce_magnitude(largest);
    *row_scale = max / ((float)EG_CODE_MAX * ROTATION_LENGTH);
    *sum = round_row(rotated, n, max, codes);
}

static void norm_quantize(const float *x, const float *multiplier, size_t n, float eps, float *rotated, int8_t *codes,
                          float *row_scale, int32_t *sum)
{
    vf largest = vf_set(0.0f), squares[SUM_VECTORS];
    start_sum(squares);
    for (size_t start = 0; start < n; start += EG_ROTATION) {
        vf block[BLOCK_VECTORS];
        EG_UNROLL
        for (size_t i = 0; i < BLOCK_VECTORS; i++) {
            const vf value = vf_load(x + start + i * VF_LANES);
            squares[i % SUM_VECTORS] = vf_fma(value, value, squares[i % SUM_VECTORS]);
            block[i] = vf_mul(value, vf_load(multiplier + start + i * VF_LANES));
        }
        largest = rotate_block(block, rotated + start, largest);
    }
    const float inverse = inverse_root(add_up(squares), n, eps);
    const float max = vf_reduce_magnitude(largest);
    *row_scale = max / ((float)EG_CODE_MAX * ROTATION_LENGTH) * inverse;
    *sum = round_row(rotated, n, max, codes);
}

/* ---- attention ---------------------------------------------------------------------------------------- */

static void norm_rope(const float *x, const float *multiplier, const float *cosine, const float *sine, size_t head_dim,
                      float eps, float *out)
{
    const size_t half = head_dim / 2;
    const vf inverse = vf_set(inverse_rms(x, head_dim, eps));
    for (size_t i = 0; i < half; i += VF_LANES) {
        const vf first = vf_mul(vf_mul(vf_load(x + i), inverse), vf_load(multiplier + i));
        const vf second = vf_mul(vf_mul(vf_load(x + half + i), inverse), vf_load(multiplier + half + i));
        const vf c = vf_load(cosine + i);
        const vf s = vf_load(sine + i);
        vf_store(out + i, vf_sub(vf_mul(first, c), vf_mul(second, s)));
        vf_store(out + half + i, vf_fma(second, c, vf_mul(first, s)));
    }
}

static float softmax_numerators(float *scores, size_t begin, size_t end, size_t n)
{
    /* Masked scores become -inf, whose exp() is below 1e-37, and 0 at the end, so that whole vectors can be used. */
    for (size_t i = 0; i < begin; i++) {
        scores[i] = -INFINITY;
    }
    for (size_t i = end; i < n; i++) {
        scores[i] = -INFINITY;
    }
    vf largest = vf_load(scores);
    for (size_t i = 0; i < n; i += VF_LANES) {
        largest = vf_max(largest, vf_load(scores + i));
    }
    const vf max = vf_set(vf_reduce_max(largest));
    for (size_t i = 0; i < n; i += VF_LANES) {
        vf_store(scores + i, vf_exp(vf_sub(vf_load(scores + i), max)));
    }
    for (size_t i = 0; i < begin; i++) {
        scores[i] = 0.0f;
    }
    for (size_t i = end; i < n; i++) {
        scores[i] = 0.0f;
    }
    /* A lane sums the columns of one remainder modulo SUM_LANES. Columns begin at a multiple of SUM_LANES in the text,
     * so that the bits are the same in every batch. */
    vf lanes[SUM_VECTORS];
    start_sum(lanes);
    for (size_t i = 0; i < n; i += SUM_LANES) {
        EG_UNROLL
        for (size_t v = 0; v < SUM_VECTORS; v++) {
            lanes[v] = vf_add(lanes[v], vf_load(scores + i + v * VF_LANES));
        }
    }
    return add_up(lanes);
}

/* ---- float32 matmul ----------------------------------------------------------------------------------- */

enum { PANEL_VECTORS = EG_PANEL / VF_LANES, TILE_VECTORS = MATMUL_PANELS * PANEL_VECTORS };

/* `rows` and `panel_count` are constants at every call, so that the sums stay in registers. */
EG_ALWAYS_INLINE void float_tile(const float *x, size_t x_stride, size_t rows, size_t k, const float *panels,
                                 size_t panel_stride, size_t panel_count, float *out, size_t out_stride)
{
    vf sums[MATMUL_ROWS][TILE_VECTORS];
    const size_t vectors = panel_count * PANEL_VECTORS;
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            sums[row][v] = vf_set(0.0f);
        }
    }
    for (size_t i = 0; i < k; i++) {
        vf weights[TILE_VECTORS];
        EG_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            const float *panel = panels + v / PANEL_VECTORS * panel_stride;
            weights[v] = vf_load(panel + i * EG_PANEL + v % PANEL_VECTORS * VF_LANES);
        }
        EG_UNROLL
        for (size_t row = 0; row < rows; row++) {
            const vf input = vf_set(x[row * x_stride + i]);
            EG_UNROLL
            for (size_t v = 0; v < vectors; v++) {
                sums[row][v] = vf_fma(input, weights[v], sums[row][v]);
            }
        }
    }
    EG_UNROLL
    for (size_t row = 0; row < rows; row++) {
        EG_UNROLL
        for (size_t v = 0; v < vectors; v++) {
            vf_store(out + row * out_stride + v * VF_LANES, sums[row][v]);
        }
    }
}

static void matmul_float(const float *x, size_t x_stride, size_t rows, size_t k, const float *panels,
                         size_t panel_stride, size_t panel_count, float *out, size_t out_stride)
{
    for (size_t panel = 0; panel < panel_count;) {
        const size_t wide = panel_count - panel >= MATMUL_PANELS ? MATMUL_PANELS : 1;
        const float *tile = panels + panel * panel_stride;
        for (size_t row = 0; row < rows;) {
            const float *in = x + row * x_stride;
            float *to = out + row * out_stride + panel * EG_PANEL;
            if (rows - row >= MATMUL_ROWS) {
                if (wide == MATMUL_PANELS) {
                    float_tile(in, x_stride, MATMUL_ROWS, k, tile, panel_stride, MATMUL_PANELS, to, out_stride);
                } else {
                    float_tile(in, x_stride, MATMUL_ROWS, k, tile, panel_stride, 1, to, out_stride);
                }
                row += MATMUL_ROWS;
            } else {
                if (wide == MATMUL_PANELS) {
                    float_tile(in, x_stride, 1, k, tile, panel_stride, MATMUL_PANELS, to, out_stride);
                } else {
                    float_tile(in, x_stride, 1, k, tile, panel_stride, 1, to, out_stride);
                }
                row += 1;
            }
        }
        panel += wide;
    }
}

/* ---- attention in float32: elements are floats, k-groups have one, scales are 1 ------------------------ */

static float store_query(float *query, size_t n)
{
    (void)query;
    (void)n;
    return 1.0f;
}

static float store_key(const float *key, size_t head_dim, void *panel, size_t column)
{
    float *lines = (float *)panel + column;
    for (size_t i = 0; i < head_dim; i++) {
        lines[i * EG_PANEL] = key[i];
    }
    return 1.0f;
}

static float store_value(const float *value, size_t head_dim, void *panels, size_t slots, size_t slot)
{
    for (size_t i = 0; i < head_dim; i += EG_PANEL) {
        memcpy((float *)panels + i * slots + slot * EG_PANEL, value + i, EG_PANEL * sizeof(float));
    }
    return 1.0f;
}

static void scale_scores(float *scores, size_t n, float query_scale, const float *key_scales)
{
    (void)scores;
    (void)n;
    (void)query_scale;
    (void)key_scales;
}

static float store_weights(float *weights, size_t n, float sum, const float *value_scales)
{
    (void)weights;
    (void)n;
    (void)value_scales;
    return 1.0f / sum;
}

static void attention_product(const void *x, size_t x_stride, size_t rows, size_t k, const void *panels,
                              size_t panel_stride, size_t panel_count, float *out, size_t out_stride)
{
    matmul_float(x, x_stride, rows, k, panels, panel_stride * EG_PANEL, panel_count, out, out_stride);
}

/* ---- what follows an integer matmul ------------------------------------------------------------------- */

static void dequantize(const int32_t *sums, size_t rows, const float *row_scale, const float *channel_scale, float *out,
                       size_t out_stride)
{
    for (size_t row = 0; row < rows; row++) {
        const vf scale_of_row = vf_set(row_scale[row]);
        for (size_t c = 0; c < EG_TILE_CHANNELS; c += VF_LANES) {
            const vf sum = vf_from_int32(sums + row * EG_TILE_CHANNELS + c);
            vf_store(out + row * out_stride + c, vf_mul(vf_mul(sum, scale_of_row), vf_load(channel_scale + c)));
        }
    }
}

static void geglu(const float *gate_up, size_t rows, float *out, size_t out_stride)
{
    for (size_t row = 0; row < rows; row++) {
        const float *pair = gate_up + row * EG_TILE_CHANNELS;
        float *to = out + row * out_stride;
        for (size_t c = 0; c < EG_TILE_CHANNELS; c += 2 * EG_PANEL) {
            for (size_t i = 0; i < EG_PANEL; i += VF_LANES) {
                const vf gate = vf_load(pair + c + i);
                const vf up = vf_load(pair + c + EG_PANEL + i);
                vf_store(to + c / 2 + i, vf_mul(vf_gelu(gate), up));
            }
        }
    }
}

/* The table that the including file exports under its own name. */
#define EG_VECTOR_OPS                                                                                                  \
    {                                                                                                                  \
        .embed_int8 = embed_int8,                                                                                      \
        .norm = norm,                                                                                                  \
        .add_norm = add_norm,                                                                                          \
        .quantize = quantize,                                                                                          \
        .norm_quantize = norm_quantize,                                                                                \
        .norm_rope = norm_rope,                                                                                        \
        .matmul_float = matmul_float,                                                                                  \
        .dequantize = dequantize,                                                                                      \
        .geglu = geglu,                                                                                                \
        .softmax_numerators = softmax_numerators,                                                                      \
        .add = add,                                                                                                    \
        .scale = scale,                                                                                                \
        .sum_of_squares = sum_of_squares,                                                                              \
        .attention =                                                                                                   \
            {                                                                                                          \
                .element_bytes = sizeof(float),                                                                        \
                .store_query = store_query,                                                                            \
                .store_key = store_key,                                                                                \
                .store_value = store_value,                                                                            \
                .scale_scores = scale_scores,                                                                          \
                .store_weights = store_weights,                                                                        \
                .product = attention_product,                                                                          \
            },                                                                                                         \
    }
