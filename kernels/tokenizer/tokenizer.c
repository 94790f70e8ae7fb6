/* Text to token ids: the same as the Hugging Face tokenizer of the checkpoint gives.
 *
 * A text is cut in three steps, each exact:
 *
 *  1. Special pieces (<bos>, line breaks, <h1>, a literal run of "▁", …) are cut out of the raw text, longest first.
 *  2. Runs of spaces become pieces of their own, the longest first. A single space, or one left over at the end of a
 *     run, is the "▁" that begins the next word. A single literal "▁" is a space.
 *  3. The rest is cut into words wherever no piece may span two bytes (`joins`): before spaces, between letters and
 *     punctuation, between digits. Words that are still long, as in Chinese, are cut wherever no piece of the text
 *     spans. So memory stays small, and little more of a text is read than is kept; a word that cannot be cut is
 *     read until its first tokens are sure and fill the room.
 *
 * Most words are one piece; the tokens of the others are found by tokenizer_word.c. */
#include "common/error.h"
#include "common/utf8.h"
#include "tokenizer/tokenizer_word.h"

#include <string.h>

enum {
    LONG_WORD = 4096,       /* bytes */
    ENDLESS_WORD = 1 << 16, /* bytes of a word that are read before it is asked whether its tokens have room */
    BYTES_OF_TOKEN = 8,     /* of text for a token: an estimate, high for most texts */
};

/* The state of one call: the current text, and the ids written. */
typedef struct job {
    const eg_tokenizer *table;
    const unsigned char *text;
    size_t bytes;

    int32_t *ids;
    size_t room, count; /* ids that may be written, and are */
    int truncated;

    eg_word_search search;
} job;

static eg_status write_id(job *j, uint32_t id)
{
    if (id >= j->table->header.vocab) {
        return eg_table_corrupt();
    }
    if (j->count == j->room) {
        j->truncated = 1;
    } else {
        j->ids[j->count++] = (int32_t)id;
    }
    return EG_OK;
}

/* ---- a word to ids -------------------------------------------------------------------------------------------- */

/* Writes the ids of the bytes of the character at *at, which is not a piece, and moves *at past it. */
static eg_status spell_character(job *j, size_t *at)
{
    const unsigned char *character = j->text + *at;
    const size_t bytes = eg_character_bytes(character, j->bytes - *at);
    if (bytes == 0) { /* every invalid one comes here, since the characters of pieces are valid */
        return eg_fail(EG_ERROR_ARGUMENT, "the text is not UTF-8: byte %zu, 0x%02X, begins no character", *at,
                       character[0]);
    }
    eg_status status = EG_OK;
    for (size_t i = 0; i < bytes && status == EG_OK; i++) {
        status = write_id(j, j->table->header.byte_ids[character[i]]);
    }
    *at += bytes;
    return status;
}

/* Writes the ids of the word text[*at … end) and moves *at past them. If the word goes on after `end`, it may not get
 * far: it moves *at no further than ids are sure. */
static eg_status write_word(job *j, size_t *at, size_t end, int goes_on)
{
    eg_status status = EG_OK;
    while (*at < end && status == EG_OK && !j->truncated) {
        const size_t begin = *at;
        size_t count;
        if (goes_on) {
            status = eg_find_first_tokens(&j->search, j->text, begin, end, j->room - j->count + 1, &count, at);
        } else {
            status = eg_find_tokens(&j->search, j->text, begin, end, &count, at);
        }
        for (size_t i = 0; i < count && status == EG_OK && !j->truncated; i++) {
            status = write_id(j, j->search.tokens[i].id);
        }
        if (goes_on && eg_piece_at(j->table, j->text, *at, j->bytes).end != 0) {
            break;
        }
        if (*at < end && status == EG_OK && !j->truncated) {
            status = spell_character(j, at);
        }
    }
    return status;
}

/* ---- a text to words ------------------------------------------------------------------------------------------ */

