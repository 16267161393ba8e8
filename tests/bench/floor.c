/*
 * The floor: what a durable queue in front of an engine must cost, and nothing else. One loop of
 * SQLite, libcurl multi and cJSON: jobs are committed to a queue table before they are sent, sent
 * over kept-alive connections, their answers parsed and committed with their usage while the queue
 * row goes, and the results written out in the order of the input. No topics, retries, limits,
 * streams, keys or metrics; any error ends the run. genq's own figures are read against this one.
 *
 * A turn: collect finished transfers; send the next jobs, which are durable already; then one
 * transaction for all that is pending: the answers of this turn and, while there are any, the next
 * --batch input lines. So engine and commit overlap, and each fsync is shared.
 *
 * Usage: floor --in FILE --out FILE --db FILE --url URL [--slots 64] [--sync full|normal]
 *              [--batch 256] [--latency-ms L]
 * --in    JSONL, each line an Ollama request object; `"stream":false` is added when sent.
 * --db    must not exist. Left behind with the results in it.
 * --batch input lines per transaction; 0 commits all of them before the first is sent, in
 *         transactions of 1000, so that submit_s tells what submission costs.
 * Prints one JSON line. wall_s is everything from the first line read to the last one written;
 * slot_use = jobs * L / (slots * wall_s). Build: sqlite3, libcurl, libcjson.
 */
#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <getopt.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_REPLY_BYTES ((size_t)16 << 20)
#define WINDOW 256 /* jobs read back from the queue at once */

struct bytes {
    char *p;
    size_t n, cap;
};

struct slot {
    struct floor *floor;
    CURL *easy;
    int64_t id;
    struct bytes body, reply;
};

struct job {
    int64_t id;
    struct bytes body;
};

enum statement {
    ST_BEGIN,
    ST_COMMIT,
    ST_ENQUEUE,
    ST_NEXT,
    ST_RESULT,
    ST_REMOVE,
    ST_READ,
    N_STATEMENTS
};

static const char *const statement_sql[N_STATEMENTS] = {
    [ST_BEGIN] = "BEGIN IMMEDIATE",
    [ST_COMMIT] = "COMMIT",
    [ST_ENQUEUE] = "INSERT INTO queue(id, body) VALUES(?, ?)",
    [ST_NEXT] = "SELECT id, body FROM queue WHERE id > ? ORDER BY id LIMIT ?",
    [ST_RESULT] =
        "INSERT INTO result(id, text, prompt_tokens, completion_tokens) VALUES(?, ?, ?, ?)",
    [ST_REMOVE] = "DELETE FROM queue WHERE id = ?",
    [ST_READ] = "SELECT id, text, prompt_tokens, completion_tokens FROM result ORDER BY id",
};

