/* The writer of a batch run: results in input order, synced, with a mark of how far. */
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "producer/filerun_internal.h"
#include "schema/line.h"
#include "store/reader.h"
#include "store/value.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE_LINES 256
#define OUT_BYTES ((size_t)128 << 10) /* written when this much is gathered */
#define SYNC_MS 1000
/* A wake for each few results would cost more than writing them. */
#define GATHER_MS 20

struct writing {
    struct filerun *run;
    struct reader *reader;
    int fd;
    bool is_regular;
    struct buf out;    /* gathered, not written */
    struct mark mark;  /* end: with what is in `out` */
    int64_t synced_at; /* mono ms */
    bool is_dirty;
    struct err *err;
};

static void mark_path(const struct filerun *f, char *dst, size_t room)
{
    snprintf(dst, room, "%s/mark", f->options.statez);
}

int filerun_load_mark(struct filerun *f, struct err *e)
{
    const char *outz = f->options.outz;
    char path[4200];
    struct mark m;
    struct stat st;
    bool is_there = strcmp(outz, "-") != 0 && stat(outz, &st) == 0;

    mark_path(f, path, sizeof path);
    mark_load(&m, path);
    f->resume = m.has_failed ? m.failed : m.end;
    if (!is_there || !S_ISREG(st.st_mode) || st.st_size < f->resume.n_bytes)
        memset(&f->resume, 0, sizeof f->resume);
    if (is_there && S_ISREG(st.st_mode) && st.st_size > 0 && access(path, F_OK) < 0)
        return err_set(e, ERR_EXISTS,
                       "%s is there, but not from an earlier run of this command: remove it, or "
                       "say --fresh to write over it",
                       outz);
    return mark_save(&m, path, e);
}

static int fail_errno(struct writing *w, const char *doing)
{
    int code = errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? ERR_FULL : ERR_IO;

    return err_set(w->err, code, "%s %s: %s", doing, w->run->options.outz, strerror(errno));
}

/* Pauses while the output's disk is full. False: the run is being stopped. */
static bool wait_for_space(struct writing *w)
{
    struct filerun *f = w->run;
    uint64_t seen;
    bool is_stopping;

    filerun_note(f, FILERUN_WRITER, "the output's disk is full: waiting for room");
    pthread_mutex_lock(&f->lock);
    seen = f->n_wakes;
    filerun_wait_locked(f, &seen, 500);
    is_stopping = f->is_stopping;
    pthread_mutex_unlock(&f->lock);
    filerun_note(f, FILERUN_WRITER, NULL);
    return !is_stopping;
}

/* Writes what is gathered; a full disk is waited for, as the log does. */
static int write_out(struct writing *w)
{
    while (w->out.n > 0) {
        ssize_t n = write(w->fd, w->out.p, w->out.n);

        if (n >= 0)
            buf_eat(&w->out, (size_t)n);
        else if (errno != EINTR &&
                 (fail_errno(w, "cannot write") != ERR_FULL || !wait_for_space(w)))
            return w->err->code;
    }
    return 0;
}

static int sync_out(struct writing *w)
{
    char path[4200];

    if (write_out(w) < 0)
        return w->err->code;
    w->synced_at = clock_mono_ms();
    if (!w->is_dirty || !w->is_regular)
        return 0;
    mark_path(w->run, path, sizeof path);
    if (fdatasync(w->fd) < 0)
        return fail_errno(w, "cannot sync");
    if (mark_save(&w->mark, path, w->err) < 0)
        return w->err->code;
    w->is_dirty = false;
    return 0;
}

/* The last time: also the mark waits for room. */
static int sync_all(struct writing *w)
{
    int rc;

    do {
        rc = sync_out(w);
    } while (rc == ERR_FULL && wait_for_space(w));
    return rc;
}

/* Found at once where the record ends as completion_write leaves that of a job without a key. */
static bool says_line(struct str view, int64_t line)
{
    char end[64];
    size_t n =
        (size_t)snprintf(end, sizeof end, ",\"batch_line\":%lld,\"key_id\":null}", (long long)line);

    return view.n > n && memcmp(view.p + view.n - n, end, n) == 0;
}

/* The job of a line that stood elsewhere in an earlier run's input knows that place: the output
 * says this one. */
static int put_result(struct buf *out, const struct result_line *l)
{
    static const struct str names[] = {STR_INIT("batch_line")};
    struct str raw;
    size_t at;

    if (l->form != LINE_JOB || says_line(l->view, l->line))
        return line_write_result(l->form, l->view, out);
    value_find(l->view, names, 1, &raw);
    if (raw.n == 0 || value_int(raw) == l->line)
        return line_write_result(l->form, l->view, out);
    at = (size_t)(raw.p - l->view.p);
    buf_add(out, l->view.p, at);
    buf_addf(out, "%lld", (long long)l->line);
    return buf_add(out, raw.p + raw.n, l->view.n - at - raw.n);
}

/* The message of a job's error. */
static void tell_why(struct str view, char *dst, size_t room)
{
    struct json *job = json_parse(view, NULL);

    str_copyz(dst, room, json_str(json_get(json_get(job, "error"), "message")));
    dst[str_utf8_bad(str_z(dst))] = '\0'; /* it may have been cut in a character */
    json_free(job);
}