static eg_match special_at(const job *j, size_t at)
{
    return eg_longest_match(j->table, j->table->header.special_root, j->text, at, j->bytes);
}

/* Bytes of the space, or of the literal "▁" that belongs to no special piece, at this place; 0 if there is none. */
static size_t space_at(const job *j, size_t at)
{
    static const unsigned char symbol[] = {0xE2, 0x96, 0x81};
    if (at < j->bytes && j->text[at] == ' ') {
        return 1;
    }
    if (j->bytes - at >= sizeof symbol && memcmp(j->text + at, symbol, sizeof symbol) == 0) {
        return special_at(j, at).end == 0 ? sizeof symbol : 0;
    }
    return 0;
}

static int may_join(const job *j, size_t at) { return eg_may_join(j->table, j->text[at - 1], j->text[at]); }

/* Where the word that begins here ends, or a place in it that is `most` bytes away or a little more. */
static size_t word_end(const job *j, size_t begin, size_t most)
{
    size_t matched = begin + LONG_WORD - EG_MOST_PIECE_BYTES; /* pieces that begin before it were looked at */
    size_t reach = 0;                                         /* the furthest place where one of them ends */
    for (size_t at = begin + 1; at < j->bytes; at++) {
        if ((j->text[at] & 0xC0) == 0x80) {
            continue; /* inside a character */
        }
        if (!may_join(j, at)) {
            return at;
        }
        if (at - begin >= LONG_WORD) {
            for (; matched < at; matched++) {
                const size_t end = eg_piece_at(j->table, j->text, matched, j->bytes).end;
                reach = end > reach ? end : reach;
            }
            if (reach <= at) {
                return at;
            }
        }
        if (j->table->may_begin_special[j->text[at]]) {
            const size_t space = space_at(j, at);
            const int in_run = space != 0 && j->table->header.longest_run > 1 && space_at(j, at + space) != 0;
            if (in_run || special_at(j, at).end != 0) {
                return at;
            }
        }
        if (at - begin >= most) {
            return at;
        }
    }
    return j->bytes;
}

/* Writes the word that begins at *at, or as much of it as there is room for, and moves *at past it. */
static eg_status write_next_word(job *j, size_t *at)
{
    eg_status status = EG_OK;
    size_t most = ENDLESS_WORD;
    size_t end = word_end(j, *at, most);
    while (end - *at >= most && status == EG_OK && !j->truncated) {
        if (most / BYTES_OF_TOKEN > j->room - j->count) {
            status = write_word(j, at, end, 1);
        }
        most *= 2;
        end = word_end(j, *at, most);
    }
    return status == EG_OK && !j->truncated ? write_word(j, at, end, 0) : status;
}

/* The piece that is the whole word that begins here, as most words are one piece; end 0 if one look-up cannot say.
 * No special piece and no run of spaces begins inside the match: no piece contains one, and `joins` covers both. */
static eg_match whole_word(const job *j, size_t begin)
{
    const eg_match match = eg_piece_at(j->table, j->text, begin, j->bytes);
    const int ends = match.end == j->bytes || (match.end != 0 && !may_join(j, match.end));
    return ends ? match : (eg_match){0, EG_NO_PIECE};
}

/* Writes the pieces of a run of two or more spaces, if one begins at *at, and moves *at past them. */
static eg_status write_spaces(job *j, size_t *at)
{
    const eg_table_header *h = &j->table->header;
    eg_status status = EG_OK;
    while (status == EG_OK && !j->truncated) {
        size_t end = *at;
        uint32_t spaces = 0;
        for (size_t space; spaces < h->longest_run && (space = space_at(j, end)) != 0; spaces++) {
            end += space;
        }
        if (spaces < 2) {
            break;
        }
        status = write_id(j, h->run_ids[spaces]);
        *at = end;
    }
    return status;
}

