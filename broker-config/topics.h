/* The topics of a config: numbers for the code, names for people and the log. */
#pragma once
#include "broker-config/config.h"
#include "schema/job.h"
#include "schema/record.h"

enum topic_id {
#define TOPIC(id, suffix, doc) TOPIC_##id,
#include "broker-config/topic.def"
#undef TOPIC
    TOPIC_JOBS /* the first job topic: TOPIC_JOBS + queue * PRIORITY_COUNT_ + priority */
};

/* How long dead letters are kept, at the least: Kafka's retention, and of our own tables, where
 * each letter that comes makes two at most go that are older. */
#define DEAD_DAYS 30
#define DEAD_KEEP_MS (DEAD_DAYS * INT64_C(86400000))

struct topics;

struct topics *topics_new(const struct config *c);
void topics_free(struct topics *t);
size_t topics_count(const struct topics *t);
/* "genq.jobs.default.normal"; NUL-terminated, lives as long as t. */
const char *topics_name(const struct topics *t, int topic);
/* -1 when there is none of that name. */
int topics_find(const struct topics *t, struct str name);
/* The job topic of a queue and priority; -1 when the config has no such queue. */
int topics_jobs(const struct topics *t, struct str queue, enum priority p);
bool topics_is_jobs(int topic);
/* Whether something can take the place of a record there, that is, whether a record's `source` is
 * one. Not of completions, which are topic 0: a source left zero means none. */
static inline bool topics_is_source(int topic)
{
    return topic > TOPIC_COMPLETIONS;
}
/* Of a job topic; of another PRIORITY_COUNT_. */
enum priority topics_priority(int topic);
/* A job topic's queue; of another topic "default". Lives as long as t. */
struct str topics_queue(const struct topics *t, int topic);

/* "genq.jobs.default.normal/0/17" and back. */
#define POSITION_TEXT_MAX 320
void position_format(const struct topics *t, struct position at, char dst[POSITION_TEXT_MAX]);
bool position_parse(const struct topics *t, struct str s, struct position *at);
