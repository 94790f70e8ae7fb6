/* Multiplies tiles of 64 output channels, each by all rows, so that a tile's weights are read from memory once and from
 * cache after that. */
#include "engine/matmul.h"

/* out = one tile of the product for up to EG_TILE_MAX_ROWS rows from `row` on, in float32. */
static void float_result(const eg_isa *isa, const eg_matrix *matrix, const eg_inputs *inputs, size_t row, size_t rows,
                         size_t tile, float *out, size_t out_stride)
{
    const size_t k = matrix->in_features;
    const size_t first = tile * EG_TILE_CHANNELS * k; /* elements before this tile's panels */
    if (matrix->dtype == EG_F32) {
        isa->vector->matmul_float(inputs->values + row * k, k, rows, k, (const float *)matrix->panels + first,
                                  EG_PANEL * k, EG_TILE_CHANNELS / EG_PANEL, out, out_stride);
        return;
    }
    int32_t sums[EG_TILE_MAX_ROWS * EG_TILE_CHANNELS];
    if (matrix->dtype == EG_I8) {
        isa->matmul->int8_tile(inputs->codes + row * k, inputs->sum + row, rows, k,
                               (const int8_t *)matrix->panels + first, NULL, sums);
    } else {
        isa->matmul->int4_tile(inputs->codes + row * k, inputs->sum + row, rows, k,
                               (const uint8_t *)matrix->panels + first / 2,
                               matrix->codebooks + first / EG_CODEBOOK_BYTE_INPUTS, sums);
    }
    isa->vector->dequantize(sums, rows, inputs->scale + row, matrix->scale + tile * EG_TILE_CHANNELS, out, out_stride);
}

/* Most rows that the kernel multiplies at once. */
static size_t tile_rows(const eg_isa *isa, const eg_matrix *matrix)
{
    return matrix->dtype == EG_F32 ? EG_TILE_MAX_ROWS : isa->matmul->tile_rows;
}

void eg_matmul(const eg_isa *isa, const eg_matrix *matrix, const eg_inputs *inputs, size_t rows, eg_range tiles,
               float *out)
{
    const size_t step = tile_rows(isa, matrix), stride = matrix->out_features;
    for (size_t tile = tiles.begin; tile < tiles.end; tile++) {
        for (size_t row = 0; row < rows; row += step) {
            const size_t count = rows - row < step ? rows - row : step;
            float_result(isa, matrix, inputs, row, count, tile, out + row * stride + tile * EG_TILE_CHANNELS, stride);
        }
    }
}

void eg_matmul_geglu(const eg_isa *isa, const eg_matrix *matrix, const eg_inputs *inputs, size_t rows, eg_range tiles,
                     float *out)
{
    enum { OUTPUTS = EG_TILE_CHANNELS / 2 };
    const size_t step = tile_rows(isa, matrix), stride = matrix->out_features / 2;
    float gate_up[EG_TILE_MAX_ROWS * EG_TILE_CHANNELS];
    for (size_t tile = tiles.begin; tile < tiles.end; tile++) {
        for (size_t row = 0; row < rows; row += step) {
            const size_t count = rows - row < step ? rows - row : step;
            float_result(isa, matrix, inputs, row, count, tile, gate_up, EG_TILE_CHANNELS);
            isa->vector->geglu(gate_up, count, out + row * stride + tile * OUTPUTS, stride);
        }
    }
}
