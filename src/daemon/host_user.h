/* host_user.h: as whom hosts run when the daemon runs as root. Start-up only. */
#ifndef XI_DAEMON_HOST_USER_H
#define XI_DAEMON_HOST_USER_H

#include <stdint.h>

#include "daemon/config.h"

/* 0: as the daemon (it isn't root, or another user could not reach the files that hosts need:
 * *ret_why then names the folder). Otherwise the configured user, or one of the range that is meant
 * for such use (61184 to 65519), the same for the same state directory. */
uint32_t xi_host_user_pick(const struct xi_config *config, char ret_why[600]);

#endif
