/* platform/self.h: this process. At start, before other threads exist, unless it says otherwise. */
#ifndef XI_BASE_PLATFORM_SELF_H
#define XI_BASE_PLATFORM_SELF_H

#include <stdint.h>

/* No core dumps, and no other process of the same user may look into this one's memory. */
void xi_self_protect(void);
/* When memory is out, the kernel ends this process (and those it starts) before others. */
void xi_self_expendable(void);
/* As many file descriptors as the system lets us have; returns how many that are. */
uint64_t xi_self_raise_fds(void);

/* Nice levels of what runs beside the daemon's loop, which stays at 0. */
enum {
    XI_NICE_REALTIME = 0,
    XI_NICE_NORMAL = 5,
    XI_NICE_INSTALL = 10,
    XI_NICE_BATCH = 15,
    XI_NICE_LOAD = 19 /* loading and proving */
};

/* The calling thread (and those it starts later) steps back behind others by `steps` nice levels;
 * there is no way back for an ordinary user. Any thread. */
void xi_self_step_back(int steps);
/* The calling thread takes this nice level; a lower one than its own only a privileged process
 * gets. Any thread. */
void xi_self_nice(int nice);
/* The calling thread waits less for a core: a few nice levels ahead where it may (as root), and
 * short turns soon instead of long ones later (Linux 6.12 and newer). Threads and processes that it
 * starts begin as usual. */
void xi_self_go_first(void);

/* Cores that this process may use; 0: unknown. */
uint32_t xi_self_cores(void);
/* The core that the calling thread is on; negative: unknown. */
int xi_self_core(void);
/* The calling thread goes to this core now; from there the kernel may move it on. Stays where it is
 * when the system refuses. */
void xi_self_move_to(int core);

#endif
