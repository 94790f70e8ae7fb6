/* Every operation of eg_vector_ops, on every instruction set that this CPU has, against double precision. Tolerances
 * are the rounding errors that the operation must be allowed: counted in units of U, half a float32 ulp, by the rules
 * of Higham, Accuracy and Stability of Numerical Algorithms, chapter 3. */
#include "tests/kernels/check.h"
#include "isa/kernels.h"

#include <float.h>
#include <math.h>

static const double U = (double)FLT_EPSILON / 2.0;
static const double SLACK = 1.001;      /* for products of rounding errors, and the oracle's own */
static const double EXP_ERROR = 1.5e-7; /* what simd.h states for vf_exp, relative */
static const float EPS = 1e-6f;         /* of the norms */

static const size_t widths[] = {64, 256, 768, 1152};
enum { WIDTHS = sizeof widths / sizeof *widths, GAP = 16 /* elements between rows: stay as they are */ };

/* Checks |got - exact| <= bound. */
static void check_close(double got, double exact, double bound, const char *isa, const char *what, size_t n, size_t i)
{
    CHECK(fabs(got - exact) <= bound * SLACK, "%s %s n %zu [%zu]: %.9g, not %.9g ± %.2g", isa, what, n, i, got, exact,
          bound);
}

static float *random_row(uint64_t *state, size_t n, float range)
{
    float *row = aligned_new(n * sizeof *row);
    for (size_t i = 0; i < n; i++) {
        row[i] = random_float(state, range);
    }
    return row;
}

static double exact_squares(const float *x, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
    }
    return sum;
}

static double exact_inverse_rms(const float *x, size_t n)
{
    return 1.0 / sqrt(exact_squares(x, n) / (double)n + (double)EPS);
}

/* Relative error of a computed 1 / rms: n roundings in the sum, halved by the root as are those of / n and + eps; then
 * the root's and the division's own. */
static double inverse_rms_error(size_t n) { return ((double)n + 2.0) / 2.0 * U + 2.0 * U; }

/* ---- the rotation --------------------------------------------------------------------------------------------------
 */

/* H · x for each block of EG_ROTATION, from the definition: the parity of i & j is the sign of element (i, j) of H.
 * Returns the largest sum of magnitudes in a block, divided by the length of a row of ±1: that bounds every element,
 * and each stage of the fast transform rounds by U of it at most. */
static double rotate(double *x, size_t n)
{
    double largest = 0.0;
    double block[EG_ROTATION];
    for (size_t start = 0; start < n; start += EG_ROTATION) {
        double total = 0.0;
        for (size_t i = 0; i < EG_ROTATION; i++) {
            total += fabs(x[start + i]) / sqrt((double)EG_ROTATION);
            block[i] = 0.0;
            for (size_t j = 0; j < EG_ROTATION; j++) {
                const double term = x[start + j] / sqrt((double)EG_ROTATION);
                block[i] += __builtin_parity((unsigned)(i & j)) ? -term : term;
            }
        }
        memcpy(x + start, block, sizeof block);
        largest = fmax(largest, total);
    }
    return largest;
}

enum { STAGES = 6 }; /* of the fast transform: log2(EG_ROTATION) */

/* ---- embeddings: a product of 8 and 11 bits is exact; the rotation is not ---------------------------------------- */

static double half_value(uint16_t half)
{
    const int exponent = half >> 10 & 0x1F, fraction = half & 0x3FF;
    const double size = exponent ? ldexp(1.0 + fraction / 1024.0, exponent - 15) : ldexp(fraction / 1024.0, -14);
    return half & 0x8000 ? -size : size;
}

