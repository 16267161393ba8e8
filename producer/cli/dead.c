#include "producer/cli/dead.h"
#include "producer/cli/follow.h"

#define ANSWER_MAX_BYTES ((size_t)256 << 20)
enum { CALL_MS = 60000, PATH_MAX_BYTES = 16384, PAGE = 200 };

/* Where the next page begins, and where all end. */
struct cursors {
    int64_t next, end; /* -1: nowhere; not known yet */
    int64_t most;      /* letters that may still be given */
};

static void put_filters(const struct cli *c, struct buf *path, const struct cursors *at)
{
    buf_addf(path, "?limit=%lld&after=%lld", (long long)(at->most < PAGE ? at->most : PAGE),
             (long long)at->next);
    if (at->end >= 0)
        buf_addf(path, "&before=%lld", (long long)at->end);
    follow_put_query(path, "job_id", c->n_args > 0 ? c->args[0] : NULL);
    follow_put_query(path, "model", cli_get(c, "--model"));
    follow_put_query(path, "code", cli_get(c, "--code"));
    follow_put_query(path, "tenant", cli_get(c, "--tenant"));
    follow_put_query(path, "queue", cli_get(c, "--queue"));
    follow_put_query(path, "batch_id", cli_get(c, "--batch"));
    follow_put_time(path, "since", cli_get(c, "--since"));
    follow_put_time(path, "until", cli_get(c, "--until"));
    if (cli_has(c, "--dry-run"))
        buf_addz(path, "&dry_run=true");
}

static bool read_after(const struct cli *c, int64_t *after)
{
    const char *valuez = cli_get(c, "--after");

    *after = 0;
    if (!valuez || (str_int(str_z(valuez), after) && *after >= 0))
        return true;
    cli_usage(c, "--after: '%s' is no cursor", valuez);
    return false;
}

static int read_page(struct str answer, struct cursors *at,
                     void (*on_letter)(void *data, const struct json *letter), void *data)
{
    struct err e;
    struct json *list = json_parse(answer, &e);
    const struct json *letter = json_child(json_get(list, "data"));

    if (!list)
        return cli_fail(EXIT_SOME_FAILED, "the answer is no JSON: %s", e.msg);
    for (; letter; letter = json_next(letter), at->most--)
        on_letter(data, letter);
    if (!json_int(json_get(list, "next"), &at->next))
        at->next = -1;
    if (at->end < 0)
        json_int(json_get(list, "end"), &at->end);
    json_free(list);
    return EXIT_WELL;
}

static int call(const struct cli *c, const char *methodz, const char *pathz, struct str body,
                struct buf *answer)
{
    int status;

    buf_clear(answer);
    status = cli_call(c, methodz, pathz, body, NULL, CALL_MS, answer);
    if (status == 0)
        return EXIT_NO_SERVER;
    return status <= 299 ? EXIT_WELL : cli_print_error(status, buf_str(answer));
}

int dead_pages(const struct cli *c, const char *methodz, const char *pathz, struct str body,
               int64_t most, void (*on_letter)(void *data, const struct json *letter), void *data,
               int64_t *next)
{
    struct cursors at = {.end = -1, .most = most};
    struct buf path, answer;
    int code = EXIT_WELL;

    if (!read_after(c, &at.next))
        return EXIT_USAGE;
    buf_init(&path, PATH_MAX_BYTES);
    buf_init(&answer, ANSWER_MAX_BYTES);
    while (code == EXIT_WELL && at.next >= 0 && at.most > 0) {
        buf_clear(&path);
        buf_addz(&path, pathz);
        put_filters(c, &path, &at);
        code = path.is_over ? cli_fail(EXIT_USAGE, "the filters are too long")
                            : call(c, methodz, path.p, body, &answer);
        if (code == EXIT_WELL)
            code = read_page(buf_str(&answer), &at, on_letter, data);
    }
    *next = at.next;
    buf_release(&path);
    buf_release(&answer);
    return code;
}
