/* hotpath.c: what the daemon does for a request between its body and its answer, without HTTP, link
 * and engine: session lookup, admission, queue, turn, batch, dispatch, completion, accounting. The
 * host is the unit tests' fake one, which costs a little too.
 *
 *     hotpath [ROUNDS]     one line of JSON: ns and allocations a request */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "daemon/core/core_fixture.h"
#include "daemon/core/tenants.h"

#define CROWD 512

/* Linked with --wrap. */
static _Atomic uint64_t allocations;
void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__wrap_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);

void *__wrap_malloc(size_t n)
{
    allocations++;
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t m)
{
    allocations++;
    return __real_calloc(n, m);
}

void *__wrap_realloc(void *p, size_t n)
{
    allocations++;
    return __real_realloc(p, n);
}

struct shape {
    const char *name;
    unsigned tenants, lanes, batch, waiting; /* waiting: requests that are there at once */
    int deadlines;
};

struct bench {
    struct shape shape;
    struct fixture *f;
    struct xi_tenants *tenants;
    char names[128][16];
    struct asked *asked;
    uint64_t submitted, seed;
};

static void open_sessions(struct bench *b)
{
    unsigned i;

    fake.rank = 2;
    fake.max_batch = b->shape.batch;
    for (i = 0; i < b->shape.tenants; i++) {
        struct xi_load_options o = fixture_options("model", b->shape.lanes);

        (void)snprintf(b->names[i], sizeof(b->names[i]), "tenant-%u", i);
        (void)snprintf(o.tenant, sizeof(o.tenant), "%s", b->names[i]);
        o.max_batch = b->shape.batch;
        (void)fixture_load(b->f, &o);
    }
}

static void submit(struct bench *b, struct asked *a, unsigned tenant)
{
    struct xi_session *s;
    struct xi_err err;

    XI_ASSERT(xi_sessions_find(b->f->sessions, b->names[tenant], "model", &s, &err) == XI_OK);
    if (a->r.slot == NULL) { /* the first time */
        fixture_ask(b->f, a, s, 64, 1);
        a->r.parts[0].rank = 2;
        a->r.parts[0].dims[0] = 1;
        a->r.parts[0].dims[1] = 64;
    } else {
        xi_session_get(s);
        a->r.session = s;
        a->r.state = XI_REQ_NEW;
    }
    xi_slot_get(a->r.slot); /* it is there again in the next round */
    a->r.deadline_ns = 0;
    if (b->shape.deadlines) {
        b->seed = b->seed * 6364136223846793005ull + 1442695040888963407ull;
        a->r.deadline_ns = xi_now_ns() + 10000000000ull + (b->seed >> 34);
    }
    b->submitted++;
    fixture_submit(b->f, a);
}

static int answer_some(struct bench *b)
{
    uint32_t lane;
    unsigned i;
    int any = 0;

    for (i = 0; i < b->shape.tenants; i++) {
        for (lane = 0; lane < fake.hosts[i]->lanes; lane++) {
            if (fake.hosts[i]->running[lane] != 0) {
                fake_done(fake.hosts[i], lane, XI_OK);
                any = 1;
            }
        }
    }
    return any;
}

static void round_of(struct bench *b)
{
    unsigned i;

    for (i = 0; i < b->shape.waiting; i++)
        submit(b, &b->asked[i], i % b->shape.tenants);
    while (answer_some(b))
        ;
}

static void measure(const struct shape *shape, uint64_t requests, int last)
{
    struct xi_pool_config pool = {.cores = 4, .queue_limit = CROWD, .watchdog_min_ms = 60000};
    struct bench b = {.shape = *shape, .tenants = xi_tenants_new(), .seed = 1};
    struct xi_sessions_config sessions = {.cores = 4, .crash_limit = 5, .tenants = b.tenants};
    uint64_t started, before, took;
    unsigned i;

    b.f = fixture_new(&pool, &sessions);
    b.asked = calloc(CROWD, sizeof(*b.asked));
    XI_ASSERT(b.asked != NULL);
    open_sessions(&b);
    round_of(&b);
    round_of(&b);
    b.submitted = 0;
    before = allocations;
    started = xi_now_ns();
    while (b.submitted < requests)
        round_of(&b);
    took = xi_now_ns() - started;
    (void)printf("\"%s_ns\": %.0f, \"%s_allocations\": %.6f%s", shape->name,
                 (double)took / (double)b.submitted, shape->name,
                 (double)(allocations - before) / (double)b.submitted, last ? "}\n" : ", ");
    for (i = 0; i < shape->waiting; i++)
        xi_slot_put(b.asked[i].r.slot);
    free(b.asked);
    fixture_free(b.f);
    xi_tenants_free(b.tenants);
}

int main(int argc, char **argv)
{
    static const struct shape shapes[] = {
        {"alone", 1, 1, 1, 1, 0},         {"busy", 1, 4, 1, 64, 0},
        {"batches", 1, 2, 8, 64, 0},      {"deadlines", 1, 4, 1, CROWD, 1},
        {"tenants", 100, 1, 1, CROWD, 0},
    };
    uint64_t requests = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000000;
    unsigned i, n = sizeof(shapes) / sizeof(shapes[0]);

    (void)printf("{");
    for (i = 0; i < n; i++)
        measure(&shapes[i], requests, i + 1 == n);
    return 0;
}
