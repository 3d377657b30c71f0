#include "ipc/messages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "xinfer/engine.h"

/* Checked in memory of exactly its size. */
static enum xi_rc check(const void *m, size_t bytes)
{
    struct xi_err err;
    void *copy = malloc(bytes ? bytes : 1);

    memcpy(copy, m, bytes);
    enum xi_rc rc = xi_msg_check(copy, bytes, &err);
    free(copy);
    return rc;
}

union any {
    struct xi_msg_head head;
    struct xi_msg_hello hello;
    struct xi_msg_progress progress;
    struct xi_msg_failed failed;
    struct xi_msg_need_output need;
    struct xi_msg_installed installed;
    struct xi_msg_lane lane;
    struct xi_msg_load load;
    struct xi_msg_segment segment;
    struct xi_msg_drop drop;
};

static const struct {
    enum xi_msg_type type;
    uint32_t bytes;
} plain[] = {
    {XI_MSG_HELLO, sizeof(struct xi_msg_hello)},
    {XI_MSG_PROGRESS, sizeof(struct xi_msg_progress)},
    {XI_MSG_NEED_OUTPUT, sizeof(struct xi_msg_need_output)},
    {XI_MSG_REFUSED, sizeof(struct xi_msg_need_output)},
    {XI_MSG_INSTALLED, sizeof(struct xi_msg_installed)},
    {XI_MSG_DROPPED, sizeof(struct xi_msg_drop)},
    {XI_MSG_DROP, sizeof(struct xi_msg_drop)},
    {XI_MSG_LANE, sizeof(struct xi_msg_lane)},
    {XI_MSG_SEGMENT, sizeof(struct xi_msg_segment)},
    {XI_MSG_QUIT, sizeof(struct xi_msg_head)},
};

static void messages_pass_at_their_exact_length_only(void **state)
{
    uint8_t room[1024];

    (void)state;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        for (uint32_t bytes = 0; bytes < plain[i].bytes + 16; bytes++) {
            memset(room, 0, sizeof room);
            xi_msg_head_set(room, plain[i].type, bytes);
            assert_int_equal(check(room, bytes) == XI_OK, bytes == plain[i].bytes);
        }
}

static void foreign_heads_are_refused(void **state)
{
    union any m = {0};
    size_t n = sizeof m.hello;

    (void)state;
    xi_msg_head_set(&m, XI_MSG_HELLO, (uint32_t)n);
    assert_int_equal(check(&m, n), XI_OK);
    m.head.magic ^= 0x100;
    assert_int_equal(check(&m, n), XI_EPROTO);
    xi_msg_head_set(&m, XI_MSG_HELLO, (uint32_t)n);
    m.head.major++;
    assert_int_equal(check(&m, n), XI_EVERSION);
    xi_msg_head_set(&m, XI_MSG_HELLO, (uint32_t)n);
    m.head.minor++; /* a later minor only adds types */
    assert_int_equal(check(&m, n), XI_OK);
    m.head.bytes--;
    assert_int_equal(check(&m, n), XI_EPROTO);
    for (uint32_t type = 10; type < 32; type++) {
        xi_msg_head_set(&m, (enum xi_msg_type)type, (uint32_t)n);
        assert_int_equal(check(&m, n), XI_EPROTO);
    }
}

static void texts_must_end(void **state)
{
    union any m = {0};

    (void)state;
    memset(m.hello.sandbox, 'x', sizeof m.hello.sandbox);
    xi_msg_head_set(&m, XI_MSG_HELLO, sizeof m.hello);
    assert_int_equal(check(&m, sizeof m.hello), XI_EPROTO);
    memset(&m, 0, sizeof m);
    memset(m.progress.phase, 'x', sizeof m.progress.phase);
    xi_msg_head_set(&m, XI_MSG_PROGRESS, sizeof m.progress);
    assert_int_equal(check(&m, sizeof m.progress), XI_EPROTO);
    char *const load_texts[] = {m.load.variant, m.load.device, m.load.max_shape, m.load.link_dir,
                                m.load.cache_dir};
    const size_t sizes[] = {sizeof m.load.variant, sizeof m.load.device, sizeof m.load.max_shape,
                            sizeof m.load.link_dir, sizeof m.load.cache_dir};
    for (size_t i = 0; i < 5; i++) {
        memset(&m, 0, sizeof m);
        m.load.lane_count = 1;
        m.load.max_batch = 1;
        xi_msg_head_set(&m, XI_MSG_LOAD, sizeof m.load);
        assert_int_equal(check(&m, sizeof m.load), XI_OK);
        memset(load_texts[i], 'x', sizes[i]);
        assert_int_equal(check(&m, sizeof m.load), XI_EPROTO);
    }
}

static void failures_have_a_known_code_and_words(void **state)
{
    const int32_t bad[] = {0, 1, -1, -100, INT32_MIN, INT32_MAX};
    union any m = {0};

    (void)state;
    m.failed.code = XI_EMODEL;
    xi_msg_head_set(&m, XI_MSG_FAILED, sizeof m.failed);
    assert_int_equal(check(&m, sizeof m.failed), XI_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        m.failed.code = bad[i];
        assert_int_equal(check(&m, sizeof m.failed), XI_EPROTO);
    }
    m.failed.code = XI_EMODEL;
    memset(m.failed.text, 'x', sizeof m.failed.text);
    assert_int_equal(check(&m, sizeof m.failed), XI_EPROTO);
}

