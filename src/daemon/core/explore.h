/* explore.h: every state that a machine and a small world around it can reach, for the tests of
 * state machines. Include it after struct world, whose bytes are its identity: no padding. The
 * test defines check_world, print_world and what comes after a state. */
#ifndef XI_DAEMON_CORE_EXPLORE_H
#define XI_DAEMON_CORE_EXPLORE_H

#define STATES_MAX (1u << 20)
#define TABLE_SIZE (1u << 21)

struct node {
    struct world w;
    uint32_t parent;
    uint8_t event;
};

struct explorer {
    struct node *nodes;
    uint32_t *table;
    uint32_t n, transitions;
    uint32_t per_event[32], per_action[32];
    uint32_t left_out; /* the action that is dropped */
    const char *broken;
    uint32_t *edges; /* from, to */
    uint32_t n_edges, cap_edges;
};

/* What must always hold, and one state in a line. */
static void check_world(struct explorer *x, const struct world *w);
static void print_world(unsigned event, const struct world *w);

static void complain(struct explorer *x, const char *what)
{
    if (x->broken == NULL)
        x->broken = what;
}

#define EXPECT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond))                                                                               \
            complain(x, #cond);                                                                    \
    } while (0)

static void explorer_init(struct explorer *x, uint32_t left_out)
{
    *x = (struct explorer){.left_out = left_out};
    x->nodes = calloc(STATES_MAX, sizeof(*x->nodes));
    x->table = calloc(TABLE_SIZE, sizeof(*x->table));
    assert_true(x->nodes != NULL && x->table != NULL);
}

static void explorer_fini(struct explorer *x)
{
    free(x->nodes);
    free(x->table);
    free(x->edges);
}

static uint32_t hash_world(const struct world *w)
{
    const uint8_t *p = (const uint8_t *)w;
    uint32_t h = 2166136261u;
    size_t i;

    for (i = 0; i < sizeof(*w); i++)
        h = (h ^ p[i]) * 16777619u;
    return h;
}

/* A first state is its own parent. */
static uint32_t intern(struct explorer *x, const struct world *w, uint32_t parent, int event)
{
    uint32_t at = hash_world(w) & (TABLE_SIZE - 1);

    while (x->table[at] != 0) {
        if (memcmp(&x->nodes[x->table[at] - 1].w, w, sizeof(*w)) == 0)
            return x->table[at] - 1;
        at = (at + 1) & (TABLE_SIZE - 1);
    }
    assert_true(x->n < STATES_MAX);
    x->nodes[x->n] = (struct node){*w, parent, (uint8_t)event};
    x->table[at] = ++x->n;
    return x->n - 1;
}

static void arrive(struct explorer *x, uint32_t from, const struct world *w, int event)
{
    uint32_t to;

    check_world(x, w);
    to = intern(x, w, from, event);
    if (x->n_edges == x->cap_edges) {
        x->cap_edges = x->cap_edges == 0 ? 4096 : x->cap_edges * 2;
        x->edges = realloc(x->edges, x->cap_edges * 2 * sizeof(*x->edges));
        assert_non_null(x->edges);
    }
    x->edges[2 * x->n_edges] = from;
    x->edges[2 * x->n_edges + 1] = to;
    x->n_edges++;
    x->transitions++;
}

static void count(struct explorer *x, int event, uint32_t acts)
{
    uint32_t i;

    for (i = 0; i < 32; i++)
        x->per_action[i] += (acts >> i) & 1u;
    x->per_event[event]++;
}

/* Marks what can reach a marked node. */
static void mark_backwards(const struct explorer *x, uint8_t *marked)
{
    int changed = 1;

    while (changed) {
        uint32_t i;

        changed = 0;
        for (i = x->n_edges; i-- > 0;) {
            if (marked[x->edges[2 * i + 1]] && !marked[x->edges[2 * i]]) {
                marked[x->edges[2 * i]] = 1;
                changed = 1;
            }
        }
    }
}

/* Nothing was broken on the way; else it tells the way. */
static void assert_unbroken(const struct explorer *x)
{
    if (x->broken != NULL) {
        uint32_t i = x->n - 1;

        print_message("broken: %s\n", x->broken);
        for (;;) {
            print_world(x->nodes[i].event, &x->nodes[i].w);
            if (x->nodes[i].parent >= i)
                break;
            i = x->nodes[i].parent;
        }
    }
    assert_null(x->broken);
    print_message("explored %u states, %u transitions\n", x->n, x->transitions);
}

#endif
