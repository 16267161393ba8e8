#include "base/json.h"
#include "schema/job.h"
#include "tests/lib/test.h"
#include <stdio.h>
#include <stdlib.h>

static struct err last_err;
static const char *last_param;

static bool parses(struct job *j, const char *z)
{
    return job_parse(j, str_z(z), false, &last_param, &last_err) == 0;
}

/* Refused for a reason that has this text in it, at this field. */
static bool refused(const char *z, const char *paramz, const char *whyz)
{
    struct job j;

    last_err.msg[0] = '\0';
    if (parses(&j, z)) {
        job_release(&j);
        return false;
    }
    if (strcmp(last_param, paramz) != 0 || !strstr(last_err.msg, whyz))
        fprintf(stderr, "# param '%s', message: %s\n", last_param, last_err.msg);
    return last_err.code == ERR_INVALID && strcmp(last_param, paramz) == 0 &&
           strstr(last_err.msg, whyz);
}

static bool accepted(const char *z)
{
    struct job j;

    if (!parses(&j, z)) {
        fprintf(stderr, "# %s\n", last_err.msg);
        return false;
    }
    job_release(&j);
    return true;
}

static struct str printed(const struct job *j, struct buf *b)
{
    buf_clear(b);
    CHECK_INT(job_write(j, b), 0);
    CHECK(b->n <= job_room(j));
    return buf_str(b);
}

static bool digests_agree(const char *az, const char *bz)
{
    struct job a, b;
    uint8_t da[SHA256_LEN], db[SHA256_LEN];

    CHECK(parses(&a, az));
    CHECK(parses(&b, bz));
    job_digest(&a, da);
    job_digest(&b, db);
    job_release(&a);
    job_release(&b);
    return memcmp(da, db, sizeof da) == 0;
}

TEST(prompt_alone)
{
    struct job j;

    CHECK(parses(&j, "{\"prompt\":\"a \\\"b\\\"\"}"));
    CHECK_INT(j.kind, JOB_COMPLETION);
    CHECK_STR(j.body, "\"a \\\"b\\\"\"");
    CHECK_INT(j.state, STATE_NEW);
    CHECK_INT(j.priority, PRIORITY_NORMAL);
    CHECK_INT(j.form, LINE_JOB);
    CHECK_INT(j.timeout_ms, JOB_TIMEOUT_MS_DEFAULT);
    CHECK_INT(j.max_attempts, 0);
    CHECK_INT(j.batch_line, -1);
    CHECK_INT(j.created_at, 0);
    CHECK(!j.model.p && !j.id.p && !j.custom_id.p && !j.is_stream && !j.metadata.n);
    job_release(&j);
}

TEST(every_field)
{
    struct job j;

    CHECK(parses(&j,
                 "{\"id\":\"a.B_9-\",\"model\":\"m\\u00e9:1b\",\"messages\":[{\"role\":\"user\","
                 "\"content\":\"x\"}],\"priority\":\"high\",\"queue\":\"big\",\"tenant\":\"t\","
                 "\"batch_id\":\"b1\",\"custom_id\":\"row \\n1\",\"session\":\"s s\","
                 "\"not_before\":\"2026-11-21T10:00:00Z\",\"deadline\":1795255200000,"
                 "\"timeout_ms\":1000,\"max_attempts\":3,\"stream\":true,"
                 "\"metadata\":{\"k\":1.0},\"options\":{\"num_ctx\":4096}}"));
    CHECK_INT(j.kind, JOB_CHAT);
    CHECK_STR(j.id, "a.B_9-");
    CHECK_STR(j.model, "m\xc3\xa9:1b");
    CHECK_STR(j.body, "[{\"role\":\"user\",\"content\":\"x\"}]");
    CHECK_INT(j.priority, PRIORITY_HIGH);
    CHECK_STR(j.queue, "big");
    CHECK_STR(j.tenant, "t");
    CHECK_STR(j.batch_id, "b1");
    CHECK_STR(j.custom_id, "row \n1");
    CHECK_STR(j.session, "s s");
    CHECK_INT(j.not_before, 1795255200000);
    CHECK_INT(j.deadline, 1795255200000);
    CHECK_INT(j.timeout_ms, 1000);
    CHECK_INT(j.max_attempts, 3);
    CHECK(j.is_stream);
    CHECK_STR(j.metadata, "{\"k\":1.0}");
    CHECK_STR(j.options, "{\"num_ctx\":4096}");
    job_release(&j);
}

