/* The tokenizer against byte-pair merging by its definition, over many random vocabularies; and against bad tables. */
#include "tests/kernels/tokenizer/tiny_tokenizer.h"

enum { VOCABULARIES = 100, TEXTS = 400, LONG_TEXT = 300000, LONG_PARTS = 150000 };

/* Text that hits everything: characters, special pieces and their beginnings, runs of spaces, what is no piece. */
static size_t random_text(uint64_t *random, const tiny_vocabulary *v, char *text, size_t most)
{
    static const char *const odd[] = {TINY_SPACE_SYMBOL,
                                      "  ",
                                      "    ",
                                      "<b",
                                      "</",
                                      "\n",
                                      "z",
                                      "\xC3\xBC",
                                      "\xE2\x96\x82",
                                      "<bos",
                                      "\xF0\x9F\x98\x81",
                                      TINY_SPACE_SYMBOL TINY_SPACE_SYMBOL TINY_SPACE_SYMBOL};
    size_t bytes = 0;
    const int parts = random_int(random, 0, 40);
    const int narrow = random_int(random, 1, 10); /* few characters make long words of many merges */
    for (int i = 0; i < parts; i++) {
        const int kind = random_int(random, 0, 9);
        const char *part = kind == 0   ? odd[random_int(random, 0, (int)(sizeof odd / sizeof odd[0]) - 1)]
                           : kind == 1 ? v->names[random_int(random, 0, TINY_FIRST_BYTE - 1)]
                           : kind < 4  ? v->names[random_int(random, TINY_FIRST_MERGE, TINY_FIRST_CHARACTER - 1)]
                                       : v->names[TINY_FIRST_CHARACTER + random_int(random, 0, narrow - 1)];
        for (int times = random_int(random, 0, 20) == 0 ? 10 : 1; times > 0 && bytes + strlen(part) < most; times--) {
            memcpy(text + bytes, part, strlen(part));
            bytes += strlen(part);
        }
    }
    return bytes;
}

static eg_tokenizer *open_table(const void *table, size_t bytes)
{
    eg_tokenizer *tokenizer = NULL;
    const eg_status status = eg_tokenizer_create(table, bytes, TINY_BOS, TINY_EOS, NULL, &tokenizer);
    CHECK(status == EG_OK, "%s", eg_error_message());
    if (tokenizer == NULL) {
        exit(check_result());
    }
    return tokenizer;
}

/* The ids that the first max_tokens - 1 tokens and <eos> give. */
static void check_text(const eg_tokenizer *t, const char *text, size_t bytes, const uint32_t *expected, size_t tokens,
                       size_t max_tokens)
{
    const size_t room = bytes + 2 < max_tokens ? bytes + 2 : max_tokens;
    int32_t *ids = guarded_new(room * sizeof *ids);
    char *exact = malloc(bytes + 1); /* so that the address sanitizer sees a read behind the text */
    memcpy(exact + 1, text, bytes);
    size_t count = 0;
    uint32_t truncated = 2;
    const eg_status status = eg_tokenize(t, exact + 1, bytes, max_tokens, ids, &count, &truncated);
    const size_t kept = tokens < max_tokens - 2 ? tokens : max_tokens - 2;
    CHECK(status == EG_OK, "%s", eg_error_message());
    CHECK(count == kept + 2 && truncated == (kept < tokens), "%zu ids and %u, expected %zu of %zu, \"%.*s\"", count,
          truncated, kept + 2, tokens, (int)bytes, text);
    int same = count == kept + 2 && ids[0] == TINY_BOS && ids[count - 1] == TINY_EOS;
    for (size_t i = 0; same && i < kept; i++) {
        same = ids[i + 1] == (int32_t)expected[i];
    }
    CHECK(same, "ids of \"%.*s\"", (int)bytes, text);
    CHECK(guarded_free(ids, room * sizeof *ids), "max_tokens %zu", max_tokens);
    free(exact);
}

/* A text that is cut has the first ids of the whole, which may be one long word; gives how many the whole has. */
static size_t check_cuts(const eg_tokenizer *t, const char *text, size_t bytes)
{
    int32_t *whole = malloc((bytes + 2) * sizeof *whole), *cut = malloc((bytes + 2) * sizeof *cut);
    size_t tokens = 0, count = 0;
    uint32_t truncated = 0;
    eg_status status = eg_tokenize(t, text, bytes, SIZE_MAX, whole, &tokens, &truncated);
    CHECK(status == EG_OK && !truncated, "%s", eg_error_message());
    const size_t limits[] = {2, 3, 40, 2000, 20000, tokens / 2 + 2, tokens - 1, tokens};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0] && status == EG_OK; i++) {
        const size_t expected = limits[i] < tokens ? limits[i] : tokens;
        status = eg_tokenize(t, text, bytes, limits[i], cut, &count, &truncated);
        CHECK(status == EG_OK && count == expected && truncated == (expected < tokens), "%zu of %zu", count, expected);
        CHECK(memcmp(cut, whole, (expected - 1) * sizeof *cut) == 0 && cut[expected - 1] == TINY_EOS,
              "%zu of %zu tokens of %.40s", expected, tokens, text);
    }
    free(whole);
    free(cut);
    return tokens;
}

