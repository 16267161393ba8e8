/* One call of a pool on its libcurl easy handle. Handles are kept, and set anew only where a
 * request differs from the one before. The callbacks here come from inside libcurl, which may then
 * not be told anything about other handles: an aborted call's are refused by its step. */
#include "base/buf.h"
#include "base/fetch_internal.h"
#include <stdlib.h>
#include <strings.h>

#define CONNECT_MS 5000
#define MAX_BODY_BYTES ((size_t)64 << 20)
#define ONE_SEND_BYTES 65000 /* below libcurl's 64 KiB: copied behind the headers, in one send */

/* ---- libcurl's callbacks ---- */

static void tell_head(struct fetch *f)
{
    char *typez = NULL;
    long status = 0;

    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    if (f->is_head_told || status < 200)
        return;
    f->is_head_told = true;
    if (!f->handler.on_head)
        return;
    curl_easy_getinfo(f->easy, CURLINFO_CONTENT_TYPE, &typez);
    f->handler.on_head(f->handler.data, (int)status, str_z(typez));
}

static size_t on_header(char *p, size_t size, size_t n, void *data)
{
    struct fetch *f = data;

    if (f->step != STEP_RUNNING)
        return CURL_WRITEFUNC_ERROR;
    n *= size;
    if (n > 12 && (p[0] | 0x20) == 'r' && strncasecmp(p, "retry-after:", 12) == 0)
        f->has_retry_after = true;
    else if (n <= 2 && (p[0] == '\r' || p[0] == '\n'))
        tell_head(f);
    return n;
}

static size_t on_write(char *p, size_t size, size_t n, void *data)
{
    struct fetch *f = data;

    n *= size;
    if (f->step != STEP_RUNNING)
        return CURL_WRITEFUNC_ERROR;
    f->last_at = (int64_t)uv_now(f->pool->loop);
    if (f->first_at < 0) {
        f->first_at = f->last_at;
        if (f->idle_ms) /* from here on its deadline only moves away: looked at when it fires */
            fetch_set_limit(f);
    }
    if (n > f->max_body_bytes - f->n_body) {
        f->fault = FETCH_TOO_LARGE;
        return CURL_WRITEFUNC_ERROR;
    }
    f->n_body += n;
    if (f->handler.on_data && f->handler.on_data(f->handler.data, str_of(p, n)) != 0) {
        f->fault = FETCH_CUT;
        return CURL_WRITEFUNC_ERROR;
    }
    return f->step == STEP_RUNNING ? n : CURL_WRITEFUNC_ERROR;
}

/* The body is the caller's only until fetch_abort: a doomed call must not read it. */
static int on_request(void *data, char *a, char *b, int c, int d)
{
    (void)a, (void)b, (void)c, (void)d;
    return ((struct fetch *)data)->step == STEP_RUNNING ? CURL_PREREQFUNC_OK
                                                        : CURL_PREREQFUNC_ABORT;
}

static size_t on_read(char *dst, size_t size, size_t n, void *data)
{
    struct fetch *f = data;

    if (f->step != STEP_RUNNING)
        return CURL_READFUNC_ABORT;
    n *= size;
    if (n > f->body.n - f->n_read)
        n = f->body.n - f->n_read;
    memcpy(dst, f->body.p + f->n_read, n);
    f->n_read += n;
    return n;
}

static int on_seek(void *data, curl_off_t offset, int origin)
{
    struct fetch *f = data;

    if (origin != SEEK_SET || offset < 0 || (size_t)offset > f->body.n)
        return CURL_SEEKFUNC_FAIL;
    f->n_read = (size_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* ---- handles ---- */

struct fetch *fetch_easy_new(struct fetch_pool *p)
{
    struct fetch *f = xcalloc(1, sizeof *f);
    CURL *c = curl_easy_init();

    if (!c)
        abort(); /* no memory */
    f->pool = p;
    f->easy = c;
    f->connect_ms = -1;
    curl_easy_setopt(c, CURLOPT_PRIVATE, f);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, f->error);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(c, CURLOPT_PROXY, ""); /* not the environment's either */
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, f);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, f);
    curl_easy_setopt(c, CURLOPT_PREREQFUNCTION, on_request);
    curl_easy_setopt(c, CURLOPT_PREREQDATA, f);
    curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(c, CURLOPT_READDATA, f);
    curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(c, CURLOPT_SEEKDATA, f);
    return f;
}