TEST(all_texts_survive_their_escapes) /* decoded texts stand in one buffer that must not move */
{
    struct job j;
    struct job_defaults d = {.model = STR("dm"), .wall_ms = 5, .batch_line = 7};

    CHECK(parses(&j, "{\"prompt\":\"\",\"id\":\"\\u0061\",\"model\":\"\\u0062\",\"queue\":"
                     "\"\\u0063\",\"tenant\":\"\\u0064\",\"batch_id\":\"\\u0065\","
                     "\"custom_id\":\"\\u0066\",\"session\":\"\\u0067\"}"));
    CHECK_INT(job_complete(&j, &d, NULL), 0);
    CHECK_STR(j.id, "a");
    CHECK_STR(j.model, "b");
    CHECK_STR(j.queue, "c");
    CHECK_STR(j.tenant, "d");
    CHECK_STR(j.batch_id, "e");
    CHECK_STR(j.custom_id, "f");
    CHECK_STR(j.session, "g");
    job_release(&j);
}

TEST(bodies)
{
    CHECK(accepted("{\"input\":\"x\"}"));
    CHECK(accepted("{\"input\":[\"x\",\"y\"]}"));
    CHECK(accepted("{\"prompt\":null,\"input\":\"x\"}"));
    CHECK(refused("{}", "", "one of 'prompt', 'messages' and 'input' is needed"));
    CHECK(refused("{\"prompt\":null}", "", "is needed"));
    CHECK(refused("{\"prompt\":\"a\",\"input\":\"b\"}", "input", "more than one of"));
    CHECK(refused("{\"prompt\":[\"a\"]}", "prompt", "must be a string"));
    CHECK(refused("{\"input\":[]}", "input", "at least one string"));
    CHECK(refused("{\"input\":{}}", "input", "at least one string"));
    CHECK(refused("{\"input\":[1,2]}", "input", "arrays of tokens"));
    CHECK(refused("{\"input\":[[1,2]]}", "input", "arrays of tokens"));
    CHECK(refused("{\"messages\":[]}", "messages", "at least one message"));
    CHECK(refused("{\"messages\":\"hi\"}", "messages", "at least one message"));
    CHECK(refused("{\"messages\":[\"hi\"]}", "messages", "string 'role'"));
    CHECK(refused("{\"messages\":[{\"role\":1}]}", "messages", "string 'role'"));
    CHECK(refused("{\"messages\":[{\"role\":\"user\"},{}]}", "messages", "string 'role'"));
}

TEST(what_is_no_job)
{
    CHECK(refused("", "", "invalid JSON"));
    CHECK(refused("[]", "", "expected an object"));
    CHECK(refused("{\"prompt\":\"a\"", "", "invalid JSON"));
    CHECK(refused("{\"prompt\":\"a\"} x", "", "invalid JSON"));
    CHECK(refused("{\"prompt\":\"a\",\"model\":\"\\u0000\"}", "", "invalid JSON"));
}

TEST(unknown_fields)
{
    CHECK(refused("{\"promt\":\"a\"}", "", "unknown field 'promt' (did you mean 'prompt'?)"));
    CHECK(refused("{\"zzzzzz\":1}", "", "unknown field 'zzzzzz'"));
    CHECK(!strstr(last_err.msg, "mean"));
    CHECK(refused("{\"prompt\":\"a\",\"Prompt\":\"a\"}", "", "(did you mean 'prompt'?)"));
    CHECK(refused("{\"prompt\":\"a\",\"created_at\":1}", "", "unknown field 'created_at'"));
    CHECK(refused("{\"prompt\":\"a\",\"batch_line\":1}", "", "unknown field 'batch_line'"));
    CHECK(refused("{\"prompt\":\"a\",\"line_form\":\"openai\"}", "", "unknown field"));
}

