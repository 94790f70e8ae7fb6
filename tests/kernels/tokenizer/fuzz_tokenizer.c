/* libFuzzer target: tokens are those of the plain definition; invalid text is an error; and a table that is corrupt
 * gives wrong ids or an error, never a bad access.
 *
 *     cmake -S kernels -B build/fuzz -DCMAKE_C_COMPILER=clang -DEMBGEMMA_BUILD_FUZZERS=ON
 *     cmake --build build/fuzz && build/fuzz/fuzz_tokenizer -max_total_time=600
 *
 * An input is what to do, which vocabulary, how many tokens at most, and a text: as bytes, or spelled in pieces of the
 * vocabulary. To corrupt a table, the text is preceded by a number of changes, of four bytes each. */
#include "tests/kernels/tokenizer/tiny_tokenizer.h"

enum {
    VOCABULARIES = 64,
    HEAD_BYTES = 3,
    CHANGE_BYTES = 4,
    COMPARED_BYTES = 200, /* of a text: the plain definition takes cubic time */
};

enum { SPELLED = 0, RAW = 1, CORRUPT = 2, CORRUPT_HEADER = 3, KINDS = 4 };

int LLVMFuzzerTestOneInput(const unsigned char *input, size_t bytes);

typedef struct vocabulary {
    tiny_vocabulary names;
    void *table;
    size_t bytes;
} vocabulary;

static vocabulary *vocabulary_at(size_t index)
{
    static vocabulary all[VOCABULARIES];
    vocabulary *v = &all[index % VOCABULARIES];
    if (v->table == NULL) {
        uint64_t random = index % VOCABULARIES;
        tiny_vocabulary_new(&v->names, &random);
        v->table = tiny_table(&v->names, &v->bytes);
    }
    return v;
}

/* Every byte stands for a piece, whichever those are, or for a character that is none. */
static size_t spell(const tiny_vocabulary *v, const unsigned char *input, size_t bytes, char *text)
{
    static const char *const others[] = {TINY_SPACE_SYMBOL, "z", "\xC3\xBC", "\xE2\x96\x82", "<b", "\xF0\x9F\x98\x81"};
    enum { OTHERS = sizeof others / sizeof others[0] };
    size_t written = 0;
    for (size_t i = 0; i < bytes; i++) {
        const size_t pick = input[i] % (OTHERS + TINY_CHARACTERS + TINY_MERGES + TINY_FIRST_BYTE);
        const char *part = pick < OTHERS ? others[pick]
                           : pick - OTHERS < TINY_CHARACTERS + TINY_MERGES
                               ? v->names[TINY_FIRST_MERGE + pick - OTHERS]
                               : v->names[pick - OTHERS - TINY_CHARACTERS - TINY_MERGES];
        if (written + strlen(part) <= COMPARED_BYTES) {
            memcpy(text + written, part, strlen(part));
            written += strlen(part);
        }
    }
    return written;
}

/* By the definition of UTF-8, not by its table of byte ranges. */
static int is_utf8(const unsigned char *text, size_t bytes)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    for (size_t at = 0; at < bytes;) {
        const unsigned char first = text[at];
        const size_t length = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
        if (length == 0 || length > bytes - at) {
            return 0;
        }
        uint32_t code = length == 1 ? first : first & (0xFFu >> (length + 1));
        for (size_t i = 1; i < length; i++) {
            if (text[at + i] >> 6 != 2) {
                return 0;
            }
            code = code << 6 | (text[at + i] & 0x3F);
        }
        if (code < smallest[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
            return 0;
        }
        at += length;
    }
    return 1;
}

static void require(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "%s; the last error: %s\n", what, eg_error_message());
        abort();
    }
}

/* Tokenizes a copy of the text that ends where its memory does. */
static eg_status run(const void *table, size_t table_bytes, const char *text, size_t bytes, size_t max_tokens,
                     int32_t *ids, size_t *count, uint32_t *truncated)
{
    eg_tokenizer *t = NULL;
    eg_status status = eg_tokenizer_create(table, table_bytes, TINY_BOS, TINY_EOS, NULL, &t);
    require((status == EG_OK) == (t != NULL), "a tokenizer beside an error");
    if (status == EG_OK) {
        char *exact = malloc(bytes + 1);
        memcpy(exact + 1, text, bytes);
        status = eg_tokenize(t, exact + 1, bytes, max_tokens, ids, count, truncated);
        const uint32_t vocab = eg_tokenizer_vocab(t);
        for (size_t i = 0; status == EG_OK && i < *count; i++) {
            require(ids[i] >= 0 && (uint32_t)ids[i] < vocab, "an id outside of the vocabulary");
        }
        free(exact);
    }
    eg_tokenizer_free(t);
    return status;
}

