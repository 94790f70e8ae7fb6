#include "model/safetensors.h"

#include "common/error.h"

#include <stdlib.h>
#include <string.h>

enum {
    LENGTH_BYTES = 8,
    MAX_HEADER_BYTES = 1 << 20, /* the header of a 256-layer model takes 0.4 MB */
    MAX_TENSORS = 4096,         /* a 256-layer model has 3,591 */
    MAX_METADATA = 1024,
};

size_t eg_tensor_bytes(const eg_tensor *tensor)
{
    static const size_t item_bytes[] = {[EG_F32] = 4, [EG_F16] = 2, [EG_I8] = 1, [EG_U8] = 1};
    uint64_t bytes = item_bytes[tensor->dtype];
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (tensor->shape[i] != 0 && bytes > SIZE_MAX / tensor->shape[i]) {
            return SIZE_MAX; /* more than any file has */
        }
        bytes *= tensor->shape[i];
    }
    return (size_t)bytes;
}

eg_string eg_metadata(const eg_safetensors *file, const char *key)
{
    for (size_t i = 0; i < file->metadata_count; i++) {
        if (eg_string_is(file->metadata[i].key, key)) {
            return file->metadata[i].value;
        }
    }
    return (eg_string){NULL, 0};
}

/* ---- the header as JSON --------------------------------------------------------------------------------------- */

static void read_metadata(eg_json *json, eg_safetensors *file)
{
    for (int more = eg_json_open(json, '{'); more; more = eg_json_more(json, '{')) {
        if (file->metadata_count == MAX_METADATA) {
            eg_json_fail(json, "there is too much metadata");
            return;
        }
        const eg_string key = eg_json_key(json);
        file->metadata[file->metadata_count++] = (eg_pair){key, eg_json_string(json)};
    }
}

const char *eg_dtype_name(eg_dtype dtype)
{
    static const char *const names[] = {[EG_F32] = "F32", [EG_F16] = "F16", [EG_I8] = "I8", [EG_U8] = "U8"};
    return names[dtype];
}

static eg_dtype read_dtype(eg_json *json)
{
    const eg_string name = eg_json_string(json);
    for (int dtype = EG_F32; dtype <= EG_U8; dtype++) {
        if (eg_string_is(name, eg_dtype_name((eg_dtype)dtype))) {
            return (eg_dtype)dtype;
        }
    }
    eg_json_fail(json, "expected a dtype of F32, F16, I8 or U8");
    return EG_U8;
}

/* Reads a list of at most `most` integers; returns how many there are. */
static uint32_t read_integers(eg_json *json, uint64_t *integers, uint32_t most, const char *too_many)
{
    uint32_t count = 0;
    for (int more = eg_json_open(json, '['); more; more = eg_json_more(json, '[')) {
        if (count == most) {
            eg_json_fail(json, too_many);
            break;
        }
        integers[count++] = eg_json_integer(json);
    }
    return count;
}

/* An entry such as {"dtype": "F32", "shape": [768], "data_offsets": [0, 3072]}; its data is in data … data + bytes.
 */
static void read_tensor(eg_json *json, eg_tensor *tensor, const char *data, size_t bytes)
{
    uint64_t offsets[2] = {0, 0};
    unsigned fields = 0; /* a bit for each that was read */
    for (int more = eg_json_open(json, '{'); more; more = eg_json_more(json, '{')) {
        const eg_string key = eg_json_key(json);
        unsigned field = 0;
        if (eg_string_is(key, "dtype")) {
            field = 1;
            tensor->dtype = read_dtype(json);
        } else if (eg_string_is(key, "shape")) {
            field = 2;
            tensor->rank = read_integers(json, tensor->shape, EG_MAX_RANK, "a tensor has too many dimensions");
        } else if (eg_string_is(key, "data_offsets")) {
            field = 4;
            if (read_integers(json, offsets, 2, "there are too many data_offsets") != 2) {
                eg_json_fail(json, "expected two data_offsets");
            }
        }
        if (field == 0 || (fields & field) != 0) {
            eg_json_fail(json, "expected a tensor's dtype, shape and data_offsets, each once");
        }
        fields |= field;
    }
    if (fields != 7) {
        eg_json_fail(json, "expected a tensor's dtype, shape and data_offsets");
    } else if (offsets[1] > bytes) {
        eg_json_fail(json, "a tensor ends after the end of the file: it was cut");
    } else if (offsets[0] > offsets[1] || offsets[1] - offsets[0] != eg_tensor_bytes(tensor)) {
        eg_json_fail(json, "a tensor's shape and data_offsets disagree");
    } else {
        tensor->data = data + offsets[0];
    }
}

