/* The cache of answers alone, held against a plain list; then behind the pool. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/core/core_fixture.h"
#include "daemon/core/response_cache.h"
#include "daemon/core/sequences.h"

/* An answer of `bytes` bytes, all `fill`, in memory of its own. */
static void make_reply(struct xi_reply *reply, uint64_t bytes, uint8_t fill)
{
    memset(reply, 0, sizeof(*reply));
    reply->done.n_parts = 1;
    reply->done.flags = XI_DONE_FINAL;
    reply->parts[0] = (struct xi_part){
        .kind = XI_PART_TENSOR, .index = 3, .dtype = XI_DT_UINT8, .rank = 1, .dims = {1}};
    reply->parts[0].dims[0] = (int64_t)bytes;
    reply->parts[0].mem.bytes = bytes;
    reply->segments[0] = xi_segment_heap(bytes);
    memset(reply->segments[0]->map.base, fill, bytes);
}

static struct xi_cache_key key_of(uint8_t inputs, uint32_t want)
{
    struct xi_cache_key key = {.want = want};

    memset(key.inputs.bytes, inputs, sizeof(key.inputs.bytes));
    return key;
}

static void keep(struct xi_response_cache *c, uint8_t inputs, uint64_t bytes)
{
    struct xi_cache_key key = key_of(inputs, 1);
    struct xi_reply reply;

    make_reply(&reply, bytes, inputs);
    xi_cache_put(c, &key, &reply);
    xi_reply_release(&reply);
}

static int has(struct xi_response_cache *c, uint8_t inputs, uint32_t want)
{
    struct xi_cache_key key = key_of(inputs, want);
    struct xi_reply reply;
    const uint8_t *bytes;

    if (!xi_cache_get(c, &key, &reply))
        return 0;
    bytes = xi_reply_data(&reply, 0);
    assert_int_equal(reply.parts[0].index, 3);
    assert_int_equal(bytes[0], inputs);
    assert_int_equal(bytes[reply.parts[0].mem.bytes - 1], inputs);
    xi_reply_release(&reply);
    return 1;
}

static void answers_come_back_as_they_were(void **state)
{
    struct xi_response_cache *c = xi_cache_new(XI_MIB);
    struct xi_cache_key key = key_of(1, 1);
    struct xi_reply reply;

    (void)state;
    keep(c, 1, 100);
    assert_true(has(c, 1, 1));
    assert_false(has(c, 1, 2)); /* another answer was wanted */
    assert_false(has(c, 2, 1));
    assert_int_equal(xi_cache_get(c, &key, &reply), 1);
    xi_cache_free(c);
    assert_int_equal(*(const uint8_t *)xi_reply_data(&reply, 0), 1); /* it outlives the cache */
    xi_reply_release(&reply);
    fake_reset();
}

static void the_oldest_leaves_first(void **state)
{
    struct xi_response_cache *c;
    uint64_t one;
    int i;

    (void)state;
    c = xi_cache_new(XI_MIB);
    keep(c, 1, 1000);
    one = xi_cache_bytes(c);
    xi_cache_free(c);
    c = xi_cache_new(3 * one);
    for (i = 1; i <= 3; i++)
        keep(c, (uint8_t)i, 1000);
    assert_true(has(c, 1, 1)); /* used: 2 is the oldest now */
    keep(c, 4, 1000);
    assert_true(has(c, 1, 1) && !has(c, 2, 1) && has(c, 3, 1) && has(c, 4, 1));
    keep(c, 4, 1000); /* known */
    assert_int_equal(xi_cache_bytes(c), 3 * one);
    keep(c, 5, 3000); /* over the limit by itself: nothing is left */
    assert_true(xi_cache_bytes(c) <= 3 * one);
    keep(c, 6, XI_CACHE_ANSWER_MAX + 1);
    assert_false(has(c, 6, 1));
    xi_cache_clear(c);
    assert_int_equal(xi_cache_bytes(c), 0);
    xi_cache_free(c);
    fake_reset();
}

/* ---- behind the pool ---- */

