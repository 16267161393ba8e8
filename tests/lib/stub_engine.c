/*
 * A scripted engine for the tests: it speaks Ollama's and OpenAI's HTTP shapes, answers with an
 * echo of the prompt after a chosen time, fails on command, and writes down what it saw, so that a
 * test can prove that a job ran once, was aborted, or was answered twice. It is a program of its
 * own and links nothing of genq: a mistake in genq's codecs must not be mirrored here.
 *
 * One thread, one epoll loop. A turn has four steps, in this order:
 *   1. sockets: read, parse, begin requests;     2. timers: finish answers, emit tokens;
 *   3. log: one write(2) for the whole turn;     4. sockets: send the answers.
 * Step 3 before step 4 is the promise to the tests: what a client has seen is in the log. Only the
 * end of an answer counts as "seen", so the tail of a long answer is held back until it is logged.
 *
 * Usage: stub_engine [--port 0] [--port-file FILE] [--log FILE] [--latency-ms N] [--jitter-ms N]
 *                    [--tokens N] [--model NAME]... [--dialect ollama|openai|both]
 *                    [--chunk-ms N] [--slots N] [--fault SPEC]... [--bodies FILE] [--prefix PATH]
 *                    [--props N]
 *
 * --latency-ms  time of one answer; a streamed one spreads its tokens over it, or sends one every
 *               --chunk-ms. 0 answers in the same turn. --jitter-ms adds 0..N, evenly.
 * --model       a served model; others are refused with 404 as Ollama does (not in dialect openai,
 *               as llama-server). Without the option any model name is served.
 * --slots       that many requests run at a time, the rest wait in order, without limit.
 * --bodies      writes each request but the control ones as a JSON line: {"method", "path", "headers"
 *               (names in lower case), "body" (JSON as it came, line ends made blanks; else null)}.
 * --prefix      all routes but the control ones stand below this path, as behind a proxy.
 * --props       GET /props tells this many slots, as llama-server; without the option it is a 404.
 *
 * Answer: `echo: ` and the first 40 characters of the prompt, or of the last message. A JSON schema
 * with an enum is answered `{"label":"<first value>"}`, any other JSON format `{"text":"echo..."}`.
 * Prompt tokens are bytes / 4 + 1 (all messages together); completion tokens are --tokens.
 *
 * Fault SPEC: kind=K[,match=TEXT][,path=PREFIX][,times=N][,code=N][,retry_after=S][,bytes=MB]
 * [,ms=N][,body=...to the end]. The first spec that fits a request (TEXT anywhere in its body) and
 * is not used up applies. A faulted request is logged `recv` and `fault`; `sent` only for huge and
 * slowhead, whose answers are complete. Routes that are not jobs (/api/tags, /health) fail only by
 * a spec with path=, and only by status, drop, hang or garbage. Kinds:
 *
 *   - status: answers code (503) at once, with Retry-After and body if given.
 *   - drop: closes without an answer. cut: sends half a body, then closes.
 *   - hang: never answers. stall: sends the first token or half a body, then nothing. Both keep
 *     their slot until the client goes.
 *   - garbage: 200 with text that is not JSON. nodone: done:false, or a stream without its end.
 *   - huge: an answer text of bytes=MB (8) times 2^20. slowhead: one byte every ms (20).
 *   - midstream_error: half the tokens, then the engine's error; without streaming a 500.
 *
 * Control: POST /_stub/faults (SPEC lines; replaces all), POST /_stub/latency (ms),
 * GET /_stub/stats. These are neither logged nor counted.
 *
 * Log line: `<mono_us> <event> <conn> <key> <path> <status> <prompt_tokens> <completion_tokens>`;
 * event is recv, sent, abort (the client left first) or fault; key is the first `key=XYZ` of the
 * body (letters, digits, . _ -), else `-`; mono_us is CLOCK_MONOTONIC.
 *
 * Shapes: recorded replies of Ollama 0.34.2 and llama-server b11434.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_BODY_BYTES ((size_t)256 << 20)
#define MAX_HEAD_BYTES ((size_t)64 << 10)
#define TAIL_BYTES ((size_t)1024) /* of a long answer, sent only once `sent` is in the log */
#define LONG_BYTES ((size_t)64 << 10)
#define MAX_FAULTS 64
#define MAX_MODELS 32
#define ECHO_CHARS 40
#define JSON_TYPE "application/json; charset=utf-8"

struct span {
    const char *p;
    size_t n;
};

struct buf {
    char *p;
    size_t n, cap;
};

enum dialect { DIALECT_OLLAMA = 1, DIALECT_OPENAI = 2 };

enum shape {
    SHAPE_GENERATE,
    SHAPE_CHAT,
    SHAPE_EMBED,
    SHAPE_V1_CHAT,
    SHAPE_V1_TEXT,
    SHAPE_V1_EMBED
};

enum fault_kind {
    FAULT_NONE,
    FAULT_STATUS,
    FAULT_DROP,
    FAULT_CUT,
    FAULT_HANG,
    FAULT_STALL,
    FAULT_GARBAGE,
    FAULT_NODONE,
    FAULT_HUGE,
    FAULT_SLOWHEAD,
    FAULT_MIDSTREAM_ERROR,
};

static const char *const fault_names[] = {
    "none",     "status",          "drop", "cut", "hang", "stall", "garbage", "nodone", "huge",
    "slowhead", "midstream_error",
};

struct fault {
    enum fault_kind kind;
    int code;
    long times; /* left; negative is without limit */
    long retry_after, mb, ms;
    char match[128], path[64], body[512];
};

/* READING until a whole request is there, WAITING for a slot, RUNNING in one, ANSWERING while the
 * end of the answer is on its way. */
enum phase { READING, WAITING, RUNNING, ANSWERING };

struct route;

struct request {
    const struct route *route; /* NULL: not a job */
    char path[64], key[64], model[96];
    bool stream, with_usage, load_only, is_logged, has_head, is_settled, is_last;
    int status;
    unsigned n_inputs;
    unsigned long id;
    uint64_t prompt_tokens, completion_tokens;
    uint64_t start_us, latency_us;
    uint64_t n_emitted, n_chars, chars_at;
    size_t text_at;
};

struct conn {
    int fd;
    unsigned id;
    bool is_dead, is_dirty, wants_write, must_close;
    enum phase phase;
    struct buf in, out, text; /* text: the answer, as the inside of a JSON string */
    size_t out_at, body_bytes;
    size_t need; /* bytes of `in` that make the request whole, once its head is known */
    bool has_continued;
    struct request rq;
    struct fault fault;
    uint64_t due_us;
    size_t heap_at; /* 1-based place in the timer heap; 0: none */
    struct conn *queue_prev, *queue_next, *all_prev, *all_next, *next_dirty, *next_dead;
};

struct stats {
    uint64_t requests, other_requests, sent, aborts, faults, in_flight, max_in_flight;
    uint64_t running, max_running, connections, prompt_tokens, completion_tokens, busy_us;
};

struct stub {
    int epoll, listener, log_fd, bodies_fd;
    unsigned dialects;
    const char *port_file, *prefix;
    uint16_t port;
    uint64_t latency_us, jitter_us, chunk_us, tokens, slots, props;
    const char *models[MAX_MODELS];
    size_t n_models, n_faults;
    struct fault faults[MAX_FAULTS];
    struct buf log, body, bodies;
    struct conn **heap;
    size_t n_heap, heap_cap;
    struct conn *queue_first, *queue_last, *all, *dirty, **dirty_end, *dead;
    struct stats stats;
    uint64_t now_us, busy_since_us, rng;
    time_t stamp_s; /* the second that stamp spells */
    char stamp[32];
    bool has_pwait2;
};

struct route {
    const char *method, *path;
    unsigned dialects;
    bool is_job;
    enum shape shape;
    void (*answer)(struct stub *s, struct conn *c, struct span body); /* for what is not a job */
};

static volatile sig_atomic_t stopping;

/* ---- bytes ---- */

static void buf_reserve(struct buf *b, size_t more)
{
    if (b->cap - b->n >= more)
        return;
    size_t cap = b->cap ? b->cap : 1024;
    while (cap - b->n < more)
        cap *= 2;
    b->p = realloc(b->p, cap);
    if (!b->p)
        abort();
    b->cap = cap;
}

static void add(struct buf *b, const char *p, size_t n)
{
    if (!n)
        return;
    buf_reserve(b, n);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static inline void adds(struct buf *b, const char *z)
{
    add(b, z, strlen(z));
}

static void addu(struct buf *b, uint64_t v)
{
    char digits[20];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + v % 10);
    while (v /= 10);
    add(b, digits + at, sizeof digits - at);
}

static void addhex(struct buf *b, size_t v)
{
    char digits[16];
    size_t at = sizeof digits;
    do
        digits[--at] = "0123456789abcdef"[v & 15];
    while (v >>= 4);
    add(b, digits + at, sizeof digits - at);
}

static void copyz(char *to, size_t size, struct span from)
{
    size_t n = from.n < size ? from.n : size - 1;
    memcpy(to, from.p ? from.p : "", n);
    to[n] = 0;
}

static bool span_is(struct span s, const char *z)
{
    return s.n == strlen(z) && !memcmp(s.p, z, s.n);
}

static uint64_t clock_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* ---- JSON, read in place: enough to find fields in what clients send, not a validator ---- */

