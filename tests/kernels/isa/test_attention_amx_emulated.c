/* The AMX products of attention on any CPU: the source compiled with tile intrinsics in plain C, and with conversions
 * in plain C where it uses AVX512-BF16. test_attention.c runs the real ones. */
#define EG_AMX_EMULATION
#define eg_attention__amx eg_attention__amx_emulated /* the engine's library has the real one */
#include "tests/kernels/isa/amx_emulation.h"
#include "tests/kernels/isa/check_attention.h"

static void put_bfloat16(void *to, size_t index, float x)
{
    const float rounded = bfloat16_value(x);
    uint32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    ((uint16_t *)to)[index] = (uint16_t)(bits >> 16);
}

static float narrow(float *row, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        put_bfloat16(row, i, row[i]);
    }
    return 1.0f;
}

static float store_key(const float *key, size_t head_dim, void *panel, size_t column)
{
    for (size_t i = 0; i < head_dim; i++) {
        put_bfloat16(panel, (i / 2 * EG_PANEL + column) * 2 + i % 2, key[i]);
    }
    return 1.0f;
}

static float store_value(const float *value, size_t head_dim, void *panels, size_t slots, size_t slot)
{
    for (size_t i = 0; i < head_dim; i++) {
        const size_t panel = i / EG_PANEL * slots * EG_PANEL;
        put_bfloat16(panels, panel + (slot / 2 * EG_PANEL + i % EG_PANEL) * 2 + slot % 2, value[i]);
    }
    return 1.0f;
}

#include "isa/vector/attention_amx.c"

int main(void)
{
    check_attention_ops("amx, emulated", &eg_attention__amx_emulated);
    return check_result();
}
