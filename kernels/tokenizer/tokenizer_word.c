/* The tokens of a word by search, in time linear in its length, instead of by merging.
 *
 * They are the only row of tokens in which merging gives every two neighbours: export/tokenizer/merges.py says why. The
 * search goes from left to right: it takes the longest piece that may follow the token before it; if there is none, it
 * takes back that token. No tokens of the word end where the search came back, so it passes each place once.
 * (H. van Antwerpen and A. Neubeck, "So many tokens, so little time", GitHub blog, 2024.) */
#include "tokenizer/tokenizer_word.h"

#include "common/error.h"

#include <string.h>

enum {
    MOST_UNDONE = 2 * EG_MOST_PIECE_BYTES, /* merges in two pieces */
    MOST_UNSURE = 2 * EG_MOST_PIECE_BYTES, /* bytes before the end of a part of a word that are not looked at */
};

void eg_word_search_begin(eg_word_search *s, const eg_tokenizer *table)
{
    s->table = table;
    s->tokens = s->few_tokens;
    s->token_room = EG_FEW_TOKENS;
    s->dead = memset(s->few_places, 0, sizeof s->few_places);
    s->dead_bytes = sizeof s->few_places;
    s->dead_end = 0;
}

void eg_word_search_end(eg_word_search *s)
{
    if (s->tokens != s->few_tokens) {
        eg_release(&s->table->allocator, s->tokens);
    }
    if (s->dead != s->few_places) {
        eg_release(&s->table->allocator, s->dead);
    }
}

/* Makes room for twice as many tokens. */
static eg_status grow_tokens(eg_word_search *s)
{
    const eg_allocator *allocator = &s->table->allocator;
    eg_token *tokens = eg_allocate_unset(allocator, 2 * s->token_room, sizeof *tokens);
    if (tokens == NULL) {
        return eg_fail(EG_ERROR_MEMORY, "no memory for %zu tokens of a word", 2 * s->token_room);
    }
    memcpy(tokens, s->tokens, s->token_room * sizeof *tokens);
    if (s->tokens != s->few_tokens) {
        eg_release(allocator, s->tokens);
    }
    s->tokens = tokens;
    s->token_room *= 2;
    return EG_OK;
}

/* Marks a place in a word of word_bytes bytes, counted from its beginning. */
static eg_status mark_dead(eg_word_search *s, size_t place, size_t word_bytes)
{
    const size_t mask_bytes = word_bytes / 8 + 1;
    if (mask_bytes > s->dead_bytes) { /* nothing is marked yet */
        unsigned char *dead = eg_allocate(&s->table->allocator, mask_bytes, 1);
        if (dead == NULL) {
            return eg_fail(EG_ERROR_MEMORY, "no memory for a word of %zu bytes", word_bytes);
        }
        if (s->dead != s->few_places) {
            eg_release(&s->table->allocator, s->dead);
        }
        s->dead = dead;
        s->dead_bytes = mask_bytes;
    }
    s->dead[place / 8] |= (unsigned char)(1u << place % 8);
    s->dead_end = place + 1 > s->dead_end ? place + 1 : s->dead_end;
    return EG_OK;
}

static int is_dead(const eg_word_search *s, size_t place)
{
    return place < s->dead_end && (s->dead[place / 8] >> place % 8 & 1);
}

static void clear_dead(eg_word_search *s)
{
    if (s->dead_end > 0) {
        memset(s->dead, 0, (s->dead_end + 7) / 8);
        s->dead_end = 0;
    }
}

/* 1 if merging leaves these two tokens side by side. It undoes their merges, the latest first; no pair across the
 * border may be one that would have been merged before what was undone. */
