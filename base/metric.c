#include "base/metric.h"
#include <stdatomic.h>

static const struct {
    const char *kindz, *namez, *helpz;
} metrics[] = {
#define METRIC(id, kind, name, help) {#kind, name, help},
#include "base/metric.def"
#undef METRIC
};

static _Atomic int64_t values[METRIC_COUNT_];

void metric_add(enum metric_id id, int64_t n)
{
    atomic_fetch_add_explicit(&values[id], n, memory_order_relaxed);
}

void metric_set(enum metric_id id, int64_t v)
{
    atomic_store_explicit(&values[id], v, memory_order_relaxed);
}

int64_t metric_get(enum metric_id id)
{
    return atomic_load_explicit(&values[id], memory_order_relaxed);
}

void metric_print(struct buf *b)
{
    int id;

    for (id = 0; id < METRIC_COUNT_; id++) {
        buf_addf(b, "# HELP %s %s\n# TYPE %s %s\n%s ", metrics[id].namez, metrics[id].helpz,
                 metrics[id].namez, metrics[id].kindz, metrics[id].namez);
        buf_addi(b, metric_get((enum metric_id)id));
        buf_addc(b, '\n');
    }
}
