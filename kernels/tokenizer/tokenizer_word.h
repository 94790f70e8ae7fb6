/* The tokens of one word: a stretch of text whose ends no merge crosses. */
#ifndef EG_TOKENIZER_WORD_H
#define EG_TOKENIZER_WORD_H

#include "tokenizer/tokenizer_table.h"

enum {
    EG_FEW_TOKENS = 128, /* a word with more needs memory of the allocator */
    EG_FEW_PLACES = 512, /* the same for its bytes, if the search comes back */
};

typedef struct eg_token {
    uint32_t end; /* where in the text it ends */
    uint32_t id;
    uint32_t longest; /* 1 if no longer piece begins where it does */
} eg_token;

/* The tokens of the current word, and memory for the search, reused from word to word. */
typedef struct eg_word_search {
    const eg_tokenizer *table;
    eg_token *tokens; /* (token_room,) few_tokens, or memory of the allocator */
    size_t token_room;
    unsigned char *dead; /* bit mask of places in the word that no tokens end at; few_places, or of the allocator */
    size_t dead_bytes;
    size_t dead_end; /* one past the last such place */
    eg_token few_tokens[EG_FEW_TOKENS];
    unsigned char few_places[EG_FEW_PLACES / 8];
} eg_word_search;

void eg_word_search_begin(eg_word_search *s, const eg_tokenizer *table);
void eg_word_search_end(eg_word_search *s);

/* Finds the tokens of the word text[begin … end): sets how many, and where they end, which is before `end` if there is
 * a character that is no piece. */
eg_status eg_find_tokens(eg_word_search *s, const unsigned char *text, size_t begin, size_t end, size_t *token_count,
                         size_t *stop);

/* The same for a word that goes on after `end`, and of which `most` tokens will do: sets how many are sure whatever
 * follows, and where they end. These are `most` or more, or all before a character that is no piece, or none. */
eg_status eg_find_first_tokens(eg_word_search *s, const unsigned char *text, size_t begin, size_t end, size_t most,
                               size_t *token_count, size_t *stop);

#endif