TEST(hints)
{
    CHECK_STR(str_z(job_field_hint(STR("maxtokens"))), "max_tokens");
    CHECK_STR(str_z(job_field_hint(STR("temprature"))), "temperature");
    CHECK_STR(str_z(job_field_hint(STR("sed"))), "seed");
    CHECK(!job_field_hint(STR("xy")));
    CHECK(!job_field_hint(STR("")));
    CHECK(!job_field_hint(STR("a_name_that_is_longer_than_any_field_of_a_job_is")));
    CHECK(job_knows(STR("stop")) && job_knows(STR("model")) && job_knows(STR("n")));
    CHECK(!job_knows(STR("created_at")) && !job_knows(STR("best_of")) && !job_knows(STR("")));
}

TEST(twice)
{
    CHECK(refused("{\"prompt\":\"a\",\"model\":\"m\",\"model\":\"n\"}", "model", "stands twice"));
    CHECK(refused("{\"prompt\":\"a\",\"seed\":null,\"seed\":1}", "seed", "stands twice"));
    CHECK(refused("{\"prompt\":\"a\",\"mode\\u006c\":\"m\",\"model\":\"n\"}", "model", "twice"));
}

TEST(ids_and_names)
{
    char long_name[600];

    CHECK(refused("{\"prompt\":\"a\",\"id\":\"\"}", "id", "must be 1 to 64 of letters"));
    CHECK(refused("{\"prompt\":\"a\",\"id\":\"a b\"}", "id", "must be 1 to 64"));
    CHECK(refused("{\"prompt\":\"a\",\"id\":7}", "id", "must be 1 to 64"));
    CHECK(refused("{\"prompt\":\"a\",\"tenant\":\"a/b\"}", "tenant", "must be 1 to 64"));
    CHECK(refused("{\"prompt\":\"a\",\"batch_id\":\"\\u00e9\"}", "batch_id", "must be 1 to 64"));
    CHECK(refused("{\"prompt\":\"a\",\"model\":\"\"}", "model", "1 to 256 bytes"));
    CHECK(refused("{\"prompt\":\"a\",\"model\":\"a\\nb\"}", "model", "1 to 256 bytes"));
    CHECK(refused("{\"prompt\":\"a\",\"queue\":1}", "queue", "1 to 256 bytes"));
    CHECK(refused("{\"prompt\":\"a\",\"custom_id\":1}", "custom_id", "must be a string"));
    CHECK(accepted("{\"prompt\":\"a\",\"custom_id\":\"\"}"));
    snprintf(long_name, sizeof long_name, "{\"prompt\":\"a\",\"session\":\"%0256d\"}", 1);
    CHECK(accepted(long_name));
    snprintf(long_name, sizeof long_name, "{\"prompt\":\"a\",\"session\":\"%0257d\"}", 1);
    CHECK(refused(long_name, "session", "1 to 256 bytes"));
}

TEST(times)
{
    struct job j;

    CHECK(parses(&j,
                 "{\"prompt\":\"a\",\"not_before\":1,\"deadline\":\"2026-11-21T11:00:00+01:00\"}"));
    CHECK_INT(j.not_before, 1);
    CHECK_INT(j.deadline, 1795255200000);
    job_release(&j);
    CHECK(accepted("{\"prompt\":\"a\",\"deadline\":null}"));
    CHECK(refused("{\"prompt\":\"a\",\"deadline\":\"soon\"}", "deadline", "RFC 3339"));
    CHECK(refused("{\"prompt\":\"a\",\"deadline\":0}", "deadline", "RFC 3339"));
    CHECK(refused("{\"prompt\":\"a\",\"deadline\":-5}", "deadline", "RFC 3339"));
    CHECK(refused("{\"prompt\":\"a\",\"deadline\":1.5}", "deadline", "RFC 3339"));
    CHECK(refused("{\"prompt\":\"a\",\"not_before\":true}", "not_before", "RFC 3339"));
    CHECK(refused("{\"prompt\":\"a\",\"not_before\":1e15}", "not_before", "RFC 3339"));
}

