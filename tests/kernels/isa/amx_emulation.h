/* The tile intrinsics that matmul_amx.c uses, in plain C after the pseudocode of Intel's SDM volume 2, for CPUs
 * without AMX. What faults on a CPU (a use before configuration, shapes that do not match) is a failed check. */
#ifndef EG_TESTS_AMX_EMULATION_H
#define EG_TESTS_AMX_EMULATION_H

#include "tests/kernels/check.h"

enum { AMX_TILES = 8, AMX_ROWS = 16, AMX_ROW_BYTES = 64, AMX_CONFIG_BYTES = 64 };

typedef struct amx_tile {
    size_t rows, row_bytes;
    uint8_t bytes[AMX_ROWS][AMX_ROW_BYTES];
} amx_tile;

static amx_tile amx_tiles[AMX_TILES]; /* all of 0 rows: not configured */

/* LDTILECFG: byte 0 palette, 1 start row, 2–15 zero, 16–47 bytes a row (uint16), 48–63 rows. Zeroes the tiles. */
static inline void _tile_loadconfig(const void *config)
{
    uint8_t bytes[AMX_CONFIG_BYTES];
    memcpy(bytes, config, sizeof bytes);
    CHECK(bytes[0] == 1, "palette %d", bytes[0]);
    for (size_t i = 1; i < 16; i++) {
        CHECK(bytes[i] == 0, "byte %zu of the tile configuration is %d", i, bytes[i]);
    }
    memset(amx_tiles, 0, sizeof amx_tiles);
    for (size_t i = 0; i < 16; i++) {
        const size_t row_bytes = bytes[16 + 2 * i] | (size_t)bytes[17 + 2 * i] << 8, rows = bytes[48 + i];
        CHECK(row_bytes <= AMX_ROW_BYTES && rows <= AMX_ROWS && !rows == !row_bytes && (i < AMX_TILES || !rows),
              "tile %zu has %zu rows of %zu bytes", i, rows, row_bytes);
        if (i < AMX_TILES) {
            amx_tiles[i].rows = rows;
            amx_tiles[i].row_bytes = row_bytes;
        }
    }
}

static inline void _tile_release(void) { memset(amx_tiles, 0, sizeof amx_tiles); }

static inline void _tile_zero(int tile)
{
    CHECK(amx_tiles[tile].rows, "TILEZERO of tile %d, not configured", tile);
    memset(amx_tiles[tile].bytes, 0, sizeof amx_tiles[tile].bytes);
}

static inline void _tile_loadd(int tile, const void *base, size_t stride)
{
    amx_tile *t = &amx_tiles[tile];
    CHECK(t->rows, "TILELOADD of tile %d, not configured", tile);
    memset(t->bytes, 0, sizeof t->bytes);
    for (size_t row = 0; row < t->rows; row++) {
        memcpy(t->bytes[row], (const uint8_t *)base + row * stride, t->row_bytes);
    }
}

static inline void _tile_stored(int tile, void *base, size_t stride)
{
    const amx_tile *t = &amx_tiles[tile];
    CHECK(t->rows, "TILESTORED of tile %d, not configured", tile);
    for (size_t row = 0; row < t->rows; row++) {
        memcpy((uint8_t *)base + row * stride, t->bytes[row], t->row_bytes);
    }
}

/* TDPBSSD: sums[m][n] += Σ inputs[m][4k + i] · weights[k][4n + i] over k and i < 4. */
static inline void _tile_dpbssd(int sums, int inputs, int weights)
{
    amx_tile *c = &amx_tiles[sums];
    const amx_tile *a = &amx_tiles[inputs], *b = &amx_tiles[weights];
    CHECK(sums != inputs && sums != weights && inputs != weights, "tiles %d, %d, %d", sums, inputs, weights);
    CHECK(c->rows && c->rows == a->rows && a->row_bytes == 4 * b->rows && c->row_bytes == b->row_bytes,
          "shapes of tiles %d, %d, %d", sums, inputs, weights);
    for (size_t m = 0; m < c->rows; m++) {
        for (size_t n = 0; n < c->row_bytes / 4; n++) {
            int32_t sum;
            memcpy(&sum, &c->bytes[m][4 * n], sizeof sum);
            for (size_t k = 0; k < b->rows; k++) {
                for (size_t i = 0; i < 4; i++) {
                    sum += (int8_t)a->bytes[m][4 * k + i] * (int8_t)b->bytes[k][4 * n + i];
                }
            }
            memcpy(&c->bytes[m][4 * n], &sum, sizeof sum);
        }
    }
}

#endif
