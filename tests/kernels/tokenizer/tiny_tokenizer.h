/* Small vocabularies for the tests of the tokenizer: their table, and their tokens by the plain definition. */
#ifndef EG_TESTS_TINY_TOKENIZER_H
#define EG_TESTS_TINY_TOKENIZER_H

#include "common/crc32.h"
#include "tokenizer/tokenizer_table.h"

#include "tests/kernels/check.h"

enum {
    TINY_SPECIALS = 16,
    TINY_MERGES = 80,
    TINY_CHARACTERS = 16,
    TINY_NAME = 32,   /* bytes of a piece */
    TINY_TEXT = 1024, /* bytes of a text */
    TINY_BOS = 2,
    TINY_EOS = 1,
    TINY_FIRST_SPECIAL = 4,
    TINY_FIRST_BYTE = TINY_FIRST_SPECIAL + TINY_SPECIALS,
    TINY_FIRST_MERGE = TINY_FIRST_BYTE + 256,
    TINY_FIRST_CHARACTER = TINY_FIRST_MERGE + TINY_MERGES,
    TINY_VOCAB = TINY_FIRST_CHARACTER + TINY_CHARACTERS,
    TINY_NO_LABEL = 0x100, /* of a unit that no byte leads to */
};

/* Pieces by id: 4 control symbols, special pieces, bytes, merged pieces, characters. In names of merged pieces and of
 * characters a space is a space; "" is a piece that does not exist. */
typedef struct tiny_vocabulary {
    char names[TINY_VOCAB][TINY_NAME];
    uint32_t parts[TINY_MERGES][2];
    uint32_t longest_run; /* special pieces of 2 … longest_run literal "▁" */
    uint32_t run_ids[EG_MOST_RUN + 1];
} tiny_vocabulary;

#define TINY_SPACE_SYMBOL "\xE2\x96\x81"