struct walk {
    const char *p, *end;
    bool is_bad;
};

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

/* From an opening quote to behind the closing one; NULL when there is none. */
static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end; p++) {
        if (*p == '"')
            return p + 1;
        if (*p == '\\')
            p++;
    }
    return NULL;
}

static const char *skip_value(const char *p, const char *end)
{
    unsigned depth = 0;
    while (p && p < end) {
        if (*p == '"') {
            p = skip_string(p, end);
        } else if (*p == '{' || *p == '[') {
            depth++;
            p++;
        } else if (*p == '}' || *p == ']') {
            depth--;
            p++;
        } else if (depth) {
            p++;
            continue;
        } else {
            while (p < end && !strchr(",}] \t\r\n", *p))
                p++;
        }
        if (!depth)
            return p;
    }
    return NULL;
}

static bool walk_open(struct walk *w, struct span value, char bracket)
{
    w->p = skip_space(value.p, value.p + value.n);
    w->end = value.p + value.n;
    w->is_bad = w->p >= w->end || *w->p != bracket;
    w->p++;
    return !w->is_bad;
}

/* The next member of an object, or with key NULL the next item of an array; false at its end. */
static bool walk_next(struct walk *w, struct span *key, struct span *value)
{
    const char *p = skip_space(w->p, w->end);
    if (p < w->end && *p == ',')
        p = skip_space(p + 1, w->end);
    if (w->is_bad || (p < w->end && (*p == '}' || *p == ']')))
        return false;
    w->is_bad = true;
    if (key) {
        const char *from = p;
        if (p >= w->end || *p != '"' || !(p = skip_string(p, w->end)))
            return false;
        *key = (struct span){from + 1, (size_t)(p - from) - 2};
        p = skip_space(p, w->end);
        if (p >= w->end || *p != ':')
            return false;
        p = skip_space(p + 1, w->end);
    }
    const char *from = p;
    if (!(p = skip_value(p, w->end)) || p == from)
        return false;
    *value = (struct span){from, (size_t)(p - from)};
    w->p = p;
    w->is_bad = false;
    return true;
}

static struct span member(struct span object, const char *name)
{
    struct walk w;
    struct span key, value;
    if (object.n && walk_open(&w, object, '{')) {
        while (walk_next(&w, &key, &value)) {
            if (span_is(key, name))
                return value;
        }
    }
    return (struct span){0};
}

static struct span inside(struct span value)
{
    if (value.n < 2 || value.p[0] != '"')
        return (struct span){0};
    return (struct span){value.p + 1, value.n - 2};
}

static bool is_true(struct span value)
{
    return span_is(value, "true");
}

static unsigned hex4(const char *p)
{
    char digits[5] = {p[0], p[1], p[2], p[3], 0};
    return (unsigned)strtoul(digits, NULL, 16);
}

/* Length of the character at p within the inside of a JSON string, so that neither an escape, nor
 * a surrogate pair, nor a UTF-8 sequence is ever split. *bytes: its length in UTF-8. */
static size_t char_at(const char *p, const char *end, size_t *bytes)
{
    size_t left = (size_t)(end - p);
    unsigned char lead = (unsigned char)*p;
    *bytes = 1;
    if (lead == '\\') {
        if (left < 6 || p[1] != 'u')
            return left < 2 ? left : 2;
        unsigned code = hex4(p + 2);
        bool is_pair = code >= 0xd800 && code < 0xdc00 && left >= 12 && p[6] == '\\' && p[7] == 'u';
        *bytes = is_pair ? 4 : code < 0x80 ? 1 : code < 0x800 ? 2 : 3;
        return is_pair ? 12 : 6;
    }
    *bytes = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (*bytes > left)
        *bytes = left;
    return *bytes;
}

static size_t decoded_bytes(struct span text)
{
    if (!text.n || !memchr(text.p, '\\', text.n))
        return text.n;
    size_t total = 0, bytes = 0;
    for (const char *p = text.p, *end = p + text.n; p < end; total += bytes)
        p += char_at(p, end, &bytes);
    return total;
}

/* Moves *at forward by up to n_chars characters and returns the piece passed. */
static struct span take_chars(struct span text, size_t *at, uint64_t n_chars)
{
    size_t from = *at, bytes;
    while (n_chars-- && *at < text.n)
        *at += char_at(text.p + *at, text.p + text.n, &bytes);
    return (struct span){text.p + from, *at - from};
}

/* ---- time: timer heap, busy integral, timestamps ---- */

static void heap_place(struct stub *s, size_t at, struct conn *c)
{
    s->heap[at] = c;
    c->heap_at = at;
}

static void heap_settle(struct stub *s, size_t at, struct conn *c)
{
    for (; at > 1 && s->heap[at / 2]->due_us > c->due_us; at /= 2)
        heap_place(s, at, s->heap[at / 2]);
    for (size_t child; (child = at * 2) <= s->n_heap; at = child) {
        if (child < s->n_heap && s->heap[child + 1]->due_us < s->heap[child]->due_us)
            child++;
        if (s->heap[child]->due_us >= c->due_us)
            break;
        heap_place(s, at, s->heap[child]);
    }
    heap_place(s, at, c);
}

static void timer_stop(struct stub *s, struct conn *c)
{
    size_t at = c->heap_at;
    if (!at)
        return;
    struct conn *last = s->heap[s->n_heap--];
    c->heap_at = 0;
    if (last != c)
        heap_settle(s, at, last);
}

static void timer_set(struct stub *s, struct conn *c, uint64_t due_us)
{
    timer_stop(s, c);
    if (s->n_heap + 2 > s->heap_cap) {
        s->heap_cap = s->heap_cap ? s->heap_cap * 2 : 256;
        s->heap = realloc(s->heap, s->heap_cap * sizeof *s->heap);
        if (!s->heap)
            abort();
    }
    c->due_us = due_us;
    heap_settle(s, ++s->n_heap, c);
}

static void change_running(struct stub *s, int by)
{
    s->stats.busy_us += s->stats.running * (s->now_us - s->busy_since_us);
    s->busy_since_us = s->now_us;
    s->stats.running += (uint64_t)by;
    if (s->stats.running > s->stats.max_running)
        s->stats.max_running = s->stats.running;
}

static void add_stamp(struct stub *s, struct buf *b)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (t.tv_sec != s->stamp_s) {
        struct tm tm;
        gmtime_r(&t.tv_sec, &tm);
        strftime(s->stamp, sizeof s->stamp, "%Y-%m-%dT%H:%M:%S.", &tm);
        s->stamp_s = t.tv_sec;
    }
    char nanos[10] = "000000000";
    for (long v = t.tv_nsec, i = 8; v; v /= 10)
        nanos[i--] = (char)('0' + v % 10);
    adds(b, s->stamp);
    add(b, nanos, 9);
    adds(b, "Z");
}

static uint64_t random_below(struct stub *s, uint64_t limit)
{
    s->rng ^= s->rng << 13;
    s->rng ^= s->rng >> 7;
    s->rng ^= s->rng << 17;
    return limit ? s->rng % limit : 0;
}

/* ---- log ---- */

static void log_event(struct stub *s, struct conn *c, const char *event, int status, bool is_final)
{
    if (s->log_fd < 0)
        return;
    struct buf *b = &s->log;
    addu(b, s->now_us);
    adds(b, " ");
    adds(b, event);
    adds(b, " ");
    addu(b, c->id);
    adds(b, " ");
    adds(b, c->rq.key[0] ? c->rq.key : "-");
    adds(b, " ");
    adds(b, c->rq.path);
    adds(b, " ");
    addu(b, (uint64_t)status);
    adds(b, " ");
    addu(b, c->rq.prompt_tokens);
    adds(b, " ");
    addu(b, is_final ? c->rq.completion_tokens : 0);
    adds(b, "\n");
}

static void write_all(int fd, struct buf *b)
{
    size_t at = 0;
    while (at < b->n) {
        ssize_t n = write(fd, b->p + at, b->n - at);
        if (n < 0 && errno != EINTR) {
            perror("stub_engine: log");
            exit(1);
        }
        at += n > 0 ? (size_t)n : 0;
    }
    b->n = 0;
}

static void log_flush(struct stub *s)
{
    write_all(s->log_fd, &s->log);
    write_all(s->bodies_fd, &s->bodies);
}

static bool is_key_char(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '_' || c == '-';
}

static struct span find_key(struct span body)
{
    const char *end = body.p + body.n;
    for (const char *p = body.p; p < end; p += 4) {
        p = memmem(p, (size_t)(end - p), "key=", 4);
        if (!p)
            break;
        size_t n = 0;
        while (p + 4 + n < end && is_key_char(p[4 + n]))
            n++;
        if (n)
            return (struct span){p + 4, n};
    }
    return (struct span){0};
}

/* ---- answers: heads and whole bodies ---- */

static const char *reason_of(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 411:
        return "Length Required";
    case 413:
        return "Content Too Large";
    case 429:
        return "Too Many Requests";
    case 500:
        return "Internal Server Error";
    case 503:
        return "Service Unavailable";
    default:
        return "Status";
    }
}

static void mark_dirty(struct stub *s, struct conn *c)
{
    if (c->is_dirty || c->is_dead)
        return;
    c->is_dirty = true;
    c->next_dirty = NULL;
    *s->dirty_end = c;
    s->dirty_end = &c->next_dirty;
}

