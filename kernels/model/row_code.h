/* The prefix codes of the rows of an embedding table. Twin of embedding_rows.py, which describes them. */
#ifndef EG_ROW_CODE_H
#define EG_ROW_CODE_H

#include "embgemma.h"

enum {
    EG_RATE_BITS = 4,      /* a rate counts quarters of a bit an element */
    EG_RATES = 32,         /* the highest */
    EG_ROW_LEVELS = 256,   /* -128 … 127 */
    EG_WORD_BITS = 12,     /* of the longest word */
    EG_ROW_READ_AHEAD = 8, /* bytes behind the end of a row that reading it may read, but does not go by */
};

typedef struct eg_word {
    int8_t level;
    uint8_t bits;
} eg_word;

/* Of one rate: the word that the next EG_WORD_BITS bits begin with. */
typedef struct eg_row_code {
    eg_word words[1 << EG_WORD_BITS];
} eg_row_code;

/* Makes the code of the lengths of its words, (EG_ROW_LEVELS,). 0 if they do not use up all patterns of bits. */
int eg_row_code_create(const uint8_t *lengths, eg_row_code *code);

/* The levels (hidden,) of a row; hidden is a multiple of 4. 0 if its words do not end within its bytes. */
int eg_row_read(const eg_row_code *code, const uint8_t *row, size_t bytes, size_t hidden, int8_t *levels);

#endif
