/* hiredis, which turns bytes into replies, for redis_link.c. What others read of a reply stands in
 * redis.h. */
#pragma once
#include "base/redis.h"

struct redis_parser;

struct redis_parser *parser_new(void);
void parser_free(struct redis_parser *p);
void parser_feed(struct redis_parser *p, const char *bytes, size_t n);
/* 1: *reply is the next that is whole, the caller's to free; 0: none is; ERR_CORRUPT: the bytes are
 * no replies (see parser_why). */
int parser_next(struct redis_parser *p, struct redis_reply **reply);
const char *parser_why(const struct redis_parser *p);
/* Bytes that are fed and not yet read, at most. */
size_t parser_held(const struct redis_parser *p);
void reply_free(struct redis_reply *reply);

/* 0; of an error, what its first word, its kind, means: ERR_FULL (OOM), ERR_NOT_FOUND (NOSCRIPT),
 * ERR_BUSY (it cannot now), ERR_INVALID (any other). */
int reply_code(const struct redis_reply *reply);
