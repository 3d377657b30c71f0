/* xinfer-host: runs foreign code and reads foreign files, so that the daemon does neither.
 * Started by xinferd only: `xinfer-host run|probe|install --key value …` with its control socket
 * as descriptor 3. It reads nothing from its environment. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/platform/self.h"
#include "host/control.h"

enum { EXIT_USAGE = 2 };

#if defined(__SANITIZE_ADDRESS__)
/* The check for leaks traces this process when it ends, which the sandbox lets nobody do. */
static int leak_check_off;
int __lsan_is_turned_off(void) __attribute__((visibility("default")));
int __lsan_is_turned_off(void)
{
    return leak_check_off;
}
#endif

static const char *const roles[] = {"run", "probe", "install"};

static int number(const char *text, uint64_t *ret)
{
    char *end;

    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0')
        return -1;
    *ret = n;
    return 0;
}

static int set_option(struct xi_host_args *a, const char *key, const char *value)
{
    const struct {
        const char *key;
        const char **to;
    } texts[] = {{"--engine", &a->engine},
                 {"--plugin-dir", &a->plugin_dir},
                 {"--engine-libs", &a->engine_libs},
                 {"--link-dir", &a->link_dir},
                 {"--cache-dir", &a->cache_dir}};
    uint64_t n = 0;

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(key, texts[i].key) == 0) {
            *texts[i].to = value;
            return 0;
        }
    if (number(value, &n) != 0)
        return -1;
    if (strcmp(key, "--data-limit") == 0)
        a->data_limit_bytes = n;
    else if (strcmp(key, "--uid") == 0)
        a->uid = (uint32_t)n;
    else if (strcmp(key, "--nice") == 0)
        a->nice = (int)n;
    else if (strcmp(key, "--sandbox") == 0)
        a->sandbox = n != 0;
    else if (strcmp(key, "--group") == 0)
        a->group = n != 0;
    else
        return -1;
    return 0;
}

static int parse(int argc, char **argv, struct xi_host_args *a)
{
    *a = (struct xi_host_args){.engine = "",
                               .plugin_dir = "",
                               .engine_libs = "",
                               .link_dir = "",
                               .cache_dir = "",
                               .sandbox = 1};
    if (argc < 2 || argc % 2 != 0)
        return -1;
    while (a->role < 3 && strcmp(argv[1], roles[a->role]) != 0)
        a->role++;
    if (a->role == 3)
        return -1;
    for (int i = 2; i < argc; i += 2)
        if (set_option(a, argv[i], argv[i + 1]) != 0)
            return -1;
    return 0;
}

int main(int argc, char **argv)
{
    struct xi_host_args args;
    struct stat st;

    if (parse(argc, argv, &args) != 0 || fstat(XI_CONTROL_FD, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        (void)fprintf(stderr, "xinfer-host is started by xinferd, never by hand\n");
        return EXIT_USAGE;
    }
#if defined(__SANITIZE_ADDRESS__)
    leak_check_off = args.sandbox;
#endif
    /* The daemon may have been started in a folder that this process cannot enter, where even a
     * question about a relative path fails (OpenVINO asks some). */
    if (chdir("/") != 0)
        return EXIT_USAGE;
    xi_self_step_back(args.nice);
    xi_self_expendable();
    switch (args.role) {
    case 0:
        return xi_role_run(&args);
    case 1:
        return xi_role_probe(&args);
    default:
        return xi_role_install(&args);
    }
}