static int on_line(void *data, const struct result_line *l)
{
    struct writing *w = data;
    struct mark *m = &w->mark;
    size_t had = w->out.n;

    if (l->state != STATE_SUCCEEDED && !m->has_failed) {
        m->has_failed = true;
        m->failed = m->end;
    }
    if (put_result(&w->out, l) < 0 || buf_addc(&w->out, '\n') < 0)
        return err_set(w->err, ERR_TOO_LARGE, "a result is too large");
    m->end.n_lines = l->line + 1;
    m->end.n_bytes += (int64_t)(w->out.n - had);
    mark_digest_add(m->end.digest, filerun_base_id(l->id), l->digest);
    w->is_dirty = true;
    pthread_mutex_lock(&w->run->lock);
    w->run->counts.n_written = m->end.n_lines;
    if (l->state != STATE_SUCCEEDED && w->run->counts.n_bad++ == 0)
        tell_why(l->view, w->run->counts.first_bad, sizeof w->run->counts.first_bad);
    pthread_mutex_unlock(&w->run->lock);
    return w->out.n >= OUT_BYTES ? write_out(w) : 0;
}

/* Writes a page of the lines that are ready, up to `ready`. Gives how many. */
static int write_ready(struct writing *w, int64_t ready)
{
    int64_t at = w->mark.end.n_lines, room = ready - at, next;
    int limit = room < PAGE_LINES ? (int)room : PAGE_LINES;
    bool is_end;

    if (room <= 0)
        return 0;
    return reader_results(w->reader, str_z(w->run->options.tenantz), STR(BATCH_ID), at, limit,
                          false, on_line, w, &next, &is_end, w->err);
}

/* Before the output is cut: what it says may no longer be true then, so it waits for room. */
static int take_mark_back(struct writing *w)
{
    char path[4200];
    int rc;

    mark_path(w->run, path, sizeof path);
    do {
        rc = mark_save(&w->mark, path, w->err);
    } while (rc == ERR_FULL && wait_for_space(w));
    return rc;
}

static int open_output(struct writing *w)
{
    struct filerun *f = w->run;
    struct stat st;

    w->mark.end = f->start;
    pthread_mutex_lock(&f->lock);
    f->counts.n_written = f->start.n_lines;
    pthread_mutex_unlock(&f->lock);
    w->fd = strcmp(f->options.outz, "-") == 0
                ? STDOUT_FILENO
                : open(f->options.outz, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (w->fd < 0)
        return fail_errno(w, "cannot open");
    w->is_regular = w->fd != STDOUT_FILENO && fstat(w->fd, &st) == 0 && S_ISREG(st.st_mode);
    if (!w->is_regular)
        return 0;
    if (file_sync_name(f->options.outz, w->err) < 0)
        return w->err->code;
    w->is_dirty = true;
    if ((f->start.n_bytes < f->resume.n_bytes || f->start.n_lines == 0) && take_mark_back(w) < 0)
        return w->err->code;
    if (ftruncate(w->fd, f->start.n_bytes) < 0 || lseek(w->fd, f->start.n_bytes, SEEK_SET) < 0)
        return fail_errno(w, "cannot cut");
    return 0;
}

/* Waits for the reader's word on where the output goes on. False: stopped before. */
static bool wait_for_start(struct filerun *f)
{
    bool is_checked;

    pthread_mutex_lock(&f->lock);
    while (!f->is_checked && !f->is_stopping && !f->is_ended)
        pthread_cond_wait(&f->changed, &f->lock);
    is_checked = f->is_checked;
    pthread_mutex_unlock(&f->lock);
    return is_checked;
}

/* Lets a few more results come, unless these were the last. */
static void gather_locked(struct filerun *f)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += GATHER_MS * 1000000L;
    if (until.tv_nsec >= 1000000000)
        until.tv_sec++, until.tv_nsec -= 1000000000;
    while (!f->is_stopping && !f->is_read) {
        if (pthread_cond_timedwait(&f->changed, &f->lock, &until) == ETIMEDOUT)
            break;
    }
}

static int write_all(struct writing *w)
{
    struct filerun *f = w->run;
    uint64_t seen = 0;

    for (;;) {
        int64_t ready;
        bool is_last, is_stopping;
        int rc, synced;

        pthread_mutex_lock(&f->lock);
        seen = f->n_wakes;
        ready = f->n_ready;
        is_last = f->is_read && w->mark.end.n_lines >= ready;
        is_stopping = f->is_stopping;
        pthread_mutex_unlock(&f->lock);
        if (is_last)
            return sync_all(w);
        rc = write_ready(w, ready);
        if (rc < 0)
            return rc;
        if (rc == 0 && is_stopping)
            return sync_out(w);
        if (clock_mono_ms() - w->synced_at >= SYNC_MS && (synced = sync_out(w)) < 0 &&
            synced != ERR_FULL)
            return synced;
        if (rc == PAGE_LINES)
            continue;
        if (!w->is_regular && write_out(w) < 0)
            return w->err->code;
        pthread_mutex_lock(&f->lock);
        if (rc > 0)
            gather_locked(f);
        else if (f->n_wakes == seen)
            filerun_wait_locked(f, &seen, w->is_dirty ? SYNC_MS : 60000);
        pthread_mutex_unlock(&f->lock);
    }
}

void *filerun_write(void *run)
{
    struct filerun *f = run;
    struct err e = {0};
    struct writing w = {.run = f, .fd = -1, .err = &e};
    int rc;

    if (!wait_for_start(f))
        return NULL;
    buf_init(&w.out, (size_t)1 << 31);
    w.synced_at = clock_mono_ms();
    w.reader = reader_open(f->embedded->gateway.config->data, NULL, &e);
    rc = w.reader ? open_output(&w) : e.code;
    if (rc == 0)
        rc = write_all(&w);
    if (rc < 0)
        filerun_fail(f, &e);
    if (w.fd > STDOUT_FILENO)
        close(w.fd);
    if (w.reader)
        reader_close(w.reader);
    buf_release(&w.out);
    return NULL;
}