struct floor {
    const char *in_path, *out_path, *db_path, *url;
    unsigned n_slots;
    long batch;
    double latency_ms;
    bool is_full_sync;
    sqlite3 *db;
    sqlite3_stmt *statements[N_STATEMENTS];
    CURLM *multi;
    struct curl_slist *headers;
    struct slot *slots, **idle, **done;
    unsigned n_idle, n_done;
    struct job window[WINDOW];
    unsigned window_at, window_n;
    FILE *in;
    char *line;
    size_t line_cap;
    bool is_in_transaction, is_input_over;
    int n_running; /* transfers not finished at the last perform */
    int64_t n_enqueued, n_taken, n_sent, n_stored;
    uint64_t n_commits;
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "floor: %s: %s\n", what, why);
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void append(struct bytes *b, const char *p, size_t n)
{
    if (b->cap - b->n < n) {
        b->cap = (b->n + n) * 2;
        b->p = realloc(b->p, b->cap);
        if (!b->p)
            abort();
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

/* ---- the store ---- */

static void run_sql(struct floor *f, const char *sql)
{
    if (sqlite3_exec(f->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        fail(sql, sqlite3_errmsg(f->db));
}

static void open_store(struct floor *f)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    if (!access(f->db_path, F_OK))
        fail(f->db_path, "exists already");
    if (sqlite3_open_v2(f->db_path, &f->db, flags, NULL) != SQLITE_OK)
        fail(f->db_path, sqlite3_errmsg(f->db));
    run_sql(f, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA cache_size=-8192;");
    run_sql(f, f->is_full_sync ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
    run_sql(f, "CREATE TABLE queue(id INTEGER PRIMARY KEY, body TEXT NOT NULL);"
               "CREATE TABLE result(id INTEGER PRIMARY KEY, text TEXT NOT NULL,"
               " prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL);");
    for (int i = 0; i < N_STATEMENTS; i++) {
        if (sqlite3_prepare_v3(f->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &f->statements[i], NULL) != SQLITE_OK)
            fail(statement_sql[i], sqlite3_errmsg(f->db));
    }
}

static void step(struct floor *f, enum statement which)
{
    sqlite3_stmt *st = f->statements[which];
    if (sqlite3_step(st) != SQLITE_DONE)
        fail(statement_sql[which], sqlite3_errmsg(f->db));
    sqlite3_reset(st);
}

static void begin(struct floor *f)
{
    if (!f->is_in_transaction)
        step(f, ST_BEGIN);
    f->is_in_transaction = true;
}

static void commit(struct floor *f)
{
    if (!f->is_in_transaction)
        return;
    step(f, ST_COMMIT);
    f->is_in_transaction = false;
    f->n_commits++;
}

/* Adds up to n input lines to the transaction. */
static void enqueue(struct floor *f, long n)
{
    sqlite3_stmt *st = f->statements[ST_ENQUEUE];
    while (n-- > 0 && !f->is_input_over) {
        ssize_t length = getline(&f->line, &f->line_cap, f->in);
        if (length < 0) {
            f->is_input_over = true;
            return;
        }
        while (length && (f->line[length - 1] == '\n' || f->line[length - 1] == '\r'))
            length--;
        if (!length)
            continue;
        begin(f);
        sqlite3_bind_int64(st, 1, ++f->n_enqueued);
        sqlite3_bind_text(st, 2, f->line, (int)length, SQLITE_STATIC);
        step(f, ST_ENQUEUE);
    }
}

/* Reads the next committed jobs back: memory holds a window, the queue is in the database. */
static void fill_window(struct floor *f)
{
    sqlite3_stmt *st = f->statements[ST_NEXT];
    if (f->window_at < f->window_n || f->n_taken == f->n_enqueued)
        return;
    f->window_at = f->window_n = 0;
    sqlite3_bind_int64(st, 1, f->n_taken);
    sqlite3_bind_int(st, 2, WINDOW);
    while (sqlite3_step(st) == SQLITE_ROW) {
        struct job *job = &f->window[f->window_n++];
        job->id = f->n_taken = sqlite3_column_int64(st, 0);
        job->body.n = 0;
        append(&job->body, (const char *)sqlite3_column_text(st, 1),
               (size_t)sqlite3_column_bytes(st, 1));
    }
    sqlite3_reset(st);
}

static void store_reply(struct floor *f, struct slot *slot)
{
    sqlite3_stmt *st = f->statements[ST_RESULT];
    cJSON *reply = cJSON_ParseWithLength(slot->reply.p, slot->reply.n);
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(reply, "response"));
    cJSON *prompt_tokens = cJSON_GetObjectItemCaseSensitive(reply, "prompt_eval_count");
    cJSON *completion_tokens = cJSON_GetObjectItemCaseSensitive(reply, "eval_count");
    if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(reply, "done")) || !text ||
        !cJSON_IsNumber(prompt_tokens) || !cJSON_IsNumber(completion_tokens))
        fail("answer", "not a finished one");
    begin(f);
    sqlite3_bind_int64(st, 1, slot->id);
    sqlite3_bind_text(st, 2, text, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 3, (int64_t)prompt_tokens->valuedouble);
    sqlite3_bind_int64(st, 4, (int64_t)completion_tokens->valuedouble);
    step(f, ST_RESULT);
    sqlite3_bind_int64(f->statements[ST_REMOVE], 1, slot->id);
    step(f, ST_REMOVE);
    cJSON_Delete(reply);
    f->n_stored++;
}

/* ---- the engine ---- */

static size_t on_bytes(char *p, size_t size, size_t n, void *data)
{
    struct slot *slot = data;
    if (slot->reply.n + size * n > MAX_REPLY_BYTES)
        return 0;
    append(&slot->reply, p, size * n);
    return size * n;
}

static void init_slot(struct floor *f, struct slot *slot)
{
    slot->floor = f;
    slot->easy = curl_easy_init();
    if (!slot->easy)
        abort();
    curl_easy_setopt(slot->easy, CURLOPT_URL, f->url);
    curl_easy_setopt(slot->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(slot->easy, CURLOPT_HTTPHEADER, f->headers);
    curl_easy_setopt(slot->easy, CURLOPT_PROXY, "");
    curl_easy_setopt(slot->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(slot->easy, CURLOPT_POST, 1L);
    curl_easy_setopt(slot->easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(slot->easy, CURLOPT_WRITEDATA, slot);
    curl_easy_setopt(slot->easy, CURLOPT_PRIVATE, slot);
}

static void open_engine(struct floor *f)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
    f->multi = curl_multi_init();
    f->headers = curl_slist_append(NULL, "Content-Type: application/json");
    f->headers = curl_slist_append(f->headers, "Expect:");
    f->slots = calloc(f->n_slots, sizeof *f->slots);
    f->idle = calloc(f->n_slots, sizeof(struct slot *));
    f->done = calloc(f->n_slots, sizeof(struct slot *));
    if (!f->multi || !f->headers || !f->slots || !f->idle || !f->done)
        abort();
    curl_multi_setopt(f->multi, CURLMOPT_MAXCONNECTS, (long)f->n_slots);
    for (unsigned i = 0; i < f->n_slots; i++) {
        init_slot(f, &f->slots[i]);
        f->idle[f->n_idle++] = &f->slots[i];
    }
}

static void send_job(struct floor *f, struct slot *slot, struct job *job)
{
    static const char tail[] = ",\"stream\":false}";
    if (job->body.n < 2 || job->body.p[job->body.n - 1] != '}')
        fail("input", "a line is not an object");
    slot->id = job->id;
    slot->reply.n = slot->body.n = 0;
    append(&slot->body, job->body.p, job->body.n - 1);
    append(&slot->body, tail, sizeof tail - 1);
    curl_easy_setopt(slot->easy, CURLOPT_POSTFIELDS, slot->body.p);
    curl_easy_setopt(slot->easy, CURLOPT_POSTFIELDSIZE, (long)slot->body.n);
    if (curl_multi_add_handle(f->multi, slot->easy) != CURLM_OK)
        fail("curl", "add_handle");
    f->n_sent++;
}

static void fill_slots(struct floor *f)
{
    while (f->n_idle) {
        fill_window(f);
        if (f->window_at == f->window_n)
            break;
        send_job(f, f->idle[--f->n_idle], &f->window[f->window_at++]);
    }
}

static void perform(struct floor *f)
{
    CURLMcode rc = curl_multi_perform(f->multi, &f->n_running);
    if (rc != CURLM_OK)
        fail("curl", curl_multi_strerror(rc));
}

static void collect(struct floor *f)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(f->multi, &left))) {
        struct slot *slot;
        long status = 0;
        if (message->data.result != CURLE_OK)
            fail(f->url, curl_easy_strerror(message->data.result));
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&slot);
        curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &status);
        if (status != 200)
            fail(f->url, "status is not 200");
        curl_multi_remove_handle(f->multi, slot->easy);
        f->done[f->n_done++] = slot;
    }
}

