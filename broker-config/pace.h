/* Lets patient publishes gather while they come thick: each group costs the log a commit or a
 * request, however few its records. Who publishes alone is not held up. The rate is held by ATM's
 * generic cell rate algorithm (ITU-T I.371, the virtual scheduling form). */
#pragma once
#include <stdint.h>

struct pace {
    int64_t due_us; /* monotonic: when all of the burst may be used again */
};

/* When the next group may go, monotonic: now_us, or up to 5 ms later. Counts it as gone. */
int64_t pace_next(struct pace *p, int64_t now_us);
