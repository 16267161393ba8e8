/* docs/jobs.md and docs/lifecycle.md have the rows of the .def files, and no others. */
#include "base/file.h"
#include "tests/lib/test.h"
#include <ctype.h>
#include <stdio.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void read_doc(const char *pathz, struct buf *b)
{
    buf_init(b, 1 << 20);
    CHECK_INT(file_read(pathz, b, NULL), 0);
}

static size_t count(const struct buf *doc, const char *partz)
{
    const char *at = doc->p;
    size_t n = 0;

    while ((at = strstr(at, partz))) {
        at += strlen(partz);
        n++;
    }
    return n;
}

static bool has_row(const struct buf *doc, const char *rowz)
{
    if (count(doc, rowz) == 1)
        return true;
    fprintf(stderr, "# not there, or twice: %s", rowz);
    return false;
}

/* "IN_RUNNING | IN_QUEUED" as "running, queued". */
static void state_set(const char *fromz, char *dst)
{
    for (; *fromz; fromz++) {
        if (strncmp(fromz, "IN_", 3) == 0)
            fromz += 3;
        if (strncmp(fromz, " | ", 3) == 0) {
            *dst++ = ',';
            fromz += 2;
        }
        *dst++ = (char)tolower((unsigned char)*fromz);
    }
    *dst = '\0';
}

static const struct {
    const char *namez;
    bool is_terminal;
    const char *meaningz;
} states[] = {
#define JOB_STATE(id, name, is_terminal, meaning) {name, is_terminal, meaning},
#include "schema/state.def"
#undef JOB_STATE
};

static const struct {
    const char *namez, *fromz, *toz, *whoz;
} events[] = {
#define JOB_EVENT(id, name, from, to, who) {name, #from, #to, who},
#include "schema/state.def"
#undef JOB_EVENT
};

static const struct {
    const char *codez;
    int http_status;
    const char *meaningz;
} reasons[] = {
#define REASON(id, code, http_status, openai_type, meaning) {code, http_status, meaning},
#include "schema/reason.def"
#undef REASON
};

TEST(lifecycle)
{
    struct buf doc;
    char row[512], from[128], to[32];
    size_t i;

    read_doc(SOURCE_DIR "/docs/lifecycle.md", &doc);
    for (i = 0; i < COUNT(states); i++) {
        snprintf(row, sizeof row, "\n| `%s` | %s | %s |\n", states[i].namez,
                 states[i].is_terminal ? "yes" : "no", states[i].meaningz);
        CHECK(has_row(&doc, row));
    }
    for (i = 0; i < COUNT(events); i++) {
        state_set(events[i].fromz, from);
        state_set(events[i].toz, to);
        snprintf(row, sizeof row, "\n| `%s` | %s | `%s` | %s |\n", events[i].namez, from, to,
                 events[i].whoz);
        CHECK(has_row(&doc, row));
    }
    for (i = 0; i < COUNT(reasons); i++) {
        snprintf(row, sizeof row, "\n| `%s` | %d | %s |\n", reasons[i].codez,
                 reasons[i].http_status, reasons[i].meaningz);
        CHECK(has_row(&doc, row));
    }
    CHECK_INT(count(&doc, "\n| `"), COUNT(states) + COUNT(events) + COUNT(reasons));
    buf_release(&doc);
}

static const struct {
    const char *namez, *typez, *docz;
} fields[] = {
#define JOB_FIELD(id, name, type, doc) {name, #type, doc},
#include "schema/job.def"
#undef JOB_FIELD
};

enum place { OPTION, TOP, NOWHERE };

static const struct {
    const char *namez, *typez, *rangez;
    double min, max;
    enum place place;
    const char *ollamaz, *docz;
} samplings[] = {
#define SAMPLING(id, name, type, min, max, place, ollama_name, doc) \
    {name, #type, #min " to " #max, min, max, place, ollama_name, doc},
#include "schema/job.def"
#undef SAMPLING
};

TEST(jobs)
{
    struct buf doc;
    char row[512], ollama[64];
    size_t i;

    read_doc(SOURCE_DIR "/docs/jobs.md", &doc);
    for (i = 0; i < COUNT(fields); i++) {
        snprintf(row, sizeof row, "\n| `%s` | %s | %s |\n", fields[i].namez, fields[i].typez,
                 fields[i].docz);
        CHECK(has_row(&doc, row));
    }
    for (i = 0; i < COUNT(samplings); i++) {
        snprintf(ollama, sizeof ollama, "`%s`%s", samplings[i].ollamaz,
                 samplings[i].place == TOP ? " (top)" : "");
        snprintf(row, sizeof row, "\n| `%s` | %s | %s | %s | %s |\n", samplings[i].namez,
                 samplings[i].typez, samplings[i].min < samplings[i].max ? samplings[i].rangez : "",
                 samplings[i].docz, samplings[i].place == NOWHERE ? "" : ollama);
        CHECK(has_row(&doc, row));
    }
    CHECK_INT(count(&doc, "\n| `"), COUNT(fields) + COUNT(samplings) + 3); /* n, webhook, … */
    buf_release(&doc);
}
