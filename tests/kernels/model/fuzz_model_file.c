/* libFuzzer target: whatever a model file's header says, opening the file gives a model that can encode, or an error.
 *
 *     cmake -S kernels -B build/fuzz -DCMAKE_C_COMPILER=clang -DEMBGEMMA_BUILD_FUZZERS=ON
 *     cmake --build build/fuzz && build/fuzz/fuzz_model_file -max_len=20000 -max_total_time=600
 *
 * An input is three bytes, how much data follows the header, and the header's text; the data is one byte throughout.
 * Lengths, padding and checksum are right, or no mutation would get far. Valid headers, whole and cut, are made by the
 * mutator itself. */
#include "tests/kernels/model/small_model.h"

enum { SIZE_BYTES = 3, MOST_DATA = 1 << 21, FRESH_ONE_IN = 200 };

int LLVMFuzzerTestOneInput(const unsigned char *input, size_t bytes);
size_t LLVMFuzzerCustomMutator(unsigned char *input, size_t bytes, size_t most, unsigned seed);
size_t LLVMFuzzerMutate(unsigned char *input, size_t bytes, size_t most);

static void encode_one(const eg_model *model)
{
    static float out[1 << 16]; /* a config's largest hidden size */
    const int32_t ids[] = {0, 1};
    eg_context *context = NULL;
    if (eg_context_create(model, 1, "scalar", &context) == EG_OK) {
        (void)eg_encode(context, ids, (const uint64_t[]){0, 2}, 1, eg_model_dim(model), 1, out);
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
    if (bytes < SIZE_BYTES) {
        return 0;
    }
    const size_t data_bytes = ((size_t)input[0] | (size_t)input[1] << 8 | (size_t)input[2] << 16) % MOST_DATA;
    size_t begin;
    unsigned char *file = make_head((const char *)input + SIZE_BYTES, bytes - SIZE_BYTES, data_bytes, &begin);
    memset(file + begin, 0x3C, data_bytes); /* numbers that are finite and not 0, in every type */
    eg_model *model = NULL;
    const eg_status status = eg_model_open_memory(file, begin + data_bytes, NULL, &model);
    if ((status == EG_OK) != (model != NULL) || (status != EG_OK && eg_error_message()[0] == '\0')) {
        abort();
    }
    if (model != NULL) {
        encode_one(model);
    }
    eg_model_free(model);
    free(file);
    return 0;
}

/* A valid input, in one of three formats. */
static size_t fresh(unsigned char *input, size_t most, unsigned seed)
{
    static tensors t;
    static buffer header;
    list_tensors(&t, seed % 3 == 0 ? EG_F32 : EG_I8, seed % 3 == 0 ? EG_F32 : seed % 3 == 1 ? EG_I8 : EG_U8);
    const size_t data_bytes = make_header(&header, &t, "00000000");
    if (most < SIZE_BYTES + header.length) {
        return 0;
    }
    for (size_t i = 0; i < SIZE_BYTES; i++) {
        input[i] = (unsigned char)(data_bytes >> 8 * i & 0xFF);
    }
    memcpy(input + SIZE_BYTES, header.characters, header.length);
    return SIZE_BYTES + header.length;
}

size_t LLVMFuzzerCustomMutator(unsigned char *input, size_t bytes, size_t most, unsigned seed)
{
    if (bytes < SIZE_BYTES + 2 || seed % FRESH_ONE_IN == 0) {
        const size_t made = fresh(input, most, seed / FRESH_ONE_IN);
        return made > 0 ? made : LLVMFuzzerMutate(input, bytes, most);
    }
    return LLVMFuzzerMutate(input, bytes, most);
}
