/* What went wrong, told to the caller. Fallible functions return 0 or a negative `enum err_code` and
 * fill the caller's struct err, which is untouched on success. What an error means to a client (HTTP
 * status, code, exit code) is schema/reason.def's business, not this file's. */
#pragma once
#include <stdbool.h>

enum err_code {
    ERR_NONE = 0,
    ERR_INVALID = -1,     /* the input is wrong; will not get better */
    ERR_NOT_FOUND = -2,
    ERR_EXISTS = -3,      /* the same thing is there already (a repeat) */
    ERR_CONFLICT = -4,    /* another thing of that name is there */
    ERR_TOO_LARGE = -5,   /* past a ceiling */
    ERR_FULL = -6,        /* a queue or the disk has no room now; try later */
    ERR_TIMEOUT = -7,
    ERR_CLOSED = -8,      /* the other side, or we, went away */
    ERR_IO = -9,          /* the operating system said no */
    ERR_CORRUPT = -10,    /* stored bytes are not what we wrote */
    ERR_BUSY = -11,       /* somebody else holds it */
    ERR_UNREACHABLE = -12, /* no connection */
    ERR_INTERNAL = -13,
};

struct err {
    int code;
    bool is_retriable;
    char msg[488]; /* one line, NUL-terminated, UTF-8, for people */
};

/* Fills *e (NULL allowed) and returns `code`. is_retriable is true for FULL, TIMEOUT, CLOSED, BUSY,
 * UNREACHABLE. */
int err_set(struct err *e, int code, const char *fmtz, ...) __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the message of an error already set; returns e->code. */
int err_prefix(struct err *e, const char *fmtz, ...) __attribute__((format(printf, 2, 3)));
