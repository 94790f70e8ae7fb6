/* The tokenizer's table: its layout in memory, and the lookups. export/tokenizer/tokenizer_table.py makes it.
 *
 * It is used in place, in a mapped file: opening it reads only the header. No lookup trusts it: whatever the bytes, all
 * reads stay inside, ids stay below the vocabulary, and every loop has a bound. All numbers are little-endian, and
 * every array begins at a multiple of 64 bytes. EG_TABLE_PADDING bytes follow the last element of slots and parts, so
 * that reading a whole word at each stays inside:
 *
 *   header
 *   joins  uint8  (256, 32)                      [a], bit b: a piece may contain byte a and then byte b
 *   units  uint32 (unit_count,)                  two tries in one array: pieces in text, and special pieces
 *   slots  uint24 (slot_count + EG_MOST_PROBES,) a hash table of pairs of pieces that merge
 *   parts  uint40 (merged_count,)                by id - first_merged: the pair that a piece is merged from
 */
#ifndef EG_TOKENIZER_TABLE_H
#define EG_TOKENIZER_TABLE_H

#include "common/memory.h"

#include <string.h>

enum {
    EG_TABLE_VERSION = 2,
    EG_MOST_RUN = 63,          /* spaces in one piece */
    EG_MOST_PIECE_BYTES = 255, /* a match in a trie is no longer */
    EG_MOST_PROBES = 48,       /* slots looked at for a pair */
    EG_SLOT_BYTES = 3,
    EG_PAIR_BYTES = 5,
    EG_TABLE_PADDING = 4,
    EG_SLOT_INDEX_BITS = 18, /* of the 24 of a slot */
    EG_PAIR_ID_BITS = 20,    /* half of the 40 of a pair */
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
    eg_table_header header; /* a copy: it bounds all reads, also after the file has changed */
    const uint8_t (*joins)[32];
    const uint32_t *units;
    const uint8_t *slots;
    const uint8_t *parts;
    uint32_t bos, eos;
    eg_allocator allocator;
    uint8_t may_begin_special[256]; /* 1 for the bytes that a space or a special piece may begin with */
};

/* Sets the message for a table that a lookup found to be corrupt, and returns the status. */
eg_status eg_table_corrupt(void);

/* 1 if some piece holds these two bytes side by side; elsewhere no merge and no special piece spans the two. */
static inline int eg_may_join(const eg_tokenizer *t, unsigned char before, unsigned char after)
{
    return t->joins[before][after / 8] >> after % 8 & 1;
}

/* ---- tries: export/tokenizer/double_array.py states the layout of a unit --------------------------------------------
 */

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
    const uint32_t count = t->header.unit_count;
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
    return eg_longest_match(t, t->header.text_root, text, begin, end);
}

/* ---- merges --------------------------------------------------------------------------------------------------- */

typedef struct eg_pair {
    uint32_t left, right;
} eg_pair;

/* 1 if the piece may be merged from a pair; single characters are not. */
static inline int eg_is_merged(const eg_tokenizer *t, uint32_t id)
{
    return id - t->header.first_merged < t->header.merged_count; /* far too large if id is smaller */
}

/* The pair that a piece is merged from: one that eg_is_merged. */
static inline eg_pair eg_parts(const eg_tokenizer *t, uint32_t id)
{
    const uint8_t *at = t->parts + (size_t)(id - t->header.first_merged) * EG_PAIR_BYTES;
    uint64_t pair;
    memcpy(&pair, at, sizeof pair);
    const uint32_t id_mask = (1u << EG_PAIR_ID_BITS) - 1;
    return (eg_pair){(uint32_t)pair & id_mask, (uint32_t)(pair >> EG_PAIR_ID_BITS) & id_mask};
}

/* The piece that `left` and `right` merge to, or EG_NO_PIECE. A slot holds the piece's id - first_merged, and above it
 * the upper bits of the lower half of the pair's hash, which rule out most other pairs. */
static inline uint32_t eg_find_merge(const eg_tokenizer *t, uint32_t left, uint32_t right)
{
    const uint32_t empty = (1u << 8 * EG_SLOT_BYTES) - 1, index_mask = (1u << EG_SLOT_INDEX_BITS) - 1;
    uint64_t hash = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93u;
    const uint32_t tag = (uint32_t)hash >> (32 - 8 * EG_SLOT_BYTES + EG_SLOT_INDEX_BITS);
    const uint8_t *at = t->slots + ((hash >> 32) * t->header.slot_count >> 32) * EG_SLOT_BYTES;
    for (int probe = 0; probe < EG_MOST_PROBES; probe++, at += EG_SLOT_BYTES) {
        uint32_t slot;
        memcpy(&slot, at, sizeof slot);
        slot &= empty;
        if (slot == empty) {
            break;
        }
        const uint32_t id = t->header.first_merged + (slot & index_mask);
        if (slot >> EG_SLOT_INDEX_BITS == tag && eg_is_merged(t, id)) {
            const eg_pair pair = eg_parts(t, id);
            if (pair.left == left && pair.right == right) {
                return id;
            }
        }
    }
    return EG_NO_PIECE;
}

/* The order in which pieces are merged: 0 for single characters, then by id, but never before its parts. */
static inline uint32_t eg_merge_order(const eg_tokenizer *t, uint32_t id)
{
    if (!eg_is_merged(t, id)) {
        return 0;
    }
    const eg_pair parts = eg_parts(t, id);
    uint32_t order = 2 * id;
    if (parts.left > id && eg_is_merged(t, parts.left)) {
        order = 2 * parts.left + 1;
    }
    if (2 * parts.right > order && eg_is_merged(t, parts.right)) {
        order = 2 * parts.right + 1;
    }
    return order;
}

#endif
