#include "daemon/host_user.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_UID 61184u
#define N_UIDS    4336u

/* 1 when everybody may pass through every folder above path that exists already; the daemon makes
 * the others itself. Otherwise ret names the first that is closed. */
static int reachable(const char *path, char *ret, size_t bytes)
{
    struct stat st;
    size_t i, n = strlen(path);

    for (i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        (void)snprintf(ret, bytes, "%.*s", (int)i, path);
        if (stat(ret, &st) != 0)
            return 1;
        if (S_ISDIR(st.st_mode) && (st.st_mode & S_IXOTH) == 0)
            return 0;
    }
    return 1;
}

static uint32_t of_directory(const char *path)
{
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (; *path != '\0'; path++)
        hash = (hash ^ (unsigned char)*path) * 16777619u;
    return FIRST_UID + hash % N_UIDS;
}

uint32_t xi_host_user_pick(const struct xi_config *config, char ret_why[600])
{
    const char *const paths[] = {config->state_dir, config->engine_dir, config->openvino_dir,
                                 config->host_program};
    char closed[512];
    size_t i;

    ret_why[0] = '\0';
    if (geteuid() != 0)
        return 0;
    for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (paths[i][0] == '/' && !reachable(paths[i], closed, sizeof(closed))) {
            (void)snprintf(ret_why, 600, "%s is closed to others", closed);
            return 0;
        }
    }
    return config->host_uid != 0 ? config->host_uid : of_directory(config->state_dir);
}