TEST(numbers_of_a_job)
{
    CHECK(refused("{\"prompt\":\"a\",\"timeout_ms\":0}", "timeout_ms",
                  "must be an integer from 1 to 86400000"));
    CHECK(refused("{\"prompt\":\"a\",\"timeout_ms\":\"5\"}", "timeout_ms", "must be an integer"));
    CHECK(refused("{\"prompt\":\"a\",\"timeout_ms\":1.5}", "timeout_ms", "must be an integer"));
    CHECK(accepted("{\"prompt\":\"a\",\"timeout_ms\":86400000}"));
    CHECK(refused("{\"prompt\":\"a\",\"max_attempts\":1001}", "max_attempts", "from 1 to 1000"));
    CHECK(accepted("{\"prompt\":\"a\",\"max_attempts\":1000}"));
    CHECK(refused("{\"prompt\":\"a\",\"stream\":1}", "stream", "must be true or false"));
    CHECK(accepted("{\"prompt\":\"a\",\"stream\":false}"));
    CHECK(refused("{\"prompt\":\"a\",\"priority\":\"urgent\"}", "priority", "high, normal or low"));
    CHECK(refused("{\"prompt\":\"a\",\"priority\":1}", "priority", "high, normal or low"));
}

static void put_metadata_job(struct buf *b, size_t n)
{
    buf_clear(b);
    buf_addf(b, "{\"prompt\":\"a\",\"metadata\":{\"k\":\"%0*d\"}}", (int)n - 8, 0);
}

TEST(objects)
{
    struct buf b;

    buf_init(&b, 1 << 20);
    put_metadata_job(&b, JOB_METADATA_MAX_BYTES);
    CHECK(accepted(b.p));
    put_metadata_job(&b, JOB_METADATA_MAX_BYTES + 1);
    CHECK(refused(b.p, "metadata", "at most 16384 bytes"));
    buf_release(&b);
    CHECK(refused("{\"prompt\":\"a\",\"metadata\":[]}", "metadata", "must be an object"));
    CHECK(refused("{\"prompt\":\"a\",\"options\":\"x\"}", "options", "must be an object"));
}

TEST(what_is_not_built_yet)
{
    CHECK(accepted("{\"prompt\":\"a\",\"n\":1,\"cache\":\"bypass\",\"stream_options\":{},"
                   "\"webhook\":null}"));
    CHECK(refused("{\"prompt\":\"a\",\"n\":2}", "n", "must be 1"));
    CHECK(refused("{\"prompt\":\"a\",\"n\":\"1\"}", "n", "must be 1"));
    CHECK(refused("{\"prompt\":\"a\",\"webhook\":\"http://x/\"}", "webhook",
                  "webhooks are not built yet"));
}

static enum cache_mode cache_of(const char *membersz)
{
    char text[256];
    struct job j;
    enum cache_mode mode;

    snprintf(text, sizeof text, "{\"prompt\":\"a\"%s}", membersz);
    CHECK(parses(&j, text));
    mode = j.cache;
    job_release(&j);
    return mode;
}

TEST(an_answer_that_is_meant_to_repeat_may_come_from_the_cache)
{
    static const char *const greedy[] = {"0", "0.0", "-0", "0e5", "0.00E+3", " 0 "};
    char text[128];
    size_t i;

    for (i = 0; i < sizeof greedy / sizeof greedy[0]; i++) {
        snprintf(text, sizeof text, ",\"temperature\":%s", greedy[i]);
        CHECK_INT(cache_of(text), CACHE_USE);
    }
    CHECK_INT(cache_of(""), CACHE_BYPASS);
    CHECK_INT(cache_of(",\"temperature\":0.01"), CACHE_BYPASS);
    CHECK_INT(cache_of(",\"temperature\":1e-3"), CACHE_BYPASS);
    CHECK_INT(cache_of(",\"temperature\":null,\"seed\":null"), CACHE_BYPASS);
    CHECK_INT(cache_of(",\"temperature\":1,\"seed\":0"), CACHE_USE);
    CHECK_INT(cache_of(",\"cache\":\"bypass\",\"seed\":0"), CACHE_BYPASS);
    CHECK_INT(cache_of(",\"cache\":\"refresh\""), CACHE_REFRESH);
    CHECK_INT(cache_of(",\"cache\":null,\"seed\":1"), CACHE_USE);
    CHECK(refused("{\"prompt\":\"a\",\"cache\":\"\"}", "cache", "use, refresh or bypass"));
    CHECK(refused("{\"prompt\":\"a\",\"cache\":true}", "cache", "use, refresh or bypass"));
}

