/* sound.h: a WAV goes to a model that listens, piece by piece as one sequence; what comes back is
 * when somebody speaks. Single-threaded. */
#ifndef XI_CLI_SOUND_H
#define XI_CLI_SOUND_H

#include "cli/input.h"

/* Sends it and prints. *ret_done 0: the model takes no sequence of sound, or the file is one that
 * only the daemon can judge: it is to be sent as a whole. */
enum xi_rc xi_sound_infer(struct xi_cli *cli, const char *url, const struct xi_input *in,
                          int *ret_done) XI_MUST_CHECK;

#endif
