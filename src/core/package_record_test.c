#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/package_record.h"

static void fill(struct xi_package_record *r)
{
    *r = (struct xi_package_record){.name = "object-detector",
                                    .version = "1.0.0",
                                    .license = "Apache-2.0",
                                    .description = "boxes — \xc3\xa4",
                                    .input = "image",
                                    .outputs = {"bounding_boxes", "keypoints"},
                                    .archive_bytes = 12345678901ull,
                                    .memory_required = 1,
                                    .flags = XI_RECORD_FLOW | XI_RECORD_FLOW_IMAGE,
                                    .n_goldens = 2,
                                    .flow_blob = 1,
                                    .n_models = 2,
                                    .n_variants = 3,
                                    .n_files = 4,
                                    .n_blobs = 3};
    assert_int_equal(xi_record_alloc(r, NULL), XI_OK);
    r->digest.bytes[31] = 7;
    r->models[0] = (struct xi_record_model){"main", 0, 2, 16, 1};
    r->models[1] = (struct xi_record_model){"crop", 2, 1, 0, 0};
    for (uint32_t i = 0; i < 3; i++)
        r->variants[i] = (struct xi_record_variant){.id = "f32",
                                                    .engine = "openvino",
                                                    .engine_version = ">=2024.0 <2027",
                                                    .format = "openvino-ir",
                                                    .device = "cpu",
                                                    .arch = "aarch64 x86_64",
                                                    .precision = "f32",
                                                    .memory_bytes = 1ull << 40,
                                                    .first_file = i ? i + 1 : 0,
                                                    .n_files = i ? 1 : 2};
    for (uint32_t i = 0; i < 4; i++)
        r->files[i] = 2 - i % 2;
    r->blobs[0] = (struct xi_record_blob){.bytes = 10, .path = "manifest.json"};
    r->blobs[1] = (struct xi_record_blob){.bytes = 20, .path = "flow.json"};
    r->blobs[2] = (struct xi_record_blob){.bytes = 1ull << 33, .path = "variants/a+b.onnx"};
}

static void encode(struct xi_package_record *r, struct xi_str *out)
{
    xi_str_init(out, XI_RECORD_BYTES_MAX);
    assert_int_equal(xi_record_encode(r, out, NULL), XI_OK);
}

static void what_is_encoded_is_decoded(void **state)
{
    struct xi_package_record r, back = {0};
    struct xi_str bytes, again;

    (void)state;
    fill(&r);
    encode(&r, &bytes);
    assert_int_equal(xi_record_decode(bytes.data, bytes.len, &back, NULL), XI_OK);
    assert_string_equal(back.description, r.description);
    assert_string_equal(back.outputs[1], "keypoints");
    assert_true(back.archive_bytes == 12345678901ull);
    assert_int_equal(back.digest.bytes[31], 7);
    assert_int_equal(back.variants[0].n_files, 2);
    assert_true(back.variants[2].memory_bytes == 1ull << 40);
    assert_string_equal(back.variants[1].engine_version, ">=2024.0 <2027");
    assert_int_equal(back.files[3], 1);
    assert_true(back.blobs[2].bytes == 1ull << 33);
    assert_int_equal(xi_record_find_model(&back, "crop"), 1);
    assert_int_equal(xi_record_find_model(&back, "flow"), -1);
    encode(&back, &again);
    assert_int_equal(again.len, bytes.len);
    assert_memory_equal(again.data, bytes.data, bytes.len);
    xi_str_fini(&bytes);
    xi_str_fini(&again);
    xi_record_fini(&r);
    xi_record_fini(&back);
}

static void every_other_length_is_refused(void **state)
{
    struct xi_package_record r, back = {0};
    struct xi_str bytes;

    (void)state;
    fill(&r);
    encode(&r, &bytes);
    for (size_t n = 0; n < bytes.len; n++) {
        char *exact = malloc(n + 1); /* so that ASan sees a read behind it */
        assert_non_null(exact);
        memcpy(exact, bytes.data, n);
        assert_int_equal(xi_record_decode(exact, n, &back, NULL), XI_EPROTO);
        free(exact);
    }
    xi_str_add(&bytes, "", 1);
    assert_int_equal(xi_record_decode(bytes.data, bytes.len, &back, NULL), XI_EPROTO);
    xi_str_fini(&bytes);
    xi_record_fini(&r);
}

