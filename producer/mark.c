#include "producer/mark.h"
#include "base/file.h"
#include "base/id.h"
#include "base/json.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define FILE_MAX_BYTES 4096

void mark_digest_init(uint8_t digest[SHA256_LEN])
{
    memset(digest, 0, SHA256_LEN);
}

void mark_digest_add(uint8_t digest[SHA256_LEN], struct str id, struct str job)
{
    uint8_t all[2 * SHA256_LEN + ID_MAX] = {0};
    size_t n = id.n < ID_MAX ? id.n : ID_MAX;

    memcpy(all, digest, SHA256_LEN);
    if (job.n)
        memcpy(all + SHA256_LEN, job.p, job.n < SHA256_LEN ? job.n : SHA256_LEN);
    memcpy(all + 2 * SHA256_LEN, id.p, n);
    sha256(str_of(all, 2 * SHA256_LEN + n), digest);
}

static bool read_point(const struct json *j, struct mark_point *p)
{
    return json_int(json_get(j, "lines"), &p->n_lines) && p->n_lines >= 0 &&
           json_int(json_get(j, "bytes"), &p->n_bytes) && p->n_bytes >= 0 &&
           unhex(json_str(json_get(j, "digest")), p->digest, SHA256_LEN);
}

void mark_load(struct mark *m, const char *pathz)
{
    struct buf b;
    struct json *j = NULL;
    struct err e;

    memset(m, 0, sizeof *m);
    buf_init(&b, FILE_MAX_BYTES);
    if (file_read(pathz, &b, &e) == 0)
        j = json_parse(buf_str(&b), &e);
    if (j && read_point(json_get(j, "end"), &m->end))
        m->has_failed = read_point(json_get(j, "failed"), &m->failed);
    else
        memset(m, 0, sizeof *m);
    json_free(j);
    buf_release(&b);
}

static void write_point(struct buf *b, const char *namez, const struct mark_point *p)
{
    char digest[2 * SHA256_LEN + 1];

    hex(p->digest, SHA256_LEN, digest);
    json_put_name(b, namez);
    buf_addf(b, "{\"lines\":%lld,\"bytes\":%lld,\"digest\":\"%s\"}", (long long)p->n_lines,
             (long long)p->n_bytes, digest);
}

static int write_file(const char *pathz, struct str text)
{
    int fd = open(pathz, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int rc = -1;

    if (fd < 0)
        return -1;
    if (file_write_all(fd, text.p, text.n) == 0 && fsync(fd) == 0)
        rc = 0;
    if (close(fd) < 0)
        rc = -1;
    return rc;
}

int mark_save(const struct mark *m, const char *pathz, struct err *e)
{
    char temporary[4200];
    struct buf b;
    int rc = 0;

    buf_init(&b, FILE_MAX_BYTES);
    buf_addc(&b, '{');
    write_point(&b, "end", &m->end);
    if (m->has_failed) {
        buf_addc(&b, ',');
        write_point(&b, "failed", &m->failed);
    }
    buf_addz(&b, "}\n");
    snprintf(temporary, sizeof temporary, "%s.new", pathz);
    if (write_file(temporary, buf_str(&b)) < 0 || rename(temporary, pathz) < 0)
        rc = err_set(e, errno == ENOSPC || errno == EDQUOT ? ERR_FULL : ERR_IO, "%s: %s", pathz,
                     strerror(errno));
    else
        rc = file_sync_name(pathz, e);
    buf_release(&b);
    return rc;
}
