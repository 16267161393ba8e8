#include "base/buf.h"
#include "base/file.h"
#include "broker-config/config.h"
#include "tests/lib/test.h"
#include <stdio.h>
#include <stdlib.h>

static struct config *parse(const char *z)
{
    struct err e;
    struct config *c = config_parse(str_z(z), "g.yaml", &e);

    CHECK_STR(str_z(c ? "" : e.msg), "");
    return c;
}

static void check_error(const char *z, const char *wantz)
{
    struct err e;
    struct config *c = config_parse(str_z(z), "g.yaml", &e);

    CHECK(!c);
    CHECK_INT(e.code, ERR_INVALID);
    CHECK_STR(str_z(e.msg), wantz);
}

TEST(an_empty_file_gives_the_defaults)
{
    struct config *c = parse("");

    CHECK_STR(str_z(c->data), "./genq-data");
    CHECK_STR(str_z(c->listen), "127.0.0.1:7070");
    CHECK_INT(c->broker_kind, BROKER_KIND_SQLITE);
    CHECK_INT(c->broker_sync, BROKER_SYNC_FULL);
    CHECK_INT(c->worker_prefetch, 4096);
    CHECK_INT(c->log_level, 1);
    CHECK_INT(c->log_format, LOG_FORMAT_AUTO);
    CHECK_INT(c->n_engines, 1);
    CHECK_STR(str_z(c->engines[0].url), "http://127.0.0.1:11434");
    CHECK_STR(str_z(c->engines[0].name), "127.0.0.1:11434");
    CHECK_INT(c->engines[0].weight, 50);
    CHECK_INT(c->engines[0].slots, 0);
    CHECK(!c->engines[0].models[0] && !c->engines[0].headers[0]);
    CHECK_STR(str_z(c->queues[0]), "default");
    CHECK(!c->queues[1]);
    CHECK(!config_model(c, STR("x")));
    config_free(c);
}

TEST(values_are_read)
{
    struct config *c = parse("data: /tmp/d\n"
                             "broker: {sync: normal}\n"
                             "worker:\n  prefetch: 7\n  drain_ms: 0\n"
                             "log: {level: debug, format: json}\n"
                             "limits:\n"
                             "queues: {fast: {}, slow: }\n"
                             "models:\n"
                             "  small: {target: \"qwen2.5:0.5b\", queue: fast}\n"
                             "  plain: {}\n");

    CHECK_STR(str_z(c->data), "/tmp/d");
    CHECK_INT(c->broker_sync, BROKER_SYNC_NORMAL);
    CHECK_INT(c->worker_prefetch, 7);
    CHECK_INT(c->worker_drain_ms, 0);
    CHECK_INT(c->log_level, 0);
    CHECK_INT(c->log_format, LOG_FORMAT_JSON);
    CHECK_STR(str_z(config_model(c, STR("small"))->target), "qwen2.5:0.5b");
    CHECK_STR(str_z(config_model(c, STR("small"))->queue), "fast");
    CHECK_STR(str_z(config_model(c, STR("plain"))->target), "plain");
    CHECK_STR(str_z(config_model(c, STR("plain"))->queue), "default");
    CHECK_STR(config_queue(c, STR("small")), "fast");
    CHECK_STR(config_queue(c, STR("qwen2.5:0.5b")), "fast");
    CHECK_STR(config_queue(c, STR("small:latest")), "fast");
    CHECK_STR(config_queue(c, STR("smaller")), "default");
    CHECK(config_has_queue(c, STR("slow")));
    CHECK(config_has_queue(c, STR("default")));
    CHECK(!config_has_queue(c, STR("fas")));
    config_free(c);
}

TEST(engines_are_read)
{
    struct config *c;

    setenv("KEY_OF_TEST", "sk-1", 1);
    c = parse("engines:\n"
              "  - {url: \"http://gpu0:11434///\", weight: 1, slots: 8, api: ollama}\n"
              "  - name: cloud\n"
              "    url: https://llm.example/v1/\n"
              "    api_key: \"${KEY_OF_TEST}\"\n"
              "    slots: auto\n"
              "    models: [a, \"b:c\"]\n"
              "    headers: {X-Org: \"o 1\"}\n"
              "    cost: {prompt: 0.15, completion: 1e1}\n"
              "  - url: http://[::1]:9\n");
    CHECK_INT(c->n_engines, 3);
    CHECK_STR(str_z(c->engines[0].url), "http://gpu0:11434");
    CHECK_STR(str_z(c->engines[0].name), "gpu0:11434");
    CHECK_INT(c->engines[0].slots, 8);
    CHECK_INT(c->engines[0].api, ENGINE_API_OLLAMA);
    CHECK_STR(str_z(c->engines[1].url), "https://llm.example/v1");
    CHECK_STR(str_z(c->engines[1].models[1]), "b:c");
    CHECK_STR(str_z(c->engines[1].headers[0]), "X-Org: o 1");
    CHECK_STR(str_z(c->engines[1].headers[1]), "Authorization: Bearer sk-1");
    CHECK(!c->engines[1].headers[2]);
    CHECK(c->engines[1].cost_prompt > 0.149 && c->engines[1].cost_prompt < 0.151);
    CHECK(c->engines[1].cost_completion > 9.9 && c->engines[1].cost_completion < 10.1);
    CHECK_STR(str_z(c->engines[2].name), "[::1]:9");
    config_free(c);
}

