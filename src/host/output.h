/* output.h: one lane's output memory: segments that the daemon made for this host, cut into slots.
 *
 * Small outputs share segments, large ones have their own. The lane's thread takes and gives; the
 * control thread delivers what the daemon grants. Nothing waits or asks while there is room. */
#ifndef XI_HOST_OUTPUT_H
#define XI_HOST_OUTPUT_H

#include <stdint.h>

#include "base/platform/memory.h"
#include "base/status.h"
#include "host/runner.h"

struct xi_outputs;

struct xi_outputs *xi_outputs_new(uint32_t lane); /* NULL: memory is out */
void xi_outputs_free(struct xi_outputs *o);       /* unmaps all and tells the daemon */

/* Lane's thread. ctx is the struct xi_outputs: these are a struct xi_run_sink's. ENOMEM: the
 * daemon grants no more; EHOST: it does not answer. */
enum xi_rc xi_outputs_take(void *ctx, uint64_t bytes, struct xi_run_place *ret,
                           struct xi_err *err) XI_MUST_CHECK;
void xi_outputs_give(void *ctx, const struct xi_run_place *place);
/* The daemon is done with an output. What it names wrongly is left alone. */
void xi_outputs_release(struct xi_outputs *o, uint32_t segment, uint64_t offset);
/* Asks for the first segment before anybody needs it. */
void xi_outputs_prepare(struct xi_outputs *o);

/* Control thread. granted takes the mapping over. */
void xi_outputs_granted(struct xi_outputs *o, uint32_t id, const struct xi_map *map);
void xi_outputs_refused(struct xi_outputs *o);

#endif
