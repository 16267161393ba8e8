/* The reader of a batch run: lines to jobs to the log, never more than FILERUN_WINDOW
 * unfinished. */
#include "base/clock.h"
#include "producer/filerun_reading.h"
#include "producer/repeats.h"
#include "schema/line.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES ((size_t)256 << 10)
#define ID_HASH_BYTES 10 /* 80 bits of the digest, in hex */
#define GROUP_FIRST 64   /* lines of the first publish */
#define GROUPS_MAX 2     /* publishes on their way */
#define LOOK_MS 200      /* at a pipe, while the worker waits for its lines */

/* ---- lines to jobs ---- */

static int make_id(struct reading *r, const uint8_t digest[SHA256_LEN], char dst[ID_MAX + 1],
                   struct err *e)
{
    uint64_t key;
    int64_t n;
    char text[2 * ID_HASH_BYTES + 1];

    memcpy(&key, digest, sizeof key);
    n = repeats_next(r->repeats, key >> 1, e);
    if (n < 0)
        return (int)n;
    hex(digest, ID_HASH_BYTES, text);
    if (n == 0)
        memcpy(dst, text, sizeof text);
    else
        snprintf(dst, ID_MAX + 1, "%s-%lld", text, (long long)n);
    return 0;
}

/* When the lines of an earlier run's output have passed, the writer learns whether it may go on. */
static void check_start(struct reading *r, bool is_end)
{
    struct filerun *f = r->run;

    if (r->is_checked || (r->line < f->resume.n_lines && !is_end))
        return;
    r->is_checked = true;
    if (r->line == f->resume.n_lines && memcmp(r->digest, f->resume.digest, SHA256_LEN) == 0)
        f->start = f->resume; /* else from the beginning: start is zero */
}

static void count_line(struct reading *r, struct str id, struct str job)
{
    if (!r->is_checked)
        mark_digest_add(r->digest, filerun_base_id(id), job);
    r->line++;
    check_start(r, false);
}

static void refused_digest(struct str message, struct str line, uint8_t digest[SHA256_LEN])
{
    uint8_t both[2 * SHA256_LEN];

    sha256(message, both);
    sha256(line, both + SHA256_LEN);
    sha256(str_of(both, sizeof both), digest);
}

/* A line that is no job ends at once, as a failed one with the place and the reason. */
static int take_bad_line(struct reading *r, struct str line, int reason, const struct err *why)
{
    struct filerun *f = r->run;
    struct job_defaults d = {.model = STR("-"),
                             .tenant = str_z(f->options.tenantz),
                             .batch_id = STR(BATCH_ID),
                             .batch_line = r->line,
                             .wall_ms = clock_wall_ms()};
    uint8_t digest[SHA256_LEN];
    char id[ID_MAX + 1], message[700];
    struct job j;
    struct err e;

    snprintf(message, sizeof message, "%s:%lld: %s",
             strcmp(f->options.inz, "-") == 0 ? "stdin" : f->options.inz, (long long)r->file_line,
             why->msg);
    /* The place is part of the id: the same line elsewhere has another message. */
    refused_digest(str_z(message), line, digest);
    if (make_id(r, digest, id, &e) < 0 ||
        job_parse(&j, STR("{\"prompt\":\"\"}"), false, NULL, &e) < 0) {
        filerun_fail(f, &e);
        return e.code;
    }
    d.id = str_z(id);
    job_complete(&j, &d, &e);
    count_line(r, str_z(id), STR_NONE);
    return groups_refuse(r, r->filling, &j, reason, message);
}

