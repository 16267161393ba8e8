#include "base/metric.h"
#include "tests/lib/test.h"

TEST(prints_all_with_help_and_type)
{
    struct buf b;

    metric_add(METRIC_JOBS_SUBMITTED, 3);
    metric_add(METRIC_JOBS_SUBMITTED, 4);
    metric_set(METRIC_SLOTS, 9);
    metric_set(METRIC_SLOTS, 8);
    CHECK_INT(metric_get(METRIC_JOBS_SUBMITTED), 7);
    buf_init(&b, 1 << 20);
    metric_print(&b);
    CHECK(strstr(b.p, "# TYPE genq_jobs_submitted_total counter\ngenq_jobs_submitted_total 7\n"));
    CHECK(strstr(b.p, "# HELP genq_slots "));
    CHECK(strstr(b.p, "# TYPE genq_slots gauge\ngenq_slots 8\n"));
    CHECK(b.p[b.n - 1] == '\n');
    buf_release(&b);
}