/* Hex of the key of a job of tenant t with these members, asked of engine model m. */
static const char *key_of(const char *membersz)
{
    static char digits[2 * SHA256_LEN + 1];
    uint8_t key[SHA256_LEN];
    char text[512];
    struct job j;

    snprintf(text, sizeof text, "{\"model\":\"alias\",\"tenant\":\"t\"%s}", membersz);
    CHECK(parses(&j, text));
    job_cache_key(&j, STR("m"), key);
    hex(key, sizeof key, digits);
    job_release(&j);
    return digits;
}

TEST(a_cache_key_is_of_what_the_answer_depends_on)
{
    char first[2 * SHA256_LEN + 1];

    str_copyz(first, sizeof first,
              str_z(key_of(",\"prompt\":\"a\",\"options\":{\"x\":1},\"seed\":1")));
    /* Workers of other versions share answers by it: it must not change without its version. */
    CHECK_STR(str_z(first), "ddbfc26b446d8da68c0374fa83bfc1d721184fe3fd3e75238f1921c12f087d0f");
    CHECK_STR(str_z(key_of(",\"seed\": 1,\"id\":\"i\",\"stream\":true,\"options\":{ \"x\" : 1 },"
                           "\"session\":\"s\",\"metadata\":{},\"cache\":\"refresh\",\"deadline\":5,"
                           "\"keep_alive\":1,\"prompt\":\"a\"")),
              first);
    CHECK(strcmp(key_of(",\"prompt\":\"b\",\"options\":{\"x\":1},\"seed\":1"), first) != 0);
    CHECK(strcmp(key_of(",\"input\":\"a\",\"options\":{\"x\":1},\"seed\":1"), first) != 0);
    CHECK(strcmp(key_of(",\"prompt\":\"a\",\"options\":{\"x\":2},\"seed\":1"), first) != 0);
    CHECK(strcmp(key_of(",\"prompt\":\"a\",\"options\":{\"x\":1},\"seed\":2"), first) != 0);
    CHECK(strcmp(key_of(",\"prompt\":\"a\",\"options\":{\"x\":1},\"top_k\":1"), first) != 0);
    CHECK(strcmp(key_of(",\"prompt\":\"a\",\"options\":{\"x\":1,\"y\":\" \"},\"seed\":1"), first) !=
          0);
}

TEST(a_cache_mode_is_written_where_it_is_no_default)
{
    struct job j;
    struct buf b;

    buf_init(&b, 4096);
    CHECK(parses(&j, "{\"prompt\":\"a\",\"cache\":\"use\",\"seed\":1}"));
    CHECK_INT(job_write(&j, &b), 0);
    CHECK(!memmem(b.p, b.n, "cache", 5));
    job_release(&j);
    buf_clear(&b);
    CHECK(parses(&j, "{\"prompt\":\"a\",\"cache\":\"refresh\",\"seed\":1}"));
    CHECK_INT(job_write(&j, &b), 0);
    CHECK(memmem(b.p, b.n, "\"cache\":\"refresh\"", 17));
    job_release(&j);
    buf_release(&b);
}

TEST(max_tokens_has_two_names)
{
    CHECK(accepted("{\"prompt\":\"a\",\"max_tokens\":1}"));
    CHECK(accepted("{\"prompt\":\"a\",\"max_completion_tokens\":1,\"max_tokens\":null}"));
    CHECK(refused("{\"prompt\":\"a\",\"max_tokens\":1,\"max_completion_tokens\":1}",
                  "max_completion_tokens", "are one field"));
}

enum sampling_type { TYPE_num, TYPE_int, TYPE_bool, TYPE_str, TYPE_any };

static const struct {
    const char *namez;
    enum sampling_type type;
    double min, max;
} samplings[] = {
#define SAMPLING(id, name, type, min, max, place, ollama_name, doc) {name, TYPE_##type, min, max},
#include "schema/job.def"
#undef SAMPLING
};

static bool takes(const char *namez, const char *valuez)
{
    char text[256];
    struct job j;

    snprintf(text, sizeof text, "{\"prompt\":\"a\",\"%s\":%s}", namez, valuez);
    if (!parses(&j, text)) {
        CHECK_STR(str_z(last_param), namez);
        return false;
    }
    job_release(&j);
    return true;
}