/* Fills in what the run decides; the line itself may say it only if it agrees. */
static int complete(struct reading *r, struct job *j, char id[ID_MAX + 1], struct err *e)
{
    struct filerun *f = r->run;
    struct job_defaults d = {.model = str_z(f->options.modelz),
                             .tenant = str_z(f->options.tenantz),
                             .batch_id = STR(BATCH_ID),
                             .batch_line = r->line,
                             .wall_ms = clock_wall_ms()};
    const struct config_model *m;

    if (j->tenant.p && !str_eq(j->tenant, d.tenant))
        return err_set(e, ERR_INVALID, "tenant: a batch has one tenant, '%s' (see --tenant)",
                       f->options.tenantz);
    if (j->batch_id.p)
        return err_set(e, ERR_INVALID, "batch_id: the lines of a batch run have the run's own");
    if (!j->model.p && !d.model.p)
        return err_set(e, ERR_INVALID, "model is missing (give it in the line, or --model)");
    m = config_model(f->embedded->gateway.config, j->model.p ? j->model : d.model);
    d.queue = m ? str_z(m->queue) : STR_NONE;
    if (j->id.p)
        return job_complete(j, &d, e);
    j->id = STR("-"); /* of no matter to the digest */
    if (job_complete(j, &d, e) < 0)
        return e->code;
    job_keep_digest(j);
    j->id = STR_NONE;
    if (make_id(r, j->digest, id, e) < 0)
        return e->code;
    d.id = str_z(id);
    return job_complete(j, &d, e);
}

static int take_line(struct reading *r, struct str line)
{
    int64_t max_bytes = r->run->embedded->gateway.config->limits_body_bytes;
    struct job j;
    struct err e;
    char id[ID_MAX + 1];
    struct str given;
    int rc;

    if (!r->filling)
        r->filling = groups_new(r, r->line);
    if (line.n > (size_t)max_bytes) {
        err_set(&e, ERR_TOO_LARGE, "the line is longer than limits.body_bytes (%lld)",
                (long long)max_bytes);
        return take_bad_line(r, line, REASON_TOO_LARGE, &e);
    }
    if (line_parse(&j, line, NULL, &e) < 0)
        return take_bad_line(r, line, REASON_INVALID_REQUEST, &e);
    rc = complete(r, &j, id, &e);
    given = j.id;
    if (rc == 0) {
        char copy[ID_MAX + 1];

        str_copyz(copy, sizeof copy, given);
        rc = submission_add(r->filling->submission, &r->run->embedded->gateway, &j, &e);
        if (rc == 0) {
            const struct submission *s = r->filling->submission;
            uint8_t digest[SHA256_LEN];

            if (!r->is_checked)
                job_digest(&s->jobs[s->n - 1], digest);
            count_line(r, str_z(copy), str_of(digest, sizeof digest));
            return 0;
        }
    }
    job_release(&j);
    if (rc == ERR_INVALID)
        return take_bad_line(r, line, REASON_INVALID_REQUEST, &e);
    filerun_fail(r->run, &e);
    return rc;
}

static bool is_blank(struct str line)
{
    for (size_t i = 0; i < line.n; i++) {
        if (line.p[i] != ' ' && line.p[i] != '\t' && line.p[i] != '\r')
            return false;
    }
    return true;
}

static int handle_line(struct reading *r, struct str line)
{
    int rc = 0;

    r->file_line++;
    if (r->file_line == 1 && str_starts(line, STR("\xEF\xBB\xBF")))
        line.p += 3, line.n -= 3;
    if (is_blank(line))
        return 0;
    rc = take_line(r, line);
    if (rc == 0 && r->filling->submission->n >= r->group_lines) {
        rc = groups_flush(r);
        r->group_lines = 2 * r->group_lines < r->group_max ? 2 * r->group_lines : r->group_max;
    }
    if (rc == 0 && r->line % FILERUN_GROUP == 0)
        rc = groups_wait(r, GROUPS_MAX, FILERUN_WINDOW);
    return rc;
}

/* ---- bytes to lines ---- */

/* The rest of a line that is too long to be held. */
static int take_long_line(struct reading *r)
{
    r->file_line++;
    r->skips_long = true;
    return take_line(r, str_of(r->text.p, r->text.n));
}

