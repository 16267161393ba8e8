/* Jobs (their JSON, as the server gives it) as people read them. */
#pragma once
#include "base/buf.h"
#include "base/json.h"

bool job_text_is_ended(const struct json *job);
bool job_text_is_succeeded(const struct json *job);
/* One line: id, status, model, tokens, time; or why it failed. With its line break. */
void job_text_line(struct buf *b, const struct json *job);
/* All that is to know, then the output. */
void job_text_details(struct buf *b, const struct json *job);
/* What the model said: text, else the message, JSON or embedding as JSON; ends with a line
 * break. */
void job_text_output(struct buf *b, const struct json *job);
/* "engine_error: the engine said no"; nothing when there is no error. */
void job_text_error(struct buf *b, const struct json *job);

/* 850 ms, 1.2 s, 2:05. */
void job_text_duration(struct buf *b, int64_t ms);
