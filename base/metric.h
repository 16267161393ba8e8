/* Counters and gauges of the process, one row each in base/metric.def; relaxed atomics, any thread.
 * Printed in Prometheus' text format 0.0.4. */
#pragma once
#include "base/buf.h"

enum metric_id {
#define METRIC(id, kind, name, help) METRIC_##id,
#include "base/metric.def"
#undef METRIC
    METRIC_COUNT_
};

void metric_add(enum metric_id id, int64_t n);
void metric_set(enum metric_id id, int64_t v);
int64_t metric_get(enum metric_id id);
/* Appends all metrics with HELP and TYPE lines. */
void metric_print(struct buf *b);
