/* simd.h: loops that are worth a second version for newer processors.
 *
 * XI_HOT is plain C that the compiler makes twice; the loader picks. Where it cannot (other
 * compilers, sanitizers), there is one. XI_SIMD_AVX2 marks a function written with intrinsics: it
 * is defined only where they exist, and the caller asks the processor before it calls. */
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
#define XI_HOT_O3
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define XI_SIMD_AVX2 __attribute__((target("avx2")))
#endif

#endif