/* Handles the whole lines that are there. */
static int take_lines(struct reading *r)
{
    int rc = 0;

    while (rc == 0 && r->at < r->text.n) {
        const char *start = r->text.p + r->at;
        const char *end = memchr(start, '\n', r->text.n - r->at);

        if (!end && !r->is_at_end)
            break;
        size_t n = end ? (size_t)(end - start) : r->text.n - r->at;
        if (r->skips_long)
            r->skips_long = false;
        else
            rc = handle_line(r, str_of(start, n));
        r->at += n + (end ? 1 : 0);
    }
    buf_eat(&r->text, r->at);
    r->at = 0;
    if (rc == 0 && r->skips_long)
        buf_clear(&r->text);
    else if (rc == 0 && r->text.n + CHUNK_BYTES > r->text.max) {
        rc = take_long_line(r);
        buf_clear(&r->text);
    }
    return rc;
}

/* A slow pipe must not hold back the lines that have come. */
static bool has_input(const struct reading *r)
{
    struct pollfd p = {.fd = r->fd, .events = POLLIN};

    return r->is_regular || poll(&p, 1, 0) != 0;
}

/* Sleeps until there are bytes, or something else changed. True: bytes, or their end. */
static bool poll_input(struct reading *r)
{
    struct filerun *f = r->run;
    struct pollfd p[] = {{.fd = r->fd, .events = POLLIN}, {.fd = f->wake_fd, .events = POLLIN}};
    uint64_t n_wakes;
    bool has_news;

    pthread_mutex_lock(&f->lock);
    has_news = f->n_wakes != r->seen;
    f->is_polling = !has_news;
    pthread_mutex_unlock(&f->lock);
    poll(p, 2, has_news ? 0 : r->leftovers.is_decided ? -1 : LOOK_MS);
    pthread_mutex_lock(&f->lock);
    r->seen = f->n_wakes;
    f->is_polling = false;
    while (read(f->wake_fd, &n_wakes, sizeof n_wakes) > 0)
        ;
    pthread_mutex_unlock(&f->lock);
    return p[0].revents != 0;
}

/* Waits for bytes, but not past a stop. */
static int wait_for_input(struct reading *r)
{
    bool stops_reading = false, has_bytes = r->is_regular;
    int rc;

    while (!has_bytes && !stops_reading) {
        has_bytes = poll_input(r);
        rc = groups_take_acks(r);
        if (rc == 0 && !has_bytes && clock_mono_ms() >= r->leftovers.patience_ms)
            rc = leftovers_decide(r);
        if (rc < 0)
            return rc;
        pthread_mutex_lock(&r->run->lock);
        stops_reading = r->run->stops_reading;
        pthread_mutex_unlock(&r->run->lock);
    }
    return stops_reading ? ERR_CLOSED : 0;
}

static int read_some(struct reading *r)
{
    char *room;
    ssize_t n;
    int rc;

    if (!has_input(r) && (rc = groups_flush(r)) < 0)
        return rc;
    if ((rc = wait_for_input(r)) < 0)
        return rc;
    room = buf_reserve(&r->text, CHUNK_BYTES);
    n = read(r->fd, room, CHUNK_BYTES);
    if (n < 0 && errno == EINTR)
        return 0;
    if (n < 0) {
        struct err e;

        err_set(&e, ERR_IO, "%s: %s", r->run->options.inz, strerror(errno));
        filerun_fail(r->run, &e);
        return ERR_IO;
    }
    r->text.n += (size_t)n;
    r->is_at_end = n == 0;
    return take_lines(r);
}

