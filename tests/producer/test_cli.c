#include "producer/cli/help.h"
#include "producer/cli/parse.h"
#include "producer/cli/client.h"
#include "producer/cli/sse.h"
#include "producer/cli/table.h"
#include "tests/lib/test.h"
#include <stdio.h>
#include <stdlib.h>

/* Splits at spaces; parses into c and w. */
static int parse(const char *linez, struct cli *c, struct cli_wish *w, struct err *e)
{
    static char words[4096]; /* what c borrows from */
    char *argv[200], *save = NULL, *word;
    int argc = 1;

    argv[0] = "genq";
    snprintf(words, sizeof words, "%s", linez);
    for (word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save))
        argv[argc++] = word;
    argv[argc] = NULL;
    return cli_parse(c, w, argc, argv, e);
}

TEST(parses_commands_options_and_arguments)
{
    static const struct {
        const char *linez, *commandz, *optionz, *valuez; /* valuez NULL: not given */
        size_t n_args;
    } rows[] = {
        {"get a", "get", "--tenant", NULL, 1},
        {"get --tenant=t a", "get", "--tenant", "t", 1},
        {"get --tenant t a", "get", "--tenant", "t", 1},
        {"get a --tenant t", "get", "--tenant", "t", 1},
        {"get a --tenant=", "get", "--tenant", "", 1},
        {"get --tenant t --tenant u a", "get", "--tenant", "u", 1},
        {"submit -mm1 x", "submit", "--model", "m1", 1},
        {"submit -m m1 x", "submit", "--model", "m1", 1},
        {"submit --model m1 x", "submit", "--model", "m1", 1},
        {"submit -m -x y", "submit", "--model", "-x", 1},
        {"submit x --wait", "submit", "--wait", "", 1},
        {"submit -- --wait", "submit", "--wait", NULL, 1},
        {"submit -", "submit", "--wait", NULL, 1},
        {"submit - - -", "submit", "--wait", NULL, 3},
        {"submit", "submit", "--model", NULL, 0},
        {"--server http://h:1 nodes", "nodes", "--server", "http://h:1", 0},
        {"nodes --server http://h:1", "nodes", "--server", "http://h:1", 0},
        {"--json batch --server=s run i -oO", "batch run", "--output", "O", 1},
        {"batch status b --wait", "batch status", "--wait", "", 1},
        {"batch list -n 5", "batch list", "--limit", "5", 0},
        {"config check", "config check", "--json", NULL, 0},
    };
    struct cli c;
    struct cli_wish w;
    struct err e = {0};
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_INT(parse(rows[i].linez, &c, &w, &e), 0);
        CHECK(c.command);
        CHECK_STR(str_z(c.command->namez), rows[i].commandz);
        CHECK_INT(c.n_args, rows[i].n_args);
        CHECK_INT(cli_get(&c, rows[i].optionz) != NULL, rows[i].valuez != NULL);
        if (rows[i].valuez)
            CHECK_STR(str_z(cli_get(&c, rows[i].optionz)), rows[i].valuez);
        CHECK(!w.groupz);
        cli_release(&c);
    }
}

TEST(gives_all_values_of_an_option_in_order)
{
    struct cli c;
    struct cli_wish w;

    CHECK_INT(parse("up --engine a --data d --engine=b", &c, &w, NULL), 0);
    CHECK_STR(str_z(cli_get_nth(&c, "--engine", 0)), "a");
    CHECK_STR(str_z(cli_get_nth(&c, "--engine", 1)), "b");
    CHECK(!cli_get_nth(&c, "--engine", 2));
    CHECK_STR(str_z(cli_get(&c, "--engine")), "b");
    cli_release(&c);
}

TEST(global_options_are_filled_in)
{
    struct cli c;
    struct cli_wish w;

    CHECK_INT(parse("--json nodes --config=c --api-key k --server s", &c, &w, NULL), 0);
    CHECK(c.is_json);
    CHECK_STR(str_z(c.configz), "c");
    CHECK_STR(str_z(c.serverz), "s");
    CHECK_STR(str_z(c.api_keyz), "k");
    cli_release(&c);
}

