/* Mapped files: names in any language, sizes above 4 GB, parts, names that are given to other files, what is no file.
 */
#define _POSIX_C_SOURCE 200809L
#include "tests/kernels/platform/disk.h"

static char reason[EG_REASON_BYTES];

static void check_is(const eg_mapped_file *file, const char *text)
{
    char read[16] = "";
    const size_t bytes = strlen(text);
    CHECK(file->bytes == bytes && memcmp(file->data, text, bytes) == 0, "the mapping is not %s", text);
    CHECK(eg_file_read(file, 1, bytes - 1, read) && strcmp(read, text + 1) == 0, "read %s of %s", read, text);
    CHECK(!eg_file_read(file, 1, bytes, read), "read past the end of %s", text);
}

/* The name is given to another file: the old one stays as it is for whoever has it open. */
static void check_replaced(const char *path)
{
    static const char other[] = "test_files.other", old[] = "test_files.old";
    eg_mapped_file first = {.data = NULL}, second = {.data = NULL};
    disk_write(path, "first", 5);
    disk_write(other, "second", 6);
    CHECK(eg_file_map(path, &first, reason) == EG_MAPPED, "%s: %s", path, reason);
    CHECK(disk_rename(path, old) && disk_rename(other, path), "cannot rename %s while it is mapped", path);
    CHECK(eg_file_map(path, &second, reason) == EG_MAPPED, "%s: %s", path, reason);
    eg_file_forget(&first, first.data, first.bytes);
    check_is(&first, "first");
    check_is(&second, "second");
    eg_file_unmap(&first);
    eg_file_unmap(&second);
    CHECK(disk_remove(path) && disk_remove(old), "cannot remove %s", path);
}

/* Parts of a file whose byte i is i modulo a prime, so that each is told from its neighbours. */
static void check_parts(const char *path)
{
    enum { BYTES = 200000, PRIME = 251 }; /* more than the grain of mappings on Windows */
    static const size_t parts[][2] = {{0, 0}, {0, 1}, {4, 9}, {4095, 2}, {65536, 0}, {65540, 70000}, {BYTES - 1, 1}};
    unsigned char *all = malloc(BYTES), read[64];
    for (size_t i = 0; i < BYTES; i++) {
        all[i] = (unsigned char)(i % PRIME);
    }
    disk_write(path, all, BYTES);
    const int descriptor = disk_open(path);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const size_t offset = parts[i][0], bytes = parts[i][1] > 0 ? parts[i][1] : BYTES - offset;
        const size_t some = bytes < sizeof read ? bytes : sizeof read;
        eg_mapped_file file = {.data = NULL};
        CHECK(eg_file_map_part(descriptor, offset, parts[i][1], &file, reason) == EG_MAPPED, "%zu: %s", offset, reason);
        CHECK(file.bytes == bytes && memcmp(file.data, all + offset, bytes) == 0, "%zu bytes at %zu", bytes, offset);
        CHECK(eg_file_read(&file, bytes - some, some, read), "cannot read %zu bytes at %zu", some, offset);
        CHECK(memcmp(read, all + offset + bytes - some, some) == 0, "read %zu bytes at %zu", some, offset);
        eg_file_forget(&file, (char *)file.data + bytes / 2, bytes - bytes / 2);
        CHECK(memcmp(file.data, all + offset, bytes) == 0, "forgotten, %zu bytes at %zu", bytes, offset);
        eg_file_unmap(&file);
    }
    static const uint64_t wrong[][2] = {{BYTES + 1, 0}, {0, BYTES + 1}, {BYTES, 1}, {UINT64_MAX, 2}, {1, UINT64_MAX}};
    eg_mapped_file file = {.data = NULL};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK(eg_file_map_part(descriptor, wrong[i][0], wrong[i][1], &file, reason) == EG_MAP_BAD_PART, "%zu", i);
    }
    CHECK(eg_file_map_part(descriptor, BYTES, 0, &file, reason) == EG_MAP_BAD_SIZE, "nothing after the end");
    disk_close(descriptor);
    static const int none[] = {-1, -2, 1 << 20};
    for (size_t i = 0; i < 3; i++) {
        CHECK(eg_file_map_part(none[i], 0, 0, &file, reason) == EG_MAP_NOT_OPENED, "descriptor %d", none[i]);
    }
    CHECK(file.data == NULL && disk_remove(path), "a refused part is no file");
    free(all);
}

static void check_large(const char *path)
{
    static const uint64_t ends[] = {(1ull << 31) + 5, (1ull << 32) + 5};
    for (size_t i = 0; i < 2; i++) {
        eg_mapped_file file = {.data = NULL};
        FILE *stream = disk_create(path);
        CHECK(stream != NULL && disk_seek(stream, ends[i] - 3) && fputs("end", stream) >= 0 && fclose(stream) == 0,
              "cannot write %llu bytes", (unsigned long long)ends[i]);
        const eg_map_status status = eg_file_map(path, &file, reason);
        CHECK(status == EG_MAPPED && file.bytes == ends[i], "%zu bytes: %s", file.bytes, reason);
        if (status == EG_MAPPED) {
            char read[4] = "";
            CHECK(eg_file_read(&file, file.bytes - 3, 3, read) && strcmp(read, "end") == 0, "%s", read);
            CHECK(memcmp((char *)file.data + file.bytes - 3, "end", 3) == 0, "the mapping");
            eg_file_unmap(&file);
        }
        const int descriptor = disk_open(path);
        CHECK(eg_file_map_part(descriptor, ends[i] - 3, 3, &file, reason) == EG_MAPPED, "a part: %s", reason);
        check_is(&file, "end");
        eg_file_unmap(&file);
        disk_close(descriptor);
        CHECK(disk_remove(path), "cannot remove %s", path);
    }
}

static void check_refused(const char *path)
{
    eg_mapped_file file = {.data = NULL};
    CHECK(eg_file_map(path, &file, reason) == EG_MAP_NOT_OPENED, "a file that is not there");
    CHECK(strlen(reason) > 5 && strchr(reason, '\n') == NULL, "the reason is %s", reason);
    CHECK(eg_file_map(".", &file, reason) == EG_MAP_NOT_A_FILE, "a folder");
    CHECK(eg_file_map(disk_device(path), &file, reason) == EG_MAP_NOT_A_FILE, "a pipe or a device");
    disk_remove(path);
    disk_write(path, "", 0);
    CHECK(eg_file_map(path, &file, reason) == EG_MAP_BAD_SIZE, "an empty file");
    disk_remove(path);
    CHECK(file.data == NULL, "a refused file is no file");
    eg_file_unmap(&file);
}

int main(void)
{
    static const char *const paths[] = {"test_files.plain", "test_files.modèle 模型 🙂"};
    for (size_t i = 0; i < 2; i++) {
        check_replaced(paths[i]);
        check_refused(paths[i]);
    }
    check_parts(paths[0]);
    check_large(paths[0]);
    CHECK(eg_cpu_cores() >= 1, "no core");
    const double begin = eg_now(), again = eg_now();
    CHECK(begin <= again && again < begin + 60, "the clock went from %g to %g s", begin, again);
    return check_result();
}