static inline size_t tiny_character_bytes(const char *text)
{
    const unsigned char first = (unsigned char)text[0];
    return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

/* The id of a merged piece or of a character; 0 if there is none. */
static inline uint32_t tiny_find(const tiny_vocabulary *v, const char *name, size_t bytes)
{
    const int may_be = bytes > 0 && bytes < TINY_NAME && name[0] != '\0';
    for (uint32_t id = TINY_FIRST_MERGE; may_be && id < TINY_VOCAB; id++) {
        const char *piece = v->names[id];
        if (piece[0] == name[0] && piece[bytes - 1] != '\0' && piece[bytes] == '\0' &&
            memcmp(piece, name, bytes) == 0) {
            return id;
        }
    }
    return 0;
}

/* ---- tokens by definition ------------------------------------------------------------------------------------- */

/* Merges the characters of a text without special pieces, the pair of the lowest id first, the leftmost of equal ones.
 * Gives the number of ids; last_pair receives the last two that were merged. */
static inline size_t tiny_merge(const tiny_vocabulary *v, const char *text, size_t bytes, uint32_t *ids,
                                uint32_t last_pair[2])
{
    size_t count = 0, begins[TINY_TEXT + 1];
    uint32_t symbols[TINY_TEXT];
    for (size_t at = 0; at < bytes; at += tiny_character_bytes(text + at)) {
        symbols[count] = tiny_find(v, text + at, tiny_character_bytes(text + at));
        begins[count++] = at;
    }
    begins[count] = bytes;
    for (;;) {
        uint32_t best = TINY_VOCAB;
        size_t best_at = 0;
        for (size_t i = 0; i + 1 < count; i++) {
            const uint32_t merged = tiny_find(v, text + begins[i], begins[i + 2] - begins[i]);
            if (merged != 0 && merged < best) {
                best = merged;
                best_at = i;
            }
        }
        if (best == TINY_VOCAB) {
            break;
        }
        last_pair[0] = symbols[best_at];
        last_pair[1] = symbols[best_at + 1];
        symbols[best_at] = best;
        memmove(symbols + best_at + 1, symbols + best_at + 2, (count - best_at - 2) * sizeof *symbols);
        memmove(begins + best_at + 1, begins + best_at + 2, (count - best_at - 1) * sizeof *begins);
        count--;
    }
    size_t written = 0;
    for (size_t i = 0; i < count; i++) {
        if (symbols[i] != 0) {
            ids[written++] = symbols[i];
            continue;
        }
        for (size_t at = begins[i]; at < begins[i + 1]; at++) { /* a character that is no piece */
            ids[written++] = TINY_FIRST_BYTE + (unsigned char)text[at];
        }
    }
    return written;
}

/* Bytes of the space or the literal "▁" at this place; 0 if there is none. */
static inline size_t tiny_space_bytes(const char *text, size_t at, size_t bytes)
{
    const size_t symbol = strlen(TINY_SPACE_SYMBOL);
    if (at < bytes && text[at] == ' ') {
        return 1;
    }
    return bytes - at >= symbol && memcmp(text + at, TINY_SPACE_SYMBOL, symbol) == 0 ? symbol : 0;
}

/* The ids of text without special pieces and without runs of spaces longer than a word needs. */
static inline size_t tiny_fragment(const tiny_vocabulary *v, const char *text, size_t bytes, uint32_t *ids)
{
    char word[TINY_TEXT];
    size_t word_bytes = 0, count = 0, at = 0;
    uint32_t unused[2];
    while (at < bytes) {
        uint32_t run = 0;
        const size_t begin = at;
        for (size_t symbol; run < v->longest_run && (symbol = tiny_space_bytes(text, at, bytes)) > 0; run++) {
            at += symbol;
        }
        if (run >= 2) {
            count += tiny_merge(v, word, word_bytes, ids + count, unused);
            word_bytes = 0;
            ids[count++] = v->run_ids[run];
        } else {
            word[word_bytes++] = run == 1 ? ' ' : text[begin];
            at = run == 1 ? at : begin + 1;
        }
    }
    return count + tiny_merge(v, word, word_bytes, ids + count, unused);
}

/* The ids of a text, without <bos> and <eos>. */
static inline size_t tiny_tokenize(const tiny_vocabulary *v, const char *text, size_t bytes, uint32_t *ids)
{
    size_t count = 0, begin = 0;
    for (size_t at = 0; at <= bytes;) {
        uint32_t special = TINY_VOCAB;
        size_t longest = 0;
        for (uint32_t id = 0; id < TINY_FIRST_BYTE; id++) {
            const size_t length = at < bytes && v->names[id][0] == text[at] ? strlen(v->names[id]) : 0;
            if (length > longest && length <= bytes - at && memcmp(text + at, v->names[id], length) == 0) {
                special = id;
                longest = length;
            }
        }
        if (longest > 0 || at == bytes) {
            count += tiny_fragment(v, text + begin, at - begin, ids + count);
            begin = at + longest;
        }
        if (longest > 0) {
            ids[count++] = special;
        }
        at += longest > 0 ? longest : 1;
    }
    return count;
}

/* ---- a vocabulary --------------------------------------------------------------------------------------------- */

/* The later part of a piece that ranks before it; 0 if there is none. */
static inline uint32_t tiny_later_part(const tiny_vocabulary *v, uint32_t id)
{
    uint32_t later = 0;
    for (int side = 0; side < 2; side++) {
        const uint32_t part = v->parts[id - TINY_FIRST_MERGE][side];
        later = part < TINY_FIRST_CHARACTER && part > id && part > later ? part : later;
    }
    return later;
}

/* 1 if a piece could span the space before which `name` begins. */
static inline int tiny_may_be_joined(const tiny_vocabulary *v, const char *name)
{
    for (uint32_t id = TINY_FIRST_MERGE; id < TINY_FIRST_CHARACTER; id++) {
        for (const char *end = v->names[id]; *end != '\0' && (end = strchr(end + 1, ' ')) != NULL;) {
            const size_t shorter = strlen(end) < strlen(name) ? strlen(end) : strlen(name);
            if (memcmp(end, name, shorter) == 0) {
                return 1;
            }
        }
    }
    return 0;
}

/* 1 if a piece with a later part is none that the table may hold: see export/merges.py. */
static inline int tiny_is_too_late(const tiny_vocabulary *v, uint32_t id)
{
    const uint32_t later = tiny_later_part(v, id);
    for (uint32_t user = TINY_FIRST_MERGE; later != 0 && user < TINY_FIRST_CHARACTER; user++) {
        const uint32_t *parts = v->parts[user - TINY_FIRST_MERGE];
        if (v->names[user][0] != '\0' && (parts[1] == id || (parts[0] == id && user < later))) {
            return 1;
        }
    }
    return later != 0 && (v->names[id][0] != ' ' || tiny_may_be_joined(v, v->names[id]));
}

/* 1 if a piece holds a special piece, or a run of spaces that is one: such text is cut before anything is merged. */
static inline int tiny_holds_special(const tiny_vocabulary *v, const char *name)
{
    for (uint32_t id = 0; id < TINY_FIRST_BYTE; id++) {
        if (v->names[id][0] != '\0' && strstr(name, v->names[id]) != NULL) {
            return 1;
        }
    }
    return v->longest_run > 1 && strstr(name, "  ") != NULL;
}

/* Leaves out the merged pieces that merging does not give or that the table may not hold, and finds the parts of
 * the rest. */
static inline void tiny_settle(tiny_vocabulary *v)
{
    for (int changed = 1; changed;) {
        changed = 0;
        for (uint32_t id = TINY_FIRST_MERGE; id < TINY_FIRST_CHARACTER; id++) {
            uint32_t ids[TINY_NAME];
            if (v->names[id][0] != '\0' &&
                tiny_merge(v, v->names[id], strlen(v->names[id]), ids, v->parts[id - TINY_FIRST_MERGE]) != 1) {
                v->names[id][0] = '\0';
                changed = 1;
            }
        }
        for (uint32_t id = TINY_FIRST_MERGE; !changed && id < TINY_FIRST_CHARACTER; id++) {
            if (v->names[id][0] != '\0' && (tiny_is_too_late(v, id) || tiny_holds_special(v, v->names[id]))) {
                v->names[id][0] = '\0';
                changed = 1;
            }
        }
    }
}

/* Characters that are few enough to collide, special pieces that overlap with them, and random merges. */
static inline void tiny_vocabulary_new(tiny_vocabulary *v, uint64_t *random)
{
    static const char *const controls[] = {"<pad>", "<eos>", "<bos>", "<unk>"};
    static const char *const specials[] = {"\n", "\n\n", "\n\n\n", "<b>", "</b>", "<bb", "a>b"};
    static const char *const characters[] = {
        " ", "a", "b", "c", "<", ">", "/", "\xC3\xA9", "\xE4\xBD\xA0", "\xF0\x9F\x98\x80"};
    const uint32_t character_count = sizeof characters / sizeof characters[0];
    memset(v, 0, sizeof *v);
    for (uint32_t i = 0; i < 4; i++) {
        strcpy(v->names[i], controls[i]);
    }
    uint32_t special = TINY_FIRST_SPECIAL;
    for (size_t i = 0; i < sizeof specials / sizeof specials[0]; i++) {
        strcpy(v->names[special++], specials[i]);
    }
    v->longest_run = (uint32_t)random_int(random, 1, 5);
    for (uint32_t run = 2; run <= v->longest_run; run++) {
        for (uint32_t i = 0; i < run; i++) {
            strcat(v->names[special], TINY_SPACE_SYMBOL);
        }
        v->run_ids[run] = special++;
    }
    for (uint32_t i = 0; i < character_count; i++) {
        strcpy(v->names[TINY_FIRST_CHARACTER + i], characters[i]);
    }
    const int joins = random_int(random, 0, 3) == 0; /* some pieces have spaces inside */
    const uint32_t kinds = (uint32_t)random_int(random, 2, (int)character_count);
    for (uint32_t i = 0; i < TINY_MERGES; i++) {
        const char *half[2];
        for (int side = 0; side < 2; side++) {
            const uint32_t pick = (uint32_t)random_int(random, 0, (int)(kinds + i) - 1);
            half[side] = v->names[pick < kinds ? TINY_FIRST_CHARACTER + pick : TINY_FIRST_MERGE + pick - kinds];
        }
        char name[2 * TINY_NAME];
        const int bytes = snprintf(name, sizeof name, "%s%s", half[0], half[1]);
        if (bytes < TINY_NAME / 2 && half[0][0] != '\0' && half[1][0] != '\0' && (joins || half[1][0] != ' ') &&
            tiny_find(v, name, (size_t)bytes) == 0) {
            strcpy(v->names[TINY_FIRST_MERGE + i], name);
        }
    }
    for (int swaps = random_int(random, 0, 1) * TINY_MERGES; swaps > 0;
         swaps--) { /* some pieces rank before their parts */
        char *one = v->names[random_int(random, TINY_FIRST_MERGE, TINY_FIRST_CHARACTER - 1)], kept[TINY_NAME];
        char *other = v->names[random_int(random, TINY_FIRST_MERGE, TINY_FIRST_CHARACTER - 1)];
        memcpy(kept, one, TINY_NAME);
        memmove(one, other, TINY_NAME);
        memcpy(other, kept, TINY_NAME);
    }
    tiny_settle(v);
}

/* ---- its table: every node of the tries has a block of units of its own --------------------------------------- */

typedef struct tiny_units {
    uint32_t *units;
    uint32_t blocks;
} tiny_units;

/* Enters a key into the trie whose root has the first unit given; returns the unit that the last byte leads to. */
static inline uint32_t *tiny_path(tiny_units *trie, uint32_t root, const char *key)
{
    uint32_t offset = root;
    uint32_t *unit = NULL;
    for (const char *c = key; *c != '\0'; c++) {
        unit = &trie->units[offset + (unsigned char)*c];
        if ((*unit & EG_UNIT_LABEL) != (unsigned char)*c) {
            *unit = (unsigned char)*c | 256 * trie->blocks++ << EG_UNIT_PAYLOAD;
        }
        offset = *unit >> EG_UNIT_PAYLOAD;
    }
    return unit;
}

static inline void tiny_enter(tiny_units *trie, uint32_t root, const char *key, uint32_t id)
{
    uint32_t *unit = tiny_path(trie, root, key);
    *unit |= EG_UNIT_VALUED;
    trie->units[*unit >> EG_UNIT_PAYLOAD] = TINY_NO_LABEL | id << EG_UNIT_PAYLOAD;
}

/* Where a literal "▁" is read as a space: as the first character of a piece, and inside of pieces that hold spaces. */
static inline void tiny_alias(tiny_units *trie, uint32_t root, const char *name)
{
    char before[TINY_NAME + 4];
    for (const char *space = strchr(name, ' '); space != NULL; space = strchr(space + 1, ' ')) {
        snprintf(before, sizeof before, "%.*s ", (int)(space - name), name);
        const uint32_t target = *tiny_path(trie, root, before);
        snprintf(before, sizeof before, "%.*s" TINY_SPACE_SYMBOL, (int)(space - name), name);
        uint32_t *symbol = tiny_path(trie, root, before);
        *symbol = (target & ~(uint32_t)EG_UNIT_LABEL) | 0x81;
    }
}

/* Enters which bytes stand side by side in a piece, for both spellings of a space. */
static inline void tiny_join(uint8_t joins[256][32], const char *name)
{
    static const unsigned char symbol[] = {0xE2, 0x81}; /* its first and last byte */
    for (size_t i = 1; i < strlen(name); i++) {
        const unsigned char before = (unsigned char)name[i - 1], after = (unsigned char)name[i];
        const unsigned char befores[] = {before, before == ' ' ? symbol[1] : before == symbol[1] ? ' ' : before};
        const unsigned char afters[] = {after, after == ' ' ? symbol[0] : after == symbol[0] ? ' ' : after};
        for (int k = 0; k < 4; k++) {
            joins[befores[k / 2]][afters[k % 2] / 8] |= (uint8_t)(1u << afters[k % 2] % 8);
        }
    }
}

static inline uint64_t tiny_hash(const uint32_t pair[2])
{
    uint64_t hash = ((uint64_t)pair[0] << 32 | pair[1]) * 0x9E3779B97F4A7C15u;
    return (hash ^ hash >> 32) * 0xD6E8FEB86659FD93u;
}

/* The table; free it with eg_aligned_free(). */
static inline void *tiny_table(const tiny_vocabulary *v, size_t *bytes)
{
    enum { MOST_BLOCKS = 2 + TINY_VOCAB * TINY_NAME, SLOTS = 1024, EXTRA = EG_MOST_PROBES };
    tiny_units trie = {malloc(MOST_BLOCKS * 256 * sizeof(uint32_t)), 2};
    for (size_t i = 0; trie.units != NULL && i < MOST_BLOCKS * 256; i++) {
        trie.units[i] = TINY_NO_LABEL;
    }
    eg_table_header h = {.magic = {'E', 'G', 'T', 'O', 'K', 'E', 'N', 'S'},
                         .version = EG_TABLE_VERSION,
                         .vocab = TINY_VOCAB,
                         .text_root = 0,
                         .special_root = 256,
                         .first_merged = TINY_FIRST_MERGE,
                         .merged_count = TINY_MERGES,
                         .slot_count = SLOTS,
                         .longest_run = v->longest_run};
    for (uint32_t id = 0; id < TINY_VOCAB; id++) {
        if (v->names[id][0] != '\0') {
            tiny_enter(&trie, id < TINY_FIRST_BYTE ? h.special_root : h.text_root, v->names[id], id);
        }
    }
    static uint8_t joins[256][32];
    memset(joins, 0, sizeof joins);
    for (uint32_t id = 0; id < TINY_VOCAB; id++) {
        if (id >= TINY_FIRST_MERGE) {
            tiny_alias(&trie, h.text_root, v->names[id]);
        }
        tiny_join(joins, v->names[id]);
    }
    memcpy(h.run_ids, v->run_ids, sizeof h.run_ids);
    for (uint32_t byte = 0; byte < 256; byte++) {
        h.byte_ids[byte] = TINY_FIRST_BYTE + byte;
    }
    unsigned char slots[((SLOTS + EXTRA) * EG_SLOT_BYTES + EG_TABLE_PADDING + 63) / 64 * 64];
    unsigned char pairs[(TINY_MERGES * EG_PAIR_BYTES + EG_TABLE_PADDING + 63) / 64 * 64] = {0};
    memset(slots, 0xFF, sizeof slots);
    for (uint32_t i = 0; i < TINY_MERGES; i++) {
        if (v->names[TINY_FIRST_MERGE + i][0] != '\0') {
            const uint64_t hash = tiny_hash(v->parts[i]);
            unsigned char *slot = slots + (hash >> 32) * SLOTS / ((uint64_t)1 << 32) * EG_SLOT_BYTES;
            for (; memcmp(slot, "\xFF\xFF\xFF", EG_SLOT_BYTES) != 0; slot += EG_SLOT_BYTES) {
            }
            const uint32_t tag = (uint32_t)hash >> (32 - 8 * EG_SLOT_BYTES + EG_SLOT_INDEX_BITS);
            const uint32_t filled = tag << EG_SLOT_INDEX_BITS | i;
            memcpy(slot, &filled, EG_SLOT_BYTES);
        }
        const uint64_t pair = v->parts[i][0] | (uint64_t)v->parts[i][1] << EG_PAIR_ID_BITS;
        memcpy(pairs + i * EG_PAIR_BYTES, &pair, EG_PAIR_BYTES);
    }
    h.unit_count = trie.blocks * 256;
    const size_t unit_bytes = h.unit_count * sizeof(uint32_t);
    *bytes = sizeof h + sizeof joins + unit_bytes + sizeof slots + sizeof pairs;
    h.table_bytes = (uint32_t)*bytes;
    h.crc32 = eg_crc32(0, &h.table_bytes, sizeof h - offsetof(eg_table_header, table_bytes));
    char *table = aligned_new(*bytes);
    memset(table, 0, *bytes);
    memcpy(table, &h, sizeof h);
    char *end = table + sizeof h;
    memcpy(end, joins, sizeof joins);
    memcpy(end += sizeof joins, trie.units, unit_bytes);
    memcpy(end += unit_bytes, slots, sizeof slots);
    memcpy(end += sizeof slots, pairs, sizeof pairs);
    free(trie.units);
    return table;
}

#endif
