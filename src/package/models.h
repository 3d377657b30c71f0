/* models.h: cheap checks of model files before an engine sees them (docs/package-format.md,
 * "Model files"). Any thread. */
#ifndef XI_PACKAGE_MODELS_H
#define XI_PACKAGE_MODELS_H

#include "base/status.h"
#include "package/manifest.h"

/* Hands out a variant's file by its index in variant->files: an fd (borrowed) and its size. */
struct xi_model_files {
    void *ctx;
    enum xi_rc (*open)(void *ctx, size_t index, int *ret_fd, uint64_t *ret_bytes,
                       struct xi_err *err);
};

/* Extensions and number of files as the format wants them. Needs no file. EPACKAGE. */
enum xi_rc xi_model_check_names(const struct xi_manifest_variant *variant,
                                struct xi_err *err) XI_MUST_CHECK;
/* ONNX: external data lies in the variant's own files and inside them. IR: no entities, constants
 * inside the .bin, sane dimensions. TFLite: its mark. Others: not empty. EPACKAGE. */
enum xi_rc xi_model_check_files(const struct xi_manifest_variant *variant,
                                const struct xi_model_files *files,
                                struct xi_err *err) XI_MUST_CHECK;

#endif
