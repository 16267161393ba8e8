#include "base/err.h"
#include "base/str.h"
#include <stdarg.h>
#include <stdio.h>

static bool is_retriable(int code)
{
    return code == ERR_FULL || code == ERR_TIMEOUT || code == ERR_CLOSED || code == ERR_BUSY ||
           code == ERR_UNREACHABLE;
}

/* Messages quote input of any kind, and may have been cut in a character. */
static void make_one_utf8_line(char *msgz)
{
    struct str s = str_z(msgz);
    size_t i;

    for (i = str_utf8_bad(s); i < s.n; i += str_utf8_bad(str_of(msgz + i, s.n - i)))
        msgz[i++] = '?';
    for (i = 0; i < s.n; i++)
        if ((unsigned char)msgz[i] < 0x20 || msgz[i] == 0x7F)
            msgz[i] = ' ';
}

int err_set(struct err *e, int code, const char *fmtz, ...)
{
    char msg[sizeof e->msg]; /* the arguments may point into e->msg */
    va_list args;

    if (!e)
        return code;
    va_start(args, fmtz);
    vsnprintf(msg, sizeof msg, fmtz, args);
    va_end(args);
    make_one_utf8_line(msg);
    e->code = code;
    e->is_retriable = is_retriable(code);
    str_copyz(e->msg, sizeof e->msg, str_z(msg));
    return code;
}

int err_prefix(struct err *e, const char *fmtz, ...)
{
    char msg[sizeof e->msg];
    va_list args;
    size_t n;

    va_start(args, fmtz);
    vsnprintf(msg, sizeof msg, fmtz, args);
    va_end(args);
    n = strlen(msg);
    str_copyz(msg + n, sizeof msg - n, STR(": "));
    n = strlen(msg);
    str_copyz(msg + n, sizeof msg - n, str_z(e->msg));
    make_one_utf8_line(msg);
    str_copyz(e->msg, sizeof e->msg, str_z(msg));
    return e->code;
}
