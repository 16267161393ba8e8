/* What errors mean to a client: code, HTTP status, OpenAI's type; from schema/reason.def. */
#pragma once
#include "base/str.h"

enum reason {
#define REASON(id, code, http_status, openai_type, meaning) REASON_##id,
#include "schema/reason.def"
#undef REASON
    REASON_COUNT_,
    REASON_NONE = REASON_COUNT_
};

const char *reason_code(enum reason r);
int reason_http_status(enum reason r);
const char *reason_openai_type(enum reason r);
