/* broker_sqlite's transactions: publishes and finishes as one group, with the hooks of the store
 * inside. The writer thread's. */
#pragma once
#include "broker-config/broker.h"
#include "broker-config/sqlite_log.h"

struct positions {
    struct position *at;
    size_t n, room;
};

struct sqlite_group {
    struct sqlite_log *log;
    struct broker_hooks hooks;
    struct positions finished; /* rows to delete with the next transaction */
    struct positions gone;     /* those, and the sources of what this transaction has appended */
    /* The publishes of [p, end) are durable (code 0) or failed. To be read before the next pointers
     * are given away. */
    void (*on_result)(void *data, struct publish *p, const struct publish *end, int code);
    /* A transaction was written (code 0), or the log or the disk refused it. */
    void (*on_written)(void *data, int code, const struct err *e);
    void *data;
    struct err damage; /* ERR_CORRUPT once the database is known to be damaged */
};

void positions_add(struct positions *p, struct position at);

/* Writes the list of publishes (NULL: none) and g->finished, which a success empties. All in one
 * transaction; where a publish cannot be appended, it fails alone. Negative when the log could
 * not be written. */
int sqlite_group_write(struct sqlite_group *g, struct publish *publishes);