TEST(wishes_for_help_and_version)
{
    static const struct {
        const char *linez, *commandz, *groupz;
        bool is_help, is_version;
    } rows[] = {
        {"", NULL, NULL, false, false},
        {"--help", NULL, NULL, true, false},
        {"-h", NULL, NULL, true, false},
        {"help", NULL, NULL, true, false},
        {"help get", "get", NULL, true, false},
        {"help batch", NULL, "batch", true, false},
        {"help batch run", "batch run", NULL, true, false},
        {"batch help", NULL, "batch", true, false},
        {"batch", NULL, "batch", false, false},
        {"batch --help", NULL, "batch", true, false},
        {"batch run -h", "batch run", NULL, true, false},
        {"get --help", "get", NULL, true, false},
        {"--version", NULL, NULL, false, true},
        {"get help", "get", NULL, false, false},
    };
    struct cli c;
    struct cli_wish w;
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_INT(parse(rows[i].linez, &c, &w, NULL), 0);
        CHECK_INT(w.is_help, rows[i].is_help);
        CHECK_INT(w.is_version, rows[i].is_version);
        CHECK_STR(str_z(c.command ? c.command->namez : ""),
                  rows[i].commandz ? rows[i].commandz : "");
        CHECK_STR(str_z(w.groupz ? w.groupz : ""), rows[i].groupz ? rows[i].groupz : "");
        cli_release(&c);
    }
}

TEST(refuses_with_a_hint)
{
    static const struct {
        const char *linez, *messagez;
    } rows[] = {
        {"sumbit", "unknown command 'sumbit'; did you mean 'submit'?"},
        {"wiat x", "unknown command 'wiat'; did you mean 'wait'?"},
        {"pu", "unknown command 'pu'; did you mean 'up'?"},
        {"bacth run", "unknown command 'bacth'; did you mean 'batch'?"},
        {"cofig", "unknown command 'cofig'; did you mean 'config'?"},
        {"hlep", "unknown command 'hlep'; did you mean 'help'?"},
        {"batch rnu", "unknown command 'batch rnu'; did you mean 'batch run'?"},
        {"frobnicate", "unknown command 'frobnicate'"},
        {"get --tenat x", "unknown option '--tenat'; did you mean '--tenant'?"},
        {"get --jsn", "unknown option '--jsn'; did you mean '--json'?"},
        {"get --zzzzzzzz", "unknown option '--zzzzzzzz'"},
        {"--tenant x get", "unknown option '--tenant'"},
        {"get -z", "unknown option '-z'"},
        {"get --json=1", "--json takes no value"},
        {"get --tenant", "--tenant needs a value: NAME"},
        {"submit -m", "--model needs a value: MODEL"},
        {"label x", "'label' is not built in this version"},
        {"doctor", "'doctor' is not built in this version"},
    };
    struct cli c;
    struct cli_wish w;
    struct err e;
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        e = (struct err){0};
        CHECK_INT(parse(rows[i].linez, &c, &w, &e), ERR_INVALID);
        CHECK_STR(str_z(e.msg), rows[i].messagez);
        cli_release(&c);
    }
}

TEST(too_many_options_are_refused)
{
    struct buf b;
    struct cli c;
    struct cli_wish w;
    int i;

    buf_init(&b, 4000);
    buf_addz(&b, "up");
    for (i = 0; i < 40; i++)
        buf_addz(&b, " --engine x");
    CHECK_INT(parse(b.p, &c, &w, NULL), 0);
    cli_release(&c);
    for (i = 0; i < 40; i++)
        buf_addz(&b, " --json");
    CHECK_INT(parse(b.p, &c, &w, NULL), ERR_INVALID);
    cli_release(&c);
    buf_release(&b);
}

TEST(counts_arguments_by_the_usage_line)
{
    static const struct {
        const char *argumentsz;
        size_t min, max;
    } rows[] = {
        {NULL, 0, 0},
        {"", 0, 0},
        {"ID", 1, 1},
        {"ID…", 1, SIZE_MAX},
        {"[PROMPT|-]", 0, 1},
        {"[ID…]", 0, 1},
        {"IN.jsonl -o OUT.jsonl", 1, 1},
        {"[-o OUT] A B", 2, 2},
        {"[--wait] A", 1, 1},
        {"[--data DIR] [--engine URL]…", 0, 0},
        {"A [B]", 1, 2},
    };
    size_t i, min, max;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cli_count_args(rows[i].argumentsz, &min, &max);
        CHECK_INT(min, rows[i].min);
        CHECK_INT(max, rows[i].max);
    }
}