static struct fixture *make_pool(void)
{
    struct xi_pool_config pool = {.cores = 2, .queue_limit = 8, .watchdog_min_ms = 60000};
    struct xi_sessions_config sessions = {.host_program = "host",
                                          .engine_dir = "engines",
                                          .openvino_dir = "",
                                          .cores = 2,
                                          .crash_window_ms = 60000,
                                          .crash_limit = 50,
                                          .drain_ms = 1000};

    return fixture_new(&pool, &sessions);
}

static void ask(struct fixture *f, struct asked *a, struct xi_session *s, uint64_t bytes,
                uint8_t fill)
{
    fixture_ask(f, a, s, bytes, fill);
    fixture_submit(f, a);
}

static void wait_for(struct fixture *f, const struct asked *a, enum xi_request_state state)
{
    int i;

    for (i = 0; i < 500 && a->r.state != state; i++)
        fixture_run_ms(f, 2);
    assert_int_equal(a->r.state, state);
}

static void equal_inputs_do_not_run_again(void **state)
{
    static const uint64_t sizes[] = {64, 512 * 1024}; /* hashed here, and on a thread */
    struct fixture *f = make_pool();
    struct xi_session *s = fixture_session(f, "cat", 1);
    struct xi_host *host = fake_last();
    struct asked a;
    size_t i;

    (void)state;
    ask(f, &a, s, 64, 1); /* off by default */
    fake_done(host, 0, XI_OK);
    assert_int_equal(a.r.cache, XI_CACHE_OFF);
    s->options.cache_bytes = XI_MIB;
    for (i = 0; i < 2; i++) {
        ask(f, &a, s, sizes[i], 1);
        wait_for(f, &a, XI_REQ_RUNNING);
        fake_done(host, 0, XI_OK);
        assert_int_equal(a.r.cache, XI_CACHE_MISS);
        unsigned before = fake.submits;
        ask(f, &a, s, sizes[i], 1);
        wait_for(f, &a, XI_REQ_FINISHED);
        assert_int_equal(a.rc, XI_OK);
        assert_int_equal(a.r.cache, XI_CACHE_HIT);
        assert_int_equal(fake.submits, before);
        ask(f, &a, s, sizes[i], 2);
        wait_for(f, &a, XI_REQ_RUNNING);
        fake_done(host, 0, XI_EENGINE); /* is not kept */
        ask(f, &a, s, sizes[i], 2);
        wait_for(f, &a, XI_REQ_RUNNING);
        fake_done(host, 0, XI_OK);
    }
    assert_int_equal(s->stats.cache_hits, 2);
    assert_int_equal(s->stats.cache_misses, 6);
    fixture_free(f);
}

static void what_has_a_memory_is_asked_each_time(void **state)
{
    struct fixture *f = make_pool();
    struct xi_session *s = fixture_session(f, "cat", 1);
    struct xi_host *host = fake_last();
    const struct xi_sequence_ask seq = {.id = "a"};
    struct asked a;
    struct xi_err err;
    int i;

    (void)state;
    s->options.cache_bytes = XI_MIB;
    for (i = 0; i < 2; i++) {
        fixture_ask(f, &a, s, 64, 1);
        assert_int_equal(xi_sequence_join(NULL, &a.r, &seq, &err), XI_OK);
        fixture_submit(f, &a);
        assert_int_equal(a.r.state, XI_REQ_RUNNING);
        fake_done(host, 0, XI_OK);
    }
    ask(f, &a, s, 64, 1);
    fake_done(host, 0, XI_OK);
    fake_exit(host, "ended by SIGKILL");
    for (i = 0; i < 1000 && (fake_last()->ended || !fake_last()->loaded); i++)
        fixture_run_ms(f, 2);
    fake_loaded(fake_last(), 1000000); /* a new host may be another variant */
    ask(f, &a, s, 64, 1);
    assert_int_equal(a.r.state, XI_REQ_RUNNING);
    fake_done(fake_last(), 0, XI_OK);
    ask(f, &a, s, 64, 1);
    assert_int_equal(a.r.cache, XI_CACHE_HIT);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_come_back_as_they_were),
        cmocka_unit_test(the_oldest_leaves_first),
        cmocka_unit_test(equal_inputs_do_not_run_again),
        cmocka_unit_test(what_has_a_memory_is_asked_each_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
