/* How many CPUs' time the control groups (cgroups) of this process grant, as containers are limited.
 *
 * /proc/self/cgroup names the group in each hierarchy, and a file of the group has its quota: a share of every period,
 * in microseconds. Groups lie in each other, and the least quota of all counts. */
#include "platform/platform.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MOST_PATH = 4096 }; /* Linux's own limit for a path */

/* The quota in a group, in CPUs rounded up; SIZE_MAX if it has none. folder has MOST_PATH bytes of room. */
static size_t quota_of(char *folder, const char *const *files)
{
    long long number[2] = {-1, -1}; /* quota and period: in one file of version 2, in two of version 1 */
    const size_t length = strlen(folder);
    for (int i = 0; i < 2 && files[i] != NULL; i++) {
        snprintf(folder + length, MOST_PATH - length, "/%s", files[i]);
        FILE *stream = fopen(folder, "r");
        folder[length] = 0;
        if (stream == NULL) {
            return SIZE_MAX;
        }
        const int read = fscanf(stream, "%lld %lld", &number[i], &number[1]);
        fclose(stream);
        if (read < 1) { /* "max": no limit */
            return SIZE_MAX;
        }
    }
    if (number[0] <= 0 || number[1] <= 0) {
        return SIZE_MAX;
    }
    return (size_t)((number[0] - 1) / number[1] + 1);
}

/* The least quota of a group and of those that it lies in. */
static size_t least_quota(const char *mount, const char *group, const char *const *files)
{
    char folder[MOST_PATH];
    const size_t length = (size_t)snprintf(folder, sizeof folder, "%s", mount);
    /* A container may see its own group as the root, while the name of the group begins outside. */
    const char *inside = strstr(group, "/..") == NULL ? group : "";
    while (inside != NULL && *inside != 0) {
        snprintf(folder + length, sizeof folder - length, "%s", inside);
        if (access(folder, F_OK) == 0) {
            break;
        }
        inside = strchr(inside + 1, '/');
        folder[length] = 0;
    }
    size_t least = SIZE_MAX;
    for (char *end = folder + strlen(folder);; end = strrchr(folder, '/')) {
        *end = 0;
        const size_t quota = quota_of(folder, files);
        least = quota < least ? quota : least;
        if (end <= folder + length) {
            return least;
        }
    }
}

/* 1 if a list such as "cpu,cpuacct" has cpu. */
static int lists_cpu(const char *list)
{
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, "cpu", 3) == 0 && (at[3] == ',' || at[3] == 0)) {
            return 1;
        }
    }
    return 0;
}

size_t eg_cpu_quota(const char *root)
{
    static const char *const version2[] = {"cpu.max", NULL}, *const places2[] = {"", "/unified"};
    static const char *const version1[] = {"cpu.cfs_quota_us", "cpu.cfs_period_us"};
    static const char *const places1[] = {"/cpu", "/cpu,cpuacct"};
    char line[MOST_PATH];
    snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
    FILE *stream = fopen(line, "r");
    size_t least = SIZE_MAX;
    while (stream != NULL && fgets(line, sizeof line, stream) != NULL) { /* number:controllers:group */
        char *controllers = strchr(line, ':');
        char *group = controllers == NULL ? NULL : strchr(++controllers, ':');
        if (group == NULL) {
            continue;
        }
        *group++ = 0;
        group[strcspn(group, "\n")] = 0;
        const int is2 = *controllers == 0;
        for (int i = 0; i < 2 && (is2 || lists_cpu(controllers)); i++) {
            char mount[MOST_PATH];
            snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s", root, is2 ? places2[i] : places1[i]);
            const size_t quota = least_quota(mount, group, is2 ? version2 : version1);
            least = quota < least ? quota : least;
        }
    }
    if (stream != NULL) {
        fclose(stream);
    }
    return least;
}
