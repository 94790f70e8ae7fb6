/* The table behind the tokenizer: how it lies in memory, and the lookups. export/tokenizer_table.py makes it.
 *
 * It is used where it lies, in a mapped file: opening it reads the header only. No lookup trusts it: whatever the
 * bytes, all reads stay inside, ids stay below the vocabulary, and every loop has a bound. All numbers are
 * little-endian, and every array begins at a multiple of 64 bytes:
 *
 *   header
 *   joins  uint8  (256, 32)                      [a], bit b: a piece may span a byte a and a byte b behind it
 *   units  uint32 (unit_count,)                  two tries in one array: pieces in text, and special pieces
 *   slots  uint32 (slot_count + EG_MOST_PROBES,) a hash table of pairs of pieces that merge
 *   parts  uint32 (merged_count, 2)              by id - first_merged: the pair that a piece is merged from
 */
#ifndef EG_TOKENIZER_TABLE_H
#define EG_TOKENIZER_TABLE_H

#include "memory.h"

enum {
    EG_TABLE_VERSION = 1,
    EG_MOST_RUN = 63,          /* spaces in one piece */
    EG_MOST_PIECE_BYTES = 255, /* a match in a trie is no longer */
    EG_MOST_PROBES = 48,       /* slots looked at for a pair */
};

#define EG_NO_PIECE 0xFFFFFFFFu

typedef struct eg_table_header {
    char magic[8]; /* EGTOKENS */
    uint32_t version;
    uint32_t crc32; /* of all that follows in the header */
    uint32_t table_bytes;
    uint32_t vocab; /* every id is below it */
    uint32_t unit_count;
    uint32_t text_root, special_root; /* offsets of the roots of the two tries */
    uint32_t first_merged, merged_count;
    uint32_t slot_count;  /* slots that a hash may fall on */
    uint32_t longest_run; /* of spaces that have a piece of their own; 1 if none has */
    uint32_t reserved[3];
    uint32_t run_ids[EG_MOST_RUN + 1]; /* [n]: the piece of n spaces, for n from 2 to longest_run */
    uint32_t byte_ids[256];            /* of the pieces that spell bytes */
} eg_table_header;

_Static_assert(sizeof(eg_table_header) == 1344, "the layout of the file");

struct eg_tokenizer {
    const eg_table_header *header;
    const uint8_t (*joins)[32];
    const uint32_t *units;
    const uint32_t *slots;
    const uint32_t (*parts)[2];
    uint32_t bos, eos;
    eg_allocator allocator;
    uint8_t notable[256]; /* 1 for the bytes that a space or a special piece may begin with */
};

/* Sets the message for a table that lookups show to be corrupt, and returns the status. */
eg_status eg_table_corrupt(void);

/* 1 if some piece holds these two bytes side by side; elsewhere no merge and no special piece spans the two. */
static inline int eg_may_join(const eg_tokenizer *t, unsigned char before, unsigned char after)
{
    return t->joins[before][after / 8] >> after % 8 & 1;
}

/* ---- tries: the layout of a unit is told in export/double_array.py -------------------------------------------- */

enum { EG_UNIT_LABEL = 0x1FF, EG_UNIT_LEAF = 1 << 9, EG_UNIT_VALUED = 1 << 10, EG_UNIT_PAYLOAD = 11 };

typedef struct eg_match {
    size_t end; /* where it ends in the text; 0: nothing matches */
    uint32_t id;
} eg_match;

/* The longest piece of a trie that begins at text[begin] and ends at `end` or before. */
static inline eg_match eg_longest_match(const eg_tokenizer *t, uint32_t root, const unsigned char *text, size_t begin,
                                        size_t end)
{
    const uint32_t *units = t->units;
    const uint32_t count = t->header->unit_count;
    eg_match match = {0, EG_NO_PIECE};
    uint32_t value_unit = EG_NO_PIECE; /* where the longest match so far has its id, unless it is a leaf */
    uint32_t offset = root;
    if (end - begin > EG_MOST_PIECE_BYTES) {
        end = begin + EG_MOST_PIECE_BYTES;
    }
    for (size_t i = begin; i < end; i++) {
        const uint32_t child = offset ^ text[i];
        if (child >= count) {
            break;
        }
        const uint32_t unit = units[child];
        if ((unit & EG_UNIT_LABEL) != text[i]) {
            break;
        }
        offset = unit >> EG_UNIT_PAYLOAD;
        if (unit & EG_UNIT_LEAF) {
            return (eg_match){i + 1, offset};
        }
        if (unit & EG_UNIT_VALUED) {
            match.end = i + 1;
            value_unit = offset;
        }
    }
    if (value_unit < count) {
        match.id = units[value_unit] >> EG_UNIT_PAYLOAD;
    }
    return match;
}

/* The longest piece of text that begins at text[begin] and ends at `end` or before. */
static inline eg_match eg_piece_at(const eg_tokenizer *t, const unsigned char *text, size_t begin, size_t end)
{
    return eg_longest_match(t, t->header->text_root, text, begin, end);
}

/* ---- merges --------------------------------------------------------------------------------------------------- */

/* The piece that `left` and `right` merge to, or EG_NO_PIECE. A slot holds the upper 10 bits of the lower half of the
 * pair's hash, then 22 bits of the piece's index in `parts`. */
static inline uint32_t eg_find_merge(const eg_tokenizer *t, uint32_t left, uint32_t right)
{
    const uint32_t index_bits = 22, index_mask = (1u << 22) - 1;
    uint64_t hash = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93u;
    const uint32_t tag = (uint32_t)hash >> index_bits;
    const uint32_t *slot = t->slots + ((hash >> 32) * t->header->slot_count >> 32);
    for (int probe = 0; probe < EG_MOST_PROBES && slot[probe] != EG_NO_PIECE; probe++) {
        const uint32_t index = slot[probe] & index_mask;
        if (slot[probe] >> index_bits == tag && index < t->header->merged_count && t->parts[index][0] == left &&
            t->parts[index][1] == right) {
            return t->header->first_merged + index;
        }
    }
    return EG_NO_PIECE;
}

/* The parts of a piece; NULL if it is a single character. */
static inline const uint32_t *eg_parts(const eg_tokenizer *t, uint32_t id)
{
    const uint32_t index = id - t->header->first_merged; /* far too large if id is smaller */
    return index < t->header->merged_count ? t->parts[index] : NULL;
}

/* When a piece is merged, against other pieces: 0 for single characters, then by id, but never before its parts. */
static inline uint32_t eg_merge_order(const eg_tokenizer *t, uint32_t id)
{
    const uint32_t *parts = eg_parts(t, id);
    if (parts == NULL) {
        return 0;
    }
    uint32_t order = 2 * id;
    for (int i = 0; i < 2; i++) {
        if (eg_parts(t, parts[i]) != NULL && 2 * parts[i] > order) {
            order = 2 * parts[i] + 1;
        }
    }
    return order;
}

#endif
