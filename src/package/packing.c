#define _GNU_SOURCE
#include "package/packing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "package/archive.h"
#include "package/models.h"
#include "package/package.h"
#include "package/path.h"

enum { CHUNK = 1 << 18 };

static enum xi_rc no_memory(struct xi_err *err)
{
    return xi_fail(err, XI_ENOMEM, "packing: out of memory");
}

static enum xi_rc hash_item(struct xi_packing_item *item, const char *name, struct xi_err *err)
{
    struct xi_sha256 *h = xi_sha256_new();
    char *chunk = malloc(CHUNK);
    enum xi_rc rc = h && chunk ? XI_OK : no_memory(err);
    uint64_t at = 0;

    while (rc == XI_OK && at < item->bytes) {
        size_t want = item->bytes - at < CHUNK ? (size_t)(item->bytes - at) : CHUNK;
        ssize_t n = pread(item->fd, chunk, want, (off_t)(item->offset + at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            rc = xi_fail(err, XI_EIO, "reading \"%.80s\": %s", name,
                         n < 0 ? strerror(errno) : "it ends early");
        else
            xi_sha256_add(h, chunk, (size_t)n);
        at += n > 0 ? (uint64_t)n : 0;
    }
    if (rc == XI_OK)
        xi_sha256_end(h, &item->sha256);
    xi_sha256_free(h);
    free(chunk);
    return rc;
}

static enum xi_rc measure(struct xi_packing_item *item, const struct xi_packing_file *file,
                          struct xi_err *err)
{
    struct stat st;

    if (fstat(item->fd, &st) != 0 || !S_ISREG(st.st_mode))
        return xi_fail(err, XI_EINVAL, "\"%.80s\" is not a regular file", file->name);
    uint64_t size = (uint64_t)st.st_size;
    item->offset = file->offset;
    item->bytes = file->bytes;
    if (item->offset <= size && item->bytes == UINT64_MAX)
        item->bytes = size - item->offset;
    if (item->offset > size || item->bytes > size - item->offset)
        return xi_fail(err, XI_EINVAL, "\"%.80s\" has %llu bytes, %llu from %llu are wanted",
                       file->name, (unsigned long long)size, (unsigned long long)item->bytes,
                       (unsigned long long)item->offset);
    return XI_OK;
}

static enum xi_rc make_room(struct xi_packing *packing, struct xi_err *err)
{
    if (packing->n >= XI_PACKAGE_ENTRIES_MAX - 1)
        return xi_fail(err, XI_ETOOBIG, "a package has at most %d entries", XI_PACKAGE_ENTRIES_MAX);
    if (packing->n < packing->room)
        return XI_OK;
    size_t room = packing->room ? packing->room * 2 : 16;
    struct xi_packing_item *items = realloc(packing->items, room * sizeof *items);
    if (items == NULL)
        return no_memory(err);
    packing->items = items;
    packing->room = room;
    return XI_OK;
}

enum xi_rc xi_packing_add(struct xi_packing *packing, const char *path,
                          const struct xi_packing_file *file, struct xi_packing_item **ret,
                          struct xi_err *err)
{
    enum xi_rc rc = make_room(packing, err);

    if (rc != XI_OK)
        return rc;
    struct xi_packing_item *item = &packing->items[packing->n];
    *item = (struct xi_packing_item){.path = strdup(path), .fd = -1};
    if (item->path == NULL)
        return no_memory(err);
    packing->n++;
    item->fd = openat(file->dir, file->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (item->fd < 0)
        return xi_fail(err, errno == EACCES ? XI_EIO : xi_rc_errno(errno), "\"%.80s\": %s",
                       file->name, strerror(errno));
    rc = measure(item, file, err);
    if (rc == XI_OK)
        rc = hash_item(item, file->name, err);
    if (rc == XI_OK && ret != NULL)
        *ret = item;
    return rc;
}

const struct xi_packing_item *xi_packing_find(const struct xi_packing *packing, const char *path)
{
    for (size_t i = 0; i < packing->n; i++)
        if (strcmp(packing->items[i].path, path) == 0)
            return &packing->items[i];
    return NULL;
}

void xi_packing_fini(struct xi_packing *packing)
{
    for (size_t i = 0; i < packing->n; i++) {
        free(packing->items[i].path);
        if (packing->items[i].fd >= 0)
            (void)close(packing->items[i].fd);
    }
    free(packing->items);
    *packing = (struct xi_packing){0};
}

struct opener {
    const struct xi_packing *packing;
    const struct xi_manifest_variant *variant;
};

static enum xi_rc open_item(void *ctx, size_t index, int *ret_fd, uint64_t *ret_bytes,
                            struct xi_err *err)
{
    const struct opener *o = ctx;
    const struct xi_packing_item *item = xi_packing_find(o->packing, o->variant->files[index]);

    (void)err;
    XI_ASSERT(item != NULL); /* the manifest was held against the files before */
    *ret_fd = item->fd;
    *ret_bytes = item->bytes;
    return XI_OK;
}

static int is_slice(const struct xi_packing *packing, const struct xi_manifest_variant *v)
{
    for (size_t i = 0; i < v->n_files; i++)
        if (xi_packing_find(packing, v->files[i])->offset != 0)
            return 1;
    return 0;
}

static enum xi_rc check_models(const struct xi_packing *packing, const struct xi_manifest *m,
                               struct xi_err *err)
{
    struct opener o = {.packing = packing};
    struct xi_model_files files = {.ctx = &o, .open = open_item};
    enum xi_rc rc = XI_OK;

    for (size_t i = 0; i < m->n_models; i++)
        for (size_t k = 0; k < m->models[i].n_variants && rc == XI_OK; k++) {
            o.variant = &m->models[i].variants[k];
            if (!is_slice(packing, o.variant)) /* those are looked at when installed */
                rc = xi_model_check_files(o.variant, &files, err);
        }
    return rc;
}

static int by_path(const void *a, const void *b)
{
    const struct xi_archive_source *x = a, *y = b;

    return xi_package_path_order(x->path, y->path);
}

static enum xi_rc check_names(const struct xi_manifest *m, const struct xi_archive_source *sources,
                              size_t n, struct xi_err *err)
{
    struct xi_package_item *items = calloc(n, sizeof *items);

    if (items == NULL)
        return no_memory(err);
    for (size_t i = 0; i < n; i++)
        items[i] = (struct xi_package_item){sources[i].path, sources[i].bytes};
    enum xi_rc rc = xi_package_names_check(m, items, n, err);
    free(items);
    return rc;
}

/* sources[0] is the manifest; all are in the archive's order. */
static struct xi_archive_source *make_sources(const struct xi_packing *packing,
                                              const struct xi_str *manifest)
{
    struct xi_archive_source *sources = calloc(packing->n + 1, sizeof *sources);

    if (sources == NULL)
        return NULL;
    sources[0] = (struct xi_archive_source){
        .path = "manifest.json", .data = manifest->data, .bytes = manifest->len, .fd = -1};
    for (size_t i = 0; i < packing->n; i++) {
        const struct xi_packing_item *item = &packing->items[i];
        sources[i + 1] = (struct xi_archive_source){
            .path = item->path, .fd = item->fd, .offset = item->offset, .bytes = item->bytes};
    }
    qsort(sources, packing->n + 1, sizeof *sources, by_path);
    return sources;
}

static enum xi_rc check_and_write(struct xi_packing *packing, const struct xi_str *text, int out_fd,
                                  struct xi_pack_result *ret, struct xi_err *err)
{
    struct xi_archive_source *sources = make_sources(packing, text);
    struct xi_manifest *m = NULL;
    size_t n = packing->n + 1;
    enum xi_rc rc = sources ? XI_OK : no_memory(err);

    if (rc == XI_OK)
        rc = xi_manifest_parse(text->data, text->len, &m, err);
    if (rc == XI_OK)
        rc = check_names(m, sources, n, err);
    if (rc == XI_OK)
        rc = check_models(packing, m, err);
    if (rc == XI_OK)
        rc = xi_archive_write(out_fd, sources, n, &ret->digest, &ret->bytes, err);
    if (rc == XI_OK) {
        ret->entries = n;
        memcpy(ret->name, m->name, strlen(m->name) + 1);
        memcpy(ret->version, m->version, strlen(m->version) + 1);
    }
    xi_manifest_free(m);
    free(sources);
    return rc;
}

static int add_text(const char *buffer, size_t size, void *data)
{
    xi_str_add(data, buffer, size);
    return 0;
}

enum xi_rc xi_packing_write(struct xi_packing *packing, const json_t *manifest, int out_fd,
                            struct xi_pack_result *ret, struct xi_err *err)
{
    struct xi_str text;
    struct xi_pack_result result = {0};

    xi_str_init(&text, XI_MANIFEST_MAX);
    int dumped = json_dump_callback(manifest, add_text, &text, JSON_INDENT(2));
    xi_str_puts(&text, "\n");
    enum xi_rc rc = dumped == 0 ? xi_str_check(&text, err, "manifest.json") : no_memory(err);
    if (rc == XI_OK)
        rc = check_and_write(packing, &text, out_fd, &result, err);
    if (rc == XI_OK)
        *ret = result;
    xi_str_fini(&text);
    return rc;
}