/* Writes the ids of the text between <bos> and <eos>. */
static eg_status write_text(job *j)
{
    eg_status status = EG_OK;
    for (size_t at = 0; at < j->bytes && status == EG_OK && !j->truncated;) {
        if (j->table->may_begin_special[j->text[at]]) {
            const eg_match special = j->text[at] != ' ' ? special_at(j, at) : (eg_match){0, EG_NO_PIECE};
            if (special.end != 0) {
                status = write_id(j, special.id);
                at = special.end;
                continue;
            }
            const size_t begin = at;
            status = write_spaces(j, &at);
            if (at != begin) {
                continue;
            }
        }
        const eg_match word = whole_word(j, at);
        if (word.end != 0) {
            status = write_id(j, word.id);
            at = word.end;
        } else {
            status = write_next_word(j, &at);
        }
    }
    return status;
}

/* ---- the public calls ----------------------------------------------------------------------------------------- */

/* Appends the ids of one text, at most max_tokens. */
static eg_status tokenize(job *j, const char *text, size_t bytes, size_t max_tokens)
{
    j->text = (const unsigned char *)text;
    j->bytes = bytes;
    j->truncated = 0;
    j->room = j->count + max_tokens - 1; /* one is kept for <eos> */
    eg_status status = write_id(j, j->table->bos);
    if (status == EG_OK) {
        status = write_text(j);
    }
    j->room++;
    return status == EG_OK ? write_id(j, j->table->eos) : status;
}

eg_status eg_tokenize_batch(const eg_tokenizer *tokenizer, const char *text, const uint64_t *text_offsets, size_t texts,
                            size_t max_tokens, int32_t *ids, size_t capacity, uint64_t *offsets, uint8_t *truncated)
{
    if (tokenizer == NULL || text == NULL || text_offsets == NULL || ids == NULL || offsets == NULL ||
        truncated == NULL || max_tokens < 2) {
        return eg_fail(EG_ERROR_ARGUMENT,
                       "tokenizing needs a tokenizer, texts, places for the results, and max_tokens of at least 2");
    }
    if (texts >= PTRDIFF_MAX / sizeof *offsets) {
        return eg_fail(EG_ERROR_ARGUMENT, "%zu texts: expected as many as memory can hold", texts);
    }
    job j;
    j.table = tokenizer;
    j.ids = ids;
    j.count = 0;
    eg_word_search_begin(&j.search, tokenizer);
    eg_status status = EG_OK;
    offsets[0] = 0;
    for (size_t i = 0; i < texts && status == EG_OK; i++) {
        const uint64_t begin = text_offsets[i], end = text_offsets[i + 1];
        if (end < begin || end - begin > UINT32_MAX) {
            status = eg_fail(EG_ERROR_ARGUMENT, "text %zu has bytes %llu to %llu: expected 0 to 4 GiB of them", i,
                             (unsigned long long)begin, (unsigned long long)end);
            break;
        }
        const size_t bytes = (size_t)(end - begin);
        const size_t most = bytes < max_tokens - 2 ? bytes + 2 : max_tokens;
        if (most > capacity - j.count) {
            status = eg_fail(EG_ERROR_ARGUMENT, "there is room for %zu ids: text %zu and those before may take more",
                             capacity, i);
            break;
        }
        status = tokenize(&j, text + begin, bytes, most);
        offsets[i + 1] = j.count;
        truncated[i] = (uint8_t)j.truncated;
    }
    eg_word_search_end(&j.search);
    return status;
}

eg_status eg_tokenize(const eg_tokenizer *tokenizer, const char *text, size_t bytes, size_t max_tokens, int32_t *ids,
                      size_t *count, uint32_t *truncated)
{
    if (count == NULL || truncated == NULL) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_tokenize needs places for the number of ids and for truncated");
    }
    uint64_t offsets[2] = {0, 0};
    uint8_t cut = 0;
    const eg_status status = eg_tokenize_batch(tokenizer, text, (const uint64_t[]){0, bytes}, 1, max_tokens, ids,
                                               max_tokens, offsets, &cut);
    *count = (size_t)offsets[1];
    *truncated = cut;
    return status;
}