TEST(unknown_keys_are_named_with_a_hint)
{
    check_error("worker:\n  prefech: 3\n",
                "g.yaml:2:3: worker.prefech: unknown key; did you mean prefetch?");
    check_error("engine: []\n", "g.yaml:1:1: engine: unknown key; did you mean engines?");
    check_error("zzzzzzzz: 1\n", "g.yaml:1:1: zzzzzzzz: unknown key");
    check_error("engines:\n- {url: http://a, wieght: 1}\n",
                "g.yaml:2:19: engines: wieght: unknown key; did you mean weight?");
    check_error("models: {m: {tarjet: x}}",
                "g.yaml:1:14: models: tarjet: unknown key; did you mean target?");
    check_error("\"\": 1", "g.yaml:1:1: (a key): unknown key");
    check_error("broker.sync.x: 1", "g.yaml:1:1: broker.sync.x: unknown key");
    check_error("worker.listen: 0",
                "g.yaml:1:1: worker.listen: unknown key; write a map in place of each dot");
}

TEST(what_is_not_built_yet_says_so)
{
    check_error("auth: {}", "g.yaml:1:1: auth: not built yet");
    check_error("filter: {}", "g.yaml:1:1: filter: not built yet");
    check_error("telemetry: {}", "g.yaml:1:1: telemetry: not built yet");
    check_error("models: {m: {fallback: []}}", "g.yaml:1:14: models: fallback: not built yet");
}

TEST(a_redis_is_named_by_a_url)
{
    check_error("redis: {url: x}",
                "g.yaml:1:14: redis.url: must be redis://host:port/db or unix:/path");
    check_error("redis: {url: 'rediss://h'}",
                "g.yaml:1:14: redis.url: TLS (rediss://) is not built in: put a tunnel (stunnel, "
                "ghostunnel) on this machine and name its address");
    check_error("redis:\n  url: 'redis://:p@h:x'\n",
                "g.yaml:2:8: redis.url: the port must be a number from 1 to 65535");
    check_error("redis: {hot_s: 0}", "g.yaml:1:16: redis.hot_s: must be from 1 to 31536000");
}

TEST(wrong_types_and_ranges_are_named_with_their_place)
{
    check_error("data: []", "g.yaml:1:7: data: must be a single value");
    check_error("data:", "g.yaml:1:6: data: has no value");
    check_error("data: \"\"", "g.yaml:1:7: data: must be 1 to 4096 bytes long");
    check_error("data: \"a\\nb\"", "g.yaml:1:7: data: must hold no control characters");
    check_error("broker: full", "g.yaml:1:9: broker: must be a map");
    check_error("broker: {sync: half}", "g.yaml:1:16: broker.sync: must be one of full, normal");
    check_error("broker: {kind: x}", "g.yaml:1:16: broker.kind: must be one of sqlite, kafka");
    check_error("broker: {kind: kafka}", "g.yaml:1:9: broker: kind: kafka needs servers: "
                                         "\"host:port,…\"");
    check_error("broker: {prefix: a}", "g.yaml:1:18: broker.prefix: is for kind: kafka");
    check_error("broker: {kind: kafka, servers: s, prefix: a/b}",
                "g.yaml:1:43: broker.prefix: must be of letters, digits, "
                "'.', '_' and '-'");
    check_error("retry: {attempts: \"5\"}", "g.yaml:1:19: retry.attempts: must be a whole number");
    check_error("retry: {attempts: 1.5}", "g.yaml:1:19: retry.attempts: must be a whole number");
    check_error("retry: {attempts: 0}", "g.yaml:1:19: retry.attempts: must be from 1 to 100");
    check_error("retry: {attempts: 101}", "g.yaml:1:19: retry.attempts: must be from 1 to 100");
    check_error("retry: {attempts: 99999999999999999999}",
                "g.yaml:1:19: retry.attempts: must be a whole number");
    check_error("listen: somewhere", "g.yaml:1:9: listen: must be an address and a port, such as "
                                     "127.0.0.1:7070");
    check_error("listen: 127.0.0.1:70700", "g.yaml:1:9: listen: must be an address and a port, "
                                           "such as 127.0.0.1:7070");
    check_error("[a]", "g.yaml:1:1: this: must be a map");
}

