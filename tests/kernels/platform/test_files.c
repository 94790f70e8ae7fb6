/* Mapped files: names in any language, sizes above 4 GB, names that are given to other files, and what is no file. */
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
    check_large(paths[0]);
    CHECK(eg_cpu_cores() >= 1, "no core");
    const double begin = eg_now(), again = eg_now();
    CHECK(begin <= again && again < begin + 60, "the clock went from %g to %g s", begin, again);
    return check_result();
}
