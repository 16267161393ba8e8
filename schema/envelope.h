/* From a job or completion to its record: value, key and CloudEvents headers (CloudEvents 1.0, binary
 * mode of the Kafka protocol binding). */
#pragma once
#include "schema/completion.h"
#include "schema/record.h"

/* Fills r's key, value and headers for a job record (ce_type genq.job.v1); `at` (the topic) and
 * `source` are the caller's. All bytes are appended to mem, which must keep its memory until r was
 * published: a mem that holds several records must not be added to between, unless built with
 * buf_reserve beforehand — use one mem per record, or envelope_room(). The key is the session, or the
 * job's id where there is none; of a job in state scheduled it is scheduled_key. ERR_TOO_LARGE: past
 * mem's ceiling. */
int envelope_job(struct record *r, const struct job *j, struct buf *mem, struct err *e);

/* The scheduled topic is compacted by its keys, so each job has its own: its id, and where its tenant
 * is not `default` the tenant and a slash before it. Appended to mem. */
struct str scheduled_key(struct str tenant, struct str id, struct buf *mem);
/* And back; both point into key. */
void scheduled_name(struct str key, struct str *tenant, struct str *id);

/* A bound on the bytes that envelope_job appends. */
size_t envelope_room(const struct job *j);

/* The same for a completion record (ce_type genq.completion.v1) of job j. `sourcez` is the printed
 * position of the job's record ("topic/partition/offset") or NULL. */
int envelope_completion(struct record *r, const struct job *j, const struct completion *c,
                        const char *sourcez, struct buf *mem, struct err *e);

/* A cancel order on the control topic (ce_type genq.cancel.v1): {"tenant","id"}; and reading it
 * (0, ERR_INVALID or ERR_TOO_LARGE; *tenant and *id then stand in mem). */
int envelope_cancel(struct record *r, struct str tenant, struct str id, struct buf *mem);
int cancel_read(struct str value, struct str *tenant, struct str *id, struct buf *mem, struct err *e);

/* A record that is no job, whole, for the dead-letter topic, with reason and source (NULL allowed).
 * ERR_TOO_LARGE: mem's ceiling is too low for all of it. */
int envelope_dead(struct record *r, const struct record *bad, const char *reasonz,
                  const char *sourcez, struct buf *mem);

/* The same for a job that failed (ce_type DEAD_JOB_TYPE), from which it can be made again: its
 * value is as envelope_job has it, its reason reads `code: message`. ERR_TOO_LARGE: as above. */
#define DEAD_JOB_TYPE "genq.failed.v1"
int envelope_failed(struct record *r, const struct job *j, const char *codez, struct str message,
                    const char *sourcez, struct buf *mem);
