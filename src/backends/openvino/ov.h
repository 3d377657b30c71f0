/* ov.h: what the files of the OpenVINO engine share. Not seen outside this plugin.
 *
 * Nothing is linked: the vendor's C library is found at run time and its functions are called
 * through struct ov_library, so the plugin loads on machines without OpenVINO and says so. */
#ifndef XI_OPENVINO_OV_H
#define XI_OPENVINO_OV_H

#include <stdatomic.h>
#include <stddef.h>

#include <openvino/c/openvino.h>

#include "xinfer/engine.h"

#define OV_PORTS_MAX 256

/* clang-format off */
#define OV_FUNCTIONS(X)                                                                            \
    X(ov_get_openvino_version) X(ov_version_free) X(ov_get_error_info) X(ov_get_last_err_msg)      \
    X(ov_free) X(ov_core_create) X(ov_core_free) X(ov_core_get_available_devices)                  \
    X(ov_available_devices_free) X(ov_core_get_property) X(ov_core_read_model)                     \
    X(ov_core_read_model_from_memory_buffer) X(ov_core_compile_model_props)                        \
    X(ov_core_compile_model_from_file_props) X(ov_model_free) X(ov_model_inputs_size)              \
    X(ov_model_const_input_by_index) X(ov_model_reshape_by_port_indexes)                           \
    X(ov_compiled_model_free) X(ov_compiled_model_inputs_size)                                     \
    X(ov_compiled_model_outputs_size) X(ov_compiled_model_input_by_index)                          \
    X(ov_compiled_model_output_by_index) X(ov_compiled_model_create_infer_request)                 \
    X(ov_output_const_port_free) X(ov_port_get_any_name) X(ov_port_get_element_type)               \
    X(ov_port_get_partial_shape) X(ov_partial_shape_free) X(ov_infer_request_free)                 \
    X(ov_infer_request_set_input_tensor_by_index) X(ov_infer_request_set_output_tensor_by_index)   \
    X(ov_infer_request_get_output_tensor_by_index) X(ov_infer_request_infer)                       \
    X(ov_infer_request_cancel) X(ov_tensor_create) X(ov_tensor_create_from_host_ptr)               \
    X(ov_tensor_free) X(ov_tensor_get_shape) X(ov_tensor_get_size) X(ov_tensor_get_byte_size)      \
    X(ov_tensor_get_element_type) X(ov_tensor_data) X(ov_shape_free)
/* clang-format on */

struct ov_library {
    void *handle;
#define X(function) __typeof__(function) *function;
    OV_FUNCTIONS(X)
#undef X
};

/* The caller's error buffer. */
struct ov_err {
    char *text;
    size_t bytes;
};

struct xi_engine {
    struct ov_library lib;
    ov_core_t *core;
    xi_engine_log_fn log;
    void *log_ctx;
};

struct xi_engine_model {
    struct xi_engine *engine;
    ov_compiled_model_t **compiled; /* n_compiled; the first one describes them all */
    uint32_t n_compiled, next;      /* next: whose turn it is to get a request */
    uint32_t n_ports[2];
    struct xi_port *ports[2]; /* names are ours */
    atomic_uint_fast64_t busy_ns;
};

/* library: finding and loading libopenvino_c. */

/* library_dir NULL: the usual places. On NOT_PRESENT missing (may be NULL) says what was searched.
 * Never unloaded from the process: its threads outlive dlclose. */
int ov_library_open(const char *library_dir, struct ov_library *ret, char missing[256],
                    const struct ov_err *err);
int ov_probe(const struct xi_engine_config *config, struct xi_engine_probe *out, char *text,
             size_t bytes);

/* Error sentences. */
int ov_fail(const struct ov_err *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* "what: the vendor's first useful line", with hide (a path, may be NULL) taken out. Returns
 * XI_ENGINE_NO_MEMORY where the text says so, else code. */
int ov_vendor_fail(const struct ov_library *lib, ov_status_e status, int code, const char *what,
                   const char *hide, const struct ov_err *err);

/* load */
int ov_load(struct xi_engine *engine, const struct xi_engine_source *source,
            const struct xi_engine_options *options, struct xi_engine_model **ret, char *text,
            size_t bytes);
void ov_unload(struct xi_engine_model *model);
const struct xi_port *ov_port(struct xi_engine_model *model, int direction, uint32_t index);
/* Element types; -1 and XI_DT_UNKNOWN for those that only one side has. */
int ov_type_from_dtype(uint32_t dtype);
uint32_t ov_type_to_dtype(ov_element_type_e type);

/* request */
int ov_request_new(struct xi_engine_model *model, struct xi_engine_request **ret, char *text,
                   size_t bytes);
void ov_request_free(struct xi_engine_request *request);
int ov_bind(struct xi_engine_request *request, int direction, uint32_t index,
            const struct xi_tensor *tensor, char *text, size_t bytes);
int ov_run(struct xi_engine_request *request, uint64_t deadline_ns, char *text, size_t bytes);
int ov_output(struct xi_engine_request *request, uint32_t index, struct xi_tensor *ret, char *text,
              size_t bytes);
void ov_cancel(struct xi_engine_request *request);

#endif
