/* Structured log on stderr: an event name and named fields, one line each; JSON
 * ({"ts":"…","level":"info","event":"finish","id":"…"}) or, for terminals, text. Any thread. Ids
 * always, prompts and keys never.
 *
 *     log_info("finish", LS("id", id), LI("ms", ms));
 */
#pragma once
#include "base/str.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_JSON, LOG_TEXT };

struct log_field {
    const char *namez;
    struct str s; /* used when is_int is false */
    int64_t i;
    bool is_int;
};

#define LS(namez, str_) ((struct log_field){(namez), (str_), 0, false})
#define LZ(namez, z) ((struct log_field){(namez), str_z(z), 0, false})
#define LI(namez, int_) ((struct log_field){(namez), STR_NONE, (int64_t)(int_), true})

/* Level and format of the process (relaxed atomics). Default: LOG_INFO, LOG_TEXT. */
void log_setup(enum log_level level, enum log_format format);
bool log_is_on(enum log_level level);
/* One line, one write(2). */
void log_event(enum log_level level, const char *eventz, const struct log_field *fields, size_t n);

#define log_at(level, eventz, ...)                                                                 \
    do {                                                                                           \
        if (log_is_on(level)) {                                                                    \
            const struct log_field log_f_[] = {__VA_ARGS__};                                       \
            log_event((level), (eventz), log_f_, sizeof log_f_ / sizeof log_f_[0]);                \
        }                                                                                          \
    } while (0)
#define log_debug(eventz, ...) log_at(LOG_DEBUG, eventz, __VA_ARGS__)
#define log_info(eventz, ...) log_at(LOG_INFO, eventz, __VA_ARGS__)
#define log_warn(eventz, ...) log_at(LOG_WARN, eventz, __VA_ARGS__)
#define log_error(eventz, ...) log_at(LOG_ERROR, eventz, __VA_ARGS__)
