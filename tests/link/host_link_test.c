/* host_link_test.c: the daemon's end of a host, against the real xinfer-host and the reference
 * engine. What a model answers is computed here from its definition. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "linked.h"

static const char affine[] = "xref 1\n"
                             "input x FP32 [1,4]\n"
                             "output y FP32 [1,4]\n"
                             "t = mul x 2\n"
                             "y = add t 1\n";

static void must_load(struct linked *l, const char *model, uint32_t lanes)
{
    linked_open(l);
    linked_load(l, model, lanes);
    if (!l->loaded)
        fail_msg("not loaded: %s (%s)", l->why.msg, l->end.reason);
}

/* ---- it says what it is ---- */

static void probe_tells_the_reference_engine(void **state)
{
    struct linked l;

    (void)state;
    linked_open(&l);
    linked_start(&l, XI_HOST_PROBE, NULL, "reference");
    assert_true(linked_wait_int(&l, &l.probed, 5000));
    assert_int_equal(l.probe_head.present, 1);
    assert_int_equal(l.probe_head.abi_major, XI_ENGINE_MAJOR);
    assert_string_equal(l.probe.devices[0].id, "CPU");
    assert_string_equal(l.probe.formats[0], "reference");
    assert_true(linked_wait_int(&l, &l.exited, 5000));
    assert_int_equal(l.end.exit_code, 0);
    assert_false(l.end.killed);
    linked_close(&l);
}

static void probe_of_no_engine_fails(void **state)
{
    struct linked l;

    (void)state;
    linked_open(&l);
    linked_start(&l, XI_HOST_PROBE, NULL, "nonesuch");
    assert_true(linked_wait_int(&l, &l.failed, 5000));
    assert_int_equal(l.why.rc, XI_ENOENGINE);
    assert_non_null(strstr(l.why.msg, "nonesuch"));
    linked_close(&l);
}

static void loaded_tells_the_signature(void **state)
{
    struct linked l;

    (void)state;
    must_load(&l, affine, 2);
    assert_int_equal(l.load.lane_count, 2);
    assert_int_equal(l.load.session, 7);
    assert_int_equal(l.signature.n_inputs, 1);
    assert_string_equal(l.signature.inputs[0].name, "x");
    assert_int_equal(l.signature.inputs[0].dtype, XI_DT_FP32);
    assert_int_equal(l.signature.inputs[0].rank, 2);
    assert_int_equal(l.signature.outputs[0].dims[1], 4);
    assert_string_equal(l.signature.outputs[0].name, "y");
    assert_true(l.load.memory_bytes > 100 * 1024);
    assert_true(l.load.service_ns > 0);
    assert_true(xi_host_rss_bytes(l.host) > 100 * 1024);
    linked_close(&l);
    assert_int_equal(l.end.exit_code, 0); /* QUIT was enough */
}

static void refused_model_says_why(void **state)
{
    struct linked l;

    (void)state;
    linked_open(&l);
    linked_load(&l, "xref 1\ninput x FP32 [1,4]\noutput y FP32 [1,4]\ny = frobnicate x\n", 1);
    assert_int_equal(l.failed, 1);
    assert_int_equal(l.why.rc, XI_EMODEL);
    assert_non_null(strstr(l.why.msg, "frobnicate"));
    assert_string_equal(l.phase, "load");
    linked_close(&l);
}

/* ---- requests ---- */

struct traffic {
    struct xi_slot *slots[1024];
    uint32_t next, answered, wrong, target, in_flight[2];
};

static void send_next(struct linked *l, struct traffic *t, uint32_t lane)
{
    struct xi_err err;
    uint32_t id = t->next++;
    float v[4] = {(float)id, (float)id + 0.25f, -(float)id, 3};

    if (linked_submit(l, lane, id, v, 4, &t->slots[id], &err) != XI_OK)
        fail_msg("submit %u: %s", id, err.msg);
}

static void check_affine(struct linked *l, uint32_t lane, struct xi_reply *r)
{
    struct traffic *t = l->ctx;
    uint64_t id = r->done.id;
    const float *y = xi_reply_data(r, 0);

    assert_int_equal(r->done.code, XI_OK);
    assert_int_equal(r->done.n_parts, 1);
    assert_int_equal(r->parts[0].mem.bytes, 16);
    assert_int_equal(r->parts[0].dtype, XI_DT_FP32);
    assert_int_equal(r->parts[0].dims[1], 4);
    assert_int_equal(r->done.copied_bytes, 0); /* in place, both ways */
    t->wrong += y[0] != 2 * (float)id + 1 || y[1] != 2 * (float)id + 1.5f ||
                y[2] != 1 - 2 * (float)id || y[3] != 7;
    t->answered++;
    xi_slot_put(t->slots[id]);
    xi_reply_release(r);
    if (t->next < t->target)
        send_next(l, t, lane);
}