TEST(a_wrong_number_of_arguments_is_named)
{
    static const struct {
        const char *linez, *messagez;
    } rows[] = {
        {"get", "'get' needs ID"},
        {"wait", "'wait' needs ID"},
        {"get a b", "'b' is one argument too many for 'get'"},
        {"nodes x", "'x' is one argument too many for 'nodes'"},
        {"submit a b", "'b' is one argument too many for 'submit'"},
        {"batch submit", "'batch submit' needs FILE|-"},
    };
    struct cli c;
    struct cli_wish w;
    struct err e;
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_INT(parse(rows[i].linez, &c, &w, &e), 0);
        CHECK_INT(cli_check_args(&c, &e), ERR_INVALID);
        CHECK_STR(str_z(e.msg), rows[i].messagez);
        cli_release(&c);
    }
    CHECK_INT(parse("wait a b c d", &c, &w, &e), 0);
    CHECK_INT(cli_check_args(&c, &e), 0);
    cli_release(&c);
}

static bool has(const struct buf *b, const char *z)
{
    return memmem(b->p, b->n, z, strlen(z)) != NULL;
}

TEST(help_has_every_command_and_option)
{
    const struct cli_option *o;
    struct buf all, one;
    size_t i;

    buf_init(&all, 1 << 20);
    help_print_all(&all);
    CHECK(!has(&all, "doctor"));
    CHECK(!has(&all, "label"));
    for (i = 0; cli_commands[i]; i++) {
        const struct cli_command *c = cli_commands[i];

        CHECK(c->run && c->summaryz);
        CHECK(has(&all, c->namez));
        CHECK(has(&all, c->summaryz));
        CHECK(strlen(c->summaryz) + 28 <= 100);
        CHECK(!cli_is_unbuilt(c->namez));
        buf_init(&one, 1 << 20);
        help_print_command(&one, c);
        CHECK(has(&one, "Usage: genq "));
        CHECK(has(&one, c->namez));
        CHECK(has(&one, "Example:"));
        for (o = c->options; o && o->namez; o++)
            CHECK(o->namez[0] == '-' && o->namez[1] == '-' && o->helpz && has(&one, o->namez));
        for (o = cli_globals; o->namez; o++)
            CHECK(has(&one, o->namez));
        CHECK(!one.is_over);
        buf_release(&one);
    }
    buf_release(&all);
}

TEST(help_stays_within_100_columns)
{
    struct buf b;
    size_t i, at, n;

    buf_init(&b, 1 << 20);
    help_print_all(&b);
    for (i = 0; cli_commands[i]; i++)
        help_print_command(&b, cli_commands[i]);
    for (at = 0; at < b.n; at += n + 1) {
        n = strcspn(b.p + at, "\n");
        CHECK(table_width(str_of(b.p + at, n)) <= 100);
        CHECK(n == 0 || b.p[at + n - 1] != ' ');
    }
    buf_release(&b);
}

TEST(names_of_options_are_unique)
{
    const struct cli_option *a, *b;
    size_t i;

    for (i = 0; cli_commands[i]; i++)
        for (a = cli_commands[i]->options; a && a->namez; a++) {
            for (b = a + 1; b->namez; b++)
                CHECK(strcmp(a->namez, b->namez) != 0 && (!a->letter || a->letter != b->letter));
            for (b = cli_globals; b->namez; b++)
                CHECK(strcmp(a->namez, b->namez) != 0 && (!a->letter || a->letter != b->letter));
        }
}

TEST(distance_counts_edits)
{
    static const struct {
        const char *az, *bz;
        size_t distance;
    } rows[] = {
        {"", "", 0},         {"a", "", 1},        {"", "abc", 3},  {"abc", "abc", 0},
        {"abc", "acb", 1},   {"abc", "abd", 1},   {"abc", "ab", 1}, {"kitten", "sitting", 3},
        {"batch", "bacth", 1}, {"submit", "sumbit", 1}, {"ca", "abc", 3},
    };
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
        CHECK_INT(cli_distance(str_z(rows[i].az), str_z(rows[i].bz)), rows[i].distance);
}