static void read_header(eg_json *json, eg_safetensors *file, const char *data, size_t bytes)
{
    int has_metadata = 0;
    for (int more = eg_json_open(json, '{'); more; more = eg_json_more(json, '{')) {
        const eg_string key = eg_json_key(json);
        if (eg_string_is(key, "__metadata__")) {
            if (has_metadata) {
                eg_json_fail(json, "there are two __metadata__");
            }
            has_metadata = 1;
            read_metadata(json, file);
            continue;
        }
        if (file->tensor_count == MAX_TENSORS || memchr(key.text, '\0', key.bytes) != NULL) {
            eg_json_fail(json, "there are too many tensors, or one has a zero in its name");
            return;
        }
        eg_tensor *tensor = &file->tensors[file->tensor_count++];
        *tensor = (eg_tensor){.name = key.text};
        read_tensor(json, tensor, data, bytes);
    }
    eg_json_finish(json);
}

/* ---- checks of all entries together ---------------------------------------------------------------------- */

static int compare_keys(const void *a, const void *b)
{
    const eg_string *first = &((const eg_pair *)a)->key, *second = &((const eg_pair *)b)->key;
    const size_t common = first->bytes < second->bytes ? first->bytes : second->bytes;
    const int order = memcmp(first->text, second->text, common);
    return order != 0 ? order : (first->bytes > second->bytes) - (first->bytes < second->bytes);
}

static int compare_places(const void *a, const void *b)
{
    const eg_tensor *first = a, *second = b;
    const uintptr_t p = (uintptr_t)first->data, q = (uintptr_t)second->data;
    const size_t m = eg_tensor_bytes(first), n = eg_tensor_bytes(second);
    return p != q ? (p > q) - (p < q) : (m > n) - (m < n);
}

static eg_status check_metadata_keys(eg_safetensors *file)
{
    qsort(file->metadata, file->metadata_count, sizeof *file->metadata, compare_keys);
    for (size_t i = 1; i < file->metadata_count; i++) {
        if (compare_keys(&file->metadata[i - 1], &file->metadata[i]) == 0) {
            return eg_fail(EG_ERROR_MODEL, "the metadata has the key %.40s twice; the file is corrupt",
                           file->metadata[i].key.text);
        }
    }
    return EG_OK;
}

/* The tensors must cover the data without overlap or hole. */
static eg_status check_tiling(eg_safetensors *file, const char *data, size_t bytes)
{
    qsort(file->tensors, file->tensor_count, sizeof *file->tensors, compare_places);
    size_t end = 0;
    for (size_t i = 0; i < file->tensor_count; i++) {
        const eg_tensor *tensor = &file->tensors[i];
        const size_t begin = (size_t)((const char *)tensor->data - data);
        if (begin != end) {
            return eg_fail(EG_ERROR_MODEL, "tensor %.60s starts at byte %zu of the data, expected %zu: corrupt header",
                           tensor->name, begin, end);
        }
        end = begin + eg_tensor_bytes(tensor);
    }
    if (end != bytes) {
        return eg_fail(EG_ERROR_MODEL, "the file has %zu bytes of data, its header says %zu; get it again", bytes, end);
    }
    return EG_OK;
}

/* ---- all of it ------------------------------------------------------------------------------------------------ */

/* What people take for a model file, by bytes at its beginning: the list of safetensors_file.py. NULL if it is of no
 * such kind. */
