/* What the two files of fetch share, and libcurl's one includer: fetch.c is the pool with its
 * turns, fetch_easy.c one call: how a request is told to libcurl, and what comes of it. */
#pragma once
#include "base/fetch.h"
#include "base/fetch_sockets.h"
#include "base/heap.h"
#include "base/list.h"
#include <curl/curl.h>

enum step {
    STEP_FREE,    /* in pool->free */
    STEP_QUEUED,  /* in pool->queued */
    STEP_RUNNING, /* in pool->running, and libcurl's */
    STEP_DOOMED,  /* in pool->doomed: aborted while libcurl was at work */
    STEP_DONE,    /* in no list: on_done is being called */
};

struct fetch {
    struct list node;
    enum step step;
    struct fetch_pool *pool;
    CURL *easy;
    struct fetch_handler handler;
    struct str body;
    size_t n_read; /* of the body, when libcurl asks for it in pieces */

    /* What `easy` is set to, kept over calls. */
    char *urlz;
    char methodz[16];
    bool has_body;
    int64_t connect_ms;
    struct curl_slist *own_headers;       /* made from a caller's headers */
    const struct curl_slist *set_headers; /* own_headers or one of the pool's */
    bool is_own_json;

    /* Limits and course of this call; times are the loop's. */
    int64_t total_ms, first_byte_ms, idle_ms;
    size_t max_body_bytes;
    struct heap_node limit;
    int64_t started_at, first_at, last_at; /* -1: not yet */
    size_t n_body;
    bool is_head_told, has_retry_after;
    enum fetch_fault fault; /* ours, found before libcurl reports; FETCH_OK: none */
    char error[CURL_ERROR_SIZE];
};

struct fetch_pool {
    uv_loop_t *loop;
    CURLM *multi;
    uv_idle_t kick;         /* runs while something is queued or libcurl wants a call at once */
    uv_timer_t curl_timer;  /* libcurl's */
    uv_timer_t limit_timer; /* first of `limits`, or earlier */
    int64_t curl_due, limit_due; /* when they fire, while active */
    struct list queued, running, doomed, free;
    int n_free;
    struct heap limits;
    struct curl_slist *json_headers, *plain_headers;
    struct sockets sockets;
    int max_connections, set_connections;
    int n_handles;   /* libuv's three above, not yet closed */
    bool is_busy;    /* a callback of the pool is under way */
    bool is_in_curl; /* … and inside libcurl */
    bool is_closing;
};

/* A handle, set to everything but its sockets and a request. */
struct fetch *fetch_easy_new(struct fetch_pool *p);
void fetch_easy_free(struct fetch *f);
/* Sets f to the request, where it differs from its last one. ERR_INVALID. */
int fetch_easy_set(struct fetch *f, const struct fetch_request *r, struct err *e);
/* The headers of a request that brings none of its own. */
struct curl_slist *fetch_easy_headers(bool is_json);
/* How the call ended: f->fault, or else libcurl's code. */
void fetch_easy_result(struct fetch *f, CURLcode code, struct fetch_result *r);

/* fetch.c's: to be called when what a deadline depends on has changed. */
void fetch_set_limit(struct fetch *f);
