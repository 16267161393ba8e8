/* The line forms of a batch's JSONL: {"prompt":…}, {"messages":…}, a job, or an OpenAI batch line
 * {"custom_id","method":"POST","url":"/v1/chat/completions","body":{…}}; and the output lines. */
#pragma once
#include "schema/job.h"

/* Parses one line (without its newline) of any form into j (j->form tells which). As job_parse; an
 * OpenAI line's body may hold any engine field: those that genq does not know go into options. */
int line_parse(struct job *j, struct str line, const char **param, struct err *e);

/* Appends the output line (no newline) for a job as clients read it (`view`, a completion's JSON):
 * itself for LINE_JOB, OpenAI's batch output line for LINE_OPENAI (`view` must then be a terminal
 * job's: else ERR_INVALID; a job that failed has `response` null and its `error`). ERR_TOO_LARGE: past
 * b's ceiling. */
int line_write_result(enum line_form form, struct str view, struct buf *b);
