#include "daemon/ipc/regions.h"

#include <stdlib.h>
#include <string.h>

#include "base/platform/process.h"

enum { BUCKETS = 512 };

struct region {
    struct region *next; /* of its bucket */
    struct tenant *tenant;
    int fd; /* read-only */
    uint64_t offset, bytes, device, inode;
    /* What hosts are shown; made on first use. */
    struct xi_segment *in, *out;
    char name[XI_NAME_MAX + 1];
    char key[XI_SHARED_KEY_MAX + 2]; /* as the client gave it */
};

struct tenant {
    struct tenant *next;
    uint32_t n;
    uint64_t bytes;
    char name[XI_NAME_MAX + 1];
};

struct xi_regions {
    struct xi_shm *shm;
    struct region *buckets[BUCKETS];
    struct tenant *tenants; /* that have regions */
    uint32_t n;
    struct xi_loans *loans;
};

struct xi_regions *xi_regions_new(struct xi_shm *shm)
{
    struct xi_regions *r = calloc(1, sizeof *r);

    if (r == NULL || (r->loans = xi_loans_new()) == NULL) {
        free(r);
        return NULL;
    }
    r->shm = shm;
    return r;
}

/* ---- names ---- */

static struct tenant *find_tenant(const struct xi_regions *r, const char *name)
{
    struct tenant *t = r->tenants;

    while (t != NULL && strcmp(t->name, name) != 0)
        t = t->next;
    return t;
}

static struct region **bucket_of(struct xi_regions *r, const char *name)
{
    uint32_t hash = 2166136261u; /* FNV-1a */

    for (; *name != '\0'; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    return &r->buckets[hash % BUCKETS];
}

/* Where the pointer to it stands, or NULL. */
static struct region **find(struct xi_regions *r, const char *tenant, const char *name)
{
    struct region **at = bucket_of(r, name);

    while (*at != NULL &&
           (strcmp((*at)->name, name) != 0 || strcmp((*at)->tenant->name, tenant) != 0))
        at = &(*at)->next;
    return *at != NULL ? at : NULL;
}

/* Clients make names of tensors' names, so they may hold more than ours. */
static int name_ok(const char *name)
{
    size_t n = strlen(name);

    if (n == 0 || n > XI_NAME_MAX)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (name[i] < ' ' || name[i] > '~' || name[i] == '/')
            return 0;
    return 1;
}

/* ---- leaving ---- */

static void forget_tenant(struct xi_regions *r, struct tenant *t)
{
    struct tenant **at = &r->tenants;

    if (t->n > 0)
        return;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    free(t);
}

static void hide(struct region *g)
{
    xi_segment_put(g->in);
    xi_segment_put(g->out);
    g->in = g->out = NULL;
}

/* Off its bucket; its tenant stays. */
static void drop(struct xi_regions *r, struct region **at)
{
    struct region *g = *at;

    *at = g->next;
    g->tenant->n--;
    g->tenant->bytes -= g->bytes;
    r->n--;
    hide(g);
    xi_fd_close(&g->fd);
    free(g);
}

static int is_left(const struct region *g)
{
    struct xi_shared_facts facts;
    struct xi_err err;

    return xi_shared_stat(g->fd, &facts, &err) == XI_OK && !facts.has_name;
}

/* Drops the tenant's regions; left_alone: only those that the system has no name for. */
static void drop_all(struct xi_regions *r, const struct tenant *t, int left_alone)
{
    for (uint32_t i = 0; i < BUCKETS; i++) {
        struct region **at = &r->buckets[i];
        while (*at != NULL)
            if ((*at)->tenant == t && (!left_alone || is_left(*at)))
                drop(r, at);
            else
                at = &(*at)->next;
    }
}

void xi_regions_unregister(struct xi_regions *r, const char *tenant, const char *name)
{
    struct tenant *t = find_tenant(r, tenant);
    struct region **at = t != NULL && name != NULL ? find(r, tenant, name) : NULL;

    if (t == NULL)
        return;
    if (at != NULL)
        drop(r, at);
    else if (name == NULL)
        drop_all(r, t, 0);
    forget_tenant(r, t);
}

void xi_regions_free(struct xi_regions *r)
{
    if (r == NULL)
        return;
    while (r->tenants != NULL)
        xi_regions_unregister(r, r->tenants->name, NULL);
    xi_loans_free(r->loans);
    free(r);
}

/* ---- registering ---- */

static int is_full(const struct xi_regions *r, const struct tenant *t, uint64_t bytes)
{
    return r->n >= XI_REGIONS_MAX || t->n >= XI_REGIONS_TENANT_MAX ||
           bytes > XI_REGIONS_BYTES_MAX - t->bytes;
}

static enum xi_rc need_room(struct xi_regions *r, const struct tenant *t, uint64_t bytes,
                            struct xi_err *err)
{
    if (is_full(r, t, bytes))
        drop_all(r, t, 1);
    if (!is_full(r, t, bytes))
        return XI_OK;
    (void)xi_fail(err, XI_EQUOTA, "%u regions of %llu MiB are registered here, %u of %llu MiB may",
                  t->n, (unsigned long long)(t->bytes / XI_MIB), XI_REGIONS_TENANT_MAX,
                  (unsigned long long)(XI_REGIONS_BYTES_MAX / XI_MIB));
    return xi_hint(err, "unregister those that are not used any more");
}

/* An object that another tenant registered is that tenant's. */
static int is_others(const struct xi_regions *r, const struct xi_shared_facts *facts,
                     const struct tenant *t)
{
    for (uint32_t i = 0; i < BUCKETS; i++)
        for (const struct region *g = r->buckets[i]; g != NULL; g = g->next)
            if (g->tenant != t && g->inode == facts->inode && g->device == facts->device)
                return 1;
    return 0;
}

static enum xi_rc check_window(const struct region *g, const struct xi_shared_facts *facts,
                               struct xi_err *err)
{
    uint64_t end;

