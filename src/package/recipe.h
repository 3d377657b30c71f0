/* recipe.h: makes packages: from a recipe, or from a model file alone (docs/package-format.md,
 * "Recipes"). Works on directory fds handed in; files are opened beneath them only. Any thread. */
#ifndef XI_PACKAGE_RECIPE_H
#define XI_PACKAGE_RECIPE_H

#include <stdint.h>

#include "base/hash.h"
#include "base/status.h"

struct xi_pack_result {
    struct xi_digest digest;
    uint64_t bytes; /* of the archive */
    size_t entries;
    char name[129], version[65];
};

/* recipe: the text of recipe.json. recipe_dir: where it lies, "file" members are beneath it.
 * sources_dir: "source" members are beneath it, -1: there are none (EINVAL names the file and says
 * to give --sources). Writes the archive to out_fd; when it fails the caller deletes that.
 * EPACKAGE, EINVAL, EJSON, ENOENT, EDIGEST (a sha256 of the recipe differs), EDISK, EIO. */
enum xi_rc xi_pack_recipe(const char *recipe, size_t bytes, int recipe_dir, int sources_dir,
                          int out_fd, struct xi_pack_result *ret, struct xi_err *err) XI_MUST_CHECK;

/* file: a name in dir: .onnx (with the files of its external data), .tflite, .xml (with its .bin
 * beside it), .xref. The package is called after the file, has the version 0.0.0+<first 8 digits
 * of the model's SHA-256>, tensors in and out, f32, no signature (the engine's ports fill it).
 * EUNSUPPORTED for other extensions, ENOENT, EPACKAGE, EDISK, EIO. */
enum xi_rc xi_pack_bare(int dir, const char *file, int out_fd, struct xi_pack_result *ret,
                        struct xi_err *err) XI_MUST_CHECK;
/* 1: xi_pack_bare takes a file of this name. */
int xi_pack_bare_takes(const char *file);

#endif
