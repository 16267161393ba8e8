#include "base/redis_reply.h"
#include <hiredis/hiredis.h>
#include <stdlib.h>

static redisReader *reader_of(const struct redis_parser *p)
{
    return (redisReader *)(uintptr_t)p;
}

static const redisReply *reply_of(const struct redis_reply *reply)
{
    return (const redisReply *)(const void *)reply;
}

struct redis_parser *parser_new(void)
{
    redisReader *reader = redisReaderCreate();

    if (!reader)
        abort();
    return (struct redis_parser *)(void *)reader;
}

void parser_free(struct redis_parser *p)
{
    redisReaderFree(reader_of(p));
}

void parser_feed(struct redis_parser *p, const char *bytes, size_t n)
{
    redisReaderFeed(reader_of(p), bytes, n);
}

int parser_next(struct redis_parser *p, struct redis_reply **reply)
{
    void *own = NULL;

    if (redisReaderGetReply(reader_of(p), &own) != REDIS_OK)
        return ERR_CORRUPT;
    *reply = own;
    return own != NULL;
}

const char *parser_why(const struct redis_parser *p)
{
    return reader_of(p)->errstr;
}

size_t parser_held(const struct redis_parser *p)
{
    return reader_of(p)->len;
}

void reply_free(struct redis_reply *reply)
{
    freeReplyObject(reply);
}

/* The first word of an error is its kind, and part of the protocol. (Up to Redis 6, a command that
 * fails in a script has its own error inside the script's.) */
int reply_code(const struct redis_reply *reply)
{
    static const struct {
        const char *wordz;
        int code;
    } kinds[] = {
        {"OOM ", ERR_FULL},         {"NOSCRIPT ", ERR_NOT_FOUND}, {"READONLY ", ERR_BUSY},
        {"LOADING ", ERR_BUSY},     {"BUSY ", ERR_BUSY},          {"MISCONF ", ERR_BUSY},
        {"MASTERDOWN ", ERR_BUSY},  {"TRYAGAIN ", ERR_BUSY},      {"NOREPLICAS ", ERR_BUSY},
        {"CLUSTERDOWN ", ERR_BUSY},
    };
    struct str text = redis_text(reply);
    bool is_scripts;
    size_t i;

    if (reply_of(reply)->type != REDIS_REPLY_ERROR)
        return 0;
    is_scripts = str_starts(text, STR("ERR Error running script"));
    for (i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (str_starts(text, str_z(kinds[i].wordz)) ||
            (is_scripts && strstr(text.p, kinds[i].wordz)))
            return kinds[i].code;
    return ERR_INVALID;
}

struct str redis_text(const struct redis_reply *reply)
{
    const redisReply *own = reply_of(reply);

    if (!own || (own->type != REDIS_REPLY_STRING && own->type != REDIS_REPLY_STATUS &&
                 own->type != REDIS_REPLY_ERROR))
        return STR_NONE;
    return str_of(own->str, own->len);
}

int64_t redis_int(const struct redis_reply *reply)
{
    const redisReply *own = reply_of(reply);

    return own && own->type == REDIS_REPLY_INTEGER ? own->integer : 0;
}

size_t redis_count(const struct redis_reply *reply)
{
    const redisReply *own = reply_of(reply);

    return own && own->type == REDIS_REPLY_ARRAY ? own->elements : 0;
}

const struct redis_reply *redis_item(const struct redis_reply *reply, size_t i)
{
    if (i >= redis_count(reply))
        return NULL;
    return (const struct redis_reply *)(const void *)reply_of(reply)->element[i];
}