void fetch_easy_free(struct fetch *f)
{
    curl_easy_cleanup(f->easy);
    curl_slist_free_all(f->own_headers);
    free(f->urlz);
    free(f);
}

/* ---- a request told to a handle ---- */

static struct curl_slist *append(struct curl_slist *list, const char *linez)
{
    list = curl_slist_append(list, linez);
    if (!list)
        abort(); /* no memory */
    return list;
}

static struct curl_slist *append_defaults(struct curl_slist *list, bool is_json)
{
    if (is_json)
        list = append(list, "Content-Type: application/json");
    return append(list, "Expect:");
}

struct curl_slist *fetch_easy_headers(bool is_json)
{
    return append_defaults(NULL, is_json);
}

/* Whether own_headers was made from the same lines. */
static bool has_same_headers(const struct fetch *f, const char *const *headers, bool is_json)
{
    const struct curl_slist *own = f->own_headers;

    if (!own || f->is_own_json != is_json)
        return false;
    for (; *headers; headers++, own = own->next) {
        if (!own || strcmp(own->data, *headers) != 0)
            return false;
    }
    /* No caller's line is left over: what follows are the defaults. */
    return own && strcmp(own->data, is_json ? "Content-Type: application/json" : "Expect:") == 0 &&
           (is_json ? own->next && !own->next->next : !own->next);
}

static int set_headers(struct fetch *f, const char *const *headers, bool is_json, struct err *e)
{
    const struct curl_slist *list = is_json ? f->pool->json_headers : f->pool->plain_headers;
    bool is_same;

    for (const char *const *h = headers; h && *h; h++) {
        if ((*h)[strcspn(*h, "\r\n")] != 0)
            return err_set(e, ERR_INVALID, "a request header has a line break");
        if (strncasecmp(*h, "content-type:", 13) == 0)
            is_json = false;
    }
    if (headers && !has_same_headers(f, headers, is_json)) {
        curl_slist_free_all(f->own_headers);
        f->own_headers = NULL;
        f->set_headers = NULL;
        for (; *headers; headers++)
            f->own_headers = append(f->own_headers, *headers);
        f->own_headers = append_defaults(f->own_headers, is_json);
        f->is_own_json = is_json;
        list = f->own_headers;
    } else if (headers) {
        list = f->own_headers;
    }
    is_same = f->set_headers == list;
    f->set_headers = list;
    return is_same || curl_easy_setopt(f->easy, CURLOPT_HTTPHEADER, list) == CURLE_OK
               ? 0
               : err_set(e, ERR_INTERNAL, "curl: headers refused");
}

