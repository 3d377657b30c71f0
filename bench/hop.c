/* hop.c: the bare round trip between two processes: each waits for its eventfd and signals the
 * other's. What no daemon with separate model processes can be faster than.
 *
 *     hop [ROUNDS]     one line of JSON */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int signal_fd(int fd)
{
    uint64_t one = 1;

    return write(fd, &one, sizeof one) == sizeof one ? 0 : -1;
}

static int wait_fd(int fd)
{
    uint64_t count;

    while (read(fd, &count, sizeof count) < 0)
        if (errno != EINTR)
            return -1;
    return 0;
}

static void echo(int from, int to)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    while (wait_fd(from) == 0 && signal_fd(to) == 0)
        continue;
    _exit(1);
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static double us(const uint64_t *sorted, size_t n, double share)
{
    return (double)sorted[(size_t)((double)(n - 1) * share)] / 1000;
}

int main(int argc, char **argv)
{
    size_t rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 20000, warm = 200;
    int there = eventfd(0, EFD_CLOEXEC), back = eventfd(0, EFD_CLOEXEC);

    if (rounds < 1 || rounds > 10000000 || there < 0 || back < 0)
        return 2;
    uint64_t *times = calloc(rounds, sizeof *times);
    if (times == NULL)
        return 2;
    pid_t child = fork();
    if (child < 0)
        return 2;
    if (child == 0)
        echo(there, back);
    for (size_t i = 0; i < warm + rounds; i++) {
        uint64_t started = now_ns();
        if (signal_fd(there) != 0 || wait_fd(back) != 0)
            return 1;
        if (i >= warm)
            times[i - warm] = now_ns() - started;
    }
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    qsort(times, rounds, sizeof *times, by_size);
    (void)printf("{\"bench\": \"hop\", \"rounds\": %zu, \"p50_us\": %.2f, \"p99_us\": %.2f}\n",
                 rounds, us(times, rounds, 0.5), us(times, rounds, 0.99));
    free(times);
    return 0;
}
