/* What the engine drivers share: option merging, error texts, classes, the message of a stream. */
#pragma once
#include "base/json.h"
#include "worker/engine.h"

/* Takes the next whole line out of r->raw into *line (without its end); it stays valid until
 * r->raw is touched again. *at is where to go on, from 0; afterwards drop what was used with
 * engine_drop_lines. */
bool engine_next_line(const struct engine_reply *r, size_t *at, struct str *line);

/* Class of a status that is not 2xx, with the engine's own words put into r->error. */
enum engine_class engine_class_of_status(struct engine_reply *r, int status, struct str body);
/* Puts the message of an error body ({"error":"…"}, {"error":{"message":…}}, {"detail":…} or plain
 * text) into r->error. */
void engine_set_error(struct engine_reply *r, struct str body);
void engine_set_error_value(struct engine_reply *r, const struct json *error);

/* True when j's options name this member: they win over a sampling field. */
bool engine_option_is_set(const struct job *j, const char *namez);

/* Appends `, "name":raw` for each member of the object text `object` that `wanted` accepts (NULL:
 * all). */
void engine_put_members(struct buf *b, struct str object, bool (*wanted)(struct str name));

/* Makes r->message of what a stream told: role, content, reasoning (under namez), tool calls, log
 * probabilities (an array's members, without brackets). */
void engine_make_message(struct engine_reply *r, const char *reasoning_namez,
                         struct str tool_calls, struct str logprobs);

/* Takes output.embedding out of an array of vectors: one vector alone, several as they are. */
void engine_set_embeddings(struct engine_reply *r, const struct json *vectors);

/* Appends the names in a list of models, NUL-separated: the members `namez` of the objects in the
 * body's array `listz`. ERR_INVALID when there is no such array. */
int engine_read_names(struct str body, const char *listz, const char *namez, struct buf *names,
                      struct err *e);
