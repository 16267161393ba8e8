/* Whether a whole answer is what the job asked for. Pure functions. */
#pragma once
#include "worker/engine.h"

enum answer_fit {
    ANSWER_FITS,
    ANSWER_BLOCKED,  /* the engine's content filter stopped it */
    ANSWER_NO_JSON,  /* response_format is json_schema, and the text is not JSON */
};

/* Where response_format asked for JSON and the answer is: appends it to `json`, on one line. */
enum answer_fit answer_check(const struct job *j, const struct engine_reply *a, struct buf *json);
