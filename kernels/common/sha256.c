#include "common/sha256.h"

#include <stdio.h>
#include <string.h>

enum { ROUNDS = 64 };

/* The first bits of the fractions of the cube roots of the first 64 primes: FIPS 180-4, 4.2.2. */
static const uint32_t constants[ROUNDS] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t turned(uint32_t word, int right) { return word >> right | word << (32 - right); }

/* 6.2.2: one block. */
static void add_block(uint32_t state[8], const unsigned char *block)
{
    uint32_t w[ROUNDS], s[8];
    for (int t = 0; t < 16; t++) {
        w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 | (uint32_t)block[4 * t + 2] << 8 |
               block[4 * t + 3];
    }
    for (int t = 16; t < ROUNDS; t++) {
        const uint32_t a = w[t - 15], b = w[t - 2];
        w[t] = w[t - 16] + (turned(a, 7) ^ turned(a, 18) ^ a >> 3) + w[t - 7] +
               (turned(b, 17) ^ turned(b, 19) ^ b >> 10);
    }
    memcpy(s, state, sizeof s);
    for (int t = 0; t < ROUNDS; t++) { /* the words a … h are s[-t], s[1 - t] …, so that none is moved */
        const uint32_t a = s[(0 - t) & 7], b = s[(1 - t) & 7], c = s[(2 - t) & 7];
        const uint32_t e = s[(4 - t) & 7], f = s[(5 - t) & 7], g = s[(6 - t) & 7];
        uint32_t *const d = &s[(3 - t) & 7], *const h = &s[(7 - t) & 7];
        const uint32_t first = *h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) +
                               constants[t] + w[t];
        *d += first;
        *h = first + (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    }
    for (int i = 0; i < 8; i++) {
        state[i] += s[i];
    }
}

eg_sha256 eg_sha256_begin(void)
{
    return (eg_sha256){
        .state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void eg_sha256_add(eg_sha256 *hash, const void *data, size_t bytes)
{
    const unsigned char *next = data;
    while (bytes > 0) {
        const size_t held = (size_t)(hash->bytes % EG_SHA256_BLOCK);
        const size_t taken = bytes < EG_SHA256_BLOCK - held ? bytes : EG_SHA256_BLOCK - held;
        if (taken == EG_SHA256_BLOCK) { /* not copied */
            add_block(hash->state, next);
        } else {
            memcpy(hash->block + held, next, taken);
            if (held + taken == EG_SHA256_BLOCK) {
                add_block(hash->state, hash->block);
            }
        }
        hash->bytes += taken;
        next += taken;
        bytes -= taken;
    }
}

void eg_sha256_end(eg_sha256 *hash, char hex[EG_SHA256_DIGITS + 1])
{
    /* 5.1.1: a bit of 1, bits of 0 up to the last 8 bytes of a block, the number of bits. */
    unsigned char end[EG_SHA256_BLOCK + 8] = {0x80};
    const size_t zeros = (2 * EG_SHA256_BLOCK - 9 - (size_t)(hash->bytes % EG_SHA256_BLOCK)) % EG_SHA256_BLOCK;
    for (int i = 0; i < 8; i++) {
        end[1 + zeros + (size_t)i] = (unsigned char)(hash->bytes * 8 >> 8 * (7 - i) & 0xFF);
    }
    eg_sha256_add(hash, end, 1 + zeros + 8);
    for (int i = 0; i < 8; i++) {
        snprintf(hex + 8 * i, 9, "%08x", (unsigned)hash->state[i]);
    }
}
