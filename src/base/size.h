/* size.h: amounts of memory as people write them. Pure, any thread. */
#ifndef XI_BASE_SIZE_H
#define XI_BASE_SIZE_H

#include <stdint.h>

/* "1073741824", "512MiB", "2 GiB", "64KiB"; where `whole` is not 0 also "80%" of it. 0, or -1 when
 * it is none of these or does not fit. */
int xi_size_parse(const char *text, uint64_t whole, uint64_t *ret);

#endif