static void test_random_vocabularies(void)
{
    uint64_t random = 1;
    static tiny_vocabulary v;
    for (int i = 0; i < VOCABULARIES; i++) {
        tiny_vocabulary_new(&v, &random);
        size_t table_bytes;
        void *table = tiny_table(&v, &table_bytes);
        eg_tokenizer *t = open_table(table, table_bytes);
        CHECK(eg_tokenizer_vocab(t) == TINY_VOCAB, "%u", eg_tokenizer_vocab(t));
        for (int k = 0; k < TEXTS; k++) {
            char text[TINY_TEXT];
            uint32_t expected[TINY_TEXT];
            const size_t bytes = random_text(&random, &v, text, k % 10 == 0 ? TINY_TEXT : 60);
            const size_t tokens = tiny_tokenize(&v, text, bytes, expected);
            check_text(t, text, bytes, expected, tokens, SIZE_MAX);
            check_text(t, text, bytes, expected, tokens, tokens + 2);
            check_text(t, text, bytes, expected, tokens, (size_t)random_int(&random, 2, 20));
        }
        char *endless = malloc((size_t)LONG_PARTS * TINY_NAME);
        size_t bytes = 0;
        for (int k = 0; k < LONG_PARTS; k++) {
            const char *part = v.names[TINY_FIRST_CHARACTER + random_int(&random, 0, i % 3)];
            memcpy(endless + bytes, part, strlen(part));
            bytes += strlen(part);
        }
        check_cuts(t, endless, bytes);
        free(endless);
        eg_tokenizer_free(t);
        eg_aligned_free(table);
    }
}

/* ---- chosen vocabularies -------------------------------------------------------------------------------------- */

/* The table of a vocabulary whose merged pieces are these, and nothing else. */
static void *chosen_table(tiny_vocabulary *v, const char *const merges[], size_t *bytes)
{
    uint64_t random = 7;
    tiny_vocabulary_new(v, &random);
    memset(v->names[TINY_FIRST_MERGE], 0, TINY_MERGES * sizeof v->names[0]);
    for (size_t i = 0; merges[i] != NULL; i++) {
        strcpy(v->names[TINY_FIRST_MERGE + i], merges[i]);
    }
    tiny_settle(v);
    return tiny_table(v, bytes);
}

static void *plain_table(tiny_vocabulary *v, size_t *bytes)
{
    return chosen_table(v, (const char *const[]){"aa", "aaaa", "ab", "aab", " b", NULL}, bytes);
}

/* " aaaaaa" ranks before its part " aaaaa", as "▁======" does in the published vocabulary, and " bbbc" before its part
 * "bbc", as "▁SSSR" does. */
static void test_late_pieces(void)
{
    static const char *const merges[] = {" a", "aa", "aaaa",  " aaaaaa", " aaaaa", "aaab", "aaaaa", " aaaaaaaa",
                                         " b", "bb", " bbbc", "bbc",     "cc",     "bbcc", "ca",    NULL};
    uint64_t random = 11;
    static tiny_vocabulary v;
    size_t table_bytes;
    void *table = chosen_table(&v, merges, &table_bytes);
    eg_tokenizer *t = open_table(table, table_bytes);
    CHECK(tiny_later_part(&v, TINY_FIRST_MERGE + 3) == TINY_FIRST_MERGE + 4, "%s", merges[3]);
    CHECK(tiny_later_part(&v, TINY_FIRST_MERGE + 10) == TINY_FIRST_MERGE + 11, "%s", merges[10]);
    for (int k = 0; k < 20 * TEXTS; k++) {
        char text[TINY_TEXT];
        uint32_t expected[TINY_TEXT];
        size_t bytes = 0;
        for (int runs = random_int(&random, 1, 6); runs > 0; runs--) {
            const char c = " aabbc"[random_int(&random, 0, 5)];
            for (int times = c == ' ' ? 1 : random_int(&random, 1, 12); times > 0; times--) {
                text[bytes++] = c;
            }
        }
        check_text(t, text, bytes, expected, tiny_tokenize(&v, text, bytes, expected), SIZE_MAX);
    }
    eg_tokenizer_free(t);
    eg_aligned_free(table);
}

