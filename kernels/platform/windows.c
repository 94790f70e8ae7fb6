/* Memory, files, threads and CPU of Windows 10 and newer. */
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include "platform/platform.h"

#include <io.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- memory ------------------------------------------------------------------------------------------------------ */

void *eg_aligned_new(size_t alignment, size_t bytes) { return _aligned_malloc(bytes, alignment); }

void eg_aligned_free(void *memory) { _aligned_free(memory); }

/* ---- files ------------------------------------------------------------------------------------------------------- */

static eg_map_status fail(eg_map_status status, char reason[EG_REASON_BYTES])
{
    const DWORD error = GetLastError();
    wchar_t wide[EG_REASON_BYTES];
    DWORD length = FormatMessageW(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL, error, 0, wide,
                                  EG_REASON_BYTES, NULL);
    while (length > 0 && (wide[length - 1] <= L' ' || wide[length - 1] == L'.')) {
        length--; /* the sentence ends with a full stop and a new line */
    }
    const int bytes = WideCharToMultiByte(CP_UTF8, 0, wide, (int)length, reason, EG_REASON_BYTES - 1, NULL, NULL);
    reason[bytes] = 0;
    if (bytes == 0) {
        snprintf(reason, EG_REASON_BYTES, "error %lu of Windows", (unsigned long)error);
    }
    return status;
}

/* A UTF-8 path in UTF-16; free it with free(). NULL if it is not valid, or memory is refused. */
static wchar_t *wide_path(const char *path)
{
    const int length = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, NULL, 0);
    wchar_t *wide = length > 0 ? malloc((size_t)length * sizeof *wide) : NULL;
    if (wide != NULL) {
        MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, length);
    }
    return wide;
}

/* Bytes of a view before the byte at an offset. */
static size_t bytes_before(uint64_t offset)
{
    SYSTEM_INFO system;
    GetSystemInfo(&system);
    return (size_t)(offset % system.dwAllocationGranularity);
}

static eg_map_status map(HANDLE handle, uint64_t offset, uint64_t bytes, eg_mapped_file *file,
                         char reason[EG_REASON_BYTES])
{
    LARGE_INTEGER size;
    if (GetFileType(handle) != FILE_TYPE_DISK || !GetFileSizeEx(handle, &size)) {
        return EG_MAP_NOT_A_FILE;
    }
    const uint64_t all = (uint64_t)size.QuadPart;
    if (offset > all || bytes > all - offset) {
        return EG_MAP_BAD_PART;
    }
    bytes = bytes > 0 ? bytes : all - offset;
    const size_t before = bytes_before(offset);
    if (bytes == 0 || bytes > SIZE_MAX - before) {
        return EG_MAP_BAD_SIZE;
    }
    const HANDLE mapping = CreateFileMappingW(handle, NULL, PAGE_READONLY, 0, 0, NULL);
    const uint64_t first = offset - before;
    char *view = mapping != NULL
                     ? MapViewOfFile(mapping, FILE_MAP_READ, (DWORD)(first >> 32), (DWORD)first, before + (size_t)bytes)
                     : NULL;
    const eg_map_status status = view != NULL ? EG_MAPPED : fail(EG_MAP_REFUSED, reason);
    if (mapping != NULL) {
        CloseHandle(mapping); /* the view keeps it */
    }
    if (view != NULL) {
        *file = (eg_mapped_file){view + before, (size_t)bytes, offset, (intptr_t)handle};
    }
    return status;
}

eg_map_status eg_file_map(const char *path, eg_mapped_file *file, char reason[EG_REASON_BYTES])
{
    wchar_t *wide = wide_path(path);
    if (wide == NULL) {
        return fail(EG_MAP_NOT_OPENED, reason);
    }
    const DWORD attributes = GetFileAttributesW(wide),
                others_may = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
    const int is_folder = attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
    const HANDLE handle = CreateFileW(wide, GENERIC_READ, others_may, NULL, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, NULL);
    eg_map_status status;
    if (handle != INVALID_HANDLE_VALUE) {
        status = map(handle, 0, 0, file, reason);
        if (status != EG_MAPPED) {
            CloseHandle(handle);
        }
    } else {
        status = is_folder ? EG_MAP_NOT_A_FILE : fail(EG_MAP_NOT_OPENED, reason);
    }
    free(wide);
    return status;
}