static bool takes_number(const char *namez, double v)
{
    char number[64];

    snprintf(number, sizeof number, "%.17g", v);
    return takes(namez, number);
}

static void check_range(const char *namez, double min, double max)
{
    const double last_int = 9007199254740991.0; /* a double holds all integers up to here */

    CHECK(takes_number(namez, min < -last_int ? -last_int : min));
    CHECK(takes_number(namez, max > last_int ? last_int : max));
    CHECK(!takes_number(namez, min - (min < -last_int ? 1e10 : 1)));
    CHECK(!takes_number(namez, max + (max > last_int ? 1e10 : 1)));
    CHECK(!takes(namez, "\"1\""));
}

TEST(sampling_fields)
{
    size_t i;

    for (i = 0; i < SAMPLING_COUNT_; i++) {
        const char *namez = samplings[i].namez;

        CHECK(takes(namez, "null"));
        switch (samplings[i].type) {
        case TYPE_int:
            CHECK(!takes(namez, "0.5"));
            check_range(namez, samplings[i].min, samplings[i].max);
            break;
        case TYPE_num:
            CHECK(takes_number(namez, (samplings[i].min + samplings[i].max) / 2 + 0.001));
            check_range(namez, samplings[i].min, samplings[i].max);
            break;
        case TYPE_bool:
            CHECK(takes(namez, "true") && takes(namez, "false") && !takes(namez, "1"));
            break;
        case TYPE_str:
            CHECK(takes(namez, "\"x\"") && !takes(namez, "1"));
            break;
        case TYPE_any:
            CHECK(takes(namez, "[1,{}]") && takes(namez, "\"x\""));
            break;
        }
    }
    CHECK(refused("{\"prompt\":\"a\",\"temperature\":2.5}", "temperature",
                  "'temperature' must be a number from 0 to 2"));
}

TEST(sampling_is_kept_as_it_was_sent)
{
    struct job j;

    CHECK(parses(&j, "{\"prompt\":\"a\",\"temperature\": 0.10 ,\"stop\":[\"x\" , \"y\"]}"));
    CHECK_STR(j.sampling[SAMPLING_TEMPERATURE], "0.10");
    CHECK_STR(j.sampling[SAMPLING_STOP], "[\"x\" , \"y\"]");
    CHECK(!j.sampling[SAMPLING_SEED].n);
    job_release(&j);
}

TEST(complete_fills_in)
{
    struct job j;
    struct job_defaults d = {
        .model = STR("dm"), .batch_line = 7, .wall_ms = 1795255200000, .batch_id = STR("b")};

    CHECK(parses(&j, "{\"prompt\":\"a\"}"));
    CHECK_INT(job_complete(&j, &d, NULL), 0);
    CHECK_INT(j.id.n, ULID_LEN);
    CHECK(id_is_valid(j.id));
    CHECK_STR(j.model, "dm");
    CHECK_STR(j.tenant, "default");
    CHECK_STR(j.queue, "default");
    CHECK_STR(j.batch_id, "b");
    CHECK_INT(j.batch_line, 7);
    CHECK_INT(j.created_at, 1795255200000);
    job_release(&j);
}

TEST(complete_leaves_the_clients_own)
{
    struct job j;
    struct job_defaults d = {.model = STR("dm"),
                             .tenant = STR("dt"),
                             .id = STR("di"),
                             .batch_id = STR("db"),
                             .queue = STR("dq"),
                             .batch_line = -1,
                             .wall_ms = 1};

    CHECK(parses(&j, "{\"prompt\":\"a\",\"id\":\"i\",\"model\":\"m\",\"tenant\":\"t\",\"queue\":"
                     "\"q\",\"batch_id\":\"b\"}"));
    CHECK_INT(job_complete(&j, &d, NULL), 0);
    CHECK_STR(j.id, "i");
    CHECK_STR(j.model, "m");
    CHECK_STR(j.tenant, "t");
    CHECK_STR(j.queue, "q");
    CHECK_STR(j.batch_id, "b");
    CHECK_INT(j.batch_line, -1);
    job_release(&j);
    CHECK(parses(&j, "{\"prompt\":\"a\"}"));
    CHECK_INT(job_complete(&j, &d, NULL), 0);
    CHECK_STR(j.id, "di");
    CHECK_STR(j.tenant, "dt");
    CHECK_STR(j.queue, "dq");
    job_release(&j);
}