static void add_head(struct conn *c, int status, const char *type)
{
    struct buf *b = &c->out;
    c->rq.status = status;
    c->rq.has_head = true;
    adds(b, "HTTP/1.1 ");
    addu(b, (uint64_t)status);
    adds(b, " ");
    adds(b, reason_of(status));
    adds(b, "\r\nContent-Type: ");
    adds(b, type);
    adds(b, "\r\n");
    if (c->must_close)
        adds(b, "Connection: close\r\n");
}

/* Frees the slot; from here only bytes are left to send. */
static void finish(struct stub *s, struct conn *c)
{
    if (c->phase == RUNNING)
        change_running(s, -1);
    timer_stop(s, c);
    c->phase = ANSWERING;
    mark_dirty(s, c);
}

static void reply(struct stub *s, struct conn *c, int status, const char *type, struct span body)
{
    add_head(c, status, type);
    if (c->fault.kind == FAULT_STATUS && c->fault.retry_after >= 0) {
        adds(&c->out, "Retry-After: ");
        addu(&c->out, (uint64_t)c->fault.retry_after);
        adds(&c->out, "\r\n");
    }
    adds(&c->out, "Content-Length: ");
    addu(&c->out, body.n);
    adds(&c->out, "\r\n\r\n");
    add(&c->out, body.p, body.n);
    c->body_bytes = body.n;
    finish(s, c);
}

static void reply_body(struct stub *s, struct conn *c)
{
    reply(s, c, 200, JSON_TYPE, (struct span){s->body.p, s->body.n});
}

static void reply_text(struct stub *s, struct conn *c, int status, const char *text)
{
    reply(s, c, status, "text/plain", (struct span){text, strlen(text)});
}

static bool is_v1(const struct conn *c)
{
    return !strncmp(c->rq.path, "/v1/", 4);
}

static const char *error_type(int status)
{
    return status == 404 ? "not_found_error" : status < 500 ? "invalid_request_error" : "api_error";
}

/* message: the inside of a JSON string. */
static void reply_error(struct stub *s, struct conn *c, int status, const char *message)
{
    struct buf *b = &s->body;
    b->n = 0;
    c->rq.prompt_tokens = c->rq.completion_tokens = 0;
    adds(b, is_v1(c) ? "{\"error\":{\"message\":\"" : "{\"error\":\"");
    adds(b, message);
    if (is_v1(c)) {
        adds(b, "\",\"type\":\"");
        adds(b, error_type(status));
        adds(b, "\",\"param\":null,\"code\":null}}");
    } else {
        adds(b, "\"}");
    }
    reply(s, c, status, JSON_TYPE, (struct span){b->p, b->n});
}

/* ---- answers: jobs ---- */

static struct span answer_text(const struct conn *c)
{
    return (struct span){c->text.p, c->text.n};
}

static void add_ollama_start(struct stub *s, struct conn *c, struct buf *b)
{
    adds(b, "{\"model\":\"");
    adds(b, c->rq.model);
    adds(b, "\",\"created_at\":\"");
    add_stamp(s, b);
    adds(b, c->rq.route->shape == SHAPE_CHAT
                ? "\",\"message\":{\"role\":\"assistant\",\"content\":\""
                : "\",\"response\":\"");
}

static void add_ollama_end(struct stub *s, struct conn *c, struct buf *b)
{
    uint64_t eval_ns = (s->now_us - c->rq.start_us) * 1000 + 1000;
    uint64_t prompt_ns = c->rq.prompt_tokens * 1000;
    if (c->fault.kind == FAULT_NODONE) {
        adds(b, "\"done\":false}");
        return;
    }
    adds(b, "\"done\":true,\"done_reason\":\"");
    adds(b, c->rq.load_only ? "load\"}" : "stop\",\"total_duration\":");
    if (c->rq.load_only)
        return;
    addu(b, eval_ns + prompt_ns + 1000000);
    adds(b, ",\"load_duration\":1000000,\"prompt_eval_count\":");
    addu(b, c->rq.prompt_tokens);
    adds(b, ",\"prompt_eval_duration\":");
    addu(b, prompt_ns);
    adds(b, ",\"eval_count\":");
    addu(b, c->rq.completion_tokens);
    adds(b, ",\"eval_duration\":");
    addu(b, eval_ns);
    adds(b, "}");
}

static void add_v1_start(struct conn *c, struct buf *b, bool is_chunk)
{
    bool is_chat = c->rq.route->shape == SHAPE_V1_CHAT;
    adds(b, is_chat ? "{\"id\":\"chatcmpl-" : "{\"id\":\"cmpl-");
    addu(b, c->rq.id);
    adds(b, is_chat ? "\",\"object\":\"chat.completion" : "\",\"object\":\"text_completion");
    adds(b, is_chat && is_chunk ? ".chunk\",\"created\":" : "\",\"created\":");
    addu(b, (uint64_t)time(NULL));
    adds(b, ",\"model\":\"");
    adds(b, c->rq.model);
    adds(b, "\",\"system_fingerprint\":\"fp_ollama\",\"choices\":[");
}

static void add_v1_usage(struct conn *c, struct buf *b)
{
    adds(b, ",\"usage\":{\"prompt_tokens\":");
    addu(b, c->rq.prompt_tokens);
    adds(b, ",\"prompt_tokens_details\":{\"cached_tokens\":0},\"completion_tokens\":");
    addu(b, c->rq.completion_tokens);
    adds(b, ",\"total_tokens\":");
    addu(b, c->rq.prompt_tokens + c->rq.completion_tokens);
    adds(b, "}");
}

static void add_v1_choice(struct conn *c, struct buf *b)
{
    bool is_chat = c->rq.route->shape == SHAPE_V1_CHAT;
    adds(b, is_chat ? "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\""
                    : "{\"text\":\"");
    add(b, c->text.p, c->text.n);
    adds(b, is_chat ? "\"},\"finish_reason\":" : "\",\"index\":0,\"finish_reason\":");
    adds(b, c->fault.kind == FAULT_NODONE ? "null}]" : "\"stop\"}]");
}

static void add_vectors(struct conn *c, struct buf *b, bool is_v1_shape)
{
    uint64_t hash = 1469598103934665603U;
    for (size_t i = 0; i < c->text.n; i++)
        hash = (hash ^ (unsigned char)c->text.p[i]) * 1099511628211U;
    for (unsigned i = 0; i < c->rq.n_inputs; i++) {
        char vector[64];
        uint64_t h = hash + i * 0x9e3779b97f4a7c15U;
        snprintf(vector, sizeof vector, "[0.%03u,-0.%03u,0.%03u,-0.%03u]",
                 (unsigned)(h >> 8) % 1000, (unsigned)(h >> 20) % 1000, (unsigned)(h >> 32) % 1000,
                 (unsigned)(h >> 44) % 1000);
        adds(b, i ? "," : "");
        adds(b, is_v1_shape ? "{\"object\":\"embedding\",\"embedding\":" : "");
        adds(b, vector);
        if (is_v1_shape) {
            adds(b, ",\"index\":");
            addu(b, i);
            adds(b, "}");
        }
    }
}

static void add_embeddings(struct stub *s, struct conn *c, struct buf *b)
{
    c->rq.completion_tokens = 0;
    if (c->rq.route->shape == SHAPE_EMBED) {
        adds(b, "{\"model\":\"");
        adds(b, c->rq.model);
        adds(b, "\",\"embeddings\":[");
        add_vectors(c, b, false);
        adds(b, "],\"total_duration\":");
        addu(b, (s->now_us - c->rq.start_us) * 1000 + 1001000);
        adds(b, ",\"load_duration\":1000000,\"prompt_eval_count\":");
        addu(b, c->rq.prompt_tokens);
    } else {
        adds(b, "{\"object\":\"list\",\"data\":[");
        add_vectors(c, b, true);
        adds(b, "],\"model\":\"");
        adds(b, c->rq.model);
        adds(b, "\",\"usage\":{\"prompt_tokens\":");
        addu(b, c->rq.prompt_tokens);
        adds(b, ",\"total_tokens\":");
        addu(b, c->rq.prompt_tokens);
        adds(b, "}");
    }
    adds(b, "}");
}

static void answer_plain(struct stub *s, struct conn *c)
{
    struct buf *b = &s->body;
    b->n = 0;
    switch (c->rq.route->shape) {
    case SHAPE_GENERATE:
    case SHAPE_CHAT:
        add_ollama_start(s, c, b);
        add(b, c->text.p, c->text.n);
        adds(b, c->rq.route->shape == SHAPE_CHAT ? "\"}," : "\",");
        add_ollama_end(s, c, b);
        break;
    case SHAPE_V1_CHAT:
    case SHAPE_V1_TEXT:
        add_v1_start(c, b, false);
        add_v1_choice(c, b);
        add_v1_usage(c, b);
        adds(b, "}\n");
        break;
    case SHAPE_EMBED:
    case SHAPE_V1_EMBED:
        add_embeddings(s, c, b);
        break;
    }
    if (c->fault.kind == FAULT_STALL) {
        /* keeps its slot, so `finish` must not see it */
        add_head(c, 200, JSON_TYPE);
        adds(&c->out, "Content-Length: ");
        addu(&c->out, b->n);
        adds(&c->out, "\r\n\r\n");
        add(&c->out, b->p, b->n / 2);
        mark_dirty(s, c);
        return;
    }
    reply_body(s, c);
    if (c->fault.kind == FAULT_CUT) {
        c->out.n -= c->body_bytes - c->body_bytes / 2;
        c->must_close = true;
    }
}

