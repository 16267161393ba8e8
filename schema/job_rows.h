/* The table behind job.h: every name that a job may have, as one row. For job.c, job_parse.c
 * and redrive.c alone. */
#pragma once
#include "schema/job.h"

enum job_type {
    TYPE_id,
    TYPE_name,
    TYPE_text,
    TYPE_raw,
    TYPE_time,
    TYPE_int,
    TYPE_bool,
    TYPE_object,
    TYPE_priority,
    TYPE_cache,
    TYPE_num,
    TYPE_str,
    TYPE_any,
    TYPE_form,
    TYPE_dropped,
};

/* Numbers of rows: job.def's first. */
enum job_row_at {
    ROW_SAMPLING = FIELD_COUNT_,
    ROW_CREATED_AT = FIELD_COUNT_ + SAMPLING_COUNT_, /* records only, up to redrive_of */
    ROW_BATCH_LINE,
    ROW_LINE_FORM,
    ROW_REDRIVE_OF,
    ROW_N, /* names of other APIs that are taken where they ask for nothing, and left out */
    ROW_STREAM_OPTIONS,
    ROW_WEBHOOK,
    ROW_COUNT_,
};

struct job_row {
    struct str name;
    struct str lead; /* `,"name":` */
    enum job_type type;
    double min, max; /* of a sampling field's number */
};

extern const struct job_row job_rows[ROW_COUNT_];

/* Number of the row of this name, or ROW_COUNT_. */
size_t job_find_row(struct str name);
/* Copies s where the job keeps it, for as long as it lives. The first call reserves `room` bytes,
 * which must do for all: what stands there never moves. */
struct str job_keep(struct job *j, size_t room, struct str s);

/* Room for what job_complete and redrive_parse fill in: four ids, and two names. */
#define JOB_FILLED_MAX_BYTES (4 * ID_MAX + 2 * JOB_NAME_MAX_BYTES)
