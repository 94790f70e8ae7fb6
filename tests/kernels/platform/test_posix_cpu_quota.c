/* The quota of nested cgroups, read from folders that look like /proc and /sys. */
#define _POSIX_C_SOURCE 200809L
#include "platform/platform.h"
#include "tests/kernels/check.h"

#include <sys/stat.h>

enum { MOST_FILES = 6, ROOM = 4096 };

typedef struct setting {
    const char *what;
    size_t quota;
    const char *groups;               /* /proc/self/cgroup */
    const char *files[MOST_FILES][2]; /* under /sys/fs/cgroup, and what they say */
} setting;

static const setting settings[] = {
    {"no cgroups", SIZE_MAX, NULL, {{0}}},
    {"no limit in 2", SIZE_MAX, "0::/a\n", {{"a/cpu.max", "max 100000\n"}}},
    {"no limit in 1", SIZE_MAX, "3:cpu:/\n", {{"cpu/cpu.cfs_quota_us", "-1\n"}, {"cpu/cpu.cfs_period_us", "100000\n"}}},
    {"a container's own namespace", 2, "0::/\n", {{"cpu.max", "200000 100000\n"}}},
    {"less than one", 1, "0::/\n", {{"cpu.max", "1000 100000\n"}}},
    {"one and a bit", 2, "0::/\n", {{"cpu.max", "100001 100000\n"}}},
    {"another period", 3, "0::/\n", {{"cpu.max", "25000 10000\n"}}},
    {"the inner one is less", 1, "0::/a/b\n", {{"a/cpu.max", "300000 100000\n"}, {"a/b/cpu.max", "50000 100000\n"}}},
    {"the outer one is less", 3, "0::/a/b\n", {{"a/cpu.max", "300000 100000\n"}, {"a/b/cpu.max", "max 100000\n"}}},
    {"another group's", SIZE_MAX, "0::/a\n", {{"a/cpu.max", "max 100000\n"}, {"b/cpu.max", "100000 100000\n"}}},
    {"seen from inside", 4, "0::/docker/1f/app\n", {{"app/cpu.max", "400000 100000\n"}}},
    {"above the namespace", 2, "0::/../../x\n", {{"cpu.max", "200000 100000\n"}}},
    {"version 1",
     2,
     "4:cpu,cpuacct:/docker/1f\n0::/\n",
     {{"cpu,cpuacct/docker/1f/cpu.cfs_quota_us", "150000\n"}, {"cpu,cpuacct/docker/1f/cpu.cfs_period_us", "100000\n"}}},
    {"version 1 from inside",
     1,
     "2:cpuset:/\n4:cpuacct,cpu:/docker/1f\n",
     {{"cpu/cpu.cfs_quota_us", "100000\n"}, {"cpu/cpu.cfs_period_us", "100000\n"}}},
    {"cpuset is not cpu",
     SIZE_MAX,
     "2:cpuset,cpuacct:/\n",
     {{"cpu/cpu.cfs_quota_us", "100000\n"}, {"cpu/cpu.cfs_period_us", "100000\n"}}},
    {"both versions",
     2,
     "4:cpu:/\n0::/\n",
     {{"cpu/cpu.cfs_quota_us", "-1\n"}, {"cpu/cpu.cfs_period_us", "100000\n"}, {"unified/cpu.max", "200000 100000\n"}}},
    {"nonsense", SIZE_MAX, "x\n:\n0::\n0::nowhere\n", {{"cpu.max", "0 0\n"}}},
};

/* Writes a file, and makes the folders for it. */
static void write_file(const char *root, const char *name, const char *text)
{
    char path[ROOM];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *at = path + strlen(root) + 1; (at = strchr(at, '/')) != NULL; at++) {
        *at = 0;
        mkdir(path, 0700);
        *at = '/';
    }
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0, "%s", path);
}

int main(void)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const setting *s = &settings[i];
        char root[] = "/tmp/cpu_quota_XXXXXX", name[ROOM];
        CHECK(mkdtemp(root) != NULL, "%s", root);
        if (s->groups != NULL) {
            write_file(root, "proc/self/cgroup", s->groups);
        }
        for (int file = 0; file < MOST_FILES && s->files[file][0] != NULL; file++) {
            snprintf(name, sizeof name, "sys/fs/cgroup/%s", s->files[file][0]);
            write_file(root, name, s->files[file][1]);
        }
        CHECK(eg_cpu_quota(root) == s->quota, "%s: %zu", s->what, eg_cpu_quota(root));
        snprintf(name, sizeof name, "rm -r %s", root);
        CHECK(system(name) == 0, "%s", name);
    }
    CHECK(eg_cpu_cores() >= 1, "no core");
    return check_result();
}