/* Each byte changed: refused, or another record that encodes to just these bytes. */
static void no_byte_has_two_meanings(void **state)
{
    struct xi_package_record r, back = {0};
    struct xi_str bytes, again;

    (void)state;
    fill(&r);
    encode(&r, &bytes);
    for (size_t i = 0; i < bytes.len; i++)
        for (int k = 0; k < 3; k++) {
            char kept = bytes.data[i];
            bytes.data[i] = k == 0 ? (char)~kept : k == 1 ? (char)(kept ^ 1) : (char)0xff;
            enum xi_rc rc = xi_record_decode(bytes.data, bytes.len, &back, NULL);
            if (rc == XI_OK) {
                encode(&back, &again);
                assert_int_equal(again.len, bytes.len);
                assert_memory_equal(again.data, bytes.data, bytes.len);
                xi_str_fini(&again);
                xi_record_fini(&back);
            } else {
                assert_true(rc == XI_EPROTO || rc == XI_ETOOBIG);
            }
            bytes.data[i] = kept;
        }
    xi_str_fini(&bytes);
    xi_record_fini(&r);
}

struct lie {
    const char *field;
    void (*tell)(struct xi_package_record *r);
};

static void lie_name(struct xi_package_record *r)
{
    memcpy(r->name, "../x", 5);
}
static void lie_version(struct xi_package_record *r)
{
    memcpy(r->version, "one", 4);
}
static void lie_description(struct xi_package_record *r)
{
    memcpy(r->description, "a\nb", 4);
}
static void lie_flags(struct xi_package_record *r)
{
    r->flags |= 1u << 30;
}
static void lie_flow(struct xi_package_record *r)
{
    r->flow_blob = 3;
}
static void lie_no_flow(struct xi_package_record *r)
{
    r->flags = 0;
}
static void lie_models(struct xi_package_record *r)
{
    memcpy(r->models[1].name, "main", 5);
}
static void lie_no_main(struct xi_package_record *r)
{
    memcpy(r->models[0].name, "mine", 5);
}
static void lie_first_variant(struct xi_package_record *r)
{
    r->models[1].first_variant = 1;
}
static void lie_n_variants(struct xi_package_record *r)
{
    r->models[1].n_variants = 0xffffffff;
}
static void lie_engine(struct xi_package_record *r)
{
    memcpy(r->variants[0].engine, "../../x", 8);
}
static void lie_range(struct xi_package_record *r)
{
    memcpy(r->variants[0].engine_version, "~1", 3);
}
static void lie_first_file(struct xi_package_record *r)
{
    r->variants[2].first_file = 0;
}
static void lie_file(struct xi_package_record *r)
{
    r->files[0] = 3;
}
static void lie_path(struct xi_package_record *r)
{
    memcpy(r->blobs[2].path, "variants/../x", 14);
}
static void lie_path_nul(struct xi_package_record *r)
{
    memcpy(r->blobs[1].path, "/flow", 6);
}
static void lie_bytes(struct xi_package_record *r)
{
    r->blobs[2].bytes = UINT64_MAX;
}
static void lie_manifest(struct xi_package_record *r)
{
    memcpy(r->blobs[0].path, "flow2.json", 11);
}

static void lies_are_named(void **state)
{
    static const struct lie lies[] = {
        {"name", lie_name},
        {"version", lie_version},
        {"description", lie_description},
        {"flags", lie_flags},
        {"flow_blob", lie_flow},
        {"flow_blob", lie_no_flow},
        {"model name", lie_models},
        {"models", lie_no_main},
        {"variants of a model", lie_first_variant},
        {"variants of a model", lie_n_variants},
        {"engine", lie_engine},
        {"engine_version", lie_range},
        {"files of a variant", lie_first_file},
        {"files", lie_file},
        {"blob path", lie_path},
        {"blob path", lie_path_nul},
        {"blob bytes", lie_bytes},
        {"blob path", lie_manifest},
    };

    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct xi_package_record r;
        struct xi_err err = {0};
        fill(&r);
        assert_int_equal(xi_record_check(&r, NULL), XI_OK);
        lies[i].tell(&r);
        assert_int_equal(xi_record_check(&r, &err), XI_EPROTO);
        if (strstr(err.msg, lies[i].field) == NULL)
            fail_msg("\"%s\" does not name %s", err.msg, lies[i].field);
        xi_record_fini(&r);
    }
}

static void counts_have_limits(void **state)
{
    struct xi_package_record r = {.n_models = 65, .n_variants = 1, .n_files = 1, .n_blobs = 1};

    (void)state;
    assert_int_equal(xi_record_alloc(&r, NULL), XI_ETOOBIG);
    r = (struct xi_package_record){.n_blobs = 0xffffffff};
    assert_int_equal(xi_record_alloc(&r, NULL), XI_ETOOBIG);
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(every_other_length_is_refused),
        cmocka_unit_test(no_byte_has_two_meanings),
        cmocka_unit_test(lies_are_named),
        cmocka_unit_test(counts_have_limits),
    };

    return cmocka_run_group_tests_name("package_record", t, NULL, NULL);
}