/* ---- answers: streams ---- */

static void send_chunk(struct stub *s, struct conn *c)
{
    struct buf *b = &c->out;
    addhex(b, s->body.n);
    adds(b, "\r\n");
    add(b, s->body.p, s->body.n);
    adds(b, "\r\n");
    mark_dirty(s, c);
}

static void emit_v1(struct conn *c, struct buf *b, struct span piece)
{
    adds(b, "data: ");
    add_v1_start(c, b, true);
    if (c->rq.route->shape == SHAPE_V1_CHAT) {
        adds(b, "{\"index\":0,\"delta\":{");
        adds(b, c->rq.n_emitted ? "\"content\":\"" : "\"role\":\"assistant\",\"content\":\"");
        add(b, piece.p, piece.n);
        adds(b, "\"},\"finish_reason\":null}]");
    } else {
        adds(b, "{\"text\":\"");
        add(b, piece.p, piece.n);
        adds(b, "\",\"index\":0,\"finish_reason\":null}]");
        if (c->rq.with_usage)
            adds(b, ",\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0}");
    }
    adds(b, "}\n\n");
}

static void emit_token(struct stub *s, struct conn *c)
{
    struct request *rq = &c->rq;
    uint64_t upto = rq->n_chars * (rq->n_emitted + 1) / rq->completion_tokens;
    struct span piece = take_chars(answer_text(c), &rq->text_at, upto - rq->chars_at);
    rq->chars_at = upto;
    s->body.n = 0;
    if (is_v1(c)) {
        emit_v1(c, &s->body, piece);
    } else {
        add_ollama_start(s, c, &s->body);
        add(&s->body, piece.p, piece.n);
        adds(&s->body, rq->route->shape == SHAPE_CHAT ? "\"}," : "\",");
        adds(&s->body, "\"done\":false}\n");
    }
    rq->n_emitted++;
    send_chunk(s, c);
}

static void end_v1(struct conn *c, struct buf *b)
{
    bool is_chat = c->rq.route->shape == SHAPE_V1_CHAT;
    adds(b, "data: ");
    add_v1_start(c, b, true);
    adds(b, is_chat ? "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
                    : "{\"text\":\"\",\"index\":0,\"finish_reason\":\"stop\"}]}\n\n");
    if (c->rq.with_usage) {
        adds(b, "data: ");
        add_v1_start(c, b, true);
        adds(b, "]");
        add_v1_usage(c, b);
        adds(b, "}\n\n");
    }
    adds(b, "data: [DONE]\n\n");
}

static void end_with_error(struct stub *s, struct conn *c)
{
    if (is_v1(c)) {
        /* as recorded: the error is lost, the stream just ends without [DONE] */
        s->body.n = 0;
        emit_v1(c, &s->body, (struct span){0});
    } else {
        adds(&s->body, "{\"error\":\"an error was encountered while running the model: "
                       "unexpected EOF\"}\n");
    }
    send_chunk(s, c);
}

static void end_stream(struct stub *s, struct conn *c)
{
    s->body.n = 0;
    switch (c->fault.kind) {
    case FAULT_STALL:
        return;
    case FAULT_CUT:
        c->must_close = true;
        finish(s, c);
        return;
    case FAULT_NODONE:
        break;
    case FAULT_MIDSTREAM_ERROR:
        end_with_error(s, c);
        break;
    default:
        if (is_v1(c)) {
            end_v1(c, &s->body);
        } else {
            add_ollama_start(s, c, &s->body);
            adds(&s->body, c->rq.route->shape == SHAPE_CHAT ? "\"}," : "\",");
            add_ollama_end(s, c, &s->body);
            adds(&s->body, "\n");
        }
        send_chunk(s, c);
    }
    adds(&c->out, "0\r\n\r\n");
    finish(s, c);
}

static uint64_t tokens_to_emit(const struct conn *c)
{
    switch (c->fault.kind) {
    case FAULT_CUT:
    case FAULT_MIDSTREAM_ERROR:
        return c->rq.completion_tokens / 2;
    case FAULT_STALL:
        return c->rq.completion_tokens > 0;
    default:
        return c->rq.load_only ? 0 : c->rq.completion_tokens;
    }
}

static uint64_t token_due_us(const struct stub *s, const struct conn *c, uint64_t nth)
{
    if (!c->rq.completion_tokens)
        return c->rq.start_us + c->rq.latency_us;
    return c->rq.start_us +
           (s->chunk_us ? s->chunk_us * nth : c->rq.latency_us * nth / c->rq.completion_tokens);
}

static void stream_on(struct stub *s, struct conn *c)
{
    uint64_t n = tokens_to_emit(c);
    if (!c->rq.has_head) {
        add_head(c, 200, is_v1(c) ? "text/event-stream" : "application/x-ndjson");
        adds(&c->out, "Transfer-Encoding: chunked\r\n\r\n");
        mark_dirty(s, c);
    }
    while (c->rq.n_emitted < n && token_due_us(s, c, c->rq.n_emitted + 1) <= s->now_us)
        emit_token(s, c);
    if (c->rq.n_emitted < n)
        timer_set(s, c, token_due_us(s, c, c->rq.n_emitted + 1));
    else
        end_stream(s, c);
}

/* ---- the life of a job ---- */

static void run_on(struct stub *s, struct conn *c)
{
    uint64_t due_us = c->rq.start_us + c->rq.latency_us;
    if (c->rq.stream)
        stream_on(s, c);
    else if (due_us > s->now_us)
        timer_set(s, c, due_us);
    else if (c->fault.kind == FAULT_MIDSTREAM_ERROR)
        reply_error(s, c, 500, "an error was encountered while running the model: unexpected EOF");
    else
        answer_plain(s, c);
}

static void reply_status_fault(struct stub *s, struct conn *c)
{
    if (c->fault.body[0]) {
        reply(s, c, c->fault.code, JSON_TYPE, (struct span){c->fault.body, strlen(c->fault.body)});
        return;
    }
    reply_error(s, c, c->fault.code,
                c->fault.code == 503
                    ? "server busy, please try again.  maximum pending requests exceeded"
                    : "scripted fault");
}

/* The faults that need no answer to spoil; false for the others. */
static bool fail_at_once(struct stub *s, struct conn *c)
{
    static const char garbage[] = "<html><body>this is {not JSON</body></html>\n";
    switch (c->fault.kind) {
    case FAULT_STATUS:
        reply_status_fault(s, c);
        break;
    case FAULT_GARBAGE:
        reply(s, c, 200, JSON_TYPE, (struct span){garbage, sizeof garbage - 1});
        break;
    case FAULT_DROP:
        c->must_close = true;
        finish(s, c);
        break;
    case FAULT_HANG:
        break;
    default:
        return false;
    }
    return true;
}

static void start_job(struct stub *s, struct conn *c)
{
    c->phase = RUNNING;
    c->rq.start_us = s->now_us;
    c->rq.latency_us = s->latency_us + (s->jitter_us ? random_below(s, s->jitter_us + 1) : 0);
    change_running(s, 1);
    if (!fail_at_once(s, c))
        run_on(s, c);
}

static void enqueue(struct stub *s, struct conn *c)
{
    c->phase = WAITING;
    c->queue_next = NULL;
    c->queue_prev = s->queue_last;
    *(s->queue_last ? &s->queue_last->queue_next : &s->queue_first) = c;
    s->queue_last = c;
}

static void unqueue(struct stub *s, struct conn *c)
{
    *(c->queue_prev ? &c->queue_prev->queue_next : &s->queue_first) = c->queue_next;
    *(c->queue_next ? &c->queue_next->queue_prev : &s->queue_last) = c->queue_prev;
}

static void fill_slots(struct stub *s)
{
    while (s->queue_first && s->stats.running < s->slots) {
        struct conn *c = s->queue_first;
        unqueue(s, c);
        start_job(s, c);
    }
}

/* The answer's end is about to be sent: from now on the request counts as answered. */
static void settle(struct stub *s, struct conn *c)
{
    enum fault_kind kind = c->fault.kind;
    c->rq.is_settled = true;
    if (c->rq.route)
        s->stats.in_flight--;
    if (!c->rq.is_logged || (kind != FAULT_NONE && kind != FAULT_HUGE && kind != FAULT_SLOWHEAD))
        return;
    log_event(s, c, "sent", c->rq.status, true);
    if (c->rq.route) {
        s->stats.sent++;
        s->stats.prompt_tokens += c->rq.prompt_tokens;
        s->stats.completion_tokens += c->rq.completion_tokens;
    }
}

static void pick_fault(struct stub *s, struct conn *c, struct span body)
{
    for (size_t i = 0; i < s->n_faults; i++) {
        struct fault *f = &s->faults[i];
        if (!f->times || strncmp(c->rq.path, f->path, strlen(f->path)) != 0)
            continue;
        if (!c->rq.route && !f->path[0])
            continue; /* a probe must not use up what is meant for a job */
        if (f->match[0] && !memmem(body.p, body.n, f->match, strlen(f->match)))
            continue;
        if (f->times > 0)
            f->times--;
        c->fault = *f;
        s->stats.faults++;
        log_event(s, c, "fault", f->kind == FAULT_STATUS ? f->code : 0, false);
        return;
    }
}

