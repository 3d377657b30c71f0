/* slow_fsync.c: a preloaded shim that makes every fsync and fdatasync take 200 ms longer, as a worn
 * SD card does. SLOW_FSYNC_MS sets another delay. Used by the loop-lag figure. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int fsync(int fd);
int fdatasync(int fd);

static void delay(void)
{
    const char *text = getenv("SLOW_FSYNC_MS");
    long ms = text ? strtol(text, NULL, 10) : 200;
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    (void)nanosleep(&t, NULL);
}

static int call_real(const char *name, int fd)
{
    int (*real)(int) = NULL;

    *(void **)&real = dlsym(RTLD_NEXT, name);
    delay();
    return real(fd);
}

__attribute__((visibility("default"))) int fsync(int fd)
{
    return call_real("fsync", fd);
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    return call_real("fdatasync", fd);
}