    if (g->bytes > 0 && !__builtin_add_overflow(g->offset, g->bytes, &end) && end <= facts->bytes)
        return XI_OK;
    (void)xi_fail(err, XI_EINVAL,
                  "%llu bytes at %llu do not lie in that shared memory of %llu bytes",
                  (unsigned long long)g->bytes, (unsigned long long)g->offset,
                  (unsigned long long)facts->bytes);
    return xi_hint(err, "make it as large as it is to be (ftruncate) before you register it");
}

static enum xi_rc open_object(struct xi_regions *r, struct region *g, struct xi_err *err)
{
    struct xi_shared_facts facts;
    const char *key;

    if (xi_shared_key(g->key, &key) != 0)
        return xi_fail(err, XI_EINVAL, "a key is one name, with or without a slash in front");
    enum xi_rc rc = xi_shared_open(key, &g->fd, &facts, err);
    if (rc != XI_OK)
        return rc;
    if (is_others(r, &facts, g->tenant))
        return xi_fail(err, XI_EFORBIDDEN, "that shared memory is registered by somebody else");
    g->device = facts.device;
    g->inode = facts.inode;
    return check_window(g, &facts, err);
}

static struct tenant *need_tenant(struct xi_regions *r, const char *name)
{
    struct tenant *t = find_tenant(r, name);

    if (t != NULL)
        return t;
    t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    XI_ASSERT(strlen(name) < sizeof t->name);
    memcpy(t->name, name, strlen(name) + 1);
    t->next = r->tenants;
    r->tenants = t;
    return t;
}

static enum xi_rc add(struct xi_regions *r, struct tenant *t, struct region *g, struct xi_err *err)
{
    enum xi_rc rc = need_room(r, t, g->bytes, err);