TEST(server_addresses_become_urls)
{
    static const char *const rows[][2] = {
        {"127.0.0.1:7070", "http://127.0.0.1:7070"},
        {"http://h:1/", "http://h:1"},
        {"https://h/genq//", "https://h/genq"},
        {"localhost", "http://localhost"},
    };
    struct buf b;
    size_t i;

    for (i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        buf_init(&b, 1000);
        client_make_url(&b, str_z(rows[i][0]));
        CHECK_STR(buf_str(&b), rows[i][1]);
        buf_release(&b);
    }
}

TEST(escapes_path_segments)
{
    struct buf b;

    buf_init(&b, 1000);
    cli_escape(&b, STR("aZ09-._~/ ?&%\xc3\xbc"));
    CHECK_STR(buf_str(&b), "aZ09-._~%2F%20%3F%26%25%C3%BC");
    buf_release(&b);
}

TEST(exit_codes_of_statuses)
{
    CHECK_INT(cli_exit_code(200), EXIT_WELL);
    CHECK_INT(cli_exit_code(202), EXIT_WELL);
    CHECK_INT(cli_exit_code(400), EXIT_USAGE);
    CHECK_INT(cli_exit_code(404), EXIT_SOME_FAILED);
    CHECK_INT(cli_exit_code(409), EXIT_SOME_FAILED);
    CHECK_INT(cli_exit_code(429), EXIT_NO_SERVER);
    CHECK_INT(cli_exit_code(503), EXIT_NO_SERVER);
    CHECK_INT(cli_exit_code(504), EXIT_TIMED_OUT);
}

/* ---- tables ---- */

TEST(tables_are_aligned)
{
    struct table t;
    struct buf b;

    table_init(&t, "lrl");
    table_addz(&t, "NAME");
    table_addz(&t, "N");
    table_addz(&t, "NOTE");
    table_addz(&t, "ü");
    table_add_int(&t, 1234);
    table_addz(&t, "");
    table_addz(&t, "a\x1b[1mb");
    table_add_count(&t, 1234567);
    table_addz(&t, "x");
    buf_init(&b, 1000);
    table_print(&t, &b);
    CHECK_STR(buf_str(&b), "NAME       N  NOTE\n"
                           "ü       1234\n"
                           "a?[1mb  1.2M  x\n");
    buf_release(&b);
    table_release(&t);
}

/* ---- server-sent events ---- */

static int write_event(void *data, const struct sse_event *e)
{
    struct buf *b = data;

    return buf_addf(b, "[%.*s|%.*s|%.*s]", STR_ARG(e->name), STR_ARG(e->data), STR_ARG(e->id));
}

TEST(events_come_whole_however_they_are_cut)
{
    static const char stream[] = ": hello\n\n"
                                 "id: 1\nevent: delta\ndata: {\"a\":1}\n\n"
                                 "data:x\r\ndata:  y\r\n\r\n"
                                 "event: none\n\n"
                                 "id: 7\rdata: z\r\r"
                                 "nonsense\nretry: 5\ndata\ndata: q\n\n"
                                 "data: unfinished\n";
    struct sse s;
    struct buf b;
    size_t step, at, n, size = sizeof stream - 1;

    for (step = 1; step <= size; step++) {
        sse_init(&s, 1000);
        buf_init(&b, 1000);
        for (at = 0; at < size; at += n) {
            n = size - at < step ? size - at : step;
            CHECK_INT(sse_feed(&s, str_of(stream + at, n), write_event, &b), 0);
        }
        CHECK_STR(buf_str(&b), "[delta|{\"a\":1}|1][message|x\n y|1][message|z|7][message|\nq|7]");
        CHECK_STR(buf_str(&s.id), "7");
        sse_release(&s);
        buf_release(&b);
    }
}

TEST(an_event_past_the_ceiling_ends_the_feed)
{
    struct sse s;
    struct buf b;
    int i, rc = 0;

    sse_init(&s, 100);
    buf_init(&b, 1000);
    for (i = 0; i < 20 && rc == 0; i++)
        rc = sse_feed(&s, STR("data: 1234567890\n"), write_event, &b);
    CHECK_INT(rc, ERR_TOO_LARGE);
    sse_release(&s);
    sse_init(&s, 100);
    for (rc = 0, i = 0; i < 20 && rc == 0; i++)
        rc = sse_feed(&s, STR("1234567890"), write_event, &b);
    CHECK_INT(rc, ERR_TOO_LARGE);
    sse_release(&s);
    buf_release(&b);
}
