#include "schema/foreign.h"
#include "base/buf.h"

enum { TEXT_MAX_BYTES = 1024 };

void foreign_id(const struct record *r, const char *topicz, char dst[FOREIGN_ID_LEN + 1])
{
    uint8_t digest[SHA256_LEN];
    struct buf b;

    buf_init(&b, TEXT_MAX_BYTES);
    buf_addf(&b, "%s/%d/%lld/%lld", topicz, r->at.partition, (long long)r->at.offset,
             (long long)r->ts_ms);
    sha256(buf_str(&b), digest);
    buf_release(&b);
    dst[0] = 'k';
    hex(digest, (FOREIGN_ID_LEN - 1) / 2, dst + 1);
}

int foreign_complete(struct job *j, const struct record *r, const char *topicz, struct str queue,
                     enum priority priority, struct err *e)
{
    char id[FOREIGN_ID_LEN + 1];
    struct job_defaults d = {
        .tenant = r->headers[HEADER_TENANT], .queue = queue, .batch_line = -1, .wall_ms = r->ts_ms};

    if (!j->id.p) {
        foreign_id(r, topicz, id);
        d.id = str_of(id, FOREIGN_ID_LEN);
    }
    if (d.tenant.p && !id_is_valid(d.tenant))
        return err_set(e, ERR_INVALID, "the header genq_tenant is no tenant's name");
    if (priority != PRIORITY_COUNT_) {
        j->priority = priority;
        j->queue = queue;
    }
    return job_complete(j, &d, e);
}