/* ---- reading a job from a request body ---- */

struct fields {
    struct span model, prompt, messages, input, stream, format, stream_options;
};

static bool read_fields(struct span body, struct fields *f)
{
    struct walk w;
    struct span key, value;
    if (!body.n || !walk_open(&w, body, '{'))
        return false;
    while (walk_next(&w, &key, &value)) {
        if (span_is(key, "model"))
            f->model = inside(value);
        else if (span_is(key, "prompt"))
            f->prompt = value;
        else if (span_is(key, "messages"))
            f->messages = value;
        else if (span_is(key, "input"))
            f->input = value;
        else if (span_is(key, "stream"))
            f->stream = value;
        else if (span_is(key, "stream_options"))
            f->stream_options = value;
        else if (span_is(key, "format") || span_is(key, "response_format"))
            f->format = value;
    }
    return !w.is_bad;
}

/* Text in any of its shapes: a string, an array of strings, or an array of {"text":...} parts. The
 * last piece stays in *text; the sizes of all are added to *bytes. Returns the number of pieces. */
static unsigned take_text(struct span value, struct span *text, size_t *bytes)
{
    struct walk w;
    struct span item;
    unsigned n = 0;
    if (value.n && value.p[0] == '"') {
        *text = inside(value);
        *bytes += decoded_bytes(*text);
        return 1;
    }
    if (!value.n || !walk_open(&w, value, '['))
        return 0;
    while (walk_next(&w, NULL, &item)) {
        struct span part = item.p[0] == '{' ? member(item, "text") : item;
        if (!part.n || part.p[0] != '"')
            continue;
        *text = inside(part);
        *bytes += decoded_bytes(*text);
        n++;
    }
    return n;
}

static unsigned take_messages(struct span messages, struct span *text, size_t *bytes)
{
    struct walk w;
    struct span message;
    unsigned n = 0;
    if (!messages.n || !walk_open(&w, messages, '['))
        return 0;
    for (; walk_next(&w, NULL, &message); n++)
        take_text(member(message, "content"), text, bytes);
    return n;
}

static struct span first_enum(struct span schema)
{
    struct walk w;
    struct span value;
    const char *end = schema.p + schema.n;
    const char *p = schema.n ? memmem(schema.p, schema.n, "\"enum\"", 6) : NULL;
    if (!p)
        return (struct span){0};
    p = skip_space(p + 6, end);
    if (p >= end || *p != ':')
        return (struct span){0};
    if (!walk_open(&w, (struct span){p + 1, (size_t)(end - p - 1)}, '[') ||
        !walk_next(&w, NULL, &value))
        return (struct span){0};
    return inside(value);
}

/* Adds the inside of a JSON string, escaped once more: it becomes a string within JSON text that
 * itself is a JSON string. */
static void add_escaped(struct buf *b, struct span text)
{
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '\\' || text.p[i] == '"')
            adds(b, "\\");
        add(b, text.p + i, 1);
    }
}

static bool asks_for_json(struct span format)
{
    if (!format.n || span_is(format, "null") || span_is(format, "\"\""))
        return false;
    return !span_is(member(format, "type"), "\"text\"");
}

static void make_text(struct conn *c, struct span format, struct span prompt)
{
    struct buf *b = &c->text;
    size_t at = 0;
    bool is_json = asks_for_json(format);
    struct span label = is_json ? first_enum(format) : (struct span){0};
    b->n = 0;
    if (c->fault.kind == FAULT_HUGE) {
        size_t n = (size_t)c->fault.mb << 20;
        buf_reserve(b, n);
        memset(b->p, 'x', n);
        b->n = n;
        return;
    }
    if (!is_json) {
        adds(b, "echo: ");
        struct span head = take_chars(prompt, &at, ECHO_CHARS);
        add(b, head.p, head.n);
        return;
    }
    adds(b, label.n ? "{\\\"label\\\":\\\"" : "{\\\"text\\\":\\\"echo: ");
    add_escaped(b, label.n ? label : take_chars(prompt, &at, ECHO_CHARS));
    adds(b, "\\\"}");
}

static struct span bare_model(struct span name)
{
    if (name.n > 7 && !memcmp(name.p + name.n - 7, ":latest", 7))
        name.n -= 7;
    return name;
}

static bool serves_model(const struct stub *s, struct span name)
{
    name = bare_model(name);
    if (s->dialects == DIALECT_OPENAI || (name.n && !s->n_models))
        return true;
    for (size_t i = 0; i < s->n_models; i++) {
        struct span known = bare_model((struct span){s->models[i], strlen(s->models[i])});
        if (known.n == name.n && !memcmp(known.p, name.p, name.n))
            return true;
    }
    return false;
}

static void reply_unknown_model(struct stub *s, struct conn *c)
{
    char message[160];
    snprintf(message, sizeof message, "model '%s' not found", c->rq.model);
    reply_error(s, c, 404, message);
}

/* Fills the request and *prompt, the text to echo; false when it was answered with an error. */
static bool read_job(struct stub *s, struct conn *c, const struct fields *f, bool is_json,
                     struct span *prompt)
{
    struct request *rq = &c->rq;
    enum shape shape = rq->route->shape;
    bool is_embed = shape == SHAPE_EMBED || shape == SHAPE_V1_EMBED;
    bool is_chat = shape == SHAPE_CHAT || shape == SHAPE_V1_CHAT;
    size_t bytes = 0;
    if (is_chat)
        rq->n_inputs = take_messages(f->messages, prompt, &bytes);
    else
        rq->n_inputs = take_text(is_embed ? f->input : f->prompt, prompt, &bytes);
    rq->prompt_tokens = bytes / 4 + 1;
    rq->completion_tokens = is_embed ? 0 : s->tokens;
    rq->stream = !is_embed && (is_v1(c) ? is_true(f->stream) : !span_is(f->stream, "false"));
    rq->with_usage = is_true(member(f->stream_options, "include_usage"));
    log_event(s, c, "recv", 0, false);
    if (!is_json) {
        reply_error(s, c, 400, "unexpected EOF");
        return false;
    }
    if (!serves_model(s, f->model)) {
        reply_unknown_model(s, c);
        return false;
    }
    if (is_v1(c) && !rq->n_inputs) {
        reply_error(s, c, 400, is_chat ? "[] is too short - 'messages'" : "prompt is required");
        return false;
    }
    rq->load_only = !is_v1(c) && !is_embed && (!rq->n_inputs || (!is_chat && !bytes));
    if (rq->load_only) {
        rq->prompt_tokens = rq->completion_tokens = 0;
        rq->stream = false; /* as Ollama does */
    }
    return true;
}

static void begin_job(struct stub *s, struct conn *c, struct span body)
{
    struct fields f = {0};
    struct span prompt = {0};
    bool is_json = read_fields(body, &f);
    copyz(c->rq.key, sizeof c->rq.key, find_key(body));
    copyz(c->rq.model, sizeof c->rq.model, f.model);
    c->rq.id = (unsigned long)++s->stats.requests;
    if (++s->stats.in_flight > s->stats.max_in_flight)
        s->stats.max_in_flight = s->stats.in_flight;
    if (!read_job(s, c, &f, is_json, &prompt))
        return;
    pick_fault(s, c, body);
    c->text.n = 0;
    if (!c->rq.load_only)
        make_text(c, f.format, prompt);
    for (size_t at = 0; c->rq.stream && at < c->text.n; c->rq.n_chars++)
        take_chars(answer_text(c), &at, 1);
    if (s->queue_first || s->stats.running >= s->slots)
        enqueue(s, c);
    else
        start_job(s, c);
}

/* ---- the other routes ---- */

static void answer_root(struct stub *s, struct conn *c, struct span body)
{
    (void)body;
    reply_text(s, c, 200, "Ollama is running");
}

static void answer_version(struct stub *s, struct conn *c, struct span body)
{
    (void)body;
    s->body.n = 0;
    adds(&s->body, "{\"version\":\"0.34.2\"}");
    reply_body(s, c);
}

static void answer_health(struct stub *s, struct conn *c, struct span body)
{
    (void)body;
    s->body.n = 0;
    adds(&s->body, "{\"status\":\"ok\"}");
    reply_body(s, c);
}

static void answer_props(struct stub *s, struct conn *c, struct span body)
{
    (void)body;
    if (!s->props) {
        reply_text(s, c, 404, "404 page not found");
        return;
    }
    s->body.n = 0;
    adds(&s->body, "{\"total_slots\":");
    addu(&s->body, s->props);
    adds(&s->body, "}");
    reply_body(s, c);
}

static const char *model_at(const struct stub *s, size_t i)
{
    return s->n_models ? s->models[i] : "stub";
}

static void add_full_name(struct buf *b, const char *name)
{
    adds(b, name);
    adds(b, strchr(name, ':') ? "" : ":latest");
}

#define DETAILS \
    "\"details\":{\"parent_model\":\"\",\"format\":\"gguf\",\"family\":\"llama\"," \
    "\"families\":[\"llama\"],\"parameter_size\":\"260K\",\"quantization_level\":\"F32\"}"
