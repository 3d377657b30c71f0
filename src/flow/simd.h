/* simd.h: loops that are worth a second version for newer processors. Plain C: the compiler makes
 * both and picks at start; where it cannot (other compilers, sanitizers), there is one. */
#ifndef XI_FLOW_SIMD_H
#define XI_FLOW_SIMD_H

#if defined(__GNUC__) && !defined(__clang__)
#define XI_HOT_O3 __attribute__((optimize("O3")))
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define XI_HOT __attribute__((optimize("O3"), target_clones("avx2", "default")))
#else
#define XI_HOT XI_HOT_O3
#endif
#else
#define XI_HOT
#endif

#endif
