/* GET /api/v1/usage: the ledger of engine calls, summed up. */
#include "producer/api/api.h"
#include "producer/api/routes.h"

#define REPLY_MAX_BYTES ((size_t)64 << 20)

static bool read_format(struct request *q, bool *is_csv)
{
    struct str s = request_query(q, "format");

    *is_csv = str_eqz(s, "csv");
    if (!s.p || *is_csv || str_eqz(s, "json"))
        return true;
    request_reply_error(q, REASON_INVALID_REQUEST, "format", "'format' must be json or csv");
    return false;
}

static void reply(struct request *q, bool is_csv, struct buf *b)
{
    if (is_csv)
        request_reply(q, 200, "text/csv; charset=utf-8", b);
    else
        request_reply_json(q, 200, b);
}

void usage_get(struct request *q)
{
    struct str tenant;
    int64_t from, to;
    bool is_csv;
    struct buf b;
    struct err e;
    int rc;

    if (!api_check_query(q) || !api_id(q, "tenant", &tenant) ||
        !api_time(q, "from", &from) || !api_time(q, "to", &to) || !read_format(q, &is_csv))
        return;
    buf_init(&b, REPLY_MAX_BYTES);
    rc = reader_usage(request_reader(q), request_query(q, "group_by"), from, to, tenant, is_csv, &b,
                      &e);
    if (rc >= 0) {
        reply(q, is_csv, &b);
        return;
    }
    buf_release(&b);
    if (rc == ERR_INVALID)
        request_reply_error(q, REASON_INVALID_REQUEST, "group_by", "%s", e.msg);
    else
        request_reply_err(q, &e);
}