static void check_embed(const char *isa, const eg_vector_ops *ops)
{
    enum { HIDDEN = 768, LARGEST_FINITE = 0x7BFF, SUBNORMAL = 3 };
    static const uint16_t halves[] = {SUBNORMAL, 0x3C00, 0x8000 | 0x1234, LARGEST_FINITE};
    int8_t *row = aligned_new(HIDDEN);
    for (size_t i = 0; i < HIDDEN; i++) {
        row[i] = (int8_t)(uint8_t)(i * 37); /* all levels, and -128, which int8 tables do not use */
    }
    for (size_t s = 0; s < sizeof halves / sizeof *halves; s++) {
        float *out = guarded_new(HIDDEN * sizeof(float));
        double exact[HIDDEN];
        ops->embed_int8(row, halves[s], HIDDEN, out);
        for (size_t i = 0; i < HIDDEN; i++) {
            exact[i] = row[i] * half_value(halves[s]);
        }
        const double bound = (double)STAGES * U * rotate(exact, HIDDEN);
        for (size_t i = 0; i < HIDDEN; i++) {
            check_close((double)out[i], exact[i], bound, isa, "embed_int8", s, i);
        }
        CHECK(guarded_free(out, HIDDEN * sizeof(float)), "%s embed_int8 wrote outside", isa);
    }
    eg_aligned_free(row);
}

/* ---- norms --------------------------------------------------------------------------------------------------- */

static void check_norm(const char *isa, const eg_vector_ops *ops, size_t n, float range)
{
    uint64_t state = n;
    float *x = random_row(&state, n, range), *multiplier = random_row(&state, n, 3.0f);
    float *before = random_row(&state, n, range);
    float *out = guarded_new(n * sizeof *out), *hidden = guarded_new(n * sizeof *hidden);
    memcpy(hidden, before, n * sizeof *hidden);
    ops->norm(x, multiplier, n, EPS, out);
    ops->add_norm(hidden, x, multiplier, n, EPS);
    for (size_t i = 0; i < n; i++) {
        const double exact = (double)x[i] * (double)multiplier[i] * exact_inverse_rms(x, n);
        const double error = fabs(exact) * (inverse_rms_error(n) + 2.0 * U); /* two products */
        const double sum = (double)before[i] + exact;
        check_close((double)out[i], exact, error, isa, "norm", n, i);
        check_close((double)hidden[i], sum, error + U * fabs(sum), isa, "add_norm", n, i);
    }
    check_close((double)ops->sum_of_squares(x, n), exact_squares(x, n), exact_squares(x, n) * U * (double)n, isa,
                "sum_of_squares", n, 0);
    CHECK(guarded_free(out, n * sizeof *out), "%s norm wrote outside", isa);
    CHECK(guarded_free(hidden, n * sizeof *hidden), "%s add_norm wrote outside", isa);
    eg_aligned_free(before);
    eg_aligned_free(multiplier);
    eg_aligned_free(x);
}

static void check_elementwise(const char *isa, const eg_vector_ops *ops, size_t n)
{
    uint64_t state = n + 1;
    float *x = random_row(&state, n, 10.0f), *before = random_row(&state, n, 10.0f);
    float *sum = guarded_new(n * sizeof *sum), *scaled = guarded_new(n * sizeof *scaled);
    memcpy(sum, before, n * sizeof *sum);
    ops->add(sum, x, n);
    ops->scale(x, 0.3f, n, scaled);
    for (size_t i = 0; i < n; i++) {
        check_close((double)sum[i], (double)(before[i] + x[i]), 0.0, isa, "add", n, i);
        check_close((double)scaled[i], (double)(x[i] * 0.3f), 0.0, isa, "scale", n, i);
    }
    CHECK(guarded_free(sum, n * sizeof *sum), "%s add wrote outside", isa);
    CHECK(guarded_free(scaled, n * sizeof *scaled), "%s scale wrote outside", isa);
    eg_aligned_free(before);
    eg_aligned_free(x);
}

/* ---- quantisation ---------------------------------------------------------------------------------------------- */

/* Codes of H · (x · multiplier) (NULL: of H · x), and their scale, whose exact value is `scale` times the exact largest
 * magnitude / 127, with a relative error of `scale_error` besides that of the largest magnitude. */
