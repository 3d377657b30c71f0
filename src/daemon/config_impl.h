/* config_impl.h: the one table of settings, for config*.c only. */
#ifndef XI_DAEMON_CONFIG_IMPL_H
#define XI_DAEMON_CONFIG_IMPL_H

#include <stddef.h>

#include "daemon/config.h"

enum xi_config_kind {
    XI_CONFIG_TEXT,    /* char[room] */
    XI_CONFIG_BYTES,   /* uint64_t: a number, or "512MiB" */
    XI_CONFIG_PART,    /* the same, or "80%" of the machine's memory */
    XI_CONFIG_COUNT,   /* uint32_t, min to max */
    XI_CONFIG_SWITCH,  /* int */
    XI_CONFIG_LEVEL,   /* enum xi_log_level */
    XI_CONFIG_STYLE,   /* enum xi_log_style */
    XI_CONFIG_ROLE,    /* enum xi_role */
    XI_CONFIG_TENANTS, /* char[room]: the object as JSON text */
    XI_CONFIG_LIST     /* char[XI_CONFIG_LIST_MAX][128] and its uint32_t count at `count` */
};

struct xi_config_key {
    const char *key;     /* in config.json */
    const char *flag;    /* "--listen"; NULL: file only */
    const char *operand; /* what help shows behind the flag; of a switch: what its flag does */
    enum xi_config_kind kind;
    size_t offset, room, count;
    uint64_t min, max;
    const char *standard; /* the default, in words */
    const char *help;     /* a sentence */
};

/* Ends with a row whose key is NULL. */
extern const struct xi_config_key xi_config_keys[];

/* One value given as text, checked. ECONFIG names `shown`. */
enum xi_rc xi_config_set(struct xi_config *c, const struct xi_config_key *key, const char *shown,
                         const char *text, struct xi_err *err) XI_MUST_CHECK;

#endif
