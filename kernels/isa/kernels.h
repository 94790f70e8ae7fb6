/* The table of operations: everything in the forward pass that touches numbers.
 *
 * The integer matmul is written by hand for each instruction set (matmul_<isa>.c); all other operations are
 * written once, in vector_ops_body.h, in terms of the small vector vocabulary of simd.h, and compiled for each
 * register width (vector_ops_<isa>.c). Attention also has a variant in int16 (attention_<isa>.c).
 * dispatch.c combines them into the list of instruction sets.
 *
 * Operations have no state: no allocation, threads, globals or I/O. Sizes are in elements. Every row that an
 * operation reads or writes begins on a 64-byte line and has a multiple of 16 elements (64 for matmul inputs).
 */
#ifndef EG_KERNELS_H
#define EG_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum {
    EG_PANEL = 16,          /* output channels side by side in stored weights: see export/FORMAT.md */
    EG_K_GROUP = 4,         /* inputs that one 32-bit lane multiplies and adds in one instruction */
    EG_TILE_CHANNELS = 64,  /* channels of a matmul tile: every width of a model is a multiple of it */
    EG_TILE_MAX_ROWS = 128, /* most rows of a matmul tile: AMX unpacks int4 weights once for all of them */
    EG_CHUNK_ROWS = 64,     /* usual chunk_rows, see below */
    EG_KEY_GRAIN = 32,      /* keys are multiplied in blocks of this many: two panels */
    EG_CODEBOOKS = 4,       /* of int4, each of EG_CODEBOOK_LEVELS levels */
    EG_CODEBOOK_LEVELS = 16,
    EG_CODEBOOK_INPUTS = 16,      /* consecutive inputs of a channel that share a codebook */
    EG_CODEBOOK_BITS = 2,         /* which of the codebooks */
    EG_CODEBOOK_BYTE_INPUTS = 64, /* inputs whose codebooks one byte has, the first 16 in its lowest bits */
    EG_INT4_OFFSET = 30,          /* makes the levels of int4, -30 … 30, unsigned */
    EG_ROTATION = 64,  /* inputs of integer matrices are rotated in blocks of this many: see export/FORMAT.md */
    EG_CODE_MAX = 127, /* int8 codes of weights and activations are -127 … 127: products fit AVX2's int16 sums */
};

/* The levels of the 16 codes of int4 in each codebook: see export/FORMAT.md. All four are one table of 64, with index
 * codebook · 16 + code. */
#define EG_INT4_CODEBOOK_0 -21, -16, -13, -10, -7, -5, -3, -1, 1, 3, 5, 7, 10, 13, 16, 21
#define EG_INT4_CODEBOOK_1 -18, -14, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 14, 18
#define EG_INT4_CODEBOOK_2 -25, -19, -15, -12, -9, -6, -3, -1, 1, 3, 6, 9, 12, 15, 19, 25
#define EG_INT4_CODEBOOK_3 -30, -23, -17, -13, -10, -7, -4, -1, 1, 4, 7, 10, 13, 17, 23, 30
#define EG_INT4_LEVELS     EG_INT4_CODEBOOK_0, EG_INT4_CODEBOOK_1, EG_INT4_CODEBOOK_2, EG_INT4_CODEBOOK_3

/* Index in EG_INT4_LEVELS of the codebook of input `place` of 64. ids: the byte of the 64 inputs. */
static inline size_t eg_codebook(uint8_t ids, size_t place)
{
    const size_t id = ids >> place / EG_CODEBOOK_INPUTS * EG_CODEBOOK_BITS & (EG_CODEBOOKS - 1);
    return id * EG_CODEBOOK_LEVELS;
}

/* Exact integer sums of one tile: sums[r][c] = Σ_k codes[r][k] · weights[c][k] for 64 channels c.
 *   codes:     (rows, k) int8 activations; rows <= the kernel's own limit, k a multiple of 64
 *   code_sums: (rows,) int32 Σ_k codes[r][k], to undo the offset of instructions that want unsigned weights
 *   weights:   4 panels of 16 channels, int8 [k/4][16][4] or int4 [k/8][16][4]
 *   codebooks: int4: of the same 4 panels, [k/64][16]; NULL for int8
 *   sums:      (rows, 64) int32 */
typedef void eg_integer_tile(const int8_t *codes, const int32_t *code_sums, size_t rows, size_t k, const void *weights,
                             const uint8_t *codebooks, int32_t *sums);

typedef struct eg_matmul_ops {
    size_t tile_rows; /* most rows of a tile, at most EG_TILE_MAX_ROWS */
    /* Rows that a thread takes through a layer at once: their activations, 14 KB a row, stay in a second-level cache of
     * 1 MB or more while the layer's weights are read once for all of them. Fast multipliers need more rows to hide
     * that reading. At most EG_MAX_SHARED_ROWS. */
    size_t chunk_rows;
    eg_integer_tile *int8_tile;
    eg_integer_tile *int4_tile;
    /* Measures the limit of the machine: runs the int8 multiply instruction `iterations` times with operands in
     * registers and returns the number of multiply-accumulates. `sink` keeps the compiler from removing the work. No
     * tile comes within 5 % of it: see export/EXPERIMENTS.md. */
    uint64_t (*multiply_probe)(uint64_t iterations, int32_t *sink);
} eg_matmul_ops;