#define DIGEST "61381cb16edd0cb3894c33a281f8586b70c1a5c49b9851aded27a9872a8bf782"

static void list_models(struct stub *s, struct conn *c, bool is_running)
{
    struct buf *b = &s->body;
    b->n = 0;
    adds(b, "{\"models\":[");
    for (size_t i = 0; i < s->n_models + !s->n_models; i++) {
        adds(b, i ? ",{\"name\":\"" : "{\"name\":\"");
        add_full_name(b, model_at(s, i));
        adds(b, "\",\"model\":\"");
        add_full_name(b, model_at(s, i));
        adds(b, "\",\"size\":1054811,\"digest\":\"" DIGEST "\"," DETAILS);
        adds(b, is_running ? ",\"expires_at\":\"" : ",\"modified_at\":\"");
        add_stamp(s, b);
        adds(b, is_running ? "\",\"size_vram\":0,\"context_length\":4096}"
                           : "\",\"capabilities\":[\"completion\"]}");
    }
    adds(b, "]}");
    reply_body(s, c);
}

static void answer_tags(struct stub *s, struct conn *c, struct span body)
{
    (void)body;
    list_models(s, c, false);
}

static void answer_ps(struct stub *s, struct conn *c, struct span body)
{
    (void)body;
    list_models(s, c, true);
}

static void answer_show(struct stub *s, struct conn *c, struct span body)
{
    struct span name = inside(member(body, "model"));
    struct buf *b = &s->body;
    copyz(c->rq.model, sizeof c->rq.model, name);
    if (!serves_model(s, name)) {
        reply_unknown_model(s, c);
        return;
    }
    b->n = 0;
    adds(b,
         "{\"modelfile\":\"\",\"parameters\":\"\",\"template\":\"{{ .Prompt }}\"," DETAILS
         ",\"model_info\":{\"general.architecture\":\"llama\",\"general.parameter_count\":260032,"
         "\"llama.context_length\":4096,\"llama.embedding_length\":4},"
         "\"capabilities\":[\"completion\"],\"modified_at\":\"");
    add_stamp(s, b);
    adds(b, "\"}");
    reply_body(s, c);
}

static void answer_v1_models(struct stub *s, struct conn *c, struct span body)
{
    struct buf *b = &s->body;
    (void)body;
    b->n = 0;
    adds(b, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < s->n_models + !s->n_models; i++) {
        adds(b, i ? ",{\"id\":\"" : "{\"id\":\"");
        if (s->dialects & DIALECT_OLLAMA)
            add_full_name(b, model_at(s, i));
        else
            adds(b, model_at(s, i));
        adds(b, "\",\"object\":\"model\",\"created\":1795218318,\"owned_by\":\"library\"}");
    }
    adds(b, "]}\n");
    reply_body(s, c);
}

static bool set_option(struct fault *f, struct span name, struct span value)
{
    char text[32];
    copyz(text, sizeof text, value);
    long number = strtol(text, NULL, 10);
    if (span_is(name, "match"))
        copyz(f->match, sizeof f->match, value);
    else if (span_is(name, "path"))
        copyz(f->path, sizeof f->path, value);
    else if (span_is(name, "body"))
        copyz(f->body, sizeof f->body, value);
    else if (span_is(name, "code"))
        f->code = (int)number;
    else if (span_is(name, "times"))
        f->times = number;
    else if (span_is(name, "retry_after"))
        f->retry_after = number;
    else if (span_is(name, "bytes"))
        f->mb = number;
    else if (span_is(name, "ms"))
        f->ms = number;
    else if (!span_is(name, "kind"))
        return false;
    for (size_t i = 0; span_is(name, "kind") && i < sizeof fault_names / sizeof *fault_names; i++) {
        if (!strcmp(text, fault_names[i]))
            f->kind = (enum fault_kind)i;
    }
    return true;
}

static bool parse_fault(struct span spec, struct fault *f)
{
    *f = (struct fault){.code = 503, .times = -1, .retry_after = -1, .mb = 8, .ms = 20};
    while (spec.n) {
        const char *equals = memchr(spec.p, '=', spec.n);
        if (!equals)
            return false;
        struct span name = {spec.p, (size_t)(equals - spec.p)};
        struct span value = {equals + 1, spec.n - name.n - 1};
        const char *comma = span_is(name, "body") ? NULL : memchr(value.p, ',', value.n);
        if (comma)
            value.n = (size_t)(comma - value.p);
        if (!set_option(f, name, value))
            return false;
        size_t used = name.n + 1 + value.n + (comma ? 1 : 0);
        spec.p += used;
        spec.n -= used;
    }
    return f->kind != FAULT_NONE && f->mb >= 0 && f->mb <= 1024 && f->code >= 100 && f->code < 600;
}

static void set_faults(struct stub *s, struct conn *c, struct span body)
{
    static struct fault fresh[MAX_FAULTS];
    size_t n = 0;
    while (body.n) {
        const char *newline = memchr(body.p, '\n', body.n);
        struct span line = {body.p, newline ? (size_t)(newline - body.p) : body.n};
        size_t used = line.n + (newline ? 1 : 0);
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (line.n && (n == MAX_FAULTS || !parse_fault(line, &fresh[n++]))) {
            reply_text(s, c, 400, "bad fault spec\n");
            return;
        }
        body.p += used;
        body.n -= used;
    }
    memcpy(s->faults, fresh, n * sizeof *fresh);
    s->n_faults = n;
    reply_text(s, c, 200, "ok\n");
}

static void set_latency(struct stub *s, struct conn *c, struct span body)
{
    char text[32];
    copyz(text, sizeof text, body);
    double ms = strtod(text, NULL);
    s->latency_us = ms > 0 ? (uint64_t)(ms * 1000) : 0;
    reply_text(s, c, 200, "ok\n");
}

static void answer_stats(struct stub *s, struct conn *c, struct span body)
{
    struct stats *t = &s->stats;
    struct rusage use;
    (void)body;
    change_running(s, 0);
    getrusage(RUSAGE_SELF, &use);
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"requests", t->requests},
        {"other_requests", t->other_requests},
        {"sent", t->sent},
        {"aborts", t->aborts},
        {"faults", t->faults},
        {"in_flight", t->in_flight},
        {"max_in_flight", t->max_in_flight},
        {"running", t->running},
        {"max_running", t->max_running},
        {"connections", t->connections},
        {"prompt_tokens", t->prompt_tokens},
        {"completion_tokens", t->completion_tokens},
        {"busy_us", t->busy_us},
        {"cpu_us", (uint64_t)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000 +
                       (uint64_t)(use.ru_utime.tv_usec + use.ru_stime.tv_usec)},
        {"now_us", s->now_us},
    };
    s->body.n = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        adds(&s->body, i ? ",\"" : "{\"");
        adds(&s->body, rows[i].name);
        adds(&s->body, "\":");
        addu(&s->body, rows[i].value);
    }
    adds(&s->body, "}\n");
    reply_body(s, c);
}

#define OLLAMA DIALECT_OLLAMA
#define BOTH (DIALECT_OLLAMA | DIALECT_OPENAI)

/* Ollama serves /v1 too; only /health is llama-server's own. */
static const struct route routes[] = {
    {"POST", "/api/generate", OLLAMA, true, SHAPE_GENERATE, NULL},
    {"POST", "/api/chat", OLLAMA, true, SHAPE_CHAT, NULL},
    {"POST", "/api/embed", OLLAMA, true, SHAPE_EMBED, NULL},
    {"POST", "/v1/chat/completions", BOTH, true, SHAPE_V1_CHAT, NULL},
    {"POST", "/v1/completions", BOTH, true, SHAPE_V1_TEXT, NULL},
    {"POST", "/v1/embeddings", BOTH, true, SHAPE_V1_EMBED, NULL},
    {"GET", "/", OLLAMA, false, 0, answer_root},
    {"GET", "/api/version", OLLAMA, false, 0, answer_version},
    {"GET", "/api/tags", OLLAMA, false, 0, answer_tags},
    {"GET", "/api/ps", OLLAMA, false, 0, answer_ps},
    {"POST", "/api/show", OLLAMA, false, 0, answer_show},
    {"GET", "/v1/models", BOTH, false, 0, answer_v1_models},
    {"GET", "/health", DIALECT_OPENAI, false, 0, answer_health},
    {"GET", "/props", BOTH, false, 0, answer_props},
    {"POST", "/_stub/faults", BOTH, false, 0, set_faults},
    {"POST", "/_stub/latency", BOTH, false, 0, set_latency},
    {"GET", "/_stub/stats", BOTH, false, 0, answer_stats},
};

/* ---- HTTP in ---- */

struct head {
    struct span method, target, text;
    size_t bytes, body_bytes;
    bool is_chunked, must_close, wants_continue;
};

static bool header_is(struct span line, const char *name, struct span *value)
{
    size_t n = strlen(name);
    if (line.n <= n || line.p[n] != ':' || strncasecmp(line.p, name, n) != 0)
        return false;
    value->p = skip_space(line.p + n + 1, line.p + line.n);
    value->n = (size_t)(line.p + line.n - value->p);
    return true;
}

