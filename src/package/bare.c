#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "package/onnx.h"
#include "package/packing.h"
#include "package/path.h"
#include "package/recipe.h"

enum { EXTERNAL_MAX = 63 };

struct kind {
    const char *extension, *format, *engine, *path;
};

static const struct kind kinds[] = {
    {".onnx", "onnx", "openvino", "variants/model.onnx"},
    {".tflite", "tflite", "openvino", "variants/model.tflite"},
    {".xml", "openvino-ir", "openvino", "variants/model.xml"},
    {".xref", "reference", "reference", "variants/model.xref"},
};

static const struct kind *kind_of(const char *file)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (xi_package_has_extension(file, kinds[i].extension))
            return &kinds[i];
    return NULL;
}

int xi_pack_bare_takes(const char *file)
{
    return kind_of(file) != NULL;
}

struct bare {
    int dir;
    const char *file;
    struct xi_packing packing;
};

static enum xi_rc add(struct bare *b, const char *entry, const char *file, struct xi_err *err)
{
    struct xi_packing_file from = {.dir = b->dir, .name = file, .bytes = UINT64_MAX};

    return xi_packing_add(&b->packing, entry, &from, NULL, err);
}

static enum xi_rc add_external(void *ctx, const struct xi_onnx_external *external,
                               struct xi_err *err)
{
    static const char folder[] = "variants/";
    struct bare *b = ctx;
    char entry[sizeof folder + 256] = "variants/";
    size_t n = strlen(external->location);

    if (n == 0 || strchr(external->location, '/') != NULL ||
        xi_package_path_check(external->location, n, NULL) != XI_OK)
        return xi_fail(err, XI_EPACKAGE,
                       "\"%.60s\": keeps weights in \"%.60s\", which is no file beside it", b->file,
                       external->location);
    memcpy(entry + sizeof folder - 1, external->location, n + 1);
    if (xi_packing_find(&b->packing, entry) != NULL)
        return XI_OK;
    if (b->packing.n > EXTERNAL_MAX)
        return xi_fail(err, XI_EPACKAGE, "\"%.60s\": keeps weights in over %d files", b->file,
                       EXTERNAL_MAX);
    return add(b, entry, external->location, err);
}

static enum xi_rc add_bin(struct bare *b, struct xi_err *err)
{
    size_t stem = strlen(b->file) - strlen(".xml");
    char *name = malloc(stem + sizeof ".bin");

    if (name == NULL)
        return xi_fail(err, XI_ENOMEM, "packing: out of memory");
    memcpy(name, b->file, stem);
    memcpy(name + stem, ".bin", sizeof ".bin");
    enum xi_rc rc = add(b, "variants/model.bin", name, err);
    if (rc == XI_ENOENT)
        rc = xi_fail(err, XI_ENOENT, "\"%.60s\" needs its weights beside it: \"%.60s\"", b->file,
                     name);
    free(name);
    return rc;
}

/* The file's name without extension, as far as a package's name allows its letters. */
static void name_after(const char *file, size_t extension, char ret[XI_NAME_MAX + 1])
{
    const char *stem = xi_package_base_name(file);
    size_t n = strlen(stem) - extension, out = 0;

    for (size_t i = 0; i < n && out < XI_NAME_MAX; i++) {
        char c = stem[i];
        int alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (out == 0 && !alnum)
            continue;
        ret[out++] = alnum || strchr("._-", c) != NULL ? c : '-';
    }
    if (out == 0) {
        memcpy(ret, "model", sizeof "model");
        return;
    }
    ret[out] = '\0';
}

/* "0.0.0+" and the first digits of the hash over the files' hashes (one file: of the file). */
static void version_of(const struct xi_packing *packing, char ret[16])
{
    char hex[XI_DIGEST_HEX + 1];
    struct xi_digest digest = packing->items[0].sha256;

    for (size_t i = 1; i < packing->n; i++) {
        struct xi_digest pair[2] = {digest, packing->items[i].sha256};
        xi_sha256(pair, sizeof pair, &digest);
    }
    xi_digest_text(&digest, hex);
    memcpy(ret, "0.0.0+", 6);
    memcpy(ret + 6, hex, 8);
    ret[14] = '\0';
}

static json_t *make_manifest(const struct bare *b, const struct kind *kind)
{
    char name[XI_NAME_MAX + 1], version[16];
    json_t *files = json_array();

    name_after(b->file, strlen(kind->extension), name);
    version_of(&b->packing, version);
    for (size_t i = 0; i < b->packing.n; i++)
        if (json_array_append_new(files, json_string(b->packing.items[i].path)) != 0) {
            json_decref(files);
            return NULL;
        }
    return json_pack("{s:i, s:s, s:s, s:s, s:s, s:{s:{s:[{s:s, s:o, s:s, s:{s:s}, s:s}]}}}", "xpkg",
                     1, "name", name, "version", version, "input", "tensors", "output", "tensors",
                     "models", "main", "variants", "id", "f32", "files", files, "format",
                     kind->format, "engine", "name", kind->engine, "precision", "f32");
}

enum xi_rc xi_pack_bare(int dir, const char *file, int out_fd, struct xi_pack_result *ret,
                        struct xi_err *err)
{
    struct bare b = {.dir = dir, .file = file};
    const struct kind *kind = kind_of(file);
    json_t *manifest = NULL;
    enum xi_rc rc;

    if (kind == NULL) {
        (void)xi_fail(err, XI_EUNSUPPORTED,
                      "\"%.80s\" is no model file that can be packed as it is", file);
        (void)xi_hint(err, "those are .onnx, .tflite, .xml with .bin, .xref; else write a recipe");
        return XI_EUNSUPPORTED;
    }
    rc = add(&b, kind->path, file, err);
    if (rc == XI_OK && strcmp(kind->format, "onnx") == 0)
        rc = xi_onnx_scan(b.packing.items[0].fd, b.packing.items[0].bytes, add_external, &b, err);
    if (rc == XI_OK && strcmp(kind->format, "openvino-ir") == 0)
        rc = add_bin(&b, err);
    if (rc == XI_OK) {
        manifest = make_manifest(&b, kind);
        if (manifest == NULL)
            rc = xi_fail(err, XI_ENOMEM, "packing: out of memory");
    }
    if (rc == XI_OK)
        rc = xi_packing_write(&b.packing, manifest, out_fd, ret, err);
    json_decref(manifest);
    xi_packing_fini(&b.packing);
    return rc;
}
