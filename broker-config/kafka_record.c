/* A record as a message of Kafka's, both ways. */
#include "broker-config/kafka.h"

/* The most that a record batch (its head), a record in it and a header take besides the bytes in
 * them, and the source header besides its topic. */
enum { BATCH_BYTES = 61, RECORD_BYTES = 32, HEADER_BYTES = 10, SOURCE_BYTES = 44 };

void kafka_record(const struct topics *t, int topic, const rd_kafka_message_t *m, struct record *r)
{
    rd_kafka_timestamp_type_t how;
    rd_kafka_headers_t *headers;
    enum record_header h;
    const char *namez;
    const void *value;
    size_t i, n;

    *r = (struct record){.at = {topic, m->partition, m->offset},
                         .key = str_of(m->key, m->key_len),
                         .value = str_of(m->payload, m->len),
                         .source = POSITION_NONE};
    r->ts_ms = rd_kafka_message_timestamp(m, &how);
    if (rd_kafka_message_headers(m, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    for (i = 0; rd_kafka_header_get_all(headers, i, &namez, &value, &n) == 0; i++)
        if (record_header_parse(str_z(namez), &h) && value)
            r->headers[h] = str_of(value, n);
    if (r->headers[HEADER_SOURCE].p)
        position_parse(t, r->headers[HEADER_SOURCE], &r->source);
}

static void add(rd_kafka_headers_t *headers, enum record_header h, struct str value)
{
    rd_kafka_header_add(headers, record_header_name(h), -1, value.p, (ssize_t)value.n);
}

static rd_kafka_headers_t *make_headers(const struct topics *t, const struct record *r)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new(HEADER_COUNT_);
    char source[POSITION_TEXT_MAX];
    int h;

    for (h = 0; h < HEADER_COUNT_; h++)
        if (r->headers[h].p)
            add(headers, (enum record_header)h, r->headers[h]);
    if (topics_is_source(r->source.topic) && !r->headers[HEADER_SOURCE].p) {
        position_format(t, r->source, source);
        add(headers, HEADER_SOURCE, str_z(source));
    }
    return headers;
}

rd_kafka_resp_err_t kafka_produce(rd_kafka_t *rk, const struct topics *t, const struct record *r,
                                  bool is_copy, void *opaque)
{
    rd_kafka_headers_t *headers = make_headers(t, r);
    const rd_kafka_vu_t v[] = {
        {.vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = topics_name(t, r->at.topic)},
        {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {(void *)(uintptr_t)r->key.p, r->key.n}},
        {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {(void *)(uintptr_t)r->value.p, r->value.n}},
        {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = is_copy ? RD_KAFKA_MSG_F_COPY : 0},
        {.vtype = RD_KAFKA_VTYPE_TIMESTAMP, .u.i64 = r->ts_ms},
        {.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers},
        {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = opaque},
    };
    rd_kafka_error_t *error = rd_kafka_produceva(rk, v, sizeof v / sizeof v[0]);
    rd_kafka_resp_err_t err = rd_kafka_error_code(error);

    rd_kafka_error_destroy(error);
    if (err)
        rd_kafka_headers_destroy(headers);
    return err;
}

size_t kafka_record_size(const struct topics *t, const struct record *r)
{
    size_t n = BATCH_BYTES + RECORD_BYTES + r->key.n + r->value.n;
    int h;

    for (h = 0; h < HEADER_COUNT_; h++)
        if (r->headers[h].p)
            n += HEADER_BYTES + strlen(record_header_name((enum record_header)h)) + r->headers[h].n;
    if (topics_is_source(r->source.topic) && !r->headers[HEADER_SOURCE].p)
        n += HEADER_BYTES + SOURCE_BYTES + strlen(topics_name(t, r->source.topic));
    return n;
}
