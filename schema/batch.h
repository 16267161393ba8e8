/* A batch as a record on the meta topic (ce_type genq.batch.v1, key "batch/<tenant>/<id>"): created
 * while its lines are being received, sealed when all have come, cancelled by its owner. */
#pragma once
#include "schema/envelope.h"

enum batch_state { BATCH_RECEIVING, BATCH_SEALED, BATCH_CANCELLED };

struct batch {
    struct str id, tenant;
    enum batch_state state;
    int64_t created_at; /* wall ms */
    int64_t n_lines;    /* when sealed; -1 before */
};

int envelope_batch(struct record *r, const struct batch *b, struct buf *mem);
/* Strs point into *owned (free with json_free). */
struct json;
int batch_read(struct batch *b, struct str value, struct json **owned, struct err *e);
