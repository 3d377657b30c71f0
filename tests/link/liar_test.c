/* liar_test.c: a host that breaks the protocol in each way it can is ended for it, and says why in
 * its exit; an honest one of the same program is not. */
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

/* What a lie is, and words of the reason it is ended for. */
static const struct lie {
    const char *name, *reason;
} lies[] = {
    {"role", "another role"},
    {"text", "does not end"},
    {"no-hello", "HELLO"},
    {"magic", "mark"},
    {"major", "protocol 4"},
    {"type", "unknown type"},
    {"length", "says"},
    {"short", "10 bytes"},
    {"fd", "descriptor"},
    {"hello-twice", "second HELLO"},
    {"loaded-unasked", "not asked for"},
    {"probed", "not asked for"},
    {"daemon-message", "only the daemon sends"},
    {"foreign-drop", "does not have"},
    {"need-lane", "lane that does not exist"},
    {"message-flood", "flood of messages"},
    {"lanes", "lanes that do not exist"},
    {"loaded-twice", "not asked for"},
    {"foreign-loaded", "not asked for"},
    {"foreign-failure", "not asked for"},
    {"foreign-progress", "does not have"},
    {"unloaded-unasked", "nobody wanted gone"},
    {"need-flood", NULL}, /* whichever comes first: the flood is counted, or its answers unread */
    {"unasked", "not asked for"},
    {"twice", "not asked for"},
    {"seq", "out of its order"},
    {"flags", "flags"},
    {"code", "code -77777"},
    {"failure-with-outputs", "outputs of a failure"},
    {"done-text", "does not end"},
    {"input-segment", "not its own"},
    {"no-segment", "not its own"},
    {"past-end", "of a segment of"},
    {"wrap", "of a segment of"},
    {"rank", "rank 100"},
    {"dtype", "element type 99"},
    {"dims", "part"},
    {"huge-dims", "part"},
    {"bytes", "bytes of a tensor"},
    {"kind", "part kind"},
    {"place-kind", "not its own"},
    {"parts", "makes no sense"},
    {"tail-bytes", "bytes of outputs"},
    {"head-far", "makes no sense"},
    {"record-length", "makes no sense"},
    {"more-flood", "flood of partial"},
    {"empty-wakes", "flood of empty"},
};

static void start(struct linked *l, const char *lie)
{
    struct xi_msg_load load = {.lane_count = 1};
    struct xi_err err;

    linked_open(l);
    linked_start(l, XI_HOST_RUN, XI_FAKE_HOST, lie);
    assert_int_equal(xi_host_load(l->host, &load, 0, &err), XI_OK);
}

static void one_request(struct linked *l)
{
    struct xi_slot *slot = NULL;
    struct xi_err err;
    float v[4] = {1, 2, 3, 4};

    for (int i = 0; i < 500 && !l->loaded && !l->exited; i++) {
        int none = 0;
        (void)linked_wait_int(l, &none, 10);
    }
    if (l->exited || linked_submit(l, 0, 1, v, 4, &slot, &err) != XI_OK)
        return;
    (void)linked_wait_done(l, 1, 5000);
    xi_slot_put(slot);
}

static void honest_host_is_let_alone(void **state)
{
    struct linked l;

    (void)state;
    start(&l, "honest");
    one_request(&l);
    assert_int_equal(l.done, 1);
    assert_int_equal(l.exited, 0);
    linked_close(&l);
}

static void each_lie_ends_the_host(void **state)
{
    char want[64];

    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct linked l;
        start(&l, lies[i].name);
        one_request(&l);
        if (!linked_wait_int(&l, &l.exited, 5000))
            fail_msg("%s: still runs", lies[i].name);
        if (lies[i].reason != NULL && (strncmp(l.end.reason, "broke the protocol: ", 20) != 0 ||
                                       strstr(l.end.reason, lies[i].reason) == NULL))
            fail_msg("%s: \"%s\"", lies[i].name, l.end.reason);
        assert_int_equal(l.end.signal, SIGKILL);
        assert_true(l.end.killed);
        (void)snprintf(want, sizeof want, "%s", lies[i].name);
        if (l.done > 0 && strcmp(want, "twice") != 0 && strcmp(want, "more-flood") != 0 &&
            strcmp(want, "need-flood") != 0 && strcmp(want, "loaded-twice") != 0)
            fail_msg("%s: its answer was believed", want);
        linked_close(&l);
    }
}

static void closed_socket_ends_the_host(void **state)
{
    struct linked l;

    (void)state;
    linked_open(&l);
    linked_start(&l, XI_HOST_RUN, XI_FAKE_HOST, "closes");
    assert_true(linked_wait_int(&l, &l.exited, 5000));
    assert_string_equal(l.end.reason, "closed its control socket");
    linked_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(honest_host_is_let_alone),
        cmocka_unit_test(each_lie_ends_the_host),
        cmocka_unit_test(closed_socket_ends_the_host),
    };
    xi_log_set_level(XI_ERROR);
    return cmocka_run_group_tests_name("liar", tests, NULL, NULL);
}