static int are_neighbours(const eg_tokenizer *t, eg_token before, uint32_t right)
{
    uint32_t left = before.id;
    int longest = before.longest != 0; /* then no pair that begins where `left` begins can be a piece */
    if (longest && !eg_is_merged(t, left)) {
        return 1; /* nothing of it can join what follows */
    }
    uint32_t left_order = eg_merge_order(t, left), right_order = eg_merge_order(t, right);
    uint32_t limit = UINT32_MAX; /* merges of a lower order would have crossed the border */
    for (int undone = 0; undone < MOST_UNDONE; undone++) {
        const uint32_t merged = longest ? EG_NO_PIECE : eg_find_merge(t, left, right);
        if (merged != EG_NO_PIECE && eg_merge_order(t, merged) < limit) {
            return 0;
        }
        if (left_order == 0 && right_order == 0) {
            return 1;
        }
        if (left_order > right_order) {
            limit = left_order;
            left = eg_parts(t, left).right;
            left_order = eg_merge_order(t, left);
            longest = 0;
        } else { /* of equal ones, the left is merged first */
            limit = right_order + 1;
            right = eg_parts(t, right).left;
            right_order = eg_merge_order(t, right);
        }
    }
    return 1; /* only a corrupt table comes here */
}

/* Finds the tokens of text[begin … end), after the first `kept` of s->tokens, which stay. Sets how many there are then,
 * and where they end: before `end` if a character is no piece, or if none can follow those that stay. */
static eg_status search(eg_word_search *s, const unsigned char *text, size_t begin, size_t end, size_t kept,
                        size_t *token_count, size_t *stop)
{
    size_t count = kept, at = begin;
    size_t limit = end; /* where the next token may end: before the one that was taken back, if one was */
    eg_status status = EG_OK;
    while (at < end && status == EG_OK) {
        eg_match match = eg_piece_at(s->table, text, at, limit);
        if (match.end == 0 && limit == end) {
            break;
        }
        uint32_t longest = limit == end;
        while (match.end != 0 && (is_dead(s, match.end - begin) ||
                                  (count > 0 && !are_neighbours(s->table, s->tokens[count - 1], match.id)))) {
            match = eg_piece_at(s->table, text, at, match.end - 1);
            longest = 0;
        }
        if (match.end != 0) {
            status = count < s->token_room ? EG_OK : grow_tokens(s);
            if (status == EG_OK) {
                s->tokens[count++] = (eg_token){(uint32_t)match.end, match.id, longest};
                at = match.end;
                limit = end;
            }
        } else if (count > kept) {
            status = mark_dead(s, at - begin, end - begin);
            limit = at - 1;
            count--;
            at = count > kept ? s->tokens[count - 1].end : begin;
        } else {
            status = kept > 0 ? EG_OK : eg_table_corrupt(); /* every word has tokens */
            break;
        }
    }
    clear_dead(s);
    *token_count = count;
    *stop = at;
    return status;
}

eg_status eg_find_tokens(eg_word_search *s, const unsigned char *text, size_t begin, size_t end, size_t *token_count,
                         size_t *stop)
{
    return search(s, text, begin, end, 0, token_count, stop);
}

/* The tokens of the whole word end somewhere in the last bytes before `end`, since none is longer, and up to there they
 * are those of the word cut there. So a token is sure if, wherever it is cut there, tokens can follow this one. */
eg_status eg_find_first_tokens(eg_word_search *s, const unsigned char *text, size_t begin, size_t end, size_t most,
                               size_t *token_count, size_t *stop)
{
    size_t count, at, found;
    eg_status status = search(s, text, begin, end, 0, &count, &at);
    const int is_break = at < end; /* a character is no piece: what comes after it changes nothing */
    if (status == EG_OK && !is_break) {
        while (count > 0 && s->tokens[count - 1].end + (size_t)MOST_UNSURE > end) {
            count--;
        }
        count = count < most ? 0 : count;
        for (size_t cut = end; cut + EG_MOST_PIECE_BYTES > end && count > 0 && status == EG_OK; cut--) {
            if ((text[cut] & 0xC0) != 0x80) { /* a character begins */
                status = search(s, text, s->tokens[count - 1].end, cut, count, &found, &at);
                count = at < cut ? 0 : count;
            }
        }
        at = count > 0 ? s->tokens[count - 1].end : begin;
    }
    *token_count = status == EG_OK ? count : 0;
    *stop = at;
    return status;
}