/* The headers of MinGW lack it, its libraries do not. */
_CRTIMP _invalid_parameter_handler __cdecl _set_thread_local_invalid_parameter_handler(_invalid_parameter_handler);

static void ignore(const wchar_t *expression, const wchar_t *function, const wchar_t *source, unsigned line,
                   uintptr_t reserved)
{
    (void)expression, (void)function, (void)source, (void)line, (void)reserved;
}

eg_map_status eg_file_map_part(int descriptor, uint64_t offset, uint64_t bytes, eg_mapped_file *file,
                               char reason[EG_REASON_BYTES])
{
    /* For a number that is no descriptor, the C library would end the process. */
    const _invalid_parameter_handler before = _set_thread_local_invalid_parameter_handler(ignore);
    const HANDLE theirs = (HANDLE)_get_osfhandle(descriptor), process = GetCurrentProcess();
    _set_thread_local_invalid_parameter_handler(before);
    HANDLE handle;
    if (theirs == INVALID_HANDLE_VALUE) { /* which also stands for this process */
        SetLastError(ERROR_INVALID_HANDLE);
        return fail(EG_MAP_NOT_OPENED, reason);
    }
    if (!DuplicateHandle(process, theirs, process, &handle, 0, FALSE, DUPLICATE_SAME_ACCESS)) {
        return fail(EG_MAP_NOT_OPENED, reason);
    }
    const eg_map_status status = map(handle, offset, bytes, file, reason);
    if (status != EG_MAPPED) {
        CloseHandle(handle);
    }
    return status;
}

void eg_file_unmap(const eg_mapped_file *file)
{
    if (file->data != NULL) {
        UnmapViewOfFile((char *)file->data - bytes_before(file->offset));
        CloseHandle((HANDLE)file->handle);
    }
}

int eg_file_read(const eg_mapped_file *file, size_t offset, size_t bytes, void *to)
{
    enum { MOST_AT_ONCE = 1 << 30 };
    char *next = to;
    uint64_t at = file->offset + offset;
    while (bytes > 0) {
        OVERLAPPED place = {.Offset = (DWORD)at, .OffsetHigh = (DWORD)(at >> 32)};
        DWORD got = 0;
        const DWORD wanted = bytes < MOST_AT_ONCE ? (DWORD)bytes : MOST_AT_ONCE;
        if (!ReadFile((HANDLE)file->handle, next, wanted, &got, &place) || got == 0) {
            return 0;
        }
        next += got;
        at += got;
        bytes -= got;
    }
    return 1;
}

void eg_file_forget(const eg_mapped_file *file, const void *begin, size_t bytes)
{
    (void)file;
    VirtualUnlock((void *)begin, bytes); /* fails, since they are not locked, and takes them out of the working set */
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

int eg_mutex_create(eg_mutex *mutex)
{
    InitializeSRWLock((SRWLOCK *)mutex);
    return 1;
}

void eg_mutex_free(eg_mutex *mutex) { (void)mutex; }

void eg_mutex_lock(eg_mutex *mutex) { AcquireSRWLockExclusive((SRWLOCK *)mutex); }

void eg_mutex_unlock(eg_mutex *mutex) { ReleaseSRWLockExclusive((SRWLOCK *)mutex); }

int eg_condition_create(eg_condition *condition)
{
    InitializeConditionVariable((CONDITION_VARIABLE *)condition);
    return 1;
}

void eg_condition_free(eg_condition *condition) { (void)condition; }

void eg_condition_wait(eg_condition *condition, eg_mutex *mutex)
{
    SleepConditionVariableSRW((CONDITION_VARIABLE *)condition, (SRWLOCK *)mutex, INFINITE, 0);
}

void eg_condition_wake_all(eg_condition *condition) { WakeAllConditionVariable((CONDITION_VARIABLE *)condition); }

static DWORD WINAPI begin(void *argument)
{
    const eg_system_thread *thread = argument;
    thread->body(thread->argument);
    return 0;
}

int eg_thread_start(eg_system_thread *thread, void (*body)(void *argument), void *argument)
{
    thread->body = body;
    thread->argument = argument;
    thread->handle = CreateThread(NULL, 0, begin, thread, 0, NULL);
    return thread->handle != NULL;
}

void eg_thread_join(eg_system_thread *thread)
{
    WaitForSingleObject(thread->handle, INFINITE);
    CloseHandle(thread->handle);
}

void eg_thread_yield(void) { SwitchToThread(); }

long eg_process(void) { return 0; } /* nothing can be forked off */

double eg_now(void)
{
    LARGE_INTEGER ticks, per_second;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&per_second);
    return (double)ticks.QuadPart / (double)per_second.QuadPart;
}