TEST(complete_refuses)
{
    struct job j;
    struct err e;
    struct job_defaults d = {.batch_line = -1, .wall_ms = 1};

    CHECK(parses(&j, "{\"prompt\":\"a\"}"));
    CHECK_INT(job_complete(&j, &d, &e), ERR_INVALID);
    CHECK_STR(str_z(e.msg), "'model' is missing");
    d.model = STR("m");
    d.id = STR("a batch's name is too long for its number to fit into the 64 bytes of an id-1");
    CHECK_INT(job_complete(&j, &d, &e), ERR_INVALID);
    CHECK(!j.model.p);
    job_release(&j);
}

TEST(written_in_the_tables_order)
{
    struct job j;
    struct job_defaults d = {
        .model = STR("m"), .id = STR("i"), .batch_id = STR("b"), .batch_line = 0, .wall_ms = 9};
    struct buf b;

    buf_init(&b, 1 << 16);
    CHECK(parses(&j, "{\"seed\":1,\"metadata\":{ },\"stream\":true,\"max_attempts\":2,"
                     "\"timeout_ms\":3,\"deadline\":5,\"not_before\":4,\"session\":\"s\","
                     "\"custom_id\":\"c\\n\",\"priority\":\"low\",\"input\":[\"x\" ],"
                     "\"options\":{\"a\":1},\"max_tokens\":7}"));
    CHECK_INT(job_complete(&j, &d, NULL), 0);
    j.form = LINE_OPENAI;
    CHECK_STR(printed(&j, &b),
              "{\"id\":\"i\",\"model\":\"m\",\"input\":[\"x\" ],\"priority\":\"low\",\"queue\":"
              "\"default\",\"tenant\":\"default\",\"batch_id\":\"b\",\"custom_id\":\"c\\n\","
              "\"session\":\"s\",\"not_before\":4,\"deadline\":5,\"timeout_ms\":3,"
              "\"max_attempts\":2,\"stream\":true,\"metadata\":{ },\"options\":{\"a\":1},"
              "\"max_tokens\":7,\"seed\":1,\"created_at\":9,\"batch_line\":0,"
              "\"line_form\":\"openai\"}");
    job_release(&j);
    buf_release(&b);
}

TEST(a_record_is_read_back)
{
    struct job j, k;
    struct buf b, c;
    uint8_t dj[SHA256_LEN], dk[SHA256_LEN];
    struct job_defaults d = {.model = STR("m"), .batch_line = 12, .wall_ms = 9};

    buf_init(&b, 1 << 16);
    buf_init(&c, 1 << 16);
    CHECK(parses(&j,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"\\u00e9 \\\"\"}],\"custom_id\":"
                 "\"\\u0001\\/\",\"temperature\":1e-1,\"stop\":\"\\n\"}"));
    CHECK_INT(job_complete(&j, &d, NULL), 0);
    j.form = LINE_OPENAI;
    CHECK_INT(job_parse(&k, printed(&j, &b), true, NULL, NULL), 0);
    CHECK_STR(printed(&k, &c), b.p);
    CHECK_INT(k.state, STATE_QUEUED);
    CHECK_INT(k.created_at, 9);
    CHECK_INT(k.batch_line, 12);
    CHECK_INT(k.form, LINE_OPENAI);
    CHECK_STR(k.custom_id, "\001/");
    job_digest(&j, dj);
    job_digest(&k, dk);
    CHECK(memcmp(dj, dk, sizeof dj) == 0);
    job_release(&j);
    job_release(&k);
    buf_release(&b);
    buf_release(&c);
}

TEST(a_record_may_lack_what_the_gateway_fills_in) /* any Kafka client may have written it */
{
    struct job j;
    struct err e;

    CHECK_INT(job_parse(&j, STR("{\"model\":\"m\",\"prompt\":\"a\"}"), true, NULL, NULL), 0);
    CHECK(!j.id.p);
    job_release(&j);
    CHECK_INT(job_parse(&j, STR("{\"prompt\":\"a\",\"batch_line\":-1}"), true, NULL, &e),
              ERR_INVALID);
    CHECK_INT(job_parse(&j, STR("{\"prompt\":\"a\",\"line_form\":1}"), true, NULL, &e),
              ERR_INVALID);
    CHECK_INT(job_parse(&j, STR("{\"prompt\":\"a\",\"created_at\":\"x\"}"), true, NULL, &e),
              ERR_INVALID);
}