/* ---- the loop ---- */

/* Reusing a slot would lose its answer before that is stored, so a finished slot parks its answer
 * in a spare buffer and goes straight back to work. */
static void recycle(struct floor *f, struct slot *parked)
{
    for (unsigned i = 0; i < f->n_done; i++) {
        struct bytes spare = parked[i].reply;
        parked[i].id = f->done[i]->id;
        parked[i].reply = f->done[i]->reply;
        f->done[i]->reply = spare;
        f->idle[f->n_idle++] = f->done[i];
    }
    f->n_done = 0;
}

static void wait_engine(struct floor *f)
{
    unsigned n_active = f->n_slots - f->n_idle;
    /* The perform before the commit may have finished some already: no socket would tell. */
    if (!n_active || (unsigned)f->n_running < n_active)
        return;
    if (curl_multi_poll(f->multi, NULL, 0, 1000, NULL) != CURLM_OK)
        fail("curl", "poll");
}

static void turn(struct floor *f, struct slot *parked)
{
    perform(f);
    collect(f);
    unsigned n_parked = f->n_done;
    recycle(f, parked);
    int64_t sent_before = f->n_sent;
    fill_slots(f);
    if (f->n_sent > sent_before)
        perform(f); /* requests go out before the disk is waited for */
    for (unsigned i = 0; i < n_parked; i++)
        store_reply(f, &parked[i]);
    if (f->n_enqueued - f->n_sent < f->batch)
        enqueue(f, f->batch);
    commit(f);
    fill_slots(f);
    wait_engine(f);
}

