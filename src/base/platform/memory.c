#define _GNU_SOURCE
#include "base/platform/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static uint64_t round_to_pages(uint64_t bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    return (bytes + page - 1) / page * page;
}

static enum xi_rc failed(struct xi_err *err, const char *what, uint64_t bytes)
{
    return xi_fail(err, xi_rc_errno(errno), "shared memory of %llu bytes: %s: %s",
                   (unsigned long long)bytes, what, strerror(errno));
}

enum xi_rc xi_memory_create(const char *label, uint64_t bytes, int seal_future_write, int *ret_fd,
                            struct xi_map *ret, struct xi_err *err)
{
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    enum xi_rc rc;

    bytes = round_to_pages(bytes);
    int fd = memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return failed(err, "memfd_create", bytes);
    void *base = MAP_FAILED;
    if (ftruncate(fd, (off_t)bytes) == 0)
        base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        rc = failed(err, "map", bytes);
        (void)close(fd);
        return rc;
    }
    if (seal_future_write)
        seals |= F_SEAL_FUTURE_WRITE;
    if (fcntl(fd, F_ADD_SEALS, seals) != 0) {
        rc = failed(err, "seal", bytes);
        (void)munmap(base, bytes);
        (void)close(fd);
        return rc;
    }
    *ret_fd = fd;
    *ret = (struct xi_map){.base = base, .bytes = bytes};
    return XI_OK;
}

enum xi_rc xi_memory_open(int fd, uint64_t bytes, enum xi_map_mode mode, struct xi_map *ret,
                          struct xi_err *err)
{
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW))
        return xi_fail(err, XI_EPROTO, "segment is not sealed against resizing");
    /* Not fstat: glibc makes it newfstatat, which a sandboxed host may not call. */
    if (bytes == 0 || lseek(fd, 0, SEEK_END) != (off_t)bytes)
        return xi_fail(err, XI_EPROTO, "segment does not hold %llu bytes",
                       (unsigned long long)bytes);
    int prot = mode == XI_MAP_READ ? PROT_READ : PROT_READ | PROT_WRITE;
    void *base = mmap(NULL, bytes, prot, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return failed(err, "map", bytes);
    *ret = (struct xi_map){.base = base, .bytes = bytes};
    return XI_OK;
}

void xi_map_close(struct xi_map *map)
{
    if (map->base != NULL)
        (void)munmap(map->base, map->bytes);
    *map = (struct xi_map){0};
}