TEST(engines_are_checked)
{
    check_error("engines: {}", "g.yaml:1:10: engines: must be a list");
    check_error("engines: [a]", "g.yaml:1:11: engines: this: must be a map");
    check_error("engines: [{weight: 3}]", "g.yaml:1:11: engines: url: must be given");
    check_error("engines: [{url: gpu0}]",
                "g.yaml:1:11: engines: url: must begin with http:// or https://");
    check_error("engines: [{url: \"http://u:p@h\"}]",
                "g.yaml:1:11: engines: url: must hold no user name; credentials belong in api_key "
                "or headers");
    check_error("engines: [{url: \"http://h:99999\"}]",
                "g.yaml:1:11: engines: url: must hold a host, and a port from 0 to 65535 if any");
    check_error("engines: [{url: \"http:///x\"}]",
                "g.yaml:1:11: engines: url: must hold a host, and a port from 0 to 65535 if any");
    check_error("engines: [{url: \"http://h/?a\"}]",
                "g.yaml:1:11: engines: url: must hold no spaces, ?, # or quotes");
    check_error("engines: [{url: http://h}, {url: http://h/v1}]",
                "g.yaml:1:28: engines: name: \"h\" is the name of another engine");
    check_error("engines: [{url: http://h, name: a/b}]",
                "g.yaml:1:11: engines: name: must be at most 64 letters, digits or ._-:[]");
    check_error("engines: [{url: http://h, slots: 0}]",
                "g.yaml:1:34: engines: slots: must be from 1 to 10000");
    check_error("engines: [{url: http://h, slots: many}]",
                "g.yaml:1:34: engines: slots: must be a whole number or auto");
    check_error("engines: [{url: http://h, cost: {prompt: -1}}]",
                "g.yaml:1:42: engines: cost.prompt: must be a number that is not negative");
    check_error("engines: [{url: http://h, cost: {prompt: .inf}}]",
                "g.yaml:1:42: engines: cost.prompt: must be a number that is not negative");
    check_error("engines: [{url: http://h, models: a}]",
                "g.yaml:1:35: engines: models: must be a list");
    check_error("engines: [{url: http://h, headers: {\"a b\": c}}]",
                "g.yaml:1:36: engines: headers: \"a b\" is no name");
    check_error("engines: [{url: http://h, headers: {a: \"b\\r\\nc\"}}]",
                "g.yaml:1:36: engines: headers: must hold no control characters");
    check_error("engines: [{url: http://h, api_key: k, headers: {authorization: x}}]",
                "g.yaml:1:11: engines: api_key: headers hold an Authorization already");
}

TEST(queues_and_models_are_checked)
{
    check_error("queues: {a b: {}}",
                "g.yaml:1:15: queues: a b: must be 1 to 64 letters, digits or ._-");
    check_error("queues: {a: {}, A: {}}",
                "g.yaml:1:20: queues: A: is a, but for the case of its letters");
    check_error("queues: {a: 3}", "g.yaml:1:13: queues: must be a map");
    check_error("queues: {a: {weight: 3}}", "g.yaml:1:14: weight: unknown key");
    check_error("models: {m: {queue: none}}",
                "g.yaml:1:13: models: m: queue: \"none\" is not among queues");
    check_error("models: [m]", "g.yaml:1:9: models: must be a map");
}

TEST(the_command_line_replaces_engines)
{
    const char *const two[] = {"http://a:1/", "https://b"};
    const char *const same[] = {"http://a", "http://a"};
    const char *const bad[] = {"ftp://a"};
    struct config *c = parse("engines: [{url: http://old}]");
    struct err e;

    CHECK_INT(config_set_engines(c, bad, 1, &e), ERR_INVALID);
    CHECK_STR(str_z(e.msg), "engine ftp://a: url: must begin with http:// or https://");
    CHECK_INT(config_set_engines(c, same, 2, &e), ERR_INVALID);
    CHECK_STR(str_z(c->engines[0].url), "http://old");
    CHECK_INT(config_set_engines(c, two, 2, &e), 0);
    CHECK_INT(c->n_engines, 2);
    CHECK_STR(str_z(c->engines[0].url), "http://a:1");
    CHECK_STR(str_z(c->engines[1].name), "b");
    CHECK_INT(config_set_text(&c->data, "elsewhere"), 0);
    CHECK_STR(str_z(c->data), "elsewhere");
    CHECK_INT(config_set_text(&c->data, ""), ERR_INVALID);
    config_free(c);
}

