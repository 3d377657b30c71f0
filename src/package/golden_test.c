#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "package/golden.h"

static const struct xi_manifest_golden tolerance = {.id = "g",
                                                    .atol = 0.01,
                                                    .rtol = 0.1,
                                                    .says_how_near = 1,
                                                    .score = 0.05,
                                                    .iou = 0.8,
                                                    .extra = 0.42};

static void answers(void **state)
{
    /* "" means accepted, else what the refusal says */
    static const struct {
        const char *want, *got, *says;
    } cases[] = {
        {"{'detections':[{'label':'cat','score':0.8,'box':[0,0,10,10]}]}",
         "{'detections':[{'label':'cat','score':0.77,'box':[0,0,10,9]}],'more':1}", ""},
        {"{'detections':[{'label':'cat','score':0.8,'box':[0,0,10,10]}]}",
         "{'detections':[{'label':'cat','score':0.8,'box':[0,0,10,7]}]}", "overlaps by 0.70"},
        {"{'detections':[{'label':'cat','score':0.8,'box':[0,0,10,10]}]}",
         "{'detections':[{'label':'dog','score':0.8,'box':[0,0,10,10]}]}", "overlaps by 0.00"},
        {"{'detections':[{'label':'cat','score':0.8,'box':[0,0,10,10]}]}",
         "{'detections':[{'label':'cat','score':0.74,'box':[0,0,10,10]}]}", "got 0.740"},
        {"{'detections':[{'label':'cat','score':0.8,'box':[0,0,10,10]}]}", "{'detections':[]}",
         "overlaps by 0.00"},
        {"{'detections':[{'label':'cat','score':0.8,'box':[0,0,10,10]}]}", "{}", "no list"},
        {"{'detections':[{'label':'cat','score':0.8,'box':[0,0,10,10]}]}",
         "{'detections':[{'label':'dog','score':0.43,'box':[0,0,5,5]},"
         "{'label':'cat','score':0.8,'box':[0,0,10,10]}]}",
         "unexpected dog with score 0.430, at most 0.420"},
        {"{'detections':[{'label':'cat','score':0.8,'box':[0,0,10,10]}]}",
         "{'detections':[{'label':'dog','score':0.4,'box':[0,0,5,5]},"
         "{'label':'cat','score':0.8,'box':[0,0,10,10]}]}",
         ""},
        {"{'detections':[{'label':'a','score':0.8,'box':[0,0,10,10]},"
         "{'label':'a','score':0.8,'box':[0,0,10,10]}]}",
         "{'detections':[{'label':'a','score':0.8,'box':[0,0,10,10]}]}", "overlaps by 0.00"},
        {"{'detections':[]}", "{'detections':[]}", ""},
        {"{'classes':[{'label':'x','score':0.5}]}", "{'classes':[{'label':'x','score':0.551}]}",
         ""},
        {"{'classes':[{'label':'x','score':0.5}]}", "{'classes':[{'label':'x','score':0.57}]}",
         "\"score\" is 0.57, expected 0.5"},
        {"{'classes':[{'label':'x'}]}", "{'classes':[{'label':'y'}]}", "\"label\""},
        /* class numbers name things; nothing is nearly a class */
        {"{'classes':[{'class':100,'score':0.5}]}", "{'classes':[{'class':101,'score':0.5}]}",
         "\"class\""},
        {"{'detections':[{'class':3,'score':0.8,'box':[0,0,10,10]}]}",
         "{'detections':[{'class':7,'score':0.8,'box':[0,0,10,10]}]}", "overlaps by 0.00"},
        {"{'detections':[{'class':3,'score':0.8,'box':[0,0,10,10]}]}",
         "{'detections':[{'class':3,'score':0.8,'box':[0,0,10,10]}]}", ""},
        {"{'classes':[1,2]}", "{'classes':[1]}", "has 1 members, expected 2"},
        {"{'text':'a'}", "{}", "\"text\" is missing"},
        {"{'text':'a'}", "{'text':1}", "\"text\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char want[512], got[512];
        struct xi_err err = {0};
        for (size_t k = 0; k < 512; k++) {
            want[k] = cases[i].want[k] == '\'' ? '"' : cases[i].want[k];
            if (!want[k])
                break;
        }
        for (size_t k = 0; k < 512; k++) {
            got[k] = cases[i].got[k] == '\'' ? '"' : cases[i].got[k];
            if (!got[k])
                break;
        }
        json_t *w = json_loads(want, 0, NULL), *g = json_loads(got, 0, NULL);
        assert_non_null(w);
        assert_non_null(g);
        enum xi_rc rc = xi_golden_check_answer(&tolerance, w, g, &err);
        if ((rc == XI_OK) != (*cases[i].says == '\0') || strstr(err.msg, cases[i].says) == NULL)
            fail_msg("%s against %s: %s", want, got, err.msg);
        json_decref(w);
        json_decref(g);
    }
}

static enum xi_rc compare(enum xi_dtype dtype, const void *want, const void *got, int64_t n,
                          struct xi_err *err)
{
    struct xi_manifest_tensor expect = {
        .port = {.name = "y", .dtype = dtype, .rank = 1, .dims = {n}}};
    uint64_t bytes = (uint64_t)n * xi_dtype_bytes(dtype);
    struct xi_tensor tensor = xi_tensor_make(dtype, &n, 1, (void *)(uintptr_t)got, bytes);

    return xi_golden_check_tensor(&tolerance, &expect, want, bytes, &tensor, err);
}

static void tensors(void **state)
{
    const float want[] = {1, -100, 0, NAN, INFINITY};
    const float near[] = {1.1f, -109, 0.009f, NAN, INFINITY};
    const float far[] = {1, -120, 0, NAN, INFINITY};
    const float nan_lost[] = {1, -100, 0, 0, INFINITY};
    const uint16_t half_want[] = {0x3c00, 0xc000}, half_got[] = {0x3c33, 0xc000}; /* 1, -2; 1.05 */
    const int64_t big[] = {1000}, other[] = {1102};
    struct xi_err err = {0};

    (void)state;
    assert_int_equal(compare(XI_DT_FP32, want, near, 5, &err), XI_OK);
    assert_int_equal(compare(XI_DT_FP32, want, far, 5, &err), XI_EGOLDEN);
    assert_string_equal(err.msg, "golden \"g\": output \"y\": 1 of 5 values differ, worst at 1: "
                                 "-120, expected -100");
    assert_int_equal(compare(XI_DT_FP32, want, nan_lost, 5, &err), XI_EGOLDEN);
    assert_int_equal(compare(XI_DT_FP16, half_want, half_got, 2, &err), XI_OK);
    assert_int_equal(compare(XI_DT_INT64, big, big, 1, &err), XI_OK);
    assert_int_equal(compare(XI_DT_INT64, big, other, 1, &err), XI_EGOLDEN);
}

/* Token numbers and indices: the defaults are for arithmetic. */
static void whole_numbers_agree_exactly_unless_the_package_says_how_near(void **state)
{
    struct xi_manifest_golden g = {.id = "g", .atol = 1e-4, .rtol = 1e-3};
    const int64_t want[] = {30522, INT64_MAX}, near[] = {30523, INT64_MAX},
                  huge[] = {30522, INT64_MAX - 1};
    int64_t n = 2;
    struct xi_manifest_tensor expect = {
        .port = {.name = "y", .dtype = XI_DT_INT64, .rank = 1, .dims = {2}}};
    struct xi_err err = {0};

    (void)state;
    struct xi_tensor got = xi_tensor_make(XI_DT_INT64, &n, 1, (void *)(uintptr_t)near, 16);
    assert_int_equal(xi_golden_check_tensor(&g, &expect, want, 16, &got, &err), XI_EGOLDEN);
    assert_non_null(strstr(err.msg, "1 of 2 values differ, worst at 0"));
    got.data = (void *)(uintptr_t)huge;
    assert_int_equal(xi_golden_check_tensor(&g, &expect, want, 16, &got, &err), XI_EGOLDEN);
    got.data = (void *)(uintptr_t)want;
    assert_int_equal(xi_golden_check_tensor(&g, &expect, want, 16, &got, &err), XI_OK);
    g.says_how_near = 1;
    got.data = (void *)(uintptr_t)near;
    assert_int_equal(xi_golden_check_tensor(&g, &expect, want, 16, &got, &err), XI_OK);
}

static void another_shape_is_no_answer(void **state)
{
    int64_t dims[] = {3};
    float data[4] = {0};
    struct xi_err err = {0};
    struct xi_manifest_tensor expect = {
        .port = {.name = "y", .dtype = XI_DT_FP32, .rank = 1, .dims = {4}}};
    struct xi_tensor tensor = xi_tensor_make(XI_DT_FP32, dims, 1, data, 12);

    (void)state;
    assert_int_equal(xi_golden_check_tensor(&tolerance, &expect, data, 16, &tensor, &err),
                     XI_EGOLDEN);
}

int main(void)
{
    const struct CMUnitTest t[] = {
        cmocka_unit_test(answers),
        cmocka_unit_test(tensors),
        cmocka_unit_test(whole_numbers_agree_exactly_unless_the_package_says_how_near),
        cmocka_unit_test(another_shape_is_no_answer),
    };

    return cmocka_run_group_tests_name("golden", t, NULL, NULL);
}
