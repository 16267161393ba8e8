#include "broker-config/pace.h"

enum {
    STEP_US = 5000, /* between groups */
    BURST = 8       /* that need not wait, after a quiet time */
};

int64_t pace_next(struct pace *p, int64_t now_us)
{
    int64_t most_us = now_us + (BURST + 1) * STEP_US, ready_us;

    if (p->due_us < now_us)
        p->due_us = now_us;
    p->due_us += STEP_US;
    if (p->due_us > most_us) /* after urgent ones, which do not wait */
        p->due_us = most_us;
    ready_us = p->due_us - (int64_t)BURST * STEP_US;
    return ready_us > now_us ? ready_us : now_us;
}