static void loads_have_lanes(void **state)
{
    union any m = {0};
    const uint32_t bad[] = {0, XI_LANES_MAX + 1, UINT32_MAX};

    (void)state;
    xi_msg_head_set(&m, XI_MSG_LOAD, sizeof m.load);
    for (size_t i = 0; i < 3; i++) {
        m.load.lane_count = bad[i];
        assert_int_equal(check(&m, sizeof m.load), XI_EPROTO);
    }
}

/* ---- LOADED ---- */

static struct xi_msg_loaded *loaded(void)
{
    struct xi_port_spec in = {
        .name = "picture", .dtype = XI_DT_UINT8, .rank = 4, .dims = {1, -1, -1, 3}};
    struct xi_port_spec out[2] = {{.name = "boxes", .dtype = XI_DT_FP32, .rank = -1},
                                  {.name = "n", .dtype = XI_DT_INT64, .rank = 0}};
    struct xi_signature s = {.n_inputs = 1, .n_outputs = 2, .inputs = &in, .outputs = out};

    return xi_msg_loaded_new(&s, NULL, 0);
}

static void signature_survives_the_way(void **state)
{
    struct xi_msg_loaded *m = loaded();
    struct xi_signature s;
    struct xi_err err;

    (void)state;
    assert_int_equal(check(m, m->head.bytes), XI_OK);
    assert_int_equal(xi_msg_signature(m, &s, &err), XI_OK);
    assert_int_equal(s.n_inputs, 1);
    assert_int_equal(s.n_outputs, 2);
    assert_string_equal(s.inputs[0].name, "picture");
    assert_int_equal(s.inputs[0].dims[1], -1);
    assert_int_equal(s.inputs[0].dims[3], 3);
    assert_string_equal(s.outputs[0].name, "boxes");
    assert_int_equal(s.outputs[0].rank, -1);
    assert_int_equal(s.outputs[1].dtype, XI_DT_INT64);
    xi_signature_fini(&s);
    free(m);
}

static void hostile_signatures_are_refused(void **state)
{
    struct xi_msg_loaded *m = loaded();
    struct xi_msg_port *port = (struct xi_msg_port *)(m + 1);
    struct xi_msg_port good = port[0];
    size_t n = m->head.bytes;

    (void)state;
    m->n_inputs = XI_TENSORS_MAX + 1;
    assert_int_equal(check(m, n), XI_EPROTO);
    m->n_inputs = UINT32_MAX; /* with n_outputs it wraps around to 1 */
    assert_int_equal(check(m, n), XI_EPROTO);
    m->n_inputs = 2;
    assert_int_equal(check(m, n), XI_EPROTO);
    m->n_inputs = 1;
    port[0].rank = 9;
    assert_int_equal(check(m, n), XI_EPROTO);
    port[0].rank = -2;
    assert_int_equal(check(m, n), XI_EPROTO);
    port[0] = good;
    port[0].dtype = 99;
    assert_int_equal(check(m, n), XI_EPROTO);
    port[0] = good;
    port[0].dims[1] = -2;
    assert_int_equal(check(m, n), XI_EPROTO);
    port[0] = good;
    memset(port[0].name, 'x', sizeof port[0].name);
    assert_int_equal(check(m, n), XI_EPROTO);
    port[0] = good;
    memset(m->engine, 'x', sizeof m->engine);
    assert_int_equal(check(m, n), XI_EPROTO);
    free(m);
}

/* ---- PROBED ---- */

struct probed {
    struct xi_msg_probed head;
    struct xi_engine_probe probe;
};

static void hostile_probes_are_refused(void **state)
{
    struct probed good = {0}, m;

    (void)state;
    xi_msg_head_set(&good, XI_MSG_PROBED, sizeof good);
    good.probe.n_devices = XI_ENGINE_MAX_DEVICES;
    good.probe.n_formats = XI_ENGINE_MAX_FORMATS;
    assert_int_equal(check(&good, sizeof good), XI_OK);
    m = good;
    m.probe.n_devices++;
    assert_int_equal(check(&m, sizeof m), XI_EPROTO);
    m = good;
    m.probe.n_formats = UINT32_MAX;
    assert_int_equal(check(&m, sizeof m), XI_EPROTO);
    m = good;
    memset(m.head.engine, 'x', sizeof m.head.engine);
    assert_int_equal(check(&m, sizeof m), XI_EPROTO);
    m = good;
    memset(m.probe.missing, 'x', sizeof m.probe.missing);
    assert_int_equal(check(&m, sizeof m), XI_EPROTO);
    m = good;
    memset(m.probe.devices[15].name, 'x', sizeof m.probe.devices[15].name);
    assert_int_equal(check(&m, sizeof m), XI_EPROTO);
    m = good;
    memset(m.probe.formats[15], 'x', sizeof m.probe.formats[15]);
    assert_int_equal(check(&m, sizeof m), XI_EPROTO);
    assert_int_equal(check(&good, sizeof good.head), XI_EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_pass_at_their_exact_length_only),
        cmocka_unit_test(foreign_heads_are_refused),
        cmocka_unit_test(texts_must_end),
        cmocka_unit_test(failures_have_a_known_code_and_words),
        cmocka_unit_test(loads_have_lanes),
        cmocka_unit_test(signature_survives_the_way),
        cmocka_unit_test(hostile_signatures_are_refused),
        cmocka_unit_test(hostile_probes_are_refused),
    };
    return cmocka_run_group_tests_name("messages", tests, NULL, NULL);
}