static void check_codes(const char *isa, const char *what, const float *x, const float *multiplier, size_t n,
                        const int8_t *codes, float got_scale, int32_t got_sum, double scale, double scale_error)
{
    double *exact = aligned_new(n * sizeof *exact), max = 0.0;
    for (size_t i = 0; i < n; i++) {
        exact[i] = multiplier ? (double)x[i] * (double)multiplier[i] : (double)x[i];
    }
    const double largest_block = rotate(exact, n);
    for (size_t i = 0; i < n; i++) {
        max = fmax(max, fabs(exact[i]));
    }
    /* The product with the multiplier is rounded too; of an element as of max. */
    const double rotation_error = (STAGES + 1) * U * largest_block / max;
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double code = (double)EG_CODE_MAX * exact[i] / max;
        check_close(codes[i], code, 0.5 + (double)EG_CODE_MAX * (2.0 * rotation_error + 2.0 * U), isa, what, n, i);
        CHECK(codes[i] >= -EG_CODE_MAX, "%s %s code %d", isa, what, codes[i]);
        sum += codes[i];
    }
    CHECK(got_sum == sum, "%s %s n %zu: sum %d, not %d", isa, what, n, (int)got_sum, (int)sum);
    scale *= max / (double)EG_CODE_MAX;
    check_close((double)got_scale, scale, scale * (scale_error + rotation_error), isa, what, n, n);
    eg_aligned_free(exact);
}

static void check_quantize(const char *isa, const eg_vector_ops *ops, size_t n, float range)
{
    uint64_t state = n + 2;
    float *x = random_row(&state, n, range), *multiplier = random_row(&state, n, 3.0f);
    float *rotated = guarded_new(n * sizeof *rotated);
    int8_t *codes = guarded_new(n);
    float scale;
    int32_t sum;
    const float max = range * 1.1f;
    x[n / 2] = max;
    for (size_t i = 0; i < n / 4; i++) { /* close to the border between two codes */
        x[i] = max * ((float)(i % 127) + (i % 2 ? 0.5001f : 0.4999f)) / 127.0f;
    }
    ops->quantize(x, n, rotated, codes, &scale, &sum);
    check_codes(isa, "quantize", x, NULL, n, codes, scale, sum, 1.0, 2.0 * U);
    ops->norm_quantize(x, multiplier, n, EPS, rotated, codes, &scale, &sum);
    check_codes(isa, "norm_quantize", x, multiplier, n, codes, scale, sum, exact_inverse_rms(x, n),
                inverse_rms_error(n) + 4.0 * U);

    double *wanted = aligned_new(n * sizeof *wanted);
    for (size_t i = 0; i < n; i++) { /* ties; the scale is 1, and the rotation of small multiples of 1 / 16 is exact */
        wanted[i] = i % 8 ? (double)(i % 127) - 63.5 : 127.0;
    }
    rotate(wanted, n); /* its own inverse */
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)wanted[i];
    }
    rotate(wanted, n);
    ops->quantize(x, n, rotated, codes, &scale, &sum);
    for (size_t i = 0; i < n; i++) {
        CHECK(codes[i] == (int)nearbyint(wanted[i]), "%s quantize of %g is %d", isa, wanted[i], codes[i]);
    }
    eg_aligned_free(wanted);

    for (int tiny = 0; tiny < 2; tiny++) { /* a row of zeros, and one whose reciprocal overflows */
        for (size_t i = 0; i < n; i++) {
            x[i] = tiny && i % 2 ? 1e-44f : 0.0f;
        }
        for (int normed = 0; normed < 2; normed++) {
            if (normed) {
                ops->norm_quantize(x, multiplier, n, EPS, rotated, codes, &scale, &sum);
            } else {
                ops->quantize(x, n, rotated, codes, &scale, &sum);
            }
            int32_t expected = 0;
            for (size_t i = 0; i < n; i++) {
                CHECK(tiny ? codes[i] >= -EG_CODE_MAX : codes[i] == 0, "%s quantize code %d", isa, codes[i]);
                expected += codes[i];
            }
            CHECK(sum == expected && (tiny ? scale >= 0.0f && scale < 1e-30f : scale == 0.0f),
                  "%s quantize of %s: sum %d, scale %g", isa, tiny ? "tiny values" : "zeros", (int)sum, (double)scale);
        }
    }
    CHECK(guarded_free(codes, n), "%s quantize wrote outside", isa);
    CHECK(guarded_free(rotated, n * sizeof *rotated), "%s quantize wrote outside its room", isa);
    eg_aligned_free(multiplier);
    eg_aligned_free(x);
}

