/* runtime.c: see runtime.h. What goes wrong ends in a text that stays allocated: the program ends.
 */
#include "runtime.h"

#include <dlfcn.h>
#include <onnxruntime_c_api.h>
#include <stdlib.h>

struct runtime {
    OrtSession *session;
    char *input;
    struct runtime_output output;
};

static const OrtApi *ort;
static OrtEnv *environment;
static OrtMemoryInfo *memory;

static const char *judge(OrtStatus *status)
{
    return status == NULL ? NULL : ort->GetErrorMessage(status);
}

#define TRY(call)                                                                                  \
    do {                                                                                           \
        const char *why_ = judge(call);                                                            \
        if (why_ != NULL)                                                                          \
            return why_;                                                                           \
    } while (0)

static const char *open_library(void)
{
    if (memory != NULL)
        return NULL;
    void *library = dlopen(BENCH_ONNXRUNTIME, RTLD_NOW | RTLD_LOCAL);
    const OrtApiBase *(*base)(void) = NULL;
    if (library == NULL)
        return dlerror();
    *(void **)&base = dlsym(library, "OrtGetApiBase");
    ort = base == NULL ? NULL : base()->GetApi(ORT_API_VERSION);
    if (ort == NULL)
        return "the library is older than its header";
    TRY(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "bench", &environment));
    TRY(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
    return NULL;
}

static const char *learn_output(struct runtime *r)
{
    OrtTypeInfo *info = NULL;
    const OrtTensorTypeAndShapeInfo *shape = NULL;
    struct runtime_output *o = &r->output;

    TRY(ort->SessionGetOutputTypeInfo(r->session, 0, &info));
    TRY(ort->CastTypeInfoToTensorInfo(info, &shape));
    TRY(ort->GetDimensionsCount(shape, &o->rank));
    if (o->rank > RUNTIME_RANK_MAX)
        return "the output has too many dimensions";
    TRY(ort->GetDimensions(shape, o->dims, o->rank));
    ort->ReleaseTypeInfo(info);
    o->bytes = sizeof(float);
    for (size_t i = 0; i < o->rank; i++) {
        if (o->dims[i] < 1)
            o->dims[i] = 1;
        o->bytes *= (uint64_t)o->dims[i];
    }
    return NULL;
}

static const char *open_session(struct runtime *r, const char *path)
{
    OrtSessionOptions *options = NULL;
    OrtAllocator *allocator = NULL;
    char *name = NULL;
    const char *why = open_library();

    if (why != NULL)
        return why;
    TRY(ort->CreateSessionOptions(&options));
    TRY(ort->SetIntraOpNumThreads(options, 1));
    TRY(ort->CreateSession(environment, path, options, &r->session));
    ort->ReleaseSessionOptions(options);
    TRY(ort->GetAllocatorWithDefaultOptions(&allocator));
    TRY(ort->SessionGetInputName(r->session, 0, allocator, &r->input));
    TRY(ort->SessionGetOutputName(r->session, 0, allocator, &name));
    r->output.name = name;
    return learn_output(r);
}

struct runtime *runtime_open(const char *path, const char **why)
{
    struct runtime *r = calloc(1, sizeof *r);

    *why = r == NULL ? "memory" : open_session(r, path);
    return *why == NULL ? r : NULL;
}

const struct runtime_output *runtime_output(const struct runtime *r)
{
    return &r->output;
}

static const char *bind_and_run(struct runtime *r, const struct runtime_input *in, void *out,
                                OrtValue **x, OrtValue **y)
{
    const char *const inputs[] = {r->input}, *const outputs[] = {r->output.name};
    ONNXTensorElementDataType type =
        in->is_uint8 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;

    TRY(ort->CreateTensorWithDataAsOrtValue(memory, (void *)(uintptr_t)in->data, in->bytes,
                                            in->dims, in->rank, type, x));
    TRY(ort->CreateTensorWithDataAsOrtValue(memory, out, r->output.bytes, r->output.dims,
                                            r->output.rank, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                            y));
    TRY(ort->Run(r->session, NULL, inputs, (const OrtValue *const *)x, 1, outputs, 1, y));
    return NULL;
}

const char *runtime_run(struct runtime *r, const struct runtime_input *in, void *out)
{
    OrtValue *x = NULL, *y = NULL;
    const char *why = bind_and_run(r, in, out, &x, &y);

    if (x != NULL)
        ort->ReleaseValue(x);
    if (y != NULL)
        ort->ReleaseValue(y);
    return why;
}
