/* How far a follower has applied each partition, as other threads see it: numbers to show, waiters
 * for single records, and the verdicts of recent ones. Any thread; one lock, and no callback under
 * it. Bounded: a fixed number of verdicts is remembered, waiters are their owners'. */
#pragma once
#include "broker-config/kafka.h"

struct marks;

struct marks *marks_new(size_t n_topics);
void marks_free(struct marks *m); /* after marks_close */

/* ---- the follower's thread ---- */

/* Its oldest record and one past its newest, as Kafka last said; -1: not known. */
void marks_span(struct marks *m, int topic, int32_t partition, int64_t first, int64_t end);
/* A record that is now durable in the store was turned away. Before marks_reach passes it. */
void marks_verdict(struct marks *m, struct position at, int code, int detail);
/* All records of the partition before `at` are durable in the store: their waiters are told. The
 * first call says that the partition is followed. */
void marks_reach(struct marks *m, struct position at);
/* Tells those who have waited too long: code 0. */
void marks_expire(struct marks *m, int64_t mono_ms);
/* Tells all, and from now on everybody at once, with code 0. */
void marks_close(struct marks *m);

/* ---- any thread ---- */

void marks_wait(struct marks *m, struct kafka_waiter *w);
void marks_stat(struct marks *m, int topic, struct broker_stat *out);
