#define _GNU_SOURCE
#include "package/recipe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "package/manifest_fields.h"
#include "package/packing.h"
#include "package/path.h"

enum { RECIPE_VERSION = 1 };

/* Relative, and never upwards: a recipe from elsewhere packs nothing but what lies beside it. */
static int stays_beneath(const char *path)
{
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 0 || (n == 2 && p[0] == '.' && p[1] == '.'))
            return 0;
        p += n;
        if (*p == '/')
            p++;
    }
    return *path != '\0';
}

struct recipe {
    int dir, sources_dir;
    struct xi_packing *packing;
};

static void read_digest(const struct xi_place *p, struct xi_packing_item *item)
{
    const char *sha256 = xi_place_text(p, "sha256", 0, XI_DIGEST_HEX);
    struct xi_digest want;

    if (sha256 == NULL)
        return;
    if (xi_digest_parse(sha256, &want) != 0) {
        xi_place_bad(p, "sha256", "must be 64 lower-case hexadecimal digits");
        return;
    }
    if (!xi_digest_equal(&want, &item->sha256)) {
        char hex[XI_DIGEST_HEX + 1];
        xi_digest_text(&item->sha256, hex);
        p->reading->rc = xi_fail(p->reading->err, XI_EDIGEST,
                                 "%s: the file has the SHA-256 %.16s…, the recipe wants %.16s…",
                                 p->path, hex, sha256);
    }
}

static void read_file(const struct xi_place *p, const char *entry, const struct recipe *r)
{
    static const char *const known[] = {"file", "source", "offset", "bytes", "sha256", NULL};
    const int64_t most = (int64_t)XI_PACKAGE_MAX;
    struct xi_packing_item *item = NULL;

    xi_place_keys(p, known);
    const char *file = xi_place_text(p, "file", 0, 1024);
    const char *source = xi_place_text(p, "source", 0, 1024);
    int64_t offset = xi_place_int(p, "offset", 0, most, 0);
    int64_t bytes = xi_place_int(p, "bytes", 0, most, -1);
    if ((file == NULL) == (source == NULL))
        xi_place_bad(p, "file", "or source must be given, not both");
    const char *path = file ? file : source;
    if (path != NULL && !stays_beneath(path))
        xi_place_bad(p, file ? "file" : "source", "must be a relative path without \"..\"");
    if (xi_place_failed(p))
        return;
    if (source != NULL && r->sources_dir < 0) {
        p->reading->rc =
            xi_fail(p->reading->err, XI_EINVAL, "\"%.80s\" comes from the sources", source);
        (void)xi_hint(p->reading->err, "say where they are: --sources DIR");
        return;
    }
    struct xi_packing_file from = {.dir = file ? r->dir : r->sources_dir,
                                   .name = path,
                                   .offset = (uint64_t)offset,
                                   .bytes = bytes < 0 ? UINT64_MAX : (uint64_t)bytes};
    p->reading->rc = xi_packing_add(r->packing, entry, &from, &item, p->reading->err);
    if (!xi_place_failed(p))
        read_digest(p, item);
}

/* "path" is short for {"file": "path"}. */
static void read_entry(const struct xi_place *files, const char *entry, json_t *value,
                       const struct recipe *r)
{
    json_t *short_form = json_is_string(value) ? json_pack("{s:O}", "file", value) : NULL;
    struct xi_place child = {.reading = files->reading, .obj = short_form ? short_form : value};

    (void)snprintf(child.path, sizeof child.path, "%s.\"%.150s\"", files->path, entry);
    if (json_is_string(value) && short_form == NULL)
        files->reading->rc = xi_fail(files->reading->err, XI_ENOMEM, "no memory for a recipe");
    else if (!json_is_object(child.obj))
        xi_place_bad(files, entry, "must be a path or an object");
    else
        read_file(&child, entry, r);
    json_decref(short_form);
}

static void read_files(const struct xi_place *top, const struct recipe *r)
{
    struct xi_place files;
    const char *entry;
    json_t *value;

    if (!xi_place_object(top, "files", 1, &files))
        return;
    json_object_foreach(files.obj, entry, value) if (!xi_place_failed(top))
        read_entry(&files, entry, value, r);
}

/* sources of the manifest that say no sha256 get the one of the file that was packed */
static void fill_sources(const struct xi_place *top, const struct xi_packing *packing,
                         json_t *manifest)
{
    char hex[XI_DIGEST_HEX + 1];
    json_t *source;
    size_t i;

    json_array_foreach(json_object_get(manifest, "source"), i, source)
    {
        const char *path = json_string_value(json_object_get(source, "path"));
        const struct xi_packing_item *item = path ? xi_packing_find(packing, path) : NULL;
        if (item == NULL || json_object_get(source, "sha256") != NULL)
            continue;
        xi_digest_text(&item->sha256, hex);
        if (json_object_set_new(source, "sha256", json_string(hex)) != 0)
            top->reading->rc = xi_fail(top->reading->err, XI_ENOMEM, "recipe: out of memory");
    }
}

static void read_recipe(const struct xi_place *top, const struct recipe *r, json_t **ret_manifest)
{
    static const char *const known[] = {"recipe", "manifest", "files", NULL};
    struct xi_place manifest;
    int64_t version = 0;

    top->reading->rc = xi_json_int(top->obj, "", "recipe", XI_JSON_REQUIRED, 1, INT32_MAX, &version,
                                   top->reading->err);
    if (!xi_place_failed(top) && version != RECIPE_VERSION)
        top->reading->rc = xi_fail(top->reading->err, XI_EVERSION,
                                   "recipe version %lld, this xInfer reads version %d",
                                   (long long)version, RECIPE_VERSION);
    xi_place_keys(top, known);
    if (!xi_place_object(top, "manifest", 1, &manifest))
        return;
    read_files(top, r);
    if (xi_place_failed(top))
        return;
    fill_sources(top, r->packing, manifest.obj);
    *ret_manifest = manifest.obj;
}

enum xi_rc xi_pack_recipe(const char *recipe, size_t bytes, int recipe_dir, int sources_dir,
                          int out_fd, struct xi_pack_result *ret, struct xi_err *err)
{
    struct xi_packing packing = {0};
    struct recipe r = {.dir = recipe_dir, .sources_dir = sources_dir, .packing = &packing};
    struct xi_reading reading = {.rc = XI_OK, .err = err};
    struct xi_place top = {.reading = &reading};
    json_t *manifest = NULL;

    reading.rc = xi_json_parse(recipe, bytes, XI_MANIFEST_MAX, &top.obj, err);
    if (reading.rc == XI_OK && !json_is_object(top.obj))
        reading.rc = xi_fail(err, XI_EINVAL, "must be a JSON object");
    if (reading.rc == XI_OK)
        read_recipe(&top, &r, &manifest);
    if (reading.rc != XI_OK)
        (void)xi_wrap(err, reading.rc, "recipe");
    else
        reading.rc = xi_packing_write(&packing, manifest, out_fd, ret, err);
    xi_packing_fini(&packing);
    json_decref(top.obj);
    return reading.rc;
}
