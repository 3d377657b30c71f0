/* platform/self.h: this process. At start, before other threads exist. */
#ifndef XI_BASE_PLATFORM_SELF_H
#define XI_BASE_PLATFORM_SELF_H

#include <stdint.h>

/* No core dumps, and no other process of the same user may look into this one's memory. */
void xi_self_protect(void);
/* As many file descriptors as the system lets us have; returns how many that are. */
uint64_t xi_self_raise_fds(void);

#endif
