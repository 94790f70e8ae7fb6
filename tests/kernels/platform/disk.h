/* What tests do with files: paths are UTF-8 on every system. */
#ifndef EG_TESTS_DISK_H
#define EG_TESTS_DISK_H

#include "tests/kernels/check.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <fcntl.h>
#include <io.h>

enum { DISK_PATH = 512 };

static inline const wchar_t *disk_wide(const char *path, wchar_t wide[DISK_PATH])
{
    CHECK(MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, DISK_PATH) > 0, "%s", path);
    return wide;
}

static inline FILE *disk_create(const char *path) { return _wfopen(disk_wide(path, (wchar_t[DISK_PATH]){0}), L"wb"); }

static inline int disk_seek(FILE *file, uint64_t offset) { return _fseeki64(file, (long long)offset, SEEK_SET) == 0; }

static inline int disk_remove(const char *path) { return _wremove(disk_wide(path, (wchar_t[DISK_PATH]){0})) == 0; }

static inline int disk_rename(const char *from, const char *to)
{
    wchar_t wide_from[DISK_PATH], wide_to[DISK_PATH];
    return MoveFileExW(disk_wide(from, wide_from), disk_wide(to, wide_to), 0) != 0;
}

static inline int disk_open(const char *path)
{
    return _wopen(disk_wide(path, (wchar_t[DISK_PATH]){0}), _O_RDONLY | _O_BINARY);
}

static inline void disk_close(int descriptor) { _close(descriptor); }

/* Something that is there and is no file. */
static inline const char *disk_device(const char *path)
{
    (void)path;
    return "NUL";
}
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static inline FILE *disk_create(const char *path) { return fopen(path, "wb"); }

static inline int disk_seek(FILE *file, uint64_t offset) { return fseeko(file, (off_t)offset, SEEK_SET) == 0; }

static inline int disk_remove(const char *path) { return remove(path) == 0; }

static inline int disk_rename(const char *from, const char *to) { return rename(from, to) == 0; }

static inline int disk_open(const char *path) { return open(path, O_RDONLY); }

static inline void disk_close(int descriptor) { close(descriptor); }

static inline const char *disk_device(const char *path)
{
    CHECK(mkfifo(path, S_IRUSR | S_IWUSR) == 0, "no pipe");
    return path;
}
#endif

static inline void disk_write(const char *path, const void *data, size_t bytes)
{
    FILE *file = disk_create(path);
    CHECK(file != NULL && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0, "cannot write %s", path);
}

#endif