static void read_header(struct head *h, struct span line)
{
    struct span value;
    if (header_is(line, "content-length", &value))
        h->body_bytes = strtoul(value.p, NULL, 10); /* ends at the CR behind the value */
    else if (header_is(line, "transfer-encoding", &value))
        h->is_chunked = true;
    else if (header_is(line, "connection", &value))
        h->must_close = value.n >= 5 && !strncasecmp(value.p, "close", 5);
    else if (header_is(line, "expect", &value))
        h->wants_continue = true;
}

/* 1: read; 0: not all there yet; -1: not HTTP. */
static int read_head(struct span in, struct head *h)
{
    const char *end = memmem(in.p, in.n, "\r\n\r\n", 4);
    *h = (struct head){0};
    if (!end)
        return in.n > MAX_HEAD_BYTES ? -1 : 0;
    h->bytes = (size_t)(end - in.p) + 4;
    h->text = (struct span){in.p, h->bytes};
    const char *eol = memchr(in.p, '\r', h->bytes);
    const char *space = memchr(in.p, ' ', (size_t)(eol - in.p));
    if (!space)
        return -1;
    h->method = (struct span){in.p, (size_t)(space - in.p)};
    const char *stop = memchr(space + 1, ' ', (size_t)(eol - space - 1));
    if (!stop || eol - stop < 9)
        return -1;
    h->must_close = !memcmp(stop + 1, "HTTP/1.0", 8);
    const char *query = memchr(space + 1, '?', (size_t)(stop - space - 1));
    h->target = (struct span){space + 1, (size_t)((query ? query : stop) - space - 1)};
    for (const char *p = eol + 2; p < end; p = eol + 2) {
        eol = memchr(p, '\r', (size_t)(end + 1 - p));
        unsigned char first = (unsigned char)(*p | 0x20);
        if (first == 'c' || first == 't' || first == 'e')
            read_header(h, (struct span){p, (size_t)(eol - p)});
    }
    return 1;
}

static void add_quoted(struct buf *b, struct span text, bool is_lower)
{
    adds(b, "\"");
    for (size_t i = 0; i < text.n; i++) {
        char ch = text.p[i];
        if (ch == '"' || ch == '\\')
            adds(b, "\\");
        if (is_lower && ch >= 'A' && ch <= 'Z')
            ch = (char)(ch | 0x20);
        add(b, (unsigned char)ch < ' ' ? "?" : &ch, 1);
    }
    adds(b, "\"");
}

static void add_headers(struct buf *b, const struct head *h)
{
    const char *end = h->text.p + h->text.n - 2;
    const char *p = (const char *)memchr(h->text.p, '\n', h->text.n) + 1;
    for (bool is_first = true; p < end; is_first = false) {
        const char *eol = memchr(p, '\r', (size_t)(end + 1 - p));
        const char *colon = memchr(p, ':', (size_t)(eol - p));
        if (!colon)
            break;
        const char *value = skip_space(colon + 1, eol);
        adds(b, is_first ? "" : ",");
        add_quoted(b, (struct span){p, (size_t)(colon - p)}, true);
        adds(b, ":");
        add_quoted(b, (struct span){value, (size_t)(eol - value)}, false);
        p = eol + 2;
    }
}

/* --bodies: the request as a JSON line. */
static void keep_request(struct stub *s, const struct head *h, struct span body)
{
    struct buf *b = &s->bodies;
    struct walk w;
    struct span key, value;
    adds(b, "{\"method\":");
    add_quoted(b, h->method, false);
    adds(b, ",\"path\":");
    add_quoted(b, h->target, false);
    adds(b, ",\"headers\":{");
    add_headers(b, h);
    adds(b, "},\"body\":");
    bool is_json = body.n && walk_open(&w, body, '{');
    while (is_json && walk_next(&w, &key, &value))
        ;
    if (is_json && !w.is_bad) {
        size_t at = b->n;
        add(b, body.p, body.n);
        for (; at < b->n; at++) {
            if (b->p[at] == '\n' || b->p[at] == '\r')
                b->p[at] = ' ';
        }
    } else {
        adds(b, "null");
    }
    adds(b, "}\n");
}

/* What --prefix leaves of a path; an empty one when it stands elsewhere. */
static struct span below_prefix(const struct stub *s, struct span path)
{
    size_t n = s->prefix ? strlen(s->prefix) : 0;
    if (path.n < n || memcmp(path.p, s->prefix ? s->prefix : "", n) != 0)
        return (struct span){path.p, 0};
    return (struct span){path.p + n, path.n - n};
}

static void dispatch(struct stub *s, struct conn *c, const struct head *head, struct span body)
{
    struct head copy = *head, *h = &copy;
    bool has_path = false;
    c->rq = (struct request){0};
    c->fault.kind = FAULT_NONE;
    c->must_close = h->must_close;
    c->phase = ANSWERING;
    copyz(c->rq.path, sizeof c->rq.path, h->target);
    bool is_control = !strncmp(c->rq.path, "/_stub/", 7);
    if (!is_control && s->bodies_fd >= 0)
        keep_request(s, h, body);
    if (!is_control) {
        h->target = below_prefix(s, h->target);
        copyz(c->rq.path, sizeof c->rq.path, h->target);
    }
    c->rq.is_logged = !is_control;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        const struct route *r = &routes[i];
        if (!(r->dialects & s->dialects) || !span_is(h->target, r->path))
            continue;
        has_path = true;
        if (!span_is(h->method, r->method))
            continue;
        if (r->is_job) {
            c->rq.route = r;
            begin_job(s, c, body);
            return;
        }
        if (!is_control) {
            s->stats.other_requests++;
            log_event(s, c, "recv", 0, false);
            pick_fault(s, c, body);
        }
        if (!fail_at_once(s, c))
            r->answer(s, c, body);
        return;
    }
    s->stats.other_requests += !is_control;
    if (!is_control)
        log_event(s, c, "recv", 0, false);
    reply_text(s, c, has_path ? 405 : 404,
               has_path ? "405 method not allowed" : "404 page not found");
}

static void refuse(struct stub *s, struct conn *c, int status, const char *text)
{
    c->rq = (struct request){0};
    c->fault.kind = FAULT_NONE;
    c->phase = ANSWERING;
    c->must_close = true;
    c->in.n = 0;
    reply_text(s, c, status, text);
}

static void parse(struct stub *s, struct conn *c)
{
    struct head h;
    if (c->phase != READING || !c->in.p || !c->in.n || c->in.n < c->need)
        return;
    int rc = read_head((struct span){c->in.p, c->in.n}, &h);
    if (!rc)
        return;
    if (rc < 0) {
        refuse(s, c, 400, "400 Bad Request");
    } else if (h.is_chunked) {
        refuse(s, c, 411, "the stub wants Content-Length");
    } else if (h.body_bytes > MAX_BODY_BYTES) {
        refuse(s, c, 413, "body too large for the stub");
    } else if (c->in.n < h.bytes + h.body_bytes) {
        c->need = h.bytes + h.body_bytes;
        if (h.wants_continue && !c->has_continued) {
            adds(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
            mark_dirty(s, c);
        }
        c->has_continued = true;
    } else {
        size_t used = h.bytes + h.body_bytes;
        c->need = 0;
        c->has_continued = false;
        /* nothing below keeps a pointer into `in` */
        dispatch(s, c, &h, (struct span){c->in.p + h.bytes, h.body_bytes});
        c->in.n -= used;
        memmove(c->in.p, c->in.p + used, c->in.n);
    }
}

/* ---- connections ---- */

static void close_conn(struct stub *s, struct conn *c)
{
    if (c->is_dead)
        return;
    timer_stop(s, c);
    close(c->fd);
    c->is_dead = true;
    c->next_dead = s->dead; /* freed at the end of the turn: lists may still point here */
    s->dead = c;
    *(c->all_prev ? &c->all_prev->all_next : &s->all) = c->all_next;
    if (c->all_next)
        c->all_next->all_prev = c->all_prev;
}

/* The client closed, or its connection broke. */
static void lose_conn(struct stub *s, struct conn *c)
{
    if (c->phase == WAITING)
        unqueue(s, c);
    if (c->phase == RUNNING)
        change_running(s, -1);
    if (c->rq.route && c->phase != READING) {
        log_event(s, c, "abort", c->rq.status, false);
        s->stats.aborts++;
        if (!c->rq.is_settled)
            s->stats.in_flight--;
    }
    close_conn(s, c);
}

static void free_conn(struct conn *c)
{
    free(c->in.p);
    free(c->out.p);
    free(c->text.p);
    free(c);
}

static void accept_all(struct stub *s)
{
    int fd;
    while ((fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = calloc(1, sizeof *c);
        if (!c)
            abort();
        c->fd = fd;
        c->id = (unsigned)++s->stats.connections;
        c->all_next = s->all;
        if (s->all)
            s->all->all_prev = c;
        s->all = c;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event))
            abort();
    }
}