static void thousand_requests_over_two_lanes(void **state)
{
    struct linked l;
    struct traffic t = {.target = 1000};

    (void)state;
    must_load(&l, affine, 2);
    l.on_done = check_affine;
    l.ctx = &t;
    for (uint32_t i = 0; i < 8; i++)
        send_next(&l, &t, i % 2);
    assert_true(linked_wait_done(&l, 1000, 20000));
    assert_int_equal(t.answered, 1000);
    assert_int_equal(t.wrong, 0);
    linked_close(&l);
}

static void one_record_of_many_requests(void **state)
{
    struct linked l;
    struct traffic t = {0};
    struct xi_part parts[40] = {0};
    struct xi_segment *segments[40];
    struct xi_work_item items[40] = {0};
    struct xi_err err;

    (void)state;
    must_load(&l, affine, 1);
    l.on_done = check_affine;
    l.ctx = &t;
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(xi_shm_take(l.shm, "anyone", 16, &t.slots[i], &err), XI_OK);
        float v[4] = {(float)i, (float)i + 0.25f, -(float)i, 3};
        memcpy(t.slots[i]->data, v, sizeof v);
        parts[i] = (struct xi_part){.dtype = XI_DT_FP32, .rank = 2, .dims = {1, 4}};
        parts[i].mem.segment = t.slots[i]->segment->id;
        parts[i].mem.offset = t.slots[i]->offset;
        parts[i].mem.bytes = 16;
        segments[i] = t.slots[i]->segment;
        items[i] = (struct xi_work_item){
            .request = {.id = i, .n_parts = 1}, .parts = &parts[i], .segments = &segments[i]};
    }
    assert_int_equal(xi_host_submit(l.host, 0, XI_WORK_ALL, XI_CORE_ANY, items, 40, &err), XI_OK);
    assert_true(linked_wait_done(&l, 40, 5000));
    assert_int_equal(t.wrong, 0);
    linked_close(&l);
}

static struct xi_reply kept;

static void keep(struct linked *l, uint32_t lane, struct xi_reply *r)
{
    (void)l;
    (void)lane;
    kept = *r;
}

static void wrong_shape_is_refused(void **state)
{
    struct linked l;
    struct xi_slot *slot;
    struct xi_err err;
    float v[5] = {0};

    (void)state;
    must_load(&l, affine, 1);
    l.on_done = keep;
    assert_int_equal(linked_submit(&l, 0, 1, v, 5, &slot, &err), XI_OK);
    assert_true(linked_wait_done(&l, 1, 5000));
    assert_int_equal(kept.done.code, XI_ETENSOR);
    assert_non_null(strstr(kept.done.text, "[1,5]"));
    assert_int_equal(kept.done.n_parts, 0);
    xi_reply_release(&kept);
    xi_slot_put(slot);
    linked_close(&l);
}

static void passed_deadline_is_not_run(void **state)
{
    struct linked l;
    struct xi_slot *slot;
    struct xi_err err;

    (void)state;
    must_load(&l, affine, 1);
    l.on_done = keep;
    assert_int_equal(xi_shm_take(l.shm, "anyone", 16, &slot, &err), XI_OK);
    struct xi_part part = {.dtype = XI_DT_FP32, .rank = 2, .dims = {1, 4}};
    part.mem = (struct xi_mem_ref){.segment = slot->segment->id, .bytes = 16};
    struct xi_work_item item = {.request = {.id = 1, .n_parts = 1, .deadline_ns = 1},
                                .parts = &part,
                                .segments = &slot->segment};
    assert_int_equal(xi_host_submit(l.host, 0, XI_WORK_ALL, XI_CORE_ANY, &item, 1, &err), XI_OK);
    assert_true(linked_wait_done(&l, 1, 5000));
    assert_int_equal(kept.done.code, XI_ETIMEOUT);
    xi_reply_release(&kept);
    xi_slot_put(slot);
    linked_close(&l);
}

/* ---- large outputs ---- */

/* 16 floats → 16 × 750,000 floats: 48 MB, an output segment of its own. */
static const char wide[] = "xref 1\n"
                           "input x FP32 [1,16]\n"
                           "output y FP32 [1,12000000]\n"
                           "y = tile x 750000\n";

