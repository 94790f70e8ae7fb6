/* libFuzzer target: whatever a model file holds, opening it gives a model or an error, and a text a unit vector or an
 * error.
 *
 *     cmake -S kernels -B build/fuzz -DCMAKE_C_COMPILER=clang -DEMBGEMMA_BUILD_FUZZERS=ON
 *     cmake --build build/fuzz && build/fuzz/fuzz_model_file -max_len=20000 -max_total_time=600
 *
 * An input is three bytes, how much data follows the header, one byte, which numbers the data is made of, and the
 * header's text. Lengths, padding and checksums are right, or no mutation would get far. Valid headers, whole and cut,
 * are made by the mutator itself. */
#include "tests/kernels/model/small_model.h"

enum {
    SIZE_BYTES = 3,
    HEAD_BYTES = SIZE_BYTES + 1,
    MOST_DATA = 1 << 21,
    FRESH_ONE_IN = 200, /* mutations that are a valid header */
    OTHER_DATA_ONE_IN = 20,
};

int LLVMFuzzerTestOneInput(const unsigned char *input, size_t bytes);
size_t LLVMFuzzerCustomMutator(unsigned char *input, size_t bytes, size_t most, unsigned seed);
size_t LLVMFuzzerMutate(unsigned char *input, size_t bytes, size_t most);

/* Fills the data with numbers of a row of `common`, and now and then one of `rare`; both as bits of a float32, or of
 * two float16, or four codes. */
static void fill_data(unsigned char *data, size_t bytes, unsigned which)
{
    static const uint32_t common[][4] = {
        {0x3C3C3C3C, 0x3C3C3C3C, 0x3C3C3C3C, 0x3C3C3C3C},  /* finite and not 0, in every type */
        {0x3F800000, 0xBD000000, 0x3C003C00, 0x2E66A024},  /* 1, -0.03, 1 and 1, 0.1 and 0.008 */
        {0x00000001, 0x80000001, 0x00010001, 0x007FFFFF},  /* subnormal */
        {0x7E967699, 0xFE967699, 0x7BFF7BFF, 0x60AD78EC}}; /* 1e38, -1e38, the largest float16, 1e20 */
    static const uint32_t rare[] = {0x7FC00000, 0xFFC00000, 0x7F800000, 0xFF800000, /* NaN, infinite */
                                    0x7C007C00, 0x7F7FFFFF, 0x80808080, 0x00000000};
    uint64_t random = which;
    const uint32_t *row = common[which % 4];
    for (size_t i = 0; i + sizeof *row <= bytes; i += sizeof *row) {
        const int is_rare = which >= 128 && random_int(&random, 0, 999) == 0;
        memcpy(data + i, is_rare ? &rare[random_int(&random, 0, 7)] : &row[random_int(&random, 0, 3)], sizeof *row);
    }
}

static void encode_one(const eg_model *model)
{
    static float out[1 << 16]; /* a config's largest hidden size */
    const int32_t ids[] = {0, 1};
    eg_context *context = NULL;
    const char *isa = eg_model_dim(model) % 128 == 0 ? NULL : "scalar";
    if (eg_context_create(model, 1, isa, &context) == EG_OK &&
        eg_encode(context, ids, (const uint64_t[]){0, 2}, 1, eg_model_dim(model), 1, out) == EG_OK) {
        double squares = 0;
        for (size_t i = 0; i < eg_model_dim(model); i++) {
            squares += (double)out[i] * (double)out[i];
        }
        if (!(squares > 0.999 && squares < 1.001)) {
            abort();
        }
    }
    eg_context_free(context);
    for (size_t i = 0; i < eg_model_prompt_count(model); i++) {
        if (eg_model_prompt(model, eg_model_prompt_name(model, i)) == NULL) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const unsigned char *input, size_t bytes)
{
    if (bytes < HEAD_BYTES) { /* also these reach the engine: libFuzzer gives up if its first input does not */
        static const unsigned char shortest[HEAD_BYTES] = {0};
        input = shortest;
        bytes = sizeof shortest;
    }
    const size_t data_bytes = ((size_t)input[0] | (size_t)input[1] << 8 | (size_t)input[2] << 16) % MOST_DATA;
    size_t begin;
    unsigned char *file = make_head((const char *)input + HEAD_BYTES, bytes - HEAD_BYTES, data_bytes, &begin);
    fill_data(file + begin, data_bytes, input[SIZE_BYTES]);
    eg_model *model = NULL;
    const eg_status status = eg_model_open_memory(file, begin + data_bytes, NULL, &model);
    if ((status == EG_OK) != (model != NULL) || (status != EG_OK && eg_error_message()[0] == '\0')) {
        abort();
    }
    if (model != NULL) {
        encode_one(model);
    }
    eg_model_free(model);
    eg_aligned_free(file);
    return 0;
}

/* A valid input, in one of three formats. */
static size_t fresh(unsigned char *input, size_t most, unsigned seed)
{
    static tensors t;
    static buffer header;
    list_tensors(&t, seed % 3 == 0 ? EG_F32 : EG_I8, seed % 3 == 0 ? EG_F32 : seed % 3 == 1 ? EG_I8 : EG_U8);
    const size_t data_bytes = make_header(&header, &t, "00000000");
    if (most < HEAD_BYTES + header.length) {
        return 0;
    }
    for (size_t i = 0; i < SIZE_BYTES; i++) {
        input[i] = (unsigned char)(data_bytes >> 8 * i & 0xFF);
    }
    input[SIZE_BYTES] = (unsigned char)(seed / 3);
    memcpy(input + HEAD_BYTES, header.characters, header.length);
    return HEAD_BYTES + header.length;
}

size_t LLVMFuzzerCustomMutator(unsigned char *input, size_t bytes, size_t most, unsigned seed)
{
    if (bytes < HEAD_BYTES + 2 || seed % FRESH_ONE_IN == 0) {
        const size_t made = fresh(input, most, seed / FRESH_ONE_IN);
        return made > 0 ? made : LLVMFuzzerMutate(input, bytes, most);
    }
    if (seed % OTHER_DATA_ONE_IN == 0) {
        input[SIZE_BYTES] = (unsigned char)(seed / OTHER_DATA_ONE_IN);
        return bytes;
    }
    return LLVMFuzzerMutate(input, bytes, most);
}
