#include "model/row_code.h"

int eg_row_code_create(const uint8_t *lengths, eg_row_code *code)
{
    enum { PATTERNS = 1 << EG_WORD_BITS };
    size_t used = 0;
    for (int bits = 1; bits <= EG_WORD_BITS; bits++) {
        for (int i = 0; i < EG_ROW_LEVELS; i++) {
            const size_t end = used + (lengths[i] == bits ? (size_t)PATTERNS >> bits : 0);
            while (used < end && used < PATTERNS) {
                code->words[used++] = (eg_word){(int8_t)(i - EG_ROW_LEVELS / 2), (uint8_t)bits};
            }
            if (used < end) {
                return 0;
            }
        }
    }
    for (int i = 0; i < EG_ROW_LEVELS; i++) {
        if (lengths[i] > EG_WORD_BITS) {
            return 0;
        }
    }
    return used == PATTERNS;
}

/* The first bits are the highest. */
static uint64_t first_bits(const uint8_t *bytes)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < EG_ROW_READ_AHEAD; i++) {
        bits = bits << 8 | bytes[i];
    }
    return bits;
}

int eg_row_read(const eg_row_code *code, const uint8_t *row, size_t bytes, size_t hidden, int8_t *levels)
{
    enum { AT_ONCE = (64 - 7) / EG_WORD_BITS, BITS = 8 * EG_ROW_READ_AHEAD }; /* words in the bits of one look */
    size_t position = 0;                                                      /* bits */
    for (size_t i = 0; i < hidden; i += AT_ONCE) {
        const size_t byte = position / 8 < bytes ? position / 8 : bytes;
        uint64_t bits = first_bits(row + byte) << position % 8;
        for (size_t k = 0; k < AT_ONCE; k++) {
            const eg_word word = code->words[bits >> (BITS - EG_WORD_BITS)];
            levels[i + k] = word.level;
            bits <<= word.bits;
            position += word.bits;
        }
    }
    return position <= 8 * bytes;
}
