/* The codes of rows of the embedding table: rows written bit by bit are read as they were, and nothing else is. */
#include "../check.h"
#include "model/row_code.h"

enum { HIDDEN = 64, PATTERNS = 1 << EG_WORD_BITS };

static eg_row_code code;

/* Lengths of a random code: a word is split into two longer ones, again and again. */
static void random_lengths(uint64_t *random, uint8_t *lengths)
{
    size_t words = 2;
    uint8_t of_words[EG_ROW_LEVELS] = {1, 1};
    const size_t most = (size_t)random_int(random, 2, EG_ROW_LEVELS);
    for (int tries = 0; words < most && tries < 10000; tries++) {
        uint8_t *split = &of_words[random_int(random, 0, (int)words - 1)];
        if (*split < EG_WORD_BITS) {
            of_words[words++] = ++*split;
        }
    }
    memset(lengths, 0, EG_ROW_LEVELS);
    for (size_t i = 0; i < words; i++) {
        int place = random_int(random, 0, EG_ROW_LEVELS - 1);
        while (lengths[place] != 0) {
            place = (place + 1) % EG_ROW_LEVELS;
        }
        lengths[place] = of_words[i];
    }
}

/* The word of a level + 128: those before it, in the order of lengths and levels, take up the patterns below it. */
static unsigned word_of(const uint8_t *lengths, int place)
{
    unsigned before = 0;
    for (int i = 0; i < EG_ROW_LEVELS; i++) {
        const int is_before = lengths[i] < lengths[place] || (lengths[i] == lengths[place] && i < place);
        before += lengths[i] > 0 && is_before ? (unsigned)PATTERNS >> lengths[i] : 0;
    }
    return before >> (EG_WORD_BITS - lengths[place]);
}

static void check_rows(uint64_t *random)
{
    uint8_t lengths[EG_ROW_LEVELS];
    random_lengths(random, lengths);
    CHECK(eg_row_code_create(lengths, &code), "a code was refused");
    int8_t levels[HIDDEN];
    uint8_t bits[HIDDEN * EG_WORD_BITS] = {0};
    size_t count = 0;
    for (size_t i = 0; i < HIDDEN; i++) {
        int place = random_int(random, 0, EG_ROW_LEVELS - 1);
        while (lengths[place] == 0) {
            place = (place + 1) % EG_ROW_LEVELS;
        }
        levels[i] = (int8_t)(place - EG_ROW_LEVELS / 2);
        const unsigned word = word_of(lengths, place);
        for (int bit = lengths[place]; bit-- > 0;) {
            bits[count++] = word >> bit & 1;
        }
    }
    const size_t bytes = (count + 7) / 8;
    uint8_t *row = aligned_new(bytes + EG_ROW_READ_AHEAD); /* the address sanitizer sees a read behind it */
    memset(row, 0, bytes);
    memset(row + bytes, random_int(random, 0, 255), EG_ROW_READ_AHEAD);
    for (size_t i = 0; i < count; i++) {
        row[i / 8] |= (uint8_t)(bits[i] << (7 - i % 8));
    }
    int8_t *read = guarded_new(HIDDEN);
    CHECK(eg_row_read(&code, row, bytes, HIDDEN, read), "a row of %zu bits was refused", count);
    CHECK(memcmp(read, levels, HIDDEN) == 0, "a row of %zu bits was read as another", count);
    for (size_t shorter = 0; shorter < bytes; shorter++) {
        CHECK(!eg_row_read(&code, row, shorter, HIDDEN, read), "a row of %zu bits fits %zu bytes", count, shorter);
    }
    CHECK(guarded_free(read, HIDDEN), "wrote outside a row");
    eg_aligned_free(row);
}

static void check_refused(uint64_t *random)
{
    uint8_t lengths[EG_ROW_LEVELS];
    random_lengths(random, lengths);
    int place = random_int(random, 0, EG_ROW_LEVELS - 1);
    const int before = lengths[place];
    while (lengths[place] == before) {
        lengths[place] = (uint8_t)random_int(random, 0, 255);
    }
    CHECK(!eg_row_code_create(lengths, &code), "a word of %d bits became one of %d", before, lengths[place]);
    memset(lengths, 0, sizeof lengths);
    CHECK(!eg_row_code_create(lengths, &code), "a code without words was taken");
}

int main(void)
{
    uint64_t random = 1;
    for (int i = 0; i < 300; i++) {
        check_rows(&random);
        check_refused(&random);
    }
    return check_result();
}
