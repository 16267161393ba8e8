#include "schema/redrive.h"
#include "tests/lib/test.h"

#define VALUE \
    "{\"id\":\"old\",\"model\":\"m\",\"prompt\":\"p\",\"queue\":\"q\",\"not_before\":5," \
    "\"deadline\":9," \
    "\"metadata\":{\"a\": " \
    "1},\"options\":{\"x\":1,\"y\":\"{\"},\"temperature\":0.5,\"max_tokens\":7," \
    "\"created_at\":3,\"batch_line\":4,\"line_form\":\"openai\",\"redrive_of\":\"older\"}"

static struct job made(struct redrive_edit edit)
{
    struct err e = {0};
    struct job j;

    CHECK_INT(redrive_parse(&j, STR(VALUE), &edit, STR("new"), &e), 0);
    CHECK_STR(str_z(e.msg), "");
    return j;
}

TEST(an_id_is_always_the_same)
{
    char a[REDRIVE_ID_LEN + 1], b[REDRIVE_ID_LEN + 1];

    redrive_id(STR("default"), STR("x"), a);
    redrive_id(STR("default"), STR("x"), b);
    CHECK_STR(str_z(a), b);
    CHECK_INT(strlen(a), REDRIVE_ID_LEN);
    CHECK(id_is_valid(str_z(a)));
    /* printf default/x | sha256sum */
    CHECK_STR(str_z(a), "rcf3bd7ff2845028c");
    redrive_id(STR("other"), STR("x"), b);
    CHECK(strcmp(a, b) != 0);
    redrive_id(STR("default"), STR("y"), b);
    CHECK(strcmp(a, b) != 0);
}

TEST(a_job_is_new_but_for_what_was_asked)
{
    struct job j = made((struct redrive_edit){.model = STR_NONE});

    CHECK_STR(j.id, "new");
    CHECK_STR(j.redrive_of, "old");
    CHECK_STR(j.model, "m");
    CHECK_STR(j.queue, "q");
    CHECK_STR(j.body, "\"p\"");
    CHECK_STR(j.metadata, "{\"a\": 1}");
    CHECK_STR(j.options, "{\"x\":1,\"y\":\"{\"}");
    CHECK_STR(j.sampling[SAMPLING_TEMPERATURE], "0.5");
    CHECK_INT(j.not_before, 0);
    CHECK_INT(j.deadline, 0);
    CHECK_INT(j.created_at, 0);
    CHECK_INT(j.batch_line, 4);
    CHECK_INT(j.form, LINE_OPENAI);
    CHECK_INT(j.state, STATE_NEW);
    job_release(&j);
}

TEST(an_edit_reaches_its_field)
{
    struct job j = made((struct redrive_edit){
        .model = STR("n"),
        .options = STR("{\"x\":null,\"z\":[2],\"temperature\":null,\"max_completion_tokens\":9}")});

    CHECK_STR(j.model, "n");
    CHECK(!j.queue.p); /* it is the other model's to say */
    CHECK_STR(j.options, "{\"y\":\"{\",\"z\":[2]}");
    CHECK_INT(j.sampling[SAMPLING_TEMPERATURE].n, 0);
    CHECK_INT(j.sampling[SAMPLING_MAX_TOKENS].n, 0);
    CHECK_STR(j.sampling[SAMPLING_MAX_COMPLETION_TOKENS], "9");
    job_release(&j);
    j = made((struct redrive_edit){.options = STR("{\"x\":null,\"y\":null}")});
    CHECK_INT(j.options.n, 0);
    job_release(&j);
}

TEST(an_edit_that_no_job_takes_is_refused)
{
    static const struct {
        struct redrive_edit edit;
        const char *paramz, *wordsz;
    } bad[] = {
        {{.options = STR_INIT("[]")}, "options", "must be an object"},
        {{.options = STR_INIT("{\"prompt\":\"x\"}")}, "options", "'prompt' is a field of the job"},
        {{.options = STR_INIT("{\"redrive_of\":\"x\"}")}, "options", "'redrive_of' is a field"},
        {{.options = STR_INIT("{\"top_p\":2}")}, "top_p", "'top_p' must be a number"},
        {{.model = STR_INIT("")}, "model", "'model' must be"},
    };
    struct redrive_edit good = {.model = STR("m"), .options = STR("{\"top_p\":1,\"any\":{}}")};
    const char *param;
    struct err e;
    size_t i;

    CHECK_INT(redrive_check(&good, &param, &e), 0);
    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        param = NULL;
        CHECK_INT(redrive_check(&bad[i].edit, &param, &e), ERR_INVALID);
        CHECK_STR(str_z(param), bad[i].paramz);
        CHECK(strstr(e.msg, bad[i].wordsz));
    }
}

TEST(what_is_no_job_is_refused)
{
    struct redrive_edit edit = {.model = STR_NONE};
    struct err e;
    struct job j;

    CHECK_INT(redrive_parse(&j, STR("no job"), &edit, STR("new"), &e), ERR_INVALID);
    CHECK_INT(redrive_parse(&j, STR("{\"id\":\"a\"}"), &edit, STR("new"), &e), ERR_INVALID);
    CHECK_INT(redrive_parse(&j, STR("{\"prompt\":\"a\",\"options\":3}"), &edit, STR("new"), &e), 0);
    job_release(&j);
}
