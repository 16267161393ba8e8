/* A job that some client of Kafka's put straight on a job topic, as a bare {"model","prompt"}, say:
 * what a gateway would have filled in comes from where its record stands, so that every process
 * that reads it makes the same job of it. */
#pragma once
#include "schema/job.h"
#include "schema/record.h"

#define FOREIGN_ID_LEN 17

/* 'k' and 16 hexadecimal digits of the SHA-256 of <topic>/<partition>/<offset>/<timestamp in ms>.
 * NUL-terminated. */
void foreign_id(const struct record *r, const char *topicz, char dst[FOREIGN_ID_LEN + 1]);
/* Completes a job that job_parse read from r's value: id (the record's place, where the job has
 * none), tenant, and created_at (the record's time). Its queue (borrowed) and priority are those
 * of its topic, whatever it says: a row finds the record by them. PRIORITY_COUNT_: the topic has
 * none, and `queue` is for a job that names none. ERR_INVALID: a model is missing. */
int foreign_complete(struct job *j, const struct record *r, const char *topicz, struct str queue,
                     enum priority priority, struct err *e);