static void on_readable(struct stub *s, struct conn *c)
{
    size_t room = c->need > c->in.n ? c->need - c->in.n : 4096;
    buf_reserve(&c->in, room < 4096 ? 4096 : room);
    ssize_t n = recv(c->fd, c->in.p + c->in.n, c->in.cap - c->in.n, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        c->in.n += (size_t)n;
    if (n <= 0 || c->in.n > MAX_BODY_BYTES + MAX_HEAD_BYTES) {
        lose_conn(s, c);
        return;
    }
    parse(s, c);
}

static void watch_write(struct stub *s, struct conn *c, bool on)
{
    if (c->wants_write == on)
        return;
    c->wants_write = on;
    struct epoll_event event = {.events = EPOLLIN | (on ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(s->epoll, EPOLL_CTL_MOD, c->fd, &event);
}

/* How much may go out now: all but the end of an answer that is not in the log yet. */
static size_t sendable(const struct conn *c)
{
    size_t left = c->out.n - c->out_at;
    if (c->phase == ANSWERING && c->fault.kind == FAULT_SLOWHEAD)
        return left ? 1 : 0;
    if (c->phase == ANSWERING && !c->rq.is_settled)
        return left - TAIL_BYTES;
    return left;
}

static void answered(struct stub *s, struct conn *c)
{
    if (c->must_close) {
        close_conn(s, c);
        return;
    }
    c->phase = READING;
    c->rq.route = NULL;
    if (c->text.cap > LONG_BYTES) {
        free(c->text.p);
        c->text = (struct buf){0};
    }
    parse(s, c);
}

static void send_some(struct stub *s, struct conn *c)
{
    size_t want = sendable(c);
    ssize_t n = want ? send(c->fd, c->out.p + c->out_at, want, MSG_NOSIGNAL) : 0;
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        lose_conn(s, c);
        return;
    }
    c->out_at += n > 0 ? (size_t)n : 0;
    watch_write(s, c, n < 0 || (size_t)n < want);
    if (n < 0 || (size_t)n < want)
        return;
    if (c->out_at < c->out.n) {
        if (c->fault.kind == FAULT_SLOWHEAD)
            timer_set(s, c, s->now_us + (uint64_t)c->fault.ms * 1000);
        else
            mark_dirty(s, c); /* the tail, once it is logged */
        return;
    }
    c->out.n = c->out_at = 0;
    if (c->out.cap > LONG_BYTES) {
        free(c->out.p);
        c->out = (struct buf){0};
    }
    if (c->phase == ANSWERING)
        answered(s, c);
}

/* Steps 3 and 4 of the turn, until nothing is left to send: a pipelined request may begin here. */
static void flush(struct stub *s)
{
    while (s->dirty) {
        struct conn *list = s->dirty;
        s->dirty = NULL;
        s->dirty_end = &s->dirty;
        s->now_us = clock_us();
        for (struct conn *c = list; c; c = c->next_dirty) {
            size_t tail = c->fault.kind == FAULT_SLOWHEAD ? 1 : LONG_BYTES;
            if (!c->is_dead && c->phase == ANSWERING && !c->rq.is_settled &&
                c->out.n - c->out_at <= tail)
                settle(s, c);
        }
        log_flush(s);
        for (struct conn *c = list, *next; c; c = next) {
            next = c->next_dirty;
            c->is_dirty = false;
            if (!c->is_dead)
                send_some(s, c);
        }
        fill_slots(s);
    }
    log_flush(s);
}

/* ---- the loop ---- */

static void run_timers(struct stub *s)
{
    while (s->n_heap && s->heap[1]->due_us <= s->now_us) {
        struct conn *c = s->heap[1];
        timer_stop(s, c);
        if (c->phase == RUNNING)
            run_on(s, c);
        else
            mark_dirty(s, c);
    }
}

static int wait_events(struct stub *s, struct epoll_event *events, int max)
{
    uint64_t now_us = clock_us();
    uint64_t due_us = s->n_heap ? s->heap[1]->due_us : 0;
    uint64_t left_us = due_us > now_us ? due_us - now_us : 0;
    struct timespec t = {(time_t)(left_us / 1000000), (long)(left_us % 1000000 * 1000)};
    if (s->has_pwait2) {
        int n = epoll_pwait2(s->epoll, events, max, s->n_heap ? &t : NULL, NULL);
        if (n >= 0 || errno != ENOSYS)
            return n;
        s->has_pwait2 = false;
    }
    return epoll_wait(s->epoll, events, max, s->n_heap ? (int)((left_us + 999) / 1000) : -1);
}

static void turn(struct stub *s)
{
    struct epoll_event events[256];
    int n = wait_events(s, events, 256);
    s->now_us = clock_us();
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (!c) {
            accept_all(s);
            continue;
        }
        if (events[i].events & EPOLLOUT)
            mark_dirty(s, c);
        if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
            on_readable(s, c);
    }
    run_timers(s);
    fill_slots(s);
    flush(s);
    while (s->dead) {
        struct conn *c = s->dead;
        s->dead = c->next_dead;
        free_conn(c);
    }
}

/* ---- start ---- */

static void fail(const char *what)
{
    fprintf(stderr, "stub_engine: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void listen_on(struct stub *s)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(s->port)};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(s->listener, (struct sockaddr *)&address, size) || listen(s->listener, 4096) ||
        getsockname(s->listener, (struct sockaddr *)&address, &size))
        fail("listen");
    s->port = ntohs(address.sin_port);
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (s->epoll < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listener, &event))
        fail("epoll");
}

static void write_port(const struct stub *s)
{
    char temp[4096];
    if (!s->port_file)
        return;
    snprintf(temp, sizeof temp, "%s.%ld", s->port_file, (long)getpid());
    FILE *f = fopen(temp, "w");
    if (!f || fprintf(f, "%u\n", (unsigned)s->port) < 0 || fclose(f) || rename(temp, s->port_file))
        fail(s->port_file);
}

static void add_model(struct stub *s, const char *name)
{
    if (s->n_models == MAX_MODELS) {
        errno = E2BIG;
        fail("--model");
    }
    s->models[s->n_models++] = name;
}

static void add_fault(struct stub *s, const char *spec)
{
    if (s->n_faults == MAX_FAULTS ||
        !parse_fault((struct span){spec, strlen(spec)}, &s->faults[s->n_faults++])) {
        errno = EINVAL;
        fail(spec);
    }
}

static void set_dialect(struct stub *s, const char *name)
{
    if (!strcmp(name, "ollama"))
        s->dialects = DIALECT_OLLAMA;
    else if (!strcmp(name, "openai"))
        s->dialects = DIALECT_OPENAI;
    else if (!strcmp(name, "both"))
        s->dialects = BOTH;
    else {
        errno = EINVAL;
        fail(name);
    }
}

static int open_log(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
        fail(path);
    return fd;
}

static void read_options(struct stub *s, int argc, char **argv)
{
    static const struct option options[] = {
        {"port", 1, NULL, 'p'},       {"port-file", 1, NULL, 'P'}, {"log", 1, NULL, 'l'},
        {"latency-ms", 1, NULL, 'L'}, {"jitter-ms", 1, NULL, 'j'}, {"tokens", 1, NULL, 't'},
        {"model", 1, NULL, 'm'},      {"dialect", 1, NULL, 'd'},   {"chunk-ms", 1, NULL, 'c'},
        {"slots", 1, NULL, 's'},      {"fault", 1, NULL, 'f'},     {"bodies", 1, NULL, 'b'},
        {"prefix", 1, NULL, 'x'},     {"props", 1, NULL, 'r'},     {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint64_t number = optarg ? strtoul(optarg, NULL, 10) : 0;
        switch (option) {
        case 'p':
            s->port = (uint16_t)number;
            break;
        case 'P':
            s->port_file = optarg;
            break;
        case 'l':
            s->log_fd = open_log(optarg);
            break;
        case 'L':
            s->latency_us = (uint64_t)(strtod(optarg, NULL) * 1000);
            break;
        case 'j':
            s->jitter_us = (uint64_t)(strtod(optarg, NULL) * 1000);
            break;
        case 't':
            s->tokens = number;
            break;
        case 'm':
            add_model(s, optarg);
            break;
        case 'd':
            set_dialect(s, optarg);
            break;
        case 'c':
            s->chunk_us = (uint64_t)(strtod(optarg, NULL) * 1000);
            break;
        case 's':
            s->slots = number ? number : UINT64_MAX;
            break;
        case 'f':
            add_fault(s, optarg);
            break;
        case 'b':
            s->bodies_fd = open_log(optarg);
            break;
        case 'x':
            s->prefix = optarg;
            break;
        case 'r':
            s->props = number;
            break;
        default:
            exit(2);
        }
    }
}

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

static void release(struct stub *s)
{
    while (s->all) {
        struct conn *c = s->all;
        s->all = c->all_next;
        close(c->fd);
        free_conn(c);
    }
    free(s->heap);
    free(s->log.p);
    free(s->body.p);
    free(s->bodies.p);
}

int main(int argc, char **argv)
{
    static struct stub stub = {.log_fd = -1,
                               .bodies_fd = -1,
                               .dialects = BOTH,
                               .tokens = 8,
                               .slots = UINT64_MAX,
                               .has_pwait2 = true,
                               .rng = 88172645463325252U};
    struct stub *s = &stub;
    s->dirty_end = &s->dirty;
    read_options(s, argc, argv);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal}, NULL);
    sigaction(SIGINT, &(struct sigaction){.sa_handler = on_signal}, NULL);
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); /* answers due in 50 us are not late by 50 more */
    listen_on(s);
    write_port(s);
    s->now_us = s->busy_since_us = clock_us();
    printf("ready http://127.0.0.1:%u\n", (unsigned)s->port);
    fflush(stdout);
    while (!stopping)
        turn(s);
    release(s);
    return 0;
}