static void write_file(const char *pathz, const char *z)
{
    FILE *f = fopen(pathz, "w");

    CHECK(f && fputs(z, f) >= 0 && fclose(f) == 0);
}

TEST(files_are_looked_for_in_order)
{
    struct config *c;
    struct err e;

    unsetenv("GENQ_CONFIG");
    write_file("genq.yaml", "data: here\n");
    write_file("env.yaml", "data: env\n");
    write_file("arg.yaml", "data: arg\n");
    c = config_load(NULL, &e);
    CHECK_STR(str_z(c->data), "here");
    config_free(c);
    setenv("GENQ_CONFIG", "env.yaml", 1);
    c = config_load(NULL, &e);
    CHECK_STR(str_z(c->data), "env");
    config_free(c);
    c = config_load("arg.yaml", &e);
    CHECK_STR(str_z(c->data), "arg");
    config_free(c);
    CHECK(!config_load("none.yaml", &e));
    CHECK_INT(e.code, ERR_NOT_FOUND);
    write_file("arg.yaml", "dato: arg\n");
    CHECK(!config_load("arg.yaml", &e));
    CHECK_STR(str_z(e.msg), "arg.yaml:1:1: dato: unknown key; did you mean data?");
}

TEST(queues_of_a_worker)
{
    struct config *c = parse("worker: {queues: auto}");

    CHECK(!c->worker_queues[0]);
    config_free(c);
    c = parse("worker: {queues: [fast, default]}\nqueues: {fast: {}}");
    CHECK_STR(str_z(c->worker_queues[0]), "fast");
    CHECK_STR(str_z(c->worker_queues[1]), "default");
    CHECK(!c->worker_queues[2]);
    config_free(c);
    check_error("worker: {queues: [slow]}",
                "g.yaml:1:18: worker.queues: \"slow\" is not among queues");
    check_error("worker: {queues: []}",
                "g.yaml:1:18: worker.queues: must be auto, or a list of one "
                "name at least");
    check_error("worker: {queues: all}",
                "g.yaml:1:18: worker.queues: must be auto, or a list of one "
                "name at least");
    check_error("worker: {listen: here}",
                "g.yaml:1:18: worker.listen: must be an address and a port, "
                "such as 127.0.0.1:7070");
}

TEST(what_is_printed_reads_back_the_same)
{
    struct config *c = parse("data: 'a \"b\" \\'\nqueues: {fast: {}}\n"
                             "worker: {queues: [fast]}\n"
                             "models: {m: {queue: fast}}\n"
                             "engines: [{url: http://h:1, models: [x], cost: {prompt: 0.25}}]\n");
    struct config *back;
    struct buf b, again;

    buf_init(&b, 1 << 20);
    buf_init(&again, 1 << 20);
    config_print(c, &b);
    back = parse(b.p);
    config_print(back, &again);
    CHECK(str_eq(buf_str(&b), buf_str(&again)));
    CHECK_STR(str_z(back->data), "a \"b\" \\");
    CHECK(strstr(b.p, "\nbroker:\n  kind: sqlite\n  sync: full\n  servers: \"\"\n"));
    CHECK(strstr(b.p, "\n  replication: auto\n  min_insync: auto\nredis:\n"));
    CHECK(strstr(b.p, "\n    cost:\n      prompt: 0.25\n      completion: 0\n"));
    config_free(c);
    config_free(back);
    buf_release(&b);
    buf_release(&again);
}

TEST(secrets_are_not_printed)
{
    struct config *c = parse("engines: [{url: http://h, api_key: sk-1, headers: {X: sk-2}}]");
    struct buf b;

    buf_init(&b, 1 << 20);
    config_print(c, &b);
    CHECK(!strstr(b.p, "sk-"));
    CHECK(strstr(b.p, "    api_key: \"***\"\n"));
    CHECK(strstr(b.p, "    headers: {\"X\": \"***\"}\n"));
    config_free(c);
    buf_release(&b);
}

TEST(the_reference_page_is_up_to_date)
{
    struct buf page, want;
    struct err e;

    buf_init(&page, 1 << 20);
    buf_init(&want, 1 << 20);
    config_print_reference(&want);
    if (getenv("WRITE_CONFIGURATION")) /* how the page is made */
        write_file(getenv("WRITE_CONFIGURATION"), want.p);
    CHECK_INT(file_read(SOURCE_DIR "/docs/configuration.md", &page, &e), 0);
    CHECK_STR(buf_str(&page), want.p);
    buf_release(&page);
    buf_release(&want);
}