TEST(write_past_the_ceiling)
{
    struct job j;
    struct buf b;

    buf_init(&b, 10);
    CHECK(parses(&j, "{\"prompt\":\"a long one\"}"));
    CHECK_INT(job_write(&j, &b), ERR_TOO_LARGE);
    job_release(&j);
    buf_release(&b);
}

TEST(digest_is_the_same)
{
    CHECK(digests_agree("{\"model\":\"m\",\"prompt\":\"a b\"}",
                        "{\"prompt\":\"a b\",\"model\":\"m\"}"));
    CHECK(digests_agree("{\"prompt\":\"a\"}", "{\"prompt\":\"a\",\"id\":\"x\"}"));
    CHECK(digests_agree("{\"prompt\":\"a\"}",
                        "{\"prompt\":\"a\",\"seed\":null,\"priority\":\"normal\",\"stream\":false,"
                        "\"timeout_ms\":300000,\"n\":1}"));
    CHECK(digests_agree(
        "{\"input\":[\"a b\",\"\\\\\"],\"metadata\":{\"k\":[1,2]}}",
        " {\"metadata\" : {\t\"k\" : [ 1 ,\n2 ] } , \"input\":[ \"a b\" , \"\\\\\" ]}"));
    CHECK(digests_agree("{\"prompt\":\"a\",\"custom_id\":\"\\u0062\"}",
                        "{\"prompt\":\"a\",\"custom_id\":\"b\"}"));
    CHECK(digests_agree("{\"prompt\":\"a\",\"deadline\":\"2026-11-21T10:00:00Z\"}",
                        "{\"prompt\":\"a\",\"deadline\":1795255200000}"));
}

TEST(digest_differs)
{
    CHECK(!digests_agree("{\"prompt\":\"a\"}", "{\"prompt\":\"a \"}"));
    CHECK(!digests_agree("{\"prompt\":\"a\"}", "{\"input\":\"a\"}"));
    CHECK(!digests_agree("{\"prompt\":\"a\"}", "{\"prompt\":\"a\",\"model\":\"m\"}"));
    CHECK(!digests_agree("{\"prompt\":\"a\"}", "{\"prompt\":\"a\",\"tenant\":\"t\"}"));
    CHECK(!digests_agree("{\"prompt\":\"a\"}", "{\"prompt\":\"a\",\"batch_id\":\"b\"}"));
    CHECK(!digests_agree("{\"prompt\":\"a\"}", "{\"prompt\":\"a\",\"seed\":1}"));
    CHECK(!digests_agree("{\"prompt\":\"a\"}", "{\"prompt\":\"a\",\"metadata\":{}}"));
    CHECK(!digests_agree("{\"prompt\":\"\\\\\\\" a\"}", "{\"prompt\":\"\\\\\\\"a\"}"));
}

TEST(digest_leaves_out_what_the_gateway_filled_in)
{
    struct job j;
    struct job_defaults d = {
        .model = STR("m"), .tenant = STR("t"), .queue = STR("q"), .batch_line = 3, .wall_ms = 9};
    uint8_t one[SHA256_LEN], two[SHA256_LEN];

    CHECK(parses(&j, "{\"prompt\":\"a\",\"model\":\"m\",\"tenant\":\"t\",\"queue\":\"q\"}"));
    job_digest(&j, one);
    CHECK_INT(job_complete(&j, &d, NULL), 0);
    job_digest(&j, two);
    CHECK(memcmp(one, two, sizeof one) == 0);
    job_release(&j);
}

TEST(priorities)
{
    enum priority p;

    CHECK(priority_parse(STR("low"), &p));
    CHECK_INT(p, PRIORITY_LOW);
    CHECK(!priority_parse(STR(""), &p));
    CHECK_STR(str_z(priority_name(PRIORITY_HIGH)), "high");
}
