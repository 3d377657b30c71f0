/* version_range.h: version numbers of engines and the ranges packages ask for. Pure, any thread.
 *
 * A version is 1 to 4 numbers with dots ("2026.4.1"); what follows the numbers is ignored when
 * matching ("2026.4.1-22982"). A range is 1 to 4 comparisons separated by one space, all of which
 * must hold: ">=2025.0 <2027". Operators: >= > <= < =. Missing numbers count as 0. */
#ifndef XI_CORE_VERSION_RANGE_H
#define XI_CORE_VERSION_RANGE_H

int xi_version_range_valid(const char *range); /* 1 or 0; "" is valid: any version */
/* 1: matches, 0: not (also when either is malformed). */
int xi_version_range_match(const char *range, const char *version);

#endif