static double submit_all(struct floor *f)
{
    double start = now_s();
    while (f->batch == 0 && !f->is_input_over) {
        enqueue(f, 1000);
        commit(f);
    }
    return now_s() - start;
}

static void run(struct floor *f)
{
    struct slot *parked = calloc(f->n_slots, sizeof *parked);
    if (!parked)
        abort();
    while (!f->is_input_over || f->n_stored < f->n_enqueued)
        turn(f, parked);
    for (unsigned i = 0; i < f->n_slots; i++)
        free(parked[i].reply.p);
    free(parked);
}

/* ---- the output ---- */

static void write_string(FILE *out, const char *p)
{
    fputc_unlocked('"', out);
    for (size_t plain; *p; p += plain) {
        for (plain = 0; (unsigned char)p[plain] >= 0x20 && p[plain] != '"' && p[plain] != '\\';)
            plain++;
        fwrite_unlocked(p, 1, plain, out);
        if (!p[plain])
            break;
        if (p[plain] == '"' || p[plain] == '\\')
            fprintf(out, "\\%c", p[plain]);
        else
            fprintf(out, "\\u%04x", (unsigned)p[plain]);
        plain++;
    }
    fputc_unlocked('"', out);
}

static void write_results(struct floor *f)
{
    sqlite3_stmt *st = f->statements[ST_READ];
    FILE *out = fopen(f->out_path, "w");
    int64_t n = 0;
    if (!out)
        fail(f->out_path, "cannot write");
    for (; sqlite3_step(st) == SQLITE_ROW; n++) {
        fprintf(out, "{\"id\":%lld,\"text\":", (long long)sqlite3_column_int64(st, 0));
        write_string(out, (const char *)sqlite3_column_text(st, 1));
        fprintf(out, ",\"prompt_tokens\":%lld,\"completion_tokens\":%lld}\n",
                (long long)sqlite3_column_int64(st, 2), (long long)sqlite3_column_int64(st, 3));
    }
    if (n != f->n_enqueued || fflush(out) || (f->is_full_sync && fsync(fileno(out))) || fclose(out))
        fail(f->out_path, "incomplete");
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void report(const struct floor *f, double wall_s, double submit_s)
{
    struct rusage use;
    double jobs = (double)f->n_stored;
    getrusage(RUSAGE_SELF, &use);
    double cpu_s = seconds(use.ru_utime) + seconds(use.ru_stime);
    printf("{\"jobs\":%lld,\"sync\":\"%s\",\"slots\":%u,\"wall_s\":%.4f,\"jobs_per_s\":%.0f,"
           "\"cpu_s_per_1000\":%.4f,\"commits\":%llu,\"max_rss_kb\":%ld",
           (long long)f->n_stored, f->is_full_sync ? "full" : "normal", f->n_slots, wall_s,
           jobs / wall_s, cpu_s * 1000 / jobs, (unsigned long long)f->n_commits, use.ru_maxrss);
    if (f->batch == 0)
        printf(",\"submit_s\":%.4f,\"submit_per_s\":%.0f", submit_s, jobs / submit_s);
    if (f->latency_ms > 0)
        printf(",\"slot_use\":%.4f", jobs * f->latency_ms / 1000 / (f->n_slots * wall_s));
    printf("}\n");
}

static void release(struct floor *f)
{
    for (unsigned i = 0; i < f->n_slots; i++) {
        curl_easy_cleanup(f->slots[i].easy);
        free(f->slots[i].body.p);
        free(f->slots[i].reply.p);
    }
    curl_multi_cleanup(f->multi);
    curl_slist_free_all(f->headers);
    curl_global_cleanup();
    for (int i = 0; i < N_STATEMENTS; i++)
        sqlite3_finalize(f->statements[i]);
    sqlite3_close(f->db);
    for (unsigned i = 0; i < WINDOW; i++)
        free(f->window[i].body.p);
    free(f->slots);
    free(f->idle);
    free(f->done);
    free(f->line);
    fclose(f->in);
}

static void read_options(struct floor *f, int argc, char **argv)
{
    static const struct option options[] = {
        {"in", 1, NULL, 'i'},    {"out", 1, NULL, 'o'},        {"db", 1, NULL, 'd'},
        {"url", 1, NULL, 'u'},   {"slots", 1, NULL, 's'},      {"sync", 1, NULL, 'y'},
        {"batch", 1, NULL, 'b'}, {"latency-ms", 1, NULL, 'l'}, {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'i':
            f->in_path = optarg;
            break;
        case 'o':
            f->out_path = optarg;
            break;
        case 'd':
            f->db_path = optarg;
            break;
        case 'u':
            f->url = optarg;
            break;
        case 's':
            f->n_slots = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'y':
            f->is_full_sync = strcmp(optarg, "normal") != 0;
            break;
        case 'b':
            f->batch = strtol(optarg, NULL, 10);
            break;
        case 'l':
            f->latency_ms = strtod(optarg, NULL);
            break;
        default:
            exit(2);
        }
    }
    if (!f->in_path || !f->out_path || !f->db_path || !f->url || !f->n_slots || f->batch < 0)
        fail("usage", "--in, --out, --db and --url are needed");
}

/* --url may name the engine alone. */
static void complete_url(struct floor *f, char *space, size_t size)
{
    const char *host = strstr(f->url, "://");
    if (host && strchr(host + 3, '/'))
        return;
    snprintf(space, size, "%s/api/generate", f->url);
    f->url = space;
}

int main(int argc, char **argv)
{
    static struct floor state = {.n_slots = 64, .batch = 256, .is_full_sync = true};
    struct floor *f = &state;
    char url[1024];
    read_options(f, argc, argv);
    complete_url(f, url, sizeof url);
    f->in = fopen(f->in_path, "r");
    if (!f->in)
        fail(f->in_path, "cannot read");
    open_store(f);
    open_engine(f);
    double start = now_s();
    double submit_s = submit_all(f);
    run(f);
    write_results(f);
    report(f, now_s() - start, submit_s);
    release(f);
    return 0;
}
