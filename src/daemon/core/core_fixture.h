/* core_fixture.h: a pool and a session manager on a loop of their own, with fake hosts, for the
 * tests of this room. */
#ifndef XI_DAEMON_CORE_CORE_FIXTURE_H
#define XI_DAEMON_CORE_CORE_FIXTURE_H

#include "daemon/core/fake_host.h"
#include "daemon/core/session_private.h"

#define DIGEST_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define DIGEST_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

struct fixture {
    uv_loop_t loop;
    struct xi_pool *pool;
    struct xi_sessions *sessions;
    struct xi_engine_record engines[2]; /* "reference" (reads "a"), "other" (reads "b") */
};

/* A request that counts its answers. */
struct asked {
    struct xi_request r;
    int answers;
    enum xi_rc rc;
    struct xi_err err;
    uint64_t order; /* of its answer among all */
    uint8_t fill;
};

struct told {
    int times;
    enum xi_rc rc;
    struct xi_err err;
    enum xi_session_state state;
    char id[XI_UUID_TEXT + 1];
};

struct fixture *fixture_new(const struct xi_pool_config *pool,
                            const struct xi_sessions_config *sessions);
/* Unloads everything; nothing may be left over. */
void fixture_free(struct fixture *f);
void fixture_turn(struct fixture *f);                /* one turn without waiting */
void fixture_run_ms(struct fixture *f, unsigned ms); /* turns for so long */

/* A package with one variant per letter: 'a' for the engine reference, 'b' for other. */
struct xi_package_record *fixture_record(const char *name, const char *variants);
struct xi_load_options fixture_options(const char *name, uint32_t lanes);
/* Loads and brings up; returns the session. */
struct xi_session *fixture_session(struct fixture *f, const char *name, uint32_t lanes);
struct xi_session *fixture_load(struct fixture *f, const struct xi_load_options *o); /* the same */
void fixture_told(void *ctx, const struct xi_session *view, const struct xi_err *err);

/* Fills in a request of one tensor of `bytes` bytes, all `fill`. */
void fixture_ask(struct fixture *f, struct asked *a, struct xi_session *s, uint64_t bytes,
                 uint8_t fill);
void fixture_submit(struct fixture *f, struct asked *a);

#endif