/* Texts without spaces, far longer than what fits into the memory of a call. */
static void test_long_words(void)
{
    enum { BYTES = LONG_TEXT, MOST_MERGES = 8 };
    static const struct {
        const char *merges[MOST_MERGES];
        const char *unit;
        size_t tokens; /* of BYTES bytes of units */
    } cases[] = {
        {{"aa", "aaaa"}, "a", BYTES / 4},
        {{"aa", "aaaa", "ab", "ba"}, "aaab", BYTES / 2},   /* aa ab */
        {{"ab", "cb", "cba"}, "ab", BYTES / 2},            /* "ba" is in a piece, but in none of the text */
        {{"bc", "ab", "cc", "ca"}, "abcc", BYTES / 2 + 1}, /* a bc ca bc … c: "ab" is tried first */
        {{"bc"}, "c", BYTES},
        {{"aa", "aab"}, "baaa\xF0\x9F\x98\x81", BYTES / 8 * 7}, /* b aa a, and a character that is no piece */
        {{"aa"}, "\xC3\xBC", BYTES},
    };
    char *text = malloc(BYTES);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static tiny_vocabulary v;
        size_t table_bytes;
        void *table = chosen_table(&v, cases[i].merges, &table_bytes);
        eg_tokenizer *t = open_table(table, table_bytes);
        for (size_t at = 0; at < BYTES; at++) {
            text[at] = cases[i].unit[at % strlen(cases[i].unit)];
        }
        const size_t count = check_cuts(t, text, BYTES);
        CHECK(count == cases[i].tokens + 2, "%s: %zu ids", cases[i].unit, count);
        eg_tokenizer_free(t);
        eg_aligned_free(table);
    }
    free(text);
}

static void test_batch(void)
{
    enum { COUNT = 4 };
    static const char text[] = "aab\n"
                               " b"
                               "aaaaaa"; /* texts: "aab\n", "", " b", "aaaaaa" */
    const uint64_t text_offsets[COUNT + 1] = {0, 4, 4, 6, 12};
    static tiny_vocabulary v;
    size_t table_bytes;
    void *table = plain_table(&v, &table_bytes);
    eg_tokenizer *t = open_table(table, table_bytes);
    const int32_t piece = TINY_FIRST_MERGE, line = TINY_FIRST_SPECIAL;
    const int32_t expected[] = {2, piece + 3, line, 1, 2, 1, 2, piece + 4, 1, 2, piece + 1, piece, 1};
    const uint64_t expected_offsets[COUNT + 1] = {0, 4, 6, 9, 13};
    int32_t ids[6 + 2 + 4 + 8];
    uint64_t offsets[COUNT + 1];
    uint8_t truncated[COUNT];
    const size_t capacity = sizeof ids / sizeof ids[0];
    eg_status status = eg_tokenize_batch(t, text, text_offsets, COUNT, 100, ids, capacity, offsets, truncated);
    CHECK(status == EG_OK, "%s", eg_error_message());
    CHECK(memcmp(offsets, expected_offsets, sizeof offsets) == 0, "the last is %d", (int)offsets[COUNT]);
    CHECK(memcmp(ids, expected, sizeof expected) == 0, "ids begin %d %d", ids[0], ids[1]);
    CHECK(memcmp(truncated, (const uint8_t[COUNT]){0}, COUNT) == 0, "nothing is cut");

    status = eg_tokenize_batch(t, text, text_offsets, COUNT, 3, ids, 3 + 2 + 3 + 3, offsets, truncated);
    CHECK(status == EG_OK && offsets[COUNT] == 11 && ids[1] == piece + 3 && ids[2] == TINY_EOS, "%s",
          eg_error_message());
    CHECK(memcmp(truncated, (const uint8_t[COUNT]){1, 0, 0, 1}, COUNT) == 0, "the first and the last are cut");

    status = eg_tokenize_batch(t, text, text_offsets, COUNT, 100, ids, capacity - 4, offsets, truncated);
    CHECK(status == EG_ERROR_ARGUMENT && strstr(eg_error_message(), "text 3"), "%s", eg_error_message());
    status = eg_tokenize_batch(t, text, text_offsets, COUNT, 1, ids, capacity, offsets, truncated);
    CHECK(status == EG_ERROR_ARGUMENT, "max_tokens of 1");
    const uint64_t backwards[] = {4, 0};
    status = eg_tokenize_batch(t, text, backwards, 1, 100, ids, capacity, offsets, truncated);
    CHECK(status == EG_ERROR_ARGUMENT, "%s", eg_error_message());
    CHECK(eg_tokenize_batch(t, NULL, NULL, 0, 9, NULL, 0, offsets, NULL) == EG_ERROR_ARGUMENT, "no places");
    eg_tokenizer_free(t);
    eg_aligned_free(table);
}

