#include "schema/reason.h"

static const struct {
    const char *codez;
    int http_status;
    const char *openai_typez;
} reasons[] = {
#define REASON(id, code, http_status, openai_type, meaning) {code, http_status, openai_type},
#include "schema/reason.def"
#undef REASON
};

/* REASON_NONE is no row: where a failure forgot its reason, the fault is ours. */
static enum reason row_of(enum reason r)
{
    return r < REASON_COUNT_ ? r : REASON_INTERNAL;
}

const char *reason_code(enum reason r)
{
    return reasons[row_of(r)].codez;
}

int reason_http_status(enum reason r)
{
    return reasons[row_of(r)].http_status;
}

const char *reason_openai_type(enum reason r)
{
    return reasons[row_of(r)].openai_typez;
}
