/* fixture.h: a small package for the room's tests. */
#ifndef XI_PACKAGE_FIXTURE_H
#define XI_PACKAGE_FIXTURE_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "package/archive.h"

#define FIXTURE_MANIFEST                                                                           \
    "{\"xpkg\":1,\"name\":\"tiny\",\"version\":\"1.2.3\",\"input\":\"tensors\","                   \
    "\"output\":\"tensors\",\"models\":{\"main\":{\"variants\":[{\"id\":\"f32\","                  \
    "\"files\":[\"variants/m.xref\"],\"format\":\"reference\","                                    \
    "\"engine\":{\"name\":\"reference\"},\"precision\":\"f32\"}]}}}"
#define FIXTURE_MODEL "input x FP32 2\n"

struct fixture_entry {
    const char *path, *text;
};

/* Writes these entries to a fresh temporary file; NULL when the writer refuses them. */
static inline FILE *fixture_write(const struct fixture_entry *entries, size_t n,
                                  struct xi_digest *ret, struct xi_err *err)
{
    struct xi_archive_source sources[16];
    uint64_t bytes = 0;
    FILE *f = tmpfile();

    if (f == NULL || n > 16)
        return NULL;
    for (size_t i = 0; i < n; i++)
        sources[i] = (struct xi_archive_source){.path = entries[i].path,
                                                .data = entries[i].text,
                                                .fd = -1,
                                                .bytes = strlen(entries[i].text)};
    if (xi_archive_write(fileno(f), sources, n, ret, &bytes, err) == XI_OK &&
        (uint64_t)lseek(fileno(f), 0, SEEK_END) == bytes)
        return f;
    (void)fclose(f);
    return NULL;
}

static const struct fixture_entry fixture_entries[] = {
    {"variants/m.xref", FIXTURE_MODEL},
    {"assets/labels.txt", "cat\ndog\n"},
    {"manifest.json", FIXTURE_MANIFEST},
    {"assets/empty", ""},
};
enum { FIXTURE_ENTRIES = sizeof fixture_entries / sizeof *fixture_entries };

static inline FILE *fixture_package(void)
{
    struct xi_digest digest;

    return fixture_write(fixture_entries, FIXTURE_ENTRIES, &digest, NULL);
}

#endif
