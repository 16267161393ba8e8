/* A job made again from a dead letter: under an id of its own, with what the operator changed. Any
 * thread. */
#pragma once
#include "schema/job.h"

#define REDRIVE_ID_LEN 17

/* 'r' and 16 hexadecimal digits of the SHA-256 of tenant and `of`: what is made again, a failed
 * job's id or a record's source. The same every time, so that one letter is one job. */
void redrive_id(struct str tenant, struct str of, char dst[REDRIVE_ID_LEN + 1]);

struct redrive_edit {
    struct str model;   /* p == NULL: as it is */
    struct str options; /* a JSON object, or n == 0. A sampling field's name sets that field,
                         * another is set in the job's own `options`; null takes it out */
};

/* Whether jobs can be edited so: 0, or ERR_INVALID with what is wrong (a job's field that is no
 * option, a value out of its range). *param as job_parse has it. */
int redrive_check(const struct redrive_edit *edit, const char **param, struct err *e);

/* Makes the job whose record's value this was: edited, with this id, its own as redrive_of, without
 * its not_before and deadline, which were of then, nor created_at, and with another model without
 * its queue. As job_parse; a job to be submitted. */
int redrive_parse(struct job *j, struct str value, const struct redrive_edit *edit, struct str id,
                  struct err *e);