/* Whatever no UTF-8 text has is an error, and says where. */
static void test_text_that_is_not_utf8(void)
{
    static const char *const bad[] = {"a\x80",
                                      "a\xC3",
                                      "a\xC0\x80",
                                      "a\xC3\x28",
                                      "a\xE0\x80\x80",
                                      "a\xED\xA0\x80",
                                      "a\xE4\xBD",
                                      "a\xE2\x96 \x81",
                                      "a\xF0\x80\x80\x80",
                                      "a\xF4\x90\x80\x80",
                                      "a\xF5\x80\x80\x80",
                                      "a\xFF",
                                      "a\xF0\x9F\x98\n"};
    static tiny_vocabulary v;
    size_t table_bytes;
    void *table = plain_table(&v, &table_bytes);
    eg_tokenizer *t = open_table(table, table_bytes);
    int32_t ids[32];
    size_t count;
    uint32_t truncated;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const eg_status status = eg_tokenize(t, bad[i], strlen(bad[i]), 32, ids, &count, &truncated);
        CHECK(status == EG_ERROR_ARGUMENT && strstr(eg_error_message(), "byte 1,"), "case %zu: %s", i,
              eg_error_message());
    }
    for (int byte = 0x80; byte < 0x100; byte++) {
        const char text[] = {'a', 'a', (char)byte, 'b', 'c'};
        const eg_status status = eg_tokenize(t, text, sizeof text, 32, ids, &count, &truncated);
        CHECK(status == EG_ERROR_ARGUMENT && strstr(eg_error_message(), "byte 2,"), "0x%02X: %s", byte,
              eg_error_message());
    }
    CHECK(eg_tokenize(t, "a\0\x7F\xF4\x8F\xBF\xBF\xED\x9F\xBF", 10, 32, ids, &count, &truncated) == EG_OK &&
              count == 12,
          "%zu ids, %s", count, eg_error_message());
    eg_tokenizer_free(t);
    eg_aligned_free(table);
}

/* ---- tables that are cut, of another version, or corrupt ------------------------------------------------------ */

static void sign(unsigned char *table)
{
    eg_table_header *h = (eg_table_header *)table;
    h->crc32 = eg_crc32(0, &h->table_bytes, sizeof *h - offsetof(eg_table_header, table_bytes));
}

static eg_status try_open(const void *table, size_t bytes)
{
    eg_tokenizer *t = NULL;
    const eg_status status = eg_tokenizer_create(table, bytes, TINY_BOS, TINY_EOS, NULL, &t);
    CHECK((status == EG_OK) == (t != NULL), "status %d", (int)status);
    eg_tokenizer_free(t);
    return status;
}

static void test_bad_headers(void)
{
    static tiny_vocabulary v;
    size_t bytes;
    unsigned char *table = plain_table(&v, &bytes);
    eg_table_header *h = (eg_table_header *)table;
    const eg_table_header good = *h;
    const size_t cuts[] = {0, 1, sizeof *h - 1, sizeof *h, bytes / 2, bytes - 4};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        unsigned char *cut = aligned_new(cuts[i] + 1);
        memcpy(cut, table, cuts[i]);
        CHECK(try_open(cut, cuts[i]) == EG_ERROR_MODEL, "cut to %zu bytes", cuts[i]);
        eg_aligned_free(cut);
    }
    for (size_t i = 0; i < sizeof good; i++) {
        table[i] ^= 0x10;
        CHECK(try_open(table, bytes) == EG_ERROR_MODEL, "byte %zu of the header changed", i);
        table[i] ^= 0x10;
    }
    uint32_t *const fields[] = {&h->vocab,        &h->unit_count, &h->text_root,   &h->special_root, &h->first_merged,
                                &h->merged_count, &h->slot_count, &h->longest_run, &h->byte_ids[9],  &h->table_bytes};
    const uint32_t values[] = {0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, (1u << 22) + 256};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        for (size_t k = 0; k < sizeof values / sizeof values[0]; k++) {
            *fields[i] = values[k];
            sign(table);
            CHECK(try_open(table, bytes) == EG_ERROR_MODEL, "field %zu is %u", i, values[k]);
            *h = good;
        }
    }
    eg_tokenizer *t = NULL;
    CHECK(eg_tokenizer_create(table, bytes, TINY_VOCAB, TINY_EOS, NULL, &t) == EG_ERROR_ARGUMENT, "bos_id");
    CHECK(eg_tokenizer_create(table, bytes, TINY_BOS, TINY_VOCAB, NULL, &t) == EG_ERROR_ARGUMENT, "eos_id");
    CHECK(eg_tokenizer_create(table + 1, bytes, TINY_BOS, TINY_EOS, NULL, &t) == EG_ERROR_ARGUMENT, "alignment");
    CHECK(eg_tokenizer_create(table, bytes, TINY_BOS, TINY_EOS, NULL, NULL) == EG_ERROR_ARGUMENT, "no place");
    eg_tokenizer_free(NULL);
    eg_aligned_free(table);
}

