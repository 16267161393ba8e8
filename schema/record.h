/* A record of the log: topic, key, value, headers, and where it stands. No bytes are owned here: who
 * fills a record says whose they are. */
#pragma once
#include "base/str.h"

enum record_header {
#define RECORD_HEADER(id, name) HEADER_##id,
#include "schema/record.def"
#undef RECORD_HEADER
    HEADER_COUNT_
};

/* Where a record stands. topic is one of the topic table's numbers (broker-config/topics.h). */
struct position {
    int32_t topic;      /* -1: nowhere */
    int32_t partition;
    int64_t offset;
};

#define POSITION_NONE ((struct position){-1, 0, 0})

struct record {
    struct position at;  /* topic set by the publisher; the rest by the broker */
    int64_t ts_ms;       /* wall ms; of a shared log when it came there, by its own clock */
    struct str key, value;
    struct str headers[HEADER_COUNT_]; /* p == NULL: absent */
    struct position source; /* publishing: the record that this one finishes; see broker.h. None
                             * where its topic is below 1, so also in a record of zeros */
    int code;            /* after a publish: 0 or a negative error for this record alone */
    int detail;          /* set by the apply hook with its code: e.g. the state of the job that was there */
};

const char *record_header_name(enum record_header h);
bool record_header_parse(struct str name, enum record_header *out);