/* ---- the CPU ----------------------------------------------------------------------------------------------------- */

/* The CPU time that the job object of this process grants, as containers are limited, in CPUs rounded up. */
static size_t quota(void)
{
    enum { WHOLE = 10000 }; /* all the time of all CPUs */
    JOBOBJECT_CPU_RATE_CONTROL_INFORMATION rate;
    const DWORD limited = JOB_OBJECT_CPU_RATE_CONTROL_ENABLE | JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP;
    if (!QueryInformationJobObject(NULL, JobObjectCpuRateControlInformation, &rate, sizeof rate, NULL) ||
        (rate.ControlFlags & limited) != limited) {
        return SIZE_MAX;
    }
    SYSTEM_INFO system;
    GetSystemInfo(&system);
    const size_t cpus = ((size_t)rate.CpuRate * system.dwNumberOfProcessors + WHOLE - 1) / WHOLE;
    return cpus > 0 ? cpus : 1;
}

typedef SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX core_information;

/* Counts the cores of the fastest kind in a list that Windows wrote. */
static size_t fastest_cores(const char *list, size_t bytes)
{
    DWORD_PTR allowed = 0, of_system = 0; /* 0: more than 64 CPUs, of which the process may use all */
    GetProcessAffinityMask(GetCurrentProcess(), &allowed, &of_system);
    size_t cores = 0;
    BYTE fastest = 0;
    for (size_t at = 0; at < bytes;) {
        const core_information *core = (const void *)(list + at);
        const BYTE kind = core->Processor.EfficiencyClass; /* higher is faster */
        at += core->Size;
        if (allowed != 0 && (core->Processor.GroupMask[0].Mask & allowed) == 0) {
            continue;
        }
        cores = kind > fastest ? 0 : cores;
        fastest = kind > fastest ? kind : fastest;
        cores += kind == fastest;
    }
    return cores;
}

size_t eg_cpu_cores(void)
{
    DWORD bytes = 0;
    GetLogicalProcessorInformationEx(RelationProcessorCore, NULL, &bytes);
    char *list = malloc(bytes);
    size_t cores = 0;
    if (list != NULL && GetLogicalProcessorInformationEx(RelationProcessorCore, (core_information *)list, &bytes)) {
        cores = fastest_cores(list, bytes);
    }
    free(list);
    const size_t most = quota();
    cores = cores < most ? cores : most;
    return cores > 0 ? cores : 1;
}

unsigned eg_arm_features(void)
{
    enum { DOTPROD = 43, I8MM = 66 }; /* PF_ARM_V82_…_INSTRUCTIONS_AVAILABLE; absent from older headers */
    return (IsProcessorFeaturePresent(DOTPROD) ? EG_ARM_DOTPROD : 0u) |
           (IsProcessorFeaturePresent(I8MM) ? EG_ARM_I8MM : 0u);
}

int eg_amx_permission(void) { return 0; } /* not asked for: it could never be tried */
