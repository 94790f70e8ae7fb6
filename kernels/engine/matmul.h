/* Matrix products of any number of rows, in any of the three weight formats. */
#ifndef EG_MATMUL_H
#define EG_MATMUL_H

#include "isa/kernels.h"
#include "model/model.h"

typedef struct eg_range {
    size_t begin, end;
} eg_range;

/* The rows that a matrix multiplies: int8 codes for an int8 or int4 matrix, float32 values for a float32 one. */
typedef struct eg_inputs {
    float *values; /* (rows, in_features) float32 */
    int8_t *codes; /* (rows, in_features) int8, in the same memory as values */
    float *scale;  /* (rows,) value of one step of a code */
    int32_t *sum;  /* (rows,) Σ codes of the row */
} eg_inputs;

/* out[r] = inputs[r] · Wᵀ for the output channels of `tiles`, counted in tiles of 64. out: rows out_stride apart. */
void eg_matmul(const eg_isa *isa, const eg_matrix *matrix, const eg_inputs *inputs, size_t rows, eg_range tiles,
               float *out, size_t out_stride);

/* The same with GeGLU behind it: a tile of 64 gate and up channels becomes 32 outputs. */
void eg_matmul_geglu(const eg_isa *isa, const eg_matrix *matrix, const eg_inputs *inputs, size_t rows, eg_range tiles,
                     float *out, size_t out_stride);

#endif