/* ---- attention ------------------------------------------------------------------------------------------------- */

static void check_norm_rope(const char *isa, const eg_vector_ops *ops, size_t head_dim)
{
    uint64_t state = head_dim + 3;
    const size_t half = head_dim / 2;
    float *x = random_row(&state, head_dim, 100.0f), *multiplier = random_row(&state, head_dim, 2.0f);
    float *cosine = aligned_new(half * sizeof *cosine), *sine = aligned_new(half * sizeof *sine);
    float *out = guarded_new(head_dim * sizeof *out);
    for (size_t i = 0; i < half; i++) {
        const double angle = 1000.0 * pow(10000.0, -(double)i / (double)half);
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
    ops->norm_rope(x, multiplier, cosine, sine, head_dim, EPS, out);
    const double inverse = exact_inverse_rms(x, head_dim);
    for (size_t i = 0; i < half; i++) {
        const double first = (double)x[i] * (double)multiplier[i] * inverse;
        const double second = (double)x[half + i] * (double)multiplier[half + i] * inverse;
        const double c = (double)cosine[i], s = (double)sine[i];
        /* norm, two products each; a product and a sum */
        const double error = inverse_rms_error(head_dim) + 4.0 * U;
        check_close((double)out[i], first * c - second * s, (fabs(first * c) + fabs(second * s)) * error, isa,
                    "norm_rope", head_dim, i);
        check_close((double)out[half + i], second * c + first * s, (fabs(second * c) + fabs(first * s)) * error, isa,
                    "norm_rope", head_dim, half + i);
    }
    CHECK(guarded_free(out, head_dim * sizeof *out), "%s norm_rope wrote outside", isa);
    eg_aligned_free(sine);
    eg_aligned_free(cosine);
    eg_aligned_free(multiplier);
    eg_aligned_free(x);
}

/* scores: (n,), all of them set; those outside of begin … end - 1 are to be ignored. */
static void check_softmax_row(const char *isa, const eg_vector_ops *ops, const float *scores, size_t begin, size_t end,
                              size_t n)
{
    float *out = guarded_new(n * sizeof *out);
    memcpy(out, scores, n * sizeof *out);
    double max = (double)scores[begin], exact_sum = 0.0, sum_error = 0.0;
    for (size_t i = begin; i < end; i++) {
        max = (double)scores[i] > max ? (double)scores[i] : max; /* GCC 12 for ARM crashes on fmax here */
    }
    const double sum = (double)ops->softmax_numerators(out, begin, end, n);
    for (size_t i = 0; i < n; i++) {
        if (i < begin || i >= end) {
            CHECK(out[i] == 0.0f, "%s softmax: masked [%zu] is %g", isa, i, (double)out[i]);
            continue;
        }
        /* The difference from the max is rounded, and below -87 exp() gives e^-87. */
        const double x = (double)scores[i] - max, exact = exp(x);
        const double error = exact * (EXP_ERROR + fabs(x) * U) + (x < -87.0 ? exp(-87.0) : 0.0);
        check_close((double)out[i], exact, error, isa, "softmax_numerators", end - begin, i);
        exact_sum += exact;
        sum_error += error;
    }
    check_close(sum, exact_sum, sum_error + exact_sum * (double)n * U, isa, "softmax sum", end - begin, n);
    CHECK(guarded_free(out, n * sizeof *out), "%s softmax_numerators wrote outside", isa);
}

static void check_softmax(const char *isa, const eg_vector_ops *ops)
{
    enum { N = 64, WHOLE_RANGE = 1 << 20, WIDEST = 88 };
    uint64_t state = 4;
    float *scores = random_row(&state, N, 20.0f);
    for (size_t n = 16; n <= N; n += 16) {
        for (size_t begin = 0; begin < n; begin++) {
            for (size_t end = begin + 1; end <= n; end++) {
                check_softmax_row(isa, ops, scores, begin, end, n);
            }
        }
    }
    eg_aligned_free(scores);
    float *range = aligned_new(WHOLE_RANGE * sizeof *range); /* 0 … -88: exact differences from the max */
    for (size_t i = 0; i < WHOLE_RANGE; i++) {
        range[i] = -(float)i * ((float)WIDEST / (float)WHOLE_RANGE);
    }
    for (size_t i = 0; i < WHOLE_RANGE; i += 1024) {
        const float first = range[i];
        range[i] = 0.0f; /* the max of this piece */
        check_softmax_row(isa, ops, range + i, 0, 1024, 1024);
        range[i] = first;
    }
    eg_aligned_free(range);
}

/* ---- float32 matmul ---------------------------------------------------------------------------------------------- */

static void check_matmul_float(const char *isa, const eg_vector_ops *ops, size_t rows, size_t k, size_t panel_count)
{
    uint64_t state = rows * 100 + panel_count;
    const size_t x_stride = k + GAP, panel_stride = k * EG_PANEL + GAP;
    const size_t channels = panel_count * EG_PANEL, out_stride = channels + GAP;
    const size_t out_bytes = (rows * out_stride - GAP) * sizeof(float);
    float *x = random_row(&state, rows * x_stride, 10.0f),
          *panels = random_row(&state, panel_count * panel_stride, 1.0f);
    float *out = guarded_new(out_bytes);
    const float untouched = out[0];
    ops->matmul_float(x, x_stride, rows, k, panels, panel_stride, panel_count, out, out_stride);
    for (size_t row = 0; row < rows; row++) {
        for (size_t c = 0; c < channels; c++) {
            double exact = 0.0, size = 0.0;
            for (size_t i = 0; i < k; i++) {
                const double term = (double)x[row * x_stride + i] *
                                    (double)panels[c / EG_PANEL * panel_stride + i * EG_PANEL + c % EG_PANEL];
                exact += term;
                size += fabs(term);
            }
            check_close((double)out[row * out_stride + c], exact, size * ((double)k + 1.0) * U, isa, "matmul_float",
                        rows, row * channels + c);
        }
        for (size_t i = channels; i < out_stride && row + 1 < rows; i++) {
            CHECK(memcmp(&out[row * out_stride + i], &untouched, sizeof untouched) == 0,
                  "%s matmul_float wrote between rows", isa);
        }
    }
    CHECK(guarded_free(out, out_bytes), "%s matmul_float wrote outside", isa);
    eg_aligned_free(panels);
    eg_aligned_free(x);
}

/* ---- what follows an integer matmul --------------------------------------------------------------------------------
 */

static void check_dequantize(const char *isa, const eg_vector_ops *ops, size_t rows)
{
    enum { OUT_STRIDE = EG_TILE_CHANNELS + GAP };
    uint64_t state = rows + 5;
    float *row_scale = random_row(&state, rows, 1.0f), *channel_scale = random_row(&state, EG_TILE_CHANNELS, 1e-3f);
    int32_t *sums = aligned_new(rows * EG_TILE_CHANNELS * sizeof *sums);
    const size_t out_bytes = (rows * OUT_STRIDE - GAP) * sizeof(float);
    float *out = guarded_new(out_bytes);
    for (size_t i = 0; i < rows * EG_TILE_CHANNELS; i++) {
        sums[i] = random_int(&state, -EG_CODE_MAX * EG_CODE_MAX * 1152, EG_CODE_MAX * EG_CODE_MAX * 1152);
    }
    ops->dequantize(sums, rows, row_scale, channel_scale, out, OUT_STRIDE);
    for (size_t i = 0; i < rows * EG_TILE_CHANNELS; i++) {
        const size_t row = i / EG_TILE_CHANNELS, c = i % EG_TILE_CHANNELS;
        const double exact = (double)sums[i] * (double)row_scale[row] * (double)channel_scale[c];
        check_close((double)out[row * OUT_STRIDE + c], exact, fabs(exact) * 3.0 * U, isa, "dequantize", rows, i);
    }
    CHECK(guarded_free(out, out_bytes), "%s dequantize wrote outside", isa);
    eg_aligned_free(sums);
    eg_aligned_free(channel_scale);
    eg_aligned_free(row_scale);
}

/* Relative error of x / (1 + e), e = exp(t) with 5 roundings in t (two constants, three operations) and vf_exp's own,
 * which matter by e / (1 + e); then the sum's, the division's and the product's with `up`. */
static double gelu_error(double x)
{
    const double t = -2.0 * 0.7978845608028654 * (x + 0.044715 * x * x * x); /* sqrt(2 / π) */
    const double share = t > 0.0 ? 1.0 / (1.0 + exp(-t)) : exp(t) / (1.0 + exp(t));
    return share * (5.0 * U * fabs(t) + EXP_ERROR) + 3.0 * U;
}

static void check_geglu(const char *isa, const eg_vector_ops *ops, size_t rows, float range)
{
    enum { OUTPUTS = EG_TILE_CHANNELS / 2, OUT_STRIDE = OUTPUTS + GAP };
    uint64_t state = rows + 6;
    float *gate_up = random_row(&state, rows * EG_TILE_CHANNELS, range);
    const size_t out_bytes = (rows * OUT_STRIDE - GAP) * sizeof(float);
    float *out = guarded_new(out_bytes);
    ops->geglu(gate_up, rows, out, OUT_STRIDE);
    for (size_t i = 0; i < rows * OUTPUTS; i++) {
        const size_t row = i / OUTPUTS, c = i % OUTPUTS;
        const float *gate = gate_up + row * EG_TILE_CHANNELS + c / EG_PANEL * 2 * EG_PANEL + c % EG_PANEL;
        const double x = (double)gate[0], up = (double)gate[EG_PANEL];
        /* x / 2 · (1 + tanh u), without the cancellation where tanh u is near -1 */
        const double u = 0.7978845608028654 * (x + 0.044715 * x * x * x);
        const double gelu = u < 0.0 ? x * exp(2.0 * u) / (1.0 + exp(2.0 * u)) : x / (1.0 + exp(-2.0 * u));
        /* Beyond e^88 the quotient is held at x · e^-88, which is negligible beside x. */
        const double error = fabs(gelu * up) * gelu_error(x) + fabs(x * up) * exp(-88.0) + (double)FLT_TRUE_MIN;
        check_close((double)out[row * OUT_STRIDE + c], gelu * up, error, isa, "geglu", rows, i);
    }
    CHECK(guarded_free(out, out_bytes), "%s geglu wrote outside", isa);
    eg_aligned_free(gate_up);
}

static void check_ops(const char *isa, const eg_vector_ops *ops)
{
    check_embed(isa, ops);
    for (size_t w = 0; w < WIDTHS; w++) {
        check_norm(isa, ops, widths[w], 1.0f);
        check_norm(isa, ops, widths[w], 1e6f);  /* what the residual stream reaches */
        check_norm(isa, ops, widths[w], 1e-4f); /* eps counts */
        check_elementwise(isa, ops, widths[w]);
        check_quantize(isa, ops, widths[w], 1.0f);
        check_quantize(isa, ops, widths[w], 1e6f);
        check_norm_rope(isa, ops, widths[w]);
    }
    check_softmax(isa, ops);
    for (size_t rows = 1; rows <= 14; rows++) {
        for (size_t panels = 1; panels <= 6; panels++) {
            check_matmul_float(isa, ops, rows, rows % 2 ? 64 : 192, panels);
        }
    }
    for (size_t rows = 1; rows <= EG_TILE_MAX_ROWS; rows++) {
        check_dequantize(isa, ops, rows);
        check_geglu(isa, ops, rows, rows % 2 ? 4.0f : 20.0f);
    }
    check_geglu(isa, ops, EG_TILE_MAX_ROWS, 1e10f);
}

int main(void)
{
    for (size_t i = 0; i < eg_isa_list_count; i++) {
        const eg_isa *isa = &eg_isa_list[i];
        int seen = 0; /* under the name of another instruction set with the same registers */
        for (size_t j = 0; j < i; j++) {
            seen |= eg_isa_list[j].vector == isa->vector && eg_isa_list[j].supported();
        }
        if (isa->supported() && !seen) {
            check_ops(isa->name, isa->vector);
            printf("vector operations of %s: checked\n", isa->name);
        }
    }
    return check_result();
}