/* Bytes that changed behind the header, or anywhere after the table was opened, as in a mapped file, may give an error
 * or wrong ids, but only ids of the vocabulary, and no bad access. Tokens that end inside of a character make the text
 * look as if it were not UTF-8. */
static void test_corrupt_tables(void)
{
    uint64_t random = 3;
    static tiny_vocabulary v;
    int32_t ids[TINY_TEXT + 2];
    for (int i = 0; i < VOCABULARIES; i++) {
        tiny_vocabulary_new(&v, &random);
        size_t bytes;
        unsigned char *table = tiny_table(&v, &bytes);
        const int opened = i % 2;
        eg_tokenizer *t = opened ? open_table(table, bytes) : NULL;
        const size_t begin = opened ? 0 : sizeof(eg_table_header);
        for (int flips = random_int(&random, 1, 3000); flips > 0; flips--) {
            table[begin + random_bits(&random) % (bytes - begin)] = (unsigned char)random_bits(&random);
        }
        if (opened) { /* all sizes and places in the header are as large as can be */
            memset(table + sizeof(uint64_t), random_int(&random, 0, 1) ? 0xFF : 0x7F, sizeof(eg_table_header) / 2);
        } else {
            t = open_table(table, bytes);
        }
        for (int k = 0; k < TEXTS; k++) {
            char text[TINY_TEXT];
            size_t count;
            uint32_t truncated;
            const size_t text_bytes = random_text(&random, &v, text, TINY_TEXT);
            const eg_status status = eg_tokenize(t, text, text_bytes, SIZE_MAX, ids, &count, &truncated);
            CHECK(status == EG_OK || status == EG_ERROR_MODEL || status == EG_ERROR_ARGUMENT, "status %d", (int)status);
            for (size_t at = 0; status == EG_OK && at < count; at++) {
                CHECK(ids[at] >= 0 && ids[at] < TINY_VOCAB, "id %d", ids[at]);
            }
        }
        eg_tokenizer_free(t);
        eg_aligned_free(table);
    }
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

/* All memory comes from the caller's allocator, and a refusal is an error at any point. */
static void test_refused_memory(void)
{
    static tiny_vocabulary v;
    size_t table_bytes;
    void *table = chosen_table(&v, (const char *const[]){"bc", "ab", "cc", NULL}, &table_bytes);
    static char text[4000];
    static int32_t ids[sizeof text + 2];
    memset(text, 'c', sizeof text); /* one word of many tokens */
    memcpy(text, "ab", 2);          /* whose first, "ab", is taken back: it is a bc */
    size_t granted = 0;
    for (eg_status status = EG_ERROR_MEMORY; status != EG_OK; granted++) {
        budget b = {.left = granted};
        const eg_allocator allocator = {budget_allocate, budget_release, &b};
        eg_tokenizer *t = NULL;
        size_t count;
        uint32_t truncated;
        status = eg_tokenizer_create(table, table_bytes, TINY_BOS, TINY_EOS, &allocator, &t);
        if (status == EG_OK) {
            status = eg_tokenize(t, text, sizeof text, SIZE_MAX, ids, &count, &truncated);
        }
        CHECK(status == EG_OK || status == EG_ERROR_MEMORY, "%s", eg_error_message());
        eg_tokenizer_free(t);
        CHECK(b.held == 0, "%zu blocks are not released", b.held);
    }
    CHECK(granted > 3, "%zu allocations", granted);
    eg_aligned_free(table);
}

int main(void)
{
    test_random_vocabularies();
    test_late_pieces();
    test_long_words();
    test_batch();
    test_text_that_is_not_utf8();
    test_bad_headers();
    test_corrupt_tables();
    test_refused_memory();
    return check_result();
}