static void check_wide(struct linked *l, uint32_t lane, struct xi_reply *r)
{
    const float *y = xi_reply_data(r, 0);

    (void)l;
    (void)lane;
    assert_int_equal(r->done.code, XI_OK);
    assert_int_equal(r->parts[0].mem.bytes, 48000000);
    for (uint32_t i = 0; i < 12000000; i += 3999)
        assert_true(y[i] == (float)(i % 16));
    xi_reply_release(r);
}

static void large_outputs_come_whole(void **state)
{
    struct linked l;
    struct xi_slot *slot;
    struct xi_err err;
    float v[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

    (void)state;
    linked_open(&l);
    l.output_limit_bytes = 70 * XI_MIB;
    linked_load(&l, wide, 1);
    if (!l.loaded)
        fail_msg("not loaded: %s", l.why.msg);
    l.on_done = check_wide;
    for (uint32_t i = 1; i <= 5; i++) {
        assert_int_equal(linked_submit(&l, 0, i, v, 16, &slot, &err), XI_OK);
        assert_true(linked_wait_done(&l, i, 10000));
        xi_slot_put(slot);
    }
    linked_close(&l);
}

static void outputs_stop_at_their_limit(void **state)
{
    struct linked l;
    struct xi_slot *slot;
    struct xi_err err;
    struct xi_reply held;
    float v[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

    (void)state;
    linked_open(&l);
    l.output_limit_bytes = 70 * XI_MIB;
    linked_load(&l, wide, 1);
    l.on_done = keep;
    assert_int_equal(linked_submit(&l, 0, 1, v, 16, &slot, &err), XI_OK);
    assert_true(linked_wait_done(&l, 1, 10000));
    assert_int_equal(kept.done.code, XI_OK);
    held = kept; /* not released: a second one has no room */
    xi_slot_put(slot);
    assert_int_equal(linked_submit(&l, 0, 2, v, 16, &slot, &err), XI_OK);
    assert_true(linked_wait_done(&l, 2, 10000));
    assert_int_equal(kept.done.code, XI_ENOMEM);
    xi_reply_release(&kept);
    xi_slot_put(slot);
    xi_reply_release(&held);
    assert_int_equal(linked_submit(&l, 0, 3, v, 16, &slot, &err), XI_OK);
    assert_true(linked_wait_done(&l, 3, 10000));
    assert_int_equal(kept.done.code, XI_OK); /* and the memory is there again */
    xi_reply_release(&kept);
    xi_slot_put(slot);
    linked_close(&l);
}

static void free_size_outputs_are_copied_once(void **state)
{
    struct linked l;
    struct xi_slot *slot;
    struct xi_err err;
    float v[4] = {0, 5, 0, 7};

    (void)state;
    must_load(&l, "xref 1\ninput x FP32 [1,4]\noutput y INT64 [2,-1]\ny = nonzero x\n", 1);
    l.on_done = keep;
    assert_int_equal(linked_submit(&l, 0, 1, v, 4, &slot, &err), XI_OK);
    assert_true(linked_wait_done(&l, 1, 5000));
    assert_int_equal(kept.done.code, XI_OK);
    assert_int_equal(kept.parts[0].dims[1], 2); /* two elements are not zero: [0,1] and [0,3] */
    const int64_t *y = xi_reply_data(&kept, 0);
    assert_true(y[0] == 0 && y[1] == 0 && y[2] == 1 && y[3] == 3);
    assert_int_equal(kept.done.copied_bytes, 32);
    xi_reply_release(&kept);
    xi_slot_put(slot);
    linked_close(&l);
}

/* ---- several sessions ---- */

static void wait_count(struct linked *l, const int *count, int n)
{
    for (int i = 0; i < 500 && *count < n && !l->exited; i++) {
        int none = 0;
        (void)linked_wait_int(l, &none, 10);
    }
    if (*count != n)
        fail_msg("%d, not %d: %s %s", *count, n, l->why.msg, l->end.reason);
}

static void load_beside(struct linked *l, uint32_t session, uint32_t first_lane, const char *dir,
                        int want_loaded, int want_failed)
{
    struct xi_msg_load load = {.session = session,
                               .first_lane = first_lane,
                               .lane_count = 2,
                               .threads = 1,
                               .max_batch = 1};
    struct xi_err err;

    (void)snprintf(load.link_dir, sizeof load.link_dir, "%s", dir);
    assert_int_equal(xi_host_load(l->host, &load, 0, &err), XI_OK);
    wait_count(l, &l->loaded, want_loaded);
    wait_count(l, &l->failed, want_failed);
}

static void sessions_come_and_go(void **state)
{
    struct linked l;
    struct traffic t = {0};
    struct xi_err err;

    (void)state;
    linked_open(&l);
    l.group = 1;
    linked_load(&l, affine, 1);
    assert_int_equal(l.loaded, 1);
    l.on_done = check_affine;
    l.ctx = &t;
    load_beside(&l, 8, 5, l.dir, 2, 0); /* numbers need not follow each other */
    send_next(&l, &t, 0);
    send_next(&l, &t, 5);
    send_next(&l, &t, 6);
    assert_true(linked_wait_done(&l, 3, 5000));
    /* What is in flight is answered first; the others go on. */
    send_next(&l, &t, 6);
    assert_int_equal(xi_host_unload(l.host, 8, &err), XI_OK);
    send_next(&l, &t, 0);
    wait_count(&l, &l.unloaded, 1);
    assert_true(linked_wait_done(&l, 5, 5000));
    load_beside(&l, 9, 5, "/nowhere", 2, 1); /* its lanes are free again, */
    load_beside(&l, 10, 5, l.dir, 3, 1);     /* and after a failure as well */
    send_next(&l, &t, 6);
    send_next(&l, &t, 0);
    assert_true(linked_wait_done(&l, 7, 5000));
    assert_true(t.answered == 7 && t.wrong == 0);
    assert_int_equal(l.exited, 0);
    linked_close(&l);
}

/* ---- death ---- */

static void crash_leaves_other_answers_readable(void **state)
{
    struct linked l;
    struct xi_slot *good, *bad;
    struct xi_err err;
    float v[4] = {1, 2, 3, 4}, poison[4] = {66, 0, 0, 0};

    (void)state;
    must_load(&l,
              "xref 1\ninput x FP32 [1,4]\noutput y FP32 [1,4]\ny = add x 1\n"
              "fault crash segv when 66\n",
              2);
    l.on_done = keep;
    assert_int_equal(linked_submit(&l, 0, 1, v, 4, &good, &err), XI_OK);
    assert_true(linked_wait_done(&l, 1, 5000));
    assert_int_equal(linked_submit(&l, 1, 2, poison, 4, &bad, &err), XI_OK);
    assert_true(linked_wait_int(&l, &l.exited, 5000));
    assert_false(l.end.killed);
    if (SANITIZED) { /* its runtime catches the signal and exits */
        assert_int_not_equal(l.end.exit_code, 0);
    } else {
        assert_int_equal(l.end.signal, SIGSEGV);
        assert_string_equal(l.end.reason, "ended by SIGSEGV");
    }
    assert_int_equal(l.done, 1);
    const float *y = xi_reply_data(&kept, 0);
    assert_true(y[0] == 2 && y[3] == 5);
    xi_reply_release(&kept);
    xi_slot_put(good);
    xi_slot_put(bad);
    linked_close(&l);
}

static void broken_engine_answers_then_ends(void **state)
{
    struct linked l;
    struct xi_slot *slot;
    struct xi_err err;
    float v[4] = {66};

    (void)state;
    must_load(&l,
              "xref 1\ninput x FP32 [1,4]\noutput y FP32 [1,4]\ny = add x 1\n"
              "fault fail internal when 66\n",
              1);
    l.on_done = keep;
    assert_int_equal(linked_submit(&l, 0, 1, v, 4, &slot, &err), XI_OK);
    assert_true(linked_wait_int(&l, &l.exited, 5000));
    assert_int_equal(l.done, 1);
    assert_int_equal(kept.done.code, XI_EENGINE);
    assert_string_equal(l.end.reason, "ended with exit code 70");
    xi_reply_release(&kept);
    xi_slot_put(slot);
    linked_close(&l);
}

static void hang_is_seen_and_ended(void **state)
{
    struct linked l;
    struct xi_slot *slot, *other;
    struct xi_err err;
    float v[4] = {66};

    (void)state;
    must_load(&l,
              "xref 1\ninput x FP32 [1,4]\noutput y FP32 [1,4]\ny = add x 1\nfault hang when 66\n",
              1);
    assert_int_equal(linked_submit(&l, 0, 1, v, 4, &slot, &err), XI_OK);
    assert_false(linked_wait_done(&l, 1, 200));
    assert_int_equal(l.exited, 0);
    xi_host_stop(l.host, 0, "watchdog: no answer");
    assert_int_equal(linked_submit(&l, 0, 2, v, 4, &other, &err), XI_EHOST);
    assert_true(linked_wait_int(&l, &l.exited, 2000));
    assert_true(l.end.killed);
    assert_string_equal(l.end.reason, "watchdog: no answer");
    xi_slot_put(slot);
    linked_close(&l);
}

static void stopped_host_is_killed_after_its_grace(void **state)
{
    struct linked l;
    struct xi_slot *slot;
    struct xi_err err;
    float v[4] = {66};

    (void)state;
    must_load(&l,
              "xref 1\ninput x FP32 [1,4]\noutput y FP32 [1,4]\ny = add x 1\nfault stop when 66\n",
              1);
    assert_int_equal(linked_submit(&l, 0, 1, v, 4, &slot, &err), XI_OK);
    assert_false(linked_wait_done(&l, 1, 100));
    xi_host_stop(l.host, 100, "unload");
    assert_true(linked_wait_int(&l, &l.exited, 2000));
    assert_int_equal(l.end.signal, SIGKILL);
    xi_slot_put(slot);
    linked_close(&l);
}

static void load_that_crashes_is_an_exit(void **state)
{
    struct linked l;

    (void)state;
    linked_open(&l);
    linked_load(
        &l, "xref 1\ninput x FP32 [1]\noutput y FP32 [1]\ny = copy x\nfault load-crash abort\n", 1);
    assert_int_equal(l.loaded, 0);
    assert_true(linked_wait_int(&l, &l.exited, 2000));
    assert_int_equal(l.end.signal, SIGABRT);
    linked_close(&l);
}

static void gigabyte_on_stdout_does_no_harm(void **state)
{
    struct linked l;
    struct xi_slot *slot;
    struct xi_err err;
    float v[4] = {66};

    (void)state;
    must_load(&l,
              "xref 1\ninput x FP32 [1,4]\noutput y FP32 [1,4]\ny = add x 1\n"
              "fault print 20000000 when 66\n",
              1);
    l.on_done = keep;
    assert_int_equal(linked_submit(&l, 0, 1, v, 4, &slot, &err), XI_OK);
    assert_true(linked_wait_done(&l, 1, 20000));
    assert_int_equal(kept.done.code, XI_OK);
    xi_reply_release(&kept);
    xi_slot_put(slot);
    linked_close(&l);
}

/* ---- segments ---- */

static void closed_segments_are_forgotten(void **state)
{
    struct linked l;
    struct xi_slot *slot;
    struct xi_err err;
    struct xi_shm_stats stats;
    float *v = calloc(5u << 20, sizeof *v); /* 20 MiB: a segment of its own */

    (void)state;
    must_load(&l, "xref 1\ninput x FP32 [1,-1]\noutput y FP32 [1]\ny = max x\n", 1);
    l.on_done = keep;
    for (uint32_t i = 1; i <= 20; i++) {
        v[i] = (float)i;
        assert_int_equal(linked_submit(&l, 0, i, v, (5u << 20) - (i % 2) * 2600000, &slot, &err),
                         XI_OK);
        assert_true(linked_wait_done(&l, i, 5000));
        assert_int_equal(kept.done.code, XI_OK);
        assert_true(*(const float *)xi_reply_data(&kept, 0) == (float)i);
        xi_reply_release(&kept);
        xi_slot_put(slot);
        if (i % 5 == 0) {
            xi_shm_trim(l.shm);
            xi_shm_trim(l.shm);
            xi_shm_stats(l.shm, &stats);
            assert_int_equal(stats.segment_bytes, 0);
        }
    }
    free(v);
    linked_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probe_tells_the_reference_engine),
        cmocka_unit_test(probe_of_no_engine_fails),
        cmocka_unit_test(loaded_tells_the_signature),
        cmocka_unit_test(refused_model_says_why),
        cmocka_unit_test(thousand_requests_over_two_lanes),
        cmocka_unit_test(one_record_of_many_requests),
        cmocka_unit_test(wrong_shape_is_refused),
        cmocka_unit_test(passed_deadline_is_not_run),
        cmocka_unit_test(large_outputs_come_whole),
        cmocka_unit_test(outputs_stop_at_their_limit),
        cmocka_unit_test(free_size_outputs_are_copied_once),
        cmocka_unit_test(sessions_come_and_go),
        cmocka_unit_test(crash_leaves_other_answers_readable),
        cmocka_unit_test(broken_engine_answers_then_ends),
        cmocka_unit_test(hang_is_seen_and_ended),
        cmocka_unit_test(stopped_host_is_killed_after_its_grace),
        cmocka_unit_test(load_that_crashes_is_an_exit),
        cmocka_unit_test(gigabyte_on_stdout_does_no_harm),
        cmocka_unit_test(closed_segments_are_forgotten),
    };
    xi_log_set_level(XI_ERROR); /* what hosts print is not asked for */
    return cmocka_run_group_tests_name("host_link", tests, NULL, NULL);
}