/* The two products of attention and the layout that they want: in float32, or in int16, where a row of queries, keys or
 * values has a scale: what one step of its codes is worth. Scales of floats are 1. An element e of a row, key or value
 * belongs to k-group e / g, where g, 1 or 2, is how many elements of a column one instruction takes; panels are
 * [k / g][16][g]. */
typedef struct eg_attention_ops {
    size_t element_bytes; /* 4 for float32, 2 for int16 */
    /* A query of n float32, in place, to n elements, which fill the beginning of it. Returns its scale. */
    float (*store_query)(float *query, size_t n);
    /* Column `column` of a panel of 16 keys, [head_dim / g][16][g]. Returns the key's scale. */
    float (*store_key)(const float *key, size_t head_dim, void *panel, size_t column);
    /* Slot `slot` of head_dim / 16 panels of `slots` values, [slots / g][16][g] each. Returns the value's scale. */
    float (*store_value)(const float *value, size_t head_dim, void *panels, size_t slots, size_t slot);
    /* A query's products with n keys, in place, times the scales. */
    void (*scale_scores)(float *scores, size_t n, float query_scale, const float *key_scales);
    /* Softmax numerators, in place, to elements, times the scales of the values. Returns the scale of their product
     * with the values, division by `sum` included. */
    float (*store_weights)(float *weights, size_t n, float sum, const float *value_scales);
    /* out[r][c] = Σ_k x[r][k] · panels[c / 16][k][c % 16], summed over k in order, without scales.
     * x: (rows, k) elements, rows x_stride elements apart; k a multiple of 32. panels: an even panel_count of them, of
     * panel_stride k each. out: float32, rows out_stride apart. */
    void (*product)(const void *x, size_t x_stride, size_t rows, size_t k, const void *panels, size_t panel_stride,
                    size_t panel_count, float *out, size_t out_stride);
} eg_attention_ops;

typedef struct eg_vector_ops {
    /* out = row of the embedding table, which is stored rotated, with a float16 scale; sqrt(hidden) is folded in. */
    void (*embed_int8)(const int8_t *row, uint16_t scale, size_t hidden, float *out);

    /* RMSNorm (arXiv 1910.07467): out = x · multiplier / sqrt(mean(x²) + eps). */
    void (*norm)(const float *x, const float *multiplier, size_t n, float eps, float *out);
    /* hidden += RMSNorm(branch): the norm after a branch, and the residual sum. */
    void (*add_norm)(float *hidden, const float *branch, const float *multiplier, size_t n, float eps);
    /* y = H · x for each block of EG_ROTATION, H the orthogonal Hadamard matrix, which spreads an outlier over its
     * block; codes = round(127 · y / max|y|), scale = max|y| / 127, sum = Σ codes; all zero for a row of zeros.
     * rotated: room for n floats. */
    void (*quantize)(const float *x, size_t n, float *rotated, int8_t *codes, float *scale, int32_t *sum);
    /* quantize(norm(x)) in one pass: the root mean square cancels out of the codes and only enters the scale. */
    void (*norm_quantize)(const float *x, const float *multiplier, size_t n, float eps, float *rotated, int8_t *codes,
                          float *scale, int32_t *sum);

    /* One head of queries or keys: RMSNorm over head_dim, then rotate-half RoPE (arXiv 2104.09864).
     * cosine, sine: (head_dim / 2,) of this position. */
    void (*norm_rope)(const float *x, const float *multiplier, const float *cosine, const float *sine, size_t head_dim,
                      float eps, float *out);

    /* out[r][c] = Σ_k x[r][k] · panels[c / 16][k][c % 16] in float32, summed over k in order.
     * x: (rows, k), rows x_stride apart. panels: panel_count of them, panel_stride apart. out: rows out_stride apart.
     */
    void (*matmul_float)(const float *x, size_t x_stride, size_t rows, size_t k, const float *panels,
                         size_t panel_stride, size_t panel_count, float *out, size_t out_stride);

    /* out[r][c] = sums[r][c] · row_scale[r] · channel_scale[c] for a tile of 64 channels. */
    void (*dequantize)(const int32_t *sums, size_t rows, const float *row_scale, const float *channel_scale, float *out,
                       size_t out_stride);
    /* out[r] = gelu_tanh(gate) · up for a tile of 64 channels that alternate 16 of gate, 16 of up: 32 outputs. */
    void (*geglu)(const float *gate_up, size_t rows, float *out, size_t out_stride);

    /* In place: scores[i] = exp(scores[i] - max) for begin <= i < end, and 0 in the rest of n, a multiple of 16. The
     * max is over [begin, end). Returns the sum. */
    float (*softmax_numerators)(float *scores, size_t begin, size_t end, size_t n);
    eg_attention_ops attention; /* in float32 */

    void (*add)(float *sum, const float *x, size_t n);                 /* sum += x */
    void (*scale)(const float *x, float factor, size_t n, float *out); /* out = x · factor */
    float (*sum_of_squares)(const float *x, size_t n);
} eg_vector_ops;

/* One instruction set, and how to run on it. */
typedef struct eg_isa {
    const char *name;
    int (*supported)(void);
    const eg_matmul_ops *matmul;
    const eg_vector_ops *vector;
    const eg_attention_ops *attention; /* in int16; NULL: in float32 */
} eg_isa;

/* Every instruction set this library was built with, best first; `eg_isa_list_count` of them (dispatch.c). */
extern const eg_isa eg_isa_list[];
extern const size_t eg_isa_list_count;

#endif
