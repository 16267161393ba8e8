/* Whether a node is up: counts of checks, no I/O. Up at its first good check; out after `fall`
 * failures in a row, or at once when its connections are refused; back after `rise` successes. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum node_state { NODE_STARTING, NODE_UP, NODE_DOWN };

struct health {
    enum node_state state;
    int64_t n_good, n_bad; /* in a row */
};

/* Give whether the state changed. */
bool health_good(struct health *h, int64_t rise);
bool health_bad(struct health *h, int64_t fall, bool is_refused);
/* Until the next check: interval_ms while up; while out 100 ms doubling up to it. */
int64_t health_wait_ms(const struct health *h, int64_t interval_ms);
