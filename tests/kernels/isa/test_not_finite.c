/* NaN, infinity and overflow stay visible: no operation turns a row that has them into one that is finite. A wrong
 * vector would come of it; eg_encode refuses one that is not finite. */
#include "isa/kernels.h"
#include "tests/kernels/check.h"

#include <math.h>

enum { N = 256 };

static const float wrongs[] = {NAN, -NAN, INFINITY, -INFINITY, 1e25f}; /* the last one's square overflows */
enum { WRONGS = sizeof wrongs / sizeof wrongs[0] };

static _Alignas(64) float row[N], multiplier[N], rotated[N], out[N], cosine[N / 2], sine[N / 2];
static _Alignas(64) float panels[2 * N * EG_PANEL];
static _Alignas(64) int8_t codes[N];

/* `row` gets random numbers, but `wrong` at one place. */
static void fill(size_t place, float wrong)
{
    uint64_t random = place;
    for (size_t i = 0; i < N; i++) {
        row[i] = random_float(&random, 1.0f);
        multiplier[i] = 1.0f;
        out[i] = 0.5f;
    }
    row[place] = wrong;
}

static int all_finite(const float *x, size_t n)
{
    int finite = 1;
    for (size_t i = 0; i < n; i++) {
        finite &= isfinite(x[i]) != 0;
    }
    return finite;
}

static void check_vector_ops(const char *isa, const eg_vector_ops *ops, size_t place, float wrong)
{
    float scale;
    int32_t sum;
    fill(place, wrong);
    ops->norm_quantize(row, multiplier, N, 1e-6f, rotated, codes, &scale, &sum);
    CHECK(!isfinite(scale), "%s norm_quantize of %g at %zu", isa, (double)wrong, place);
    ops->norm(row, multiplier, N, 1e-6f, rotated);
    CHECK(!all_finite(rotated, N), "%s norm of %g at %zu", isa, (double)wrong, place);
    ops->norm_rope(row, multiplier, cosine, sine, N, 1e-6f, rotated);
    CHECK(!all_finite(rotated, N), "%s norm_rope of %g at %zu", isa, (double)wrong, place);
    ops->add_norm(out, row, multiplier, N, 1e-6f);
    CHECK(!all_finite(out, N), "%s add_norm of %g at %zu", isa, (double)wrong, place);
    if (!isfinite(wrong)) {
        ops->quantize(row, N, rotated, codes, &scale, &sum);
        CHECK(!isfinite(scale), "%s quantize of %g at %zu", isa, (double)wrong, place);
        ops->geglu(row, N / EG_TILE_CHANNELS, out, EG_TILE_CHANNELS / 2);
        CHECK(!all_finite(out, N / 2), "%s geglu of %g at %zu", isa, (double)wrong, place);
    }
    if (isnan(wrong) || wrong == INFINITY) { /* a score of -infinity has a weight of 0 */
        CHECK(!isfinite(ops->softmax_numerators(row, place / 2, place + 1, N)), "%s softmax of %g at %zu", isa,
              (double)wrong, place);
    }
}

static void check_attention_ops(const char *isa, const eg_attention_ops *ops, size_t place, float wrong)
{
    fill(place, wrong);
    CHECK(!isfinite(ops->store_key(row, N, panels, 3)), "%s store_key of %g at %zu", isa, (double)wrong, place);
    if (!isfinite(wrong)) {
        CHECK(!isfinite(ops->store_value(row, N, panels, EG_KEY_GRAIN, 5)), "%s store_value of %g at %zu", isa,
              (double)wrong, place);
        CHECK(!isfinite(ops->store_weights(out, N, 128.0f, row)), "%s store_weights with a scale of %g at %zu", isa,
              (double)wrong, place);
        fill(place, wrong);
        CHECK(!isfinite(ops->store_weights(row, N, wrong, multiplier)), "%s store_weights of %g at %zu", isa,
              (double)wrong, place);
        fill(place, wrong);
    }
    CHECK(!isfinite(ops->store_query(row, N)), "%s store_query of %g at %zu", isa, (double)wrong, place);
}

static void check_embedding_scales(const char *isa, const eg_vector_ops *ops)
{
    static const uint16_t scales[] = {0x7C00, 0xFC00, 0x7E00, 0xFFFF};
    memset(codes, 1, sizeof codes);
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) {
        ops->embed_int8(codes, scales[i], N, out);
        CHECK(!all_finite(out, N), "%s embed_int8 with scale %zu", isa, i);
    }
}

int main(void)
{
    for (size_t i = 0; i < N / 2; i++) {
        cosine[i] = 0.6f;
        sine[i] = 0.8f;
    }
    for (size_t i = 0; i < eg_isa_list_count; i++) {
        const eg_isa *isa = &eg_isa_list[i];
        if (!isa->supported()) {
            continue;
        }
        check_embedding_scales(isa->name, isa->vector);
        for (size_t place = 0; place < N; place++) {
            for (size_t w = 0; w < WRONGS; w++) {
                check_vector_ops(isa->name, isa->vector, place, wrongs[w]);
                if (isa->attention != NULL) {
                    check_attention_ops(isa->name, isa->attention, place, wrongs[w]);
                }
            }
        }
    }
    return check_result();
}
