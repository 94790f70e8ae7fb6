/* Opens the table of a tokenizer: checks its header, and that what the header promises is there. */
#include "tokenizer/tokenizer_table.h"

#include "common/crc32.h"
#include "common/error.h"

#include <stddef.h>
#include <string.h>

enum {
    MOST_IDS = 1 << 21, /* also of units: what a unit's payload can hold */
    BLOCK = 256,        /* units come in blocks, since a child's place differs from the offset in the lowest byte */
    JOIN_BYTES = 256 * 32,
    FIRST_CHECKED = offsetof(eg_table_header, table_bytes),
};

static uint64_t aligned(uint64_t bytes) { return (bytes + EG_ALIGNMENT - 1) / EG_ALIGNMENT * EG_ALIGNMENT; }

static uint64_t slot_bytes(const eg_table_header *h)
{
    return aligned(EG_SLOT_BYTES * ((uint64_t)h->slot_count + EG_MOST_PROBES) + EG_TABLE_PADDING);
}

static uint64_t part_bytes(const eg_table_header *h)
{
    return aligned(EG_PAIR_BYTES * (uint64_t)h->merged_count + EG_TABLE_PADDING);
}

static int ids_are_below(const uint32_t *ids, size_t count, uint32_t vocab)
{
    for (size_t i = 0; i < count; i++) {
        if (ids[i] >= vocab) {
            return 0;
        }
    }
    return 1;
}

/* What is wrong with the numbers in a header that has the right checksum; NULL if nothing. */
static const char *defect(const eg_table_header *h)
{
    if (h->vocab > MOST_IDS) {
        return "its vocabulary is out of range";
    }
    if (h->unit_count % BLOCK != 0 || h->unit_count > MOST_IDS || h->text_root >= h->unit_count ||
        h->special_root >= h->unit_count) {
        return "its tries are out of range";
    }
    if (h->merged_count > h->vocab || h->first_merged > h->vocab - h->merged_count || h->slot_count > 2 * MOST_IDS ||
        h->vocab >= 1u << EG_PAIR_ID_BITS || h->merged_count >= 1u << EG_SLOT_INDEX_BITS) {
        return "its merges are out of range";
    }
    if (h->longest_run < 1 || h->longest_run > EG_MOST_RUN || !ids_are_below(h->byte_ids, 256, h->vocab) ||
        !ids_are_below(h->run_ids + 2, h->longest_run - 1, h->vocab)) {
        return "an id in its header is out of range";
    }
    return NULL;
}

/* Copies the header, and checks the copy: a file may change while it is mapped. */
static eg_status read_header(const void *table, size_t bytes, eg_table_header *h)
{
    if (table == NULL || (uintptr_t)table % _Alignof(eg_table_header) != 0) {
        return eg_fail(EG_ERROR_ARGUMENT, "the tokenizer table must be aligned to a multiple of %zu bytes",
                       _Alignof(eg_table_header));
    }
    memset(h, 0, sizeof *h);
    memcpy(h, table, bytes < sizeof *h ? bytes : sizeof *h);
    if (bytes < sizeof *h || memcmp(h->magic, "EGTOKENS", sizeof h->magic) != 0) {
        return eg_fail(EG_ERROR_MODEL, "the %zu bytes are no tokenizer table; convert the checkpoint again", bytes);
    }
    if (h->version != EG_TABLE_VERSION) {
        return eg_fail(EG_ERROR_MODEL,
                       "the tokenizer table has version %u, this release reads %d; update embgemma or convert the "
                       "checkpoint again",
                       h->version, EG_TABLE_VERSION);
    }
    const uint32_t crc = eg_crc32(0, (const unsigned char *)h + FIRST_CHECKED, sizeof *h - FIRST_CHECKED);
    const char *wrong = crc != h->crc32 ? "its header has another checksum" : defect(h);
    if (wrong != NULL) {
        return eg_fail(EG_ERROR_MODEL, "the tokenizer table is corrupt: %s; convert the checkpoint again", wrong);
    }
    const uint64_t expected = sizeof *h + JOIN_BYTES + sizeof(uint32_t) * (uint64_t)h->unit_count + slot_bytes(h) +
                              part_bytes(h);
    if (bytes != expected) {
        return eg_fail(EG_ERROR_MODEL, "the tokenizer table has %zu bytes, its header says %llu; convert again", bytes,
                       (unsigned long long)expected);
    }
    if (h->table_bytes != expected) {
        return eg_fail(EG_ERROR_MODEL,
                       "the tokenizer table is corrupt: its parts take %llu bytes, its header says %llu; convert again",
                       (unsigned long long)expected, (unsigned long long)h->table_bytes);
    }
    return EG_OK;
}

eg_status eg_tokenizer_create(const void *table, size_t bytes, uint32_t bos_id, uint32_t eos_id,
                              const eg_allocator *given, eg_tokenizer **out)
{
    if (out == NULL) {
        return eg_fail(EG_ERROR_ARGUMENT, "eg_tokenizer_create needs a place for the tokenizer");
    }
    *out = NULL;
    eg_table_header header;
    const eg_status status = read_header(table, bytes, &header);
    if (status != EG_OK) {
        return status;
    }
    if (bos_id >= header.vocab || eos_id >= header.vocab) {
        return eg_fail(EG_ERROR_ARGUMENT, "bos_id is %u and eos_id is %u: expected less than %u, the number of pieces",
                       bos_id, eos_id, header.vocab);
    }
    const eg_allocator allocator = eg_allocator_or_default(given);
    eg_tokenizer *t = eg_allocate(&allocator, 1, sizeof *t);
    if (t == NULL) {
        return eg_fail(EG_ERROR_MEMORY, "no memory for a tokenizer");
    }
    t->allocator = allocator;
    t->bos = bos_id;
    t->eos = eos_id;
    t->header = header;
    t->joins = (const uint8_t (*)[32])((const char *)table + sizeof header);
    t->units = (const uint32_t *)(t->joins + 256);
    t->slots = (const uint8_t *)(t->units + t->header.unit_count);
    t->parts = t->slots + slot_bytes(&t->header);
    for (uint32_t byte = 0; byte < 256; byte++) {
        const uint32_t child = t->header.special_root ^ byte;
        t->may_begin_special[byte] = child < t->header.unit_count && (t->units[child] & EG_UNIT_LABEL) == byte;
    }
    t->may_begin_special[' '] = 1;
    t->may_begin_special[0xE2] = 1; /* the first byte of a literal "▁" */
    *out = t;
    return EG_OK;
}

eg_status eg_table_corrupt(void)
{
    return eg_fail(EG_ERROR_MODEL, "the tokenizer table is corrupt; convert the checkpoint again");
}

void eg_tokenizer_free(eg_tokenizer *tokenizer)
{
    if (tokenizer != NULL) {
        const eg_allocator allocator = tokenizer->allocator;
        eg_release(&allocator, tokenizer);
    }
}

uint32_t eg_tokenizer_vocab(const eg_tokenizer *tokenizer) { return tokenizer->header.vocab; }