static int set_method(struct fetch *f, const char *methodz, bool has_body, struct err *e)
{
    bool is_plain = strcmp(methodz, has_body ? "POST" : "GET") == 0;
    bool is_head = !has_body && strcmp(methodz, "HEAD") == 0;

    if (strcmp(f->methodz, methodz) == 0 && f->has_body == has_body)
        return 0;
    if (!*methodz || !str_copyz(f->methodz, sizeof f->methodz, str_z(methodz)) ||
        methodz[strspn(methodz, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")] != 0) {
        f->methodz[0] = 0;
        return err_set(e, ERR_INVALID, "not a request method");
    }
    f->has_body = has_body;
    curl_easy_setopt(f->easy, CURLOPT_HTTPGET, 1L); /* undoes HEAD and POST */
    if (has_body)
        curl_easy_setopt(f->easy, CURLOPT_POST, 1L);
    if (is_head)
        curl_easy_setopt(f->easy, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(f->easy, CURLOPT_CUSTOMREQUEST, is_plain || is_head ? NULL : methodz);
    return 0;
}

static void set_body(struct fetch *f, struct str body)
{
    bool is_in_pieces = body.n > ONE_SEND_BYTES;

    f->body = body;
    f->n_read = 0;
    curl_easy_setopt(f->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.n);
    curl_easy_setopt(f->easy, CURLOPT_POSTFIELDS, is_in_pieces ? NULL : body.n ? body.p : "");
}

int fetch_easy_set(struct fetch *f, const struct fetch_request *r, struct err *e)
{
    bool has_body = r->body.n > 0 || strcmp(r->methodz, "POST") == 0;
    int64_t connect_ms = r->connect_ms ? r->connect_ms : CONNECT_MS;
    int rc = set_method(f, r->methodz, has_body, e);

    rc = rc ? rc : set_headers(f, r->headers, has_body, e);
    if (rc)
        return rc;
    if (!f->urlz || strcmp(f->urlz, r->urlz) != 0) {
        free(f->urlz);
        f->urlz = xstrdup(str_z(r->urlz));
        if (curl_easy_setopt(f->easy, CURLOPT_URL, r->urlz) != CURLE_OK)
            return err_set(e, ERR_INVALID, "URL refused"); /* past curl's 8 MB */
    }
    if (connect_ms != f->connect_ms)
        curl_easy_setopt(f->easy, CURLOPT_CONNECTTIMEOUT_MS, (long)connect_ms);
    f->connect_ms = connect_ms;
    if (has_body)
        set_body(f, r->body);
    f->total_ms = r->total_ms;
    f->first_byte_ms = r->first_byte_ms;
    f->idle_ms = r->idle_ms;
    f->max_body_bytes = r->max_body_bytes ? r->max_body_bytes : MAX_BODY_BYTES;
    return 0;
}

/* ---- the end of a call ---- */

static enum fetch_fault fault_of(CURLcode code, bool was_sent)
{
    switch (code) {
    case CURLE_OK:
        return FETCH_OK;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
        return FETCH_BAD;
    case CURLE_FILESIZE_EXCEEDED:
        return FETCH_TOO_LARGE;
    case CURLE_OPERATION_TIMEDOUT:
        return was_sent ? FETCH_TIMEOUT_TOTAL : FETCH_TIMEOUT_CONNECT;
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_PARTIAL_FILE:
        return FETCH_CUT;
    default: /* resolving, connecting, TLS: before the first byte; else the connection broke */
        return was_sent ? FETCH_CUT : FETCH_NO_CONNECT;
    }
}

static int64_t retry_after_ms(struct fetch *f)
{
    curl_off_t s = 0;

    if (!f->has_retry_after || curl_easy_getinfo(f->easy, CURLINFO_RETRY_AFTER, &s) != CURLE_OK)
        return -1;
    return s <= 0 ? 0 : s > INT32_MAX ? (int64_t)INT32_MAX * 1000 : (int64_t)s * 1000;
}

static void explain(struct fetch *f, CURLcode code, struct fetch_result *r)
{
    static const char *const ours[] = {
        [FETCH_CUT] = "ended by the receiver",
        [FETCH_TIMEOUT_TOTAL] = "the whole call took too long",
        [FETCH_TIMEOUT_FIRST] = "no byte of an answer in time",
        [FETCH_TIMEOUT_IDLE] = "the answer stopped",
        [FETCH_TOO_LARGE] = "the answer is too large",
    };
    const char *z = f->error[0] ? f->error : curl_easy_strerror(code);
    long reason = 0;

    /* "Connection refused", where libcurl repeats the address that all who tell it name already. */
    if (code == CURLE_COULDNT_CONNECT &&
        curl_easy_getinfo(f->easy, CURLINFO_OS_ERRNO, &reason) == CURLE_OK && reason > 0)
        z = strerror((int)reason);
    if (f->fault != FETCH_OK && ours[f->fault])
        z = ours[f->fault];
    if (r->fault != FETCH_OK)
        str_copyz(r->message, sizeof r->message, str_z(z));
}

void fetch_easy_result(struct fetch *f, CURLcode code, struct fetch_result *r)
{
    long status = 0, sent_bytes = 0;

    *r = (struct fetch_result){.retry_after_ms = retry_after_ms(f), .first_byte_ms = -1};
    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(f->easy, CURLINFO_REQUEST_SIZE, &sent_bytes);
    r->status = (int)status;
    r->was_sent = sent_bytes > 0 || code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR;
    r->fault = f->fault != FETCH_OK ? f->fault : fault_of(code, r->was_sent);
    if (f->first_at >= 0)
        r->first_byte_ms = f->first_at - f->started_at;
    r->total_ms = (int64_t)uv_now(f->pool->loop) - f->started_at;
    explain(f, code, r);
}