    g->tenant = t;
    if (rc == XI_OK)
        rc = open_object(r, g, err);
    if (rc != XI_OK)
        return rc;
    struct region **at = bucket_of(r, g->name);
    g->next = *at;
    *at = g;
    t->n++;
    t->bytes += g->bytes;
    r->n++;
    return XI_OK;
}

static enum xi_rc check_words(struct xi_regions *r, const char *tenant, const char *name,
                              const char *key, struct xi_err *err)
{
    if (!name_ok(name))
        return xi_fail(err, XI_EINVAL,
                       "a region's name has 1 to %d printable characters without a slash",
                       XI_NAME_MAX);
    if (strlen(key) > XI_SHARED_KEY_MAX + 1)
        return xi_fail(err, XI_EINVAL, "a key of more than %d characters", XI_SHARED_KEY_MAX);
    if (find(r, tenant, name) != NULL) {
        (void)xi_fail(err, XI_ECONFLICT, "a region \"%.100s\" is registered already", name);
        return xi_hint(err, "unregister it first, or take another name");
    }
    return XI_OK;
}

enum xi_rc xi_regions_register(struct xi_regions *r, const char *tenant, const char *name,
                               const char *key, uint64_t offset, uint64_t bytes, struct xi_err *err)
{
    enum xi_rc rc = check_words(r, tenant, name, key, err);

    if (rc != XI_OK)
        return rc;
    if (bytes > XI_REGION_BYTES_MAX)
        return xi_fail(err, XI_ETOOBIG, "a region of %llu bytes, %llu may be",
                       (unsigned long long)bytes, (unsigned long long)XI_REGION_BYTES_MAX);
    struct tenant *t = need_tenant(r, tenant);
    struct region *g = t != NULL ? calloc(1, sizeof *g) : NULL;
    if (g == NULL) {
        rc = xi_fail(err, XI_ENOMEM, "no memory for a region");
        goto out;
    }
    g->fd = -1;
    g->offset = offset;
    g->bytes = bytes;
    memcpy(g->name, name, strlen(name) + 1);
    memcpy(g->key, key, strlen(key) + 1);
    rc = add(r, t, g, err);
out:
    if (rc != XI_OK && g != NULL) {
        xi_fd_close(&g->fd);
        free(g);
    }
    if (rc != XI_OK && t != NULL)
        forget_tenant(r, t);
    return rc;
}

uint32_t xi_regions_each(struct xi_regions *r, const char *tenant, const char *name,
                         void (*each)(void *ctx, const struct xi_region_view *view), void *ctx)
{
    const struct tenant *t = find_tenant(r, tenant);
    uint32_t n = 0;

    for (uint32_t i = 0; t != NULL && i < BUCKETS; i++)
        for (const struct region *g = r->buckets[i]; g != NULL; g = g->next) {
            if (g->tenant != t || (name != NULL && strcmp(g->name, name) != 0))
                continue;
            struct xi_region_view view = {
                .name = g->name, .key = g->key, .offset = g->offset, .bytes = g->bytes};
            each(ctx, &view);
            n++;
        }
    return n;
}

/* ---- use ---- */

/* The object is asked each time: it may have been cut, and may be whole again. */
static enum xi_rc check_whole(const struct region *g, struct xi_err *err)
{
    struct xi_shared_facts facts;
    enum xi_rc rc = xi_shared_stat(g->fd, &facts, err);

    if (rc != XI_OK || facts.bytes >= g->offset + g->bytes)
        return rc;
    (void)xi_fail(err, XI_EREGION,
                  "region \"%.60s\" was cut to %llu bytes, it was registered up to %llu", g->name,
                  (unsigned long long)facts.bytes, (unsigned long long)(g->offset + g->bytes));
    return xi_hint(err, "a region must stay as large as it was registered");
}

static enum xi_rc show(struct xi_regions *r, struct region *g, int writable, struct xi_err *err)
{
    struct xi_segment **segment = writable ? &g->out : &g->in;
    uint64_t from = g->offset - g->offset % xi_page_bytes();
    int fd = -1;

    if (*segment != NULL && !(*segment)->spoiled)
        return XI_OK;
    xi_segment_put(*segment);
    *segment = NULL;
    enum xi_rc rc = xi_shared_reopen(g->fd, writable, &fd, err);
    if (rc == XI_OK)
        rc = xi_segment_client(r->shm, fd, writable, from, g->offset - from + g->bytes, segment,
                               err);
    if (rc != XI_OK)
        xi_fd_close(&fd);
    return rc;
}

enum xi_rc xi_region_take(struct xi_regions *r, const char *tenant, const char *name,
                          uint64_t offset, uint64_t bytes, int writable, struct xi_segment **ret,
                          uint64_t *ret_offset, struct xi_err *err)
{
    struct region **at = find(r, tenant, name);
    struct region *g = at != NULL ? *at : NULL;
    uint64_t end;

    if (g == NULL) {
        (void)xi_fail(err, XI_ENOENT, "no region \"%.100s\" is registered", name);
        return xi_hint(err, "register it first");
    }
    if (__builtin_add_overflow(offset, bytes, &end) || end > g->bytes)
        return xi_fail(err, XI_EREGION, "%llu bytes at %llu of region \"%.60s\", which has %llu",
                       (unsigned long long)bytes, (unsigned long long)offset, name,
                       (unsigned long long)g->bytes);
    enum xi_rc rc = check_whole(g, err);
    if (rc == XI_OK)
        rc = show(r, g, writable, err);
    if (rc != XI_OK)
        return rc;
    *ret = writable ? g->out : g->in;
    *ret_offset = g->offset - (*ret)->from + offset;
    xi_segment_get(*ret);
    return XI_OK;
}

struct xi_loan *xi_regions_loan(struct xi_regions *r)
{
    return xi_loan_new(r->loans);
}