static const char *kind_of_file(const unsigned char *data, size_t bytes)
{
    static const struct {
        size_t at;
        const char *magic, *kind;
    } kinds[] = {
        {0, "version https://git-lfs",
         "a pointer of Git LFS, with the file itself not downloaded (git lfs pull gets it)"},
        {0, "GGUF", "a GGUF file of llama.cpp"},
        {4, "TFL3", "a TensorFlow Lite model"},
        {0, "PK\x03\x04", "a zip archive, such as a pytorch_model.bin or a .task file"},
        {0, "\x80\x02", "a pickle, such as a pytorch_model.bin"},
        {0, "\x80\x04", "a pickle"},
        {0, "\x89HDF\r\n", "an HDF5 file of Keras"},
        {0, "\x1f\x8b", "a gzip archive"},
        {0, "BZh", "a bzip2 archive"},
        {0, "\3757zXZ", "an xz archive"},
        {0, "(\xb5/\xfd", "a Zstandard archive"},
        {0, "SQLite format 3", "an SQLite database"},
        {0, "\x93NUMPY", "an array of NumPy"},
        {0, "PAR1", "a Parquet file"},
        {0, "<", "a web page or other XML, as a failed download leaves"},
        {0, "{", "a JSON file"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const size_t length = strlen(kinds[i].magic);
        if (kinds[i].at + length <= bytes && memcmp(data + kinds[i].at, kinds[i].magic, length) == 0) {
            return kinds[i].kind;
        }
    }
    /* A ModelProto: the version of its format, then a text. */
    const int is_onnx = data[0] == 8 && data[1] >= 3 && data[1] <= 0x20 && memchr("\x12\x1a\"*2:B", data[2], 7) != NULL;
    return is_onnx ? "an ONNX model" : NULL;
}

static eg_status header_length(const unsigned char *data, size_t bytes, size_t *length)
{
    if (bytes <= LENGTH_BYTES) {
        return eg_fail(EG_ERROR_MODEL, "the file has %zu bytes, too few for any tensor; it was cut: get it again",
                       bytes);
    }
    uint64_t claimed = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) {
        claimed = claimed << 8 | data[i];
    }
    const char *kind = claimed > MAX_HEADER_BYTES || data[LENGTH_BYTES] != '{' ? kind_of_file(data, bytes) : NULL;
    if (kind != NULL) {
        return eg_fail(EG_ERROR_MODEL, "this is %s, not a safetensors file", kind);
    }
    if (claimed > MAX_HEADER_BYTES) {
        return eg_fail(EG_ERROR_MODEL, "the header claims %llu bytes, more than %d; this is not a safetensors file",
                       (unsigned long long)claimed, MAX_HEADER_BYTES);
    }
    if (claimed > bytes - LENGTH_BYTES) {
        return eg_fail(EG_ERROR_MODEL, "the file ends in its header, at byte %zu of %llu: get it again", bytes,
                       (unsigned long long)claimed + LENGTH_BYTES);
    }
    if ((LENGTH_BYTES + claimed) % EG_ALIGNMENT != 0) {
        return eg_fail(EG_ERROR_MODEL, "the data starts at byte %llu; expected a multiple of %d",
                       (unsigned long long)claimed + LENGTH_BYTES, EG_ALIGNMENT);
    }
    *length = (size_t)claimed;
    return EG_OK;
}

eg_status eg_safetensors_read(const void *data, size_t bytes, const eg_allocator *allocator, eg_safetensors *file)
{
    *file = (eg_safetensors){.header = NULL};
    size_t length = 0;
    eg_status status = header_length(data, bytes, &length);
    if (status != EG_OK) {
        return status;
    }
    file->header = eg_allocate_unset(allocator, length, 1);
    file->metadata = eg_allocate_unset(allocator, MAX_METADATA, sizeof *file->metadata);
    file->tensors = eg_allocate_unset(allocator, MAX_TENSORS, sizeof *file->tensors);
    if (file->header == NULL || file->metadata == NULL || file->tensors == NULL) {
        eg_safetensors_free(file, allocator);
        return eg_fail(EG_ERROR_MEMORY, "no memory for a header of %zu bytes", length);
    }
    memcpy(file->header, (const char *)data + LENGTH_BYTES, length);

    const char *const first = (const char *)data + LENGTH_BYTES + length;
    const size_t data_bytes = bytes - LENGTH_BYTES - length;
    file->data = first;
    file->data_bytes = data_bytes;
    eg_json json = eg_json_read((eg_string){file->header, length});
    read_header(&json, file, first, data_bytes);
    if (json.problem != NULL) {
        status = eg_fail(EG_ERROR_MODEL, "the header is damaged: %s; get the file again", json.problem);
    }
    status = status == EG_OK ? check_metadata_keys(file) : status;
    status = status == EG_OK ? check_tiling(file, first, data_bytes) : status;
    if (status != EG_OK) {
        eg_safetensors_free(file, allocator);
    }
    return status;
}

void eg_safetensors_free(eg_safetensors *file, const eg_allocator *allocator)
{
    eg_release(allocator, file->header);
    eg_release(allocator, file->metadata);
    eg_release(allocator, file->tensors);
    *file = (eg_safetensors){.header = NULL};
}