static void fuzz_text(const vocabulary *v, const char *text, size_t bytes, size_t max_tokens)
{
    static int32_t ids[TINY_TEXT + 2];
    static uint32_t expected[TINY_TEXT];
    size_t count = 0;
    uint32_t truncated = 0;
    const eg_status status = run(v->table, v->bytes, text, bytes, max_tokens, ids, &count, &truncated);
    if (!is_utf8((const unsigned char *)text, bytes)) {
        require(status == EG_ERROR_ARGUMENT || (status == EG_OK && truncated), "invalid text that is tokenized");
        return;
    }
    const size_t tokens = tiny_tokenize(&v->names, text, bytes, expected);
    const size_t kept = tokens < max_tokens - 2 ? tokens : max_tokens - 2;
    require(status == EG_OK && count == kept + 2 && truncated == (kept < tokens), "another number of tokens");
    require(ids[0] == TINY_BOS && ids[count - 1] == TINY_EOS, "another beginning or end");
    for (size_t i = 0; i < kept; i++) {
        require(ids[i + 1] == (int32_t)expected[i], "another id");
    }
}

/* Changes the table, and changes it back: a copy would take most of the time. */
static void fuzz_table(const vocabulary *v, const unsigned char *input, size_t bytes, int with_header)
{
    static int32_t ids[TINY_TEXT + 2];
    unsigned char *table = v->table;
    eg_table_header *h = v->table;
    const eg_table_header good = *h;
    size_t places[UINT8_MAX], changes = 0, at = 1;
    unsigned char kept[UINT8_MAX];
    for (; bytes >= at + CHANGE_BYTES && changes < input[0]; changes++, at += CHANGE_BYTES) {
        const size_t place = (size_t)input[at] | (size_t)input[at + 1] << 8 | (size_t)input[at + 2] << 16;
        const size_t first = with_header ? offsetof(eg_table_header, table_bytes) : sizeof *h;
        const size_t end = with_header && place % 2 ? sizeof *h : v->bytes;
        places[changes] = first + place / 2 % (end - first);
        kept[changes] = table[places[changes]];
        table[places[changes]] = input[at + 3];
    }
    h->crc32 = eg_crc32(0, &h->table_bytes, sizeof *h - offsetof(eg_table_header, table_bytes));
    size_t count;
    uint32_t truncated;
    if (bytes > at) {
        (void)run(table, v->bytes, (const char *)input + at, bytes - at, SIZE_MAX, ids, &count, &truncated);
    }
    while (changes > 0) {
        changes--;
        table[places[changes]] = kept[changes];
    }
    *h = good;
}

int LLVMFuzzerTestOneInput(const unsigned char *input, size_t bytes)
{
    bytes = bytes < TINY_TEXT ? bytes : TINY_TEXT;
    if (bytes < HEAD_BYTES) { /* also these reach the engine: libFuzzer gives up if its first input does not */
        static const unsigned char shortest[HEAD_BYTES] = {0};
        input = shortest;
        bytes = sizeof shortest;
    }
    const int kind = input[0] % KINDS;
    const vocabulary *v = vocabulary_at(input[1]);
    const size_t max_tokens = input[2] < 200 ? SIZE_MAX : (size_t)input[2] - 198;
    input += HEAD_BYTES;
    bytes -= HEAD_BYTES;
    char text[COMPARED_BYTES];
    if (kind == SPELLED) {
        fuzz_text(v, text, spell(&v->names, input, bytes, text), max_tokens);
    } else if (kind == RAW) {
        fuzz_text(v, (const char *)input, bytes < COMPARED_BYTES ? bytes : COMPARED_BYTES, max_tokens);
    } else {
        fuzz_table(v, input, bytes, kind == CORRUPT_HEADER);
    }
    return 0;
}
