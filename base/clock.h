/* The two clocks. Wall time for what clients read and for not_before and deadline; monotonic time
 * for durations, so that a clock jump does no harm. */
#pragma once
#include "base/str.h"

int64_t clock_wall_ms(void);  /* ms since the epoch */
int64_t clock_mono_ms(void);  /* ms since some start */
int64_t clock_mono_us(void);
int64_t clock_boot_ms(void); /* monotonic, and goes on while the machine sleeps */

/* RFC 3339 with zone ("2026-11-21T10:00:00Z", "…+01:00", fractions allowed) to ms since the epoch;
 * false when s is not one. */
bool clock_parse_rfc3339(struct str s, int64_t *ms);
/* ms since the epoch as "2026-11-21T10:00:00.123Z" into dst of at least 32 bytes. */
void clock_format_rfc3339(int64_t ms, char *dst);
/* "30s", "1500ms", "2m", "1h", or bare seconds ("30"), to ms; false when s is not one. */
bool clock_parse_duration(struct str s, int64_t *ms);
