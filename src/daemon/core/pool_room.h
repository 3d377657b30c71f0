/* pool_room.h: a pool with tenants and a journal, for the tests of batches and turns. */
#ifndef XI_DAEMON_CORE_POOL_ROOM_H
#define XI_DAEMON_CORE_POOL_ROOM_H

#include "daemon/core/core_fixture.h"
#include "daemon/core/tenants.h"
#include "daemon/core/why.h"

#define POISON 0xee /* a first byte that ends its host */
#define MS     1000000ull

struct room {
    struct fixture *f;
    struct xi_tenants *tenants;
    struct xi_why *why;
};

struct room room_new(uint32_t cores, uint32_t queue_limit);
void room_free(struct room *r);
void room_on_accelerator(struct room *r); /* with stages, and flows that take files */
struct xi_session *room_load(struct room *r, const char *name, const char *tenant, uint32_t lanes,
                             uint32_t batch);
/* Rows of eight bytes each; with fake.rank 2 they are the first dimension. */
void room_ask(struct room *r, struct asked *a, struct xi_session *s, uint32_t rows, uint8_t fill);
void room_ask_file(struct room *r, struct asked *a, struct xi_session *s, uint8_t fill);
/* The same, and submitted. */
void room_send(struct room *r, struct asked *a, struct xi_session *s, uint32_t rows, uint8_t fill);
void room_send_file(struct room *r, struct asked *a, struct xi_session *s, uint8_t fill);
unsigned room_busy(const struct xi_host *host); /* lanes */
int room_answer_one(struct xi_host *host);      /* 0: nothing runs there */
void room_answer_all(struct xi_host *host);
struct xi_entry *room_loading(const struct room *r, const struct xi_host *host);
/* Hosts that crash of poison come back until all is answered. */
void room_live(struct room *r, unsigned ms);
void room_answered(const struct asked *a, unsigned n, enum xi_rc rc); /* each of them, once */

#endif
