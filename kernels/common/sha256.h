/* SHA-256 (FIPS 180-4). */
#ifndef EG_SHA256_H
#define EG_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { EG_SHA256_BLOCK = 64, EG_SHA256_DIGITS = 64 };

typedef struct eg_sha256 {
    uint32_t state[8];
    uint64_t bytes;                       /* that were added */
    unsigned char block[EG_SHA256_BLOCK]; /* the last of them, which do not fill a block yet */
} eg_sha256;

eg_sha256 eg_sha256_begin(void);
void eg_sha256_add(eg_sha256 *hash, const void *data, size_t bytes);

/* hex: receives lowercase hexadecimal digits and a 0. */
void eg_sha256_end(eg_sha256 *hash, char hex[EG_SHA256_DIGITS + 1]);

#endif
