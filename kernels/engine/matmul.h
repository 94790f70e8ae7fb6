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
    float *scale;  /* (rows,) what a code of 1 stands for */
    int32_t *sum;  /* (rows,) Σ codes of the row */
} eg_inputs;

typedef void eg_matmul_function(const eg_isa *isa, const eg_matrix *matrix, const eg_inputs *inputs, size_t rows,
                                eg_range tiles, float *out);

/* out = inputs · Wᵀ for the output channels of `tiles`, counted in tiles of 64. out: (rows, out_features) float32. */
eg_matmul_function eg_matmul;

/* out = gelu(gate) · up of the same product, whose tiles have 32 channels of each. out: (rows, out_features / 2). */
eg_matmul_function eg_matmul_geglu;

#endif