/* Lines of a regular file, for the progress bar. */
static int64_t count_lines(int fd)
{
    char *buffer = xmalloc(CHUNK_BYTES);
    int64_t n_lines = 0, at = 0;
    bool has_text = false;
    ssize_t n;

    for (; (n = pread(fd, buffer, CHUNK_BYTES, at)) > 0; at += n) {
        const char *p = buffer, *end = buffer + n, *newline;

        for (; p < end; p = newline + 1) {
            newline = memchr(p, '\n', (size_t)(end - p));
            has_text = has_text || !is_blank(str_of(p, (size_t)((newline ? newline : end) - p)));
            if (!newline)
                break;
            n_lines += has_text;
            has_text = false;
        }
    }
    free(buffer);
    return n_lines + has_text;
}

static int open_input(struct reading *r, struct err *e)
{
    const char *inz = r->run->options.inz;
    struct stat st;

    r->fd = strcmp(inz, "-") == 0 ? STDIN_FILENO : open(inz, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0)
        return err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%s: %s", inz, strerror(errno));
    r->is_regular = fstat(r->fd, &st) == 0 && S_ISREG(st.st_mode);
    if (r->is_regular) {
        int64_t n_total = count_lines(r->fd);

        pthread_mutex_lock(&r->run->lock);
        r->run->counts.n_total = n_total;
        pthread_mutex_unlock(&r->run->lock);
    }
    return 0;
}

bool filerun_wait_for_room(struct filerun *f)
{
    uint64_t seen = 0;
    bool stops_reading;

    filerun_note(f, FILERUN_READER, "the disk is full: waiting for room");
    pthread_mutex_lock(&f->lock);
    seen = f->n_wakes;
    if (!f->stops_reading)
        filerun_wait_locked(f, &seen, FILERUN_FULL_WAIT_MS);
    stops_reading = f->stops_reading;
    pthread_mutex_unlock(&f->lock);
    return !stops_reading;
}

/* On a full disk waits for room, as for lines. */
static int make_batch(struct filerun *f)
{
    int rc;

    while ((rc = filerun_create_batch(f)) == ERR_FULL) {
        if (!filerun_wait_for_room(f))
            return ERR_CLOSED;
    }
    if (rc < 0)
        filerun_fail_log(f, rc);
    return rc;
}

static int read_all(struct reading *r)
{
    struct err e;
    int rc = make_batch(r->run);

    if (rc < 0)
        return rc;
    if (leftovers_load(r, &e) < 0) {
        filerun_fail(r->run, &e);
        return e.code;
    }
    check_start(r, false);
    groups_publish_ready(r);
    while (rc == 0 && !r->is_at_end)
        rc = read_some(r);
    if (rc == 0)
        rc = groups_flush(r);
    if (rc == 0)
        rc = groups_wait(r, 0, INT64_MAX);
    if (rc == 0)
        rc = leftovers_decide(r);
    if (rc == 0) {
        struct filerun *f = r->run;

        check_start(r, true);
        groups_publish_ready(r);
        pthread_mutex_lock(&f->lock);
        f->is_read = true;
        f->counts.n_total = r->line;
        pthread_mutex_unlock(&f->lock);
        filerun_wake(f);
    }
    return rc;
}

void *filerun_read(void *run)
{
    struct filerun *f = run;
    const struct config *config = f->embedded->gateway.config;
    struct reading r = {.run = f, .fd = -1, .group_max = FILERUN_GROUP};
    struct err e;

    if (config->limits_queued_jobs < FILERUN_GROUP)
        r.group_max = (size_t)config->limits_queued_jobs;
    r.group_lines = r.group_max < GROUP_FIRST ? r.group_max : GROUP_FIRST;
    list_init(&r.open);
    mark_digest_init(r.digest);
    buf_init(&r.text, (size_t)config->limits_body_bytes + 2 * CHUNK_BYTES);
    r.repeats = repeats_new(&e);
    if (!r.repeats || open_input(&r, &e) < 0)
        filerun_fail(f, &e);
    else
        read_all(&r);
    groups_drop(&r);
    leftovers_release(&r);
    if (r.repeats)
        repeats_free(r.repeats);
    if (r.fd > STDIN_FILENO)
        close(r.fd);
    buf_release(&r.text);
    return NULL;
}
