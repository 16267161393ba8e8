#include "base/clock.h"
#include "base/metric.h"
#include "tests/store/fixture.h"
#include <stdio.h>

#define JOB_A "{\"id\":\"a\",\"model\":\"m\",\"prompt\":\"hi\",\"created_at\":5}"
#define JOB_LATER \
    "{\"id\":\"s\",\"model\":\"m\",\"prompt\":\"hi\",\"not_before\":9000000,\"created_at\":5}"
#define LINE(n) \
    "{\"id\":\"b-" n "\",\"model\":\"m\",\"prompt\":\"p" n "\",\"batch_id\":\"b\"," \
    "\"created_at\":5,\"batch_line\":" n "}"

static void submit(struct fixture *fx, const char *jsonz)
{
    fx_begin(fx);
    CHECK_INT(fx_job(fx, jsonz), 0);
    CHECK_INT(fx_end(fx, true), 0);
}

static void finish(struct fixture *fx, const char *jsonz, enum job_state state)
{
    fx_begin(fx);
    CHECK_INT(fx_end_job(fx, jsonz, state, 1, NULL), 0);
    CHECK_INT(fx_end(fx, true), 0);
}

TEST(job_is_queued_then_ends)
{
    struct fixture *fx = fx_new();

    submit(fx, JOB_A);
    CHECK_INT(fx_int(fx, "SELECT state FROM job WHERE id='a'"), STATE_QUEUED);
    CHECK_INT(fx_int(fx, "SELECT length(digest) FROM job"), 32);
    CHECK_INT(store_unfinished(fx->writer), 1);
    finish(fx, JOB_A, STATE_SUCCEEDED);
    CHECK_INT(fx_int(fx, "SELECT state FROM job WHERE id='a'"), STATE_SUCCEEDED);
    CHECK_INT(fx_int(fx, "SELECT finished_at FROM job"), 1000000);
    CHECK_INT(fx_int(fx, "SELECT completion_off FROM job"), 0);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM call WHERE is_wasted=0 AND job=1 AND ms=7"), 1);
    CHECK_INT(store_unfinished(fx->writer), 0);
    fx_free(fx);
}

/* With Kafka the log is applied from the moment it is open: what store_load has read may be old. */
TEST(loading_does_not_undo_what_was_applied)
{
    struct fixture *fx = fx_new();

    CHECK_INT(store_unfinished(fx->writer), 0);
    CHECK_INT(db_exec(fx->db, "UPDATE fact SET value=7 WHERE name='unfinished'", NULL), 0);
    CHECK_INT(store_load(fx->writer, ".", NULL), 0);
    CHECK_INT(store_unfinished(fx->writer), 7);
    submit(fx, JOB_A);
    CHECK_INT(db_exec(fx->db, "UPDATE fact SET value=7 WHERE name='unfinished'", NULL), 0);
    CHECK_INT(store_load(fx->writer, ".", NULL), 0);
    CHECK_INT(store_unfinished(fx->writer), 8);
    fx_free(fx);
}

TEST(repeat_is_told_by_digest)
{
    struct fixture *fx = fx_new();
    int detail = -1;

    submit(fx, JOB_A);
    fx_begin(fx);
    CHECK_INT(fx_job_from(fx, JOB_A, POSITION_NONE, &detail), ERR_EXISTS);
    CHECK_INT(detail, STATE_QUEUED);
    CHECK_INT(fx_job(fx, "{\"id\":\"a\",\"model\":\"m\",\"prompt\":\"other\"}"), ERR_CONFLICT);
    CHECK_INT(fx_job(fx, "{\"id\":\"a\",\"model\":\"m\",\"prompt\":\"hi\",\"tenant\":\"t2\"}"), 0);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(store_unfinished(fx->writer), 2);
    finish(fx, JOB_A, STATE_FAILED);
    fx_begin(fx);
    CHECK_INT(fx_job_from(fx, JOB_A, POSITION_NONE, &detail), ERR_EXISTS);
    CHECK_INT(detail, STATE_FAILED);
    CHECK_INT(fx_end(fx, true), 0);
    fx_free(fx);
}

TEST(repeat_inside_one_transaction)
{
    struct fixture *fx = fx_new();

    fx_begin(fx);
    CHECK_INT(fx_job(fx, JOB_A), 0);
    CHECK_INT(fx_job(fx, JOB_A), ERR_EXISTS);
    CHECK_INT(fx_end_job(fx, JOB_A, STATE_CANCELLED, 0, NULL), 0);
    CHECK_INT(fx_end_job(fx, JOB_A, STATE_SUCCEEDED, 1, NULL), ERR_EXISTS);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(store_unfinished(fx->writer), 0);
    CHECK_INT(fx_int(fx, "SELECT value FROM fact WHERE name='unfinished'"), 0);
    CHECK_INT(fx_int(fx, "SELECT state FROM job"), STATE_CANCELLED);
    fx_free(fx);
}

TEST(scheduled_job_becomes_due_once)
{
    struct fixture *fx = fx_new();
    struct position source = {TOPIC_SCHEDULED, 0, 0};
    int detail = -1;

    submit(fx, JOB_A);
    submit(fx, JOB_LATER);
    CHECK_INT(fx_int(fx, "SELECT state FROM job WHERE id='s'"), STATE_SCHEDULED);
    fx_begin(fx);
    CHECK_INT(fx_job_from(fx, JOB_LATER, source, NULL), 0);
    CHECK_INT(fx_job_from(fx, JOB_LATER, source, &detail), ERR_EXISTS);
    CHECK_INT(detail, STATE_QUEUED);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT state FROM job WHERE id='s'"), STATE_QUEUED);
    CHECK_INT(fx_int(fx, "SELECT off FROM job WHERE id='s'"), 1);
    CHECK_INT(store_unfinished(fx->writer), 2);
    fx_free(fx);
}

TEST(due_is_only_the_job_that_was_scheduled)
{
    struct fixture *fx = fx_new();
    struct position source = {TOPIC_SCHEDULED, 0, 1};

    submit(fx, JOB_LATER);
    fx_begin(fx);
    CHECK_INT(fx_job_from(fx,
                          "{\"id\":\"s\",\"model\":\"m\",\"prompt\":\"other\",\"not_before\":9,"
                          "\"created_at\":5}",
                          source, NULL),
              ERR_CONFLICT);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT state FROM job"), STATE_SCHEDULED);
    fx_free(fx);
}

TEST(the_job_of_a_completion_that_came_first_is_no_repeat)
{
    struct fixture *fx = fx_new();
    struct record r = {.key = STR("a"),
                       .value = STR("{\"id\":\"a\",\"tenant\":\"default\",\"model\":\"m\","
                                    "\"status\":\"succeeded\"}"),
                       .source = {topics_jobs(fx->topics, STR("default"), PRIORITY_NORMAL), 0, 0}};
    int detail = -1;

    r.headers[HEADER_STATUS] = STR("succeeded");
    fx_begin(fx);
    CHECK_INT(fx_apply(fx, &r, TOPIC_COMPLETIONS), 0);
    CHECK_INT(fx_job(fx, JOB_A), 0);
    CHECK_INT(fx_job_from(fx, JOB_A, POSITION_NONE, &detail), ERR_EXISTS);
    CHECK_INT(detail, STATE_SUCCEEDED);
    CHECK_INT(fx_job(fx, "{\"id\":\"a\",\"model\":\"m\",\"prompt\":\"other\"}"), ERR_CONFLICT);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(store_unfinished(fx->writer), 0);
    fx_free(fx);
}

/* A worker sent it to another queue before the store read its record (worker/route.c). */
TEST(a_job_behind_its_copy_is_no_repeat)
{
    struct fixture *fx = fx_new();
    struct record r = {.source = POSITION_NONE};
    struct err e = {0};
    struct job j;
    struct buf mem;
    int detail = -1, gpu = topics_jobs(fx->topics, STR("gpu"), PRIORITY_NORMAL);

    CHECK_INT(job_parse(&j, STR(JOB_A), true, NULL, &e), 0);
    CHECK_INT(job_complete(&j, &(struct job_defaults){.wall_ms = 5, .batch_line = -1}, &e), 0);
    job_keep_digest(&j);
    j.queue = STR("gpu");
    buf_init(&mem, 1 << 16);
    CHECK_INT(envelope_job(&r, &j, &mem, &e), 0);
    r.source = (struct position){topics_jobs(fx->topics, STR("default"), PRIORITY_NORMAL), 0, 7};
    fx_begin(fx);
    CHECK_INT(fx_apply(fx, &r, gpu), 0);
    CHECK_INT(fx_apply(fx, &r, gpu), ERR_EXISTS);
    CHECK_INT(fx_job(fx, JOB_A), 0);
    CHECK_INT(fx_job_from(fx, JOB_A, POSITION_NONE, &detail), ERR_EXISTS);
    CHECK_INT(detail, STATE_QUEUED);
    CHECK_INT(fx_apply(fx, &r, gpu), ERR_EXISTS);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(store_unfinished(fx->writer), 1);
    CHECK_INT(fx_int(fx, "SELECT off IS NOT NULL FROM job WHERE queue='default'"), 1);
    job_release(&j);
    buf_release(&mem);
    fx_free(fx);
}

/* The row says where its record stands, which a cancelled completion names as its source: with the
 * offset in one topic and the name of another, it would end somebody else's. */
TEST(a_scheduled_record_behind_a_copy_does_not_move_the_job)
{
    struct fixture *fx = fx_new();
    struct record copy = {.source = POSITION_NONE}, later = copy;
    struct err e = {0};
    struct job j;
    struct buf mem[2];
    int gpu = topics_jobs(fx->topics, STR("gpu"), PRIORITY_NORMAL);

    CHECK_INT(job_parse(&j, STR(JOB_A), true, NULL, &e), 0);
    CHECK_INT(job_complete(&j, &(struct job_defaults){.wall_ms = 5, .batch_line = -1}, &e), 0);
    job_keep_digest(&j);
    buf_init(&mem[0], 1 << 16);
    buf_init(&mem[1], 1 << 16);
    CHECK_INT(envelope_job(&later, &j, &mem[0], &e), 0);
    j.queue = STR("gpu");
    CHECK_INT(envelope_job(&copy, &j, &mem[1], &e), 0);
    copy.source = (struct position){topics_jobs(fx->topics, STR("default"), PRIORITY_NORMAL), 0, 7};
    fx_begin(fx);
    CHECK_INT(fx_apply(fx, &copy, gpu), 0);
    CHECK_INT(fx_apply(fx, &later, TOPIC_SCHEDULED), ERR_EXISTS);
    CHECK_INT(fx_end(fx, true), 0);
    job_release(&j);
    buf_release(&mem[0]);
    buf_release(&mem[1]);
    fx_free(fx);
}

TEST(late_completion_is_wasted)
{
    struct fixture *fx = fx_new();
    int detail = -1;

    submit(fx, JOB_A);
    finish(fx, JOB_A, STATE_CANCELLED);
    fx_begin(fx);
    CHECK_INT(fx_end_job(fx, JOB_A, STATE_SUCCEEDED, 2, &detail), ERR_EXISTS);
    CHECK_INT(detail, STATE_CANCELLED);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT state FROM job"), STATE_CANCELLED);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM \"genq.completions\""), 1);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM call WHERE is_wasted"), 2);
    CHECK_INT(metric_get(METRIC_COMPLETIONS_LOST_RACE), 1);
    CHECK_INT(store_unfinished(fx->writer), 0);
    fx_free(fx);
}

TEST(a_completion_that_comes_again_costs_nothing)
{
    struct fixture *fx = fx_new();
    struct call call = {.attempt = 1, .node = STR("gpu0"), .model = STR("m"), .outcome = CALL_OK};
    struct completion c = {.state = STATE_SUCCEEDED, .calls = &call, .n_calls = 1};
    struct record r = {.source = POSITION_NONE};
    struct err e = {0};
    struct job j;
    struct buf mem;

    submit(fx, JOB_A);
    id_ulid(fx->now_ms, call.id);
    CHECK_INT(job_parse(&j, STR(JOB_A), true, NULL, &e), 0);
    CHECK_INT(job_complete(&j, &(struct job_defaults){.wall_ms = 5, .batch_line = -1}, &e), 0);
    buf_init(&mem, 1 << 16);
    CHECK_INT(envelope_completion(&r, &j, &c, NULL, &mem, &e), 0);
    fx_begin(fx);
    CHECK_INT(fx_apply(fx, &r, TOPIC_COMPLETIONS), 0);
    CHECK_INT(fx_apply(fx, &r, TOPIC_COMPLETIONS), ERR_EXISTS); /* in its own transaction */
    CHECK_INT(fx_end(fx, true), 0);
    fx_begin(fx);
    CHECK_INT(fx_apply(fx, &r, TOPIC_COMPLETIONS), ERR_EXISTS); /* and later */
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM call"), 1);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM call WHERE is_wasted"), 0);
    job_release(&j);
    buf_release(&mem);
    fx_free(fx);
}

/* The place of a job's record is a hint at its row, and the row decides. */
TEST(an_end_finds_its_job_whatever_its_source)
{
    struct fixture *fx = fx_new();
    int topic = topics_jobs(fx->topics, STR("default"), PRIORITY_NORMAL);
    struct position own = {topic, 0, 2}, other = {topic, 0, 0}, nobody = {topic, 0, 77};

    submit(fx, JOB_A);
    fx_begin(fx);
    CHECK_INT(fx_batch(fx, "b", BATCH_RECEIVING, -1, NULL), 0);
    CHECK_INT(fx_job(fx, LINE("0")), 0);
    CHECK_INT(fx_job(fx, LINE("1")), 0);
    CHECK_INT(fx_job(fx, LINE("2")), 0);
    CHECK_INT(fx_end_job_from(fx, LINE("1"), STATE_SUCCEEDED, 1, own, NULL), 0);
    CHECK_INT(fx_end_job_from(fx, LINE("1"), STATE_FAILED, 1, own, NULL), ERR_EXISTS);
    CHECK_INT(fx_end(fx, true), 0);
    fx_begin(fx);
    CHECK_INT(fx_end_job_from(fx, LINE("0"), STATE_SUCCEEDED, 1, other, NULL), 0);
    CHECK_INT(fx_end_job_from(fx, LINE("2"), STATE_SUCCEEDED, 1, nobody, NULL), 0);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT state FROM job WHERE id='a'"), STATE_QUEUED);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM job WHERE state=3 AND batch IS NOT NULL"), 3);
    CHECK_INT(fx_int(fx, "SELECT n_succeeded FROM batch"), 3);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM call WHERE batch='b' AND NOT is_wasted"), 3);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM call WHERE is_wasted"), 1);
    CHECK_INT(store_unfinished(fx->writer), 1);
    fx_free(fx);
}

TEST(calls_that_failed_are_wasted)
{
    struct fixture *fx = fx_new();

    submit(fx, JOB_A);
    fx_begin(fx);
    CHECK_INT(fx_end_job(fx, JOB_A, STATE_SUCCEEDED, 3, NULL), 0);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM call WHERE is_wasted=1 AND outcome=3"), 2);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM call WHERE is_wasted=0 AND outcome=0"), 1);
    fx_free(fx);
}

/* A call's id that is no plain text is left out of the ledger; the completion counts all the same.
 */
TEST(call_with_an_odd_id_blocks_nobody)
{
    static const char *const ids[] = {"", "\"id\":7,", "\"id\":\"a\\nb\",", "\"id\":\"\","};
    struct fixture *fx = fx_new();
    char values[4][128];
    size_t i;

    fx_begin(fx);
    for (i = 0; i < 4; i++) {
        char id[2] = {(char)('a' + i), '\0'};
        struct record r = {.key = str_of(id, 1)};

        snprintf(values[i], sizeof values[i],
                 "{\"id\":\"%s\",\"tenant\":\"default\",\"status\":\"succeeded\",\"calls\":"
                 "[{%s\"ms\":7,\"outcome\":\"new\"}]}",
                 id, ids[i]);
        r.headers[HEADER_STATUS] = STR("succeeded");
        r.value = str_z(values[i]);
        CHECK_INT(fx_apply(fx, &r, TOPIC_COMPLETIONS), 0);
    }
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM call WHERE id='' AND ms=7 AND outcome=1"), 4);
    fx_free(fx);
}

TEST(batch_counts)
{
    struct fixture *fx = fx_new();
    int detail = -1;

    fx_begin(fx);
    CHECK_INT(fx_batch(fx, "b", BATCH_RECEIVING, -1, NULL), 0);
    CHECK_INT(fx_batch(fx, "b", BATCH_RECEIVING, -1, &detail), ERR_EXISTS);
    CHECK_INT(detail, BATCH_RECEIVING);
    CHECK_INT(fx_job(fx, LINE("0")), 0);
    CHECK_INT(fx_job(fx, LINE("1")), 0);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT n_total FROM batch"), 2);
    finish(fx, LINE("0"), STATE_SUCCEEDED);
    fx_begin(fx);
    /* A line that was refused has an end but never was a job; its repeat changes nothing. */
    CHECK_INT(fx_end_job(fx, LINE("2"), STATE_FAILED, 0, NULL), 0);
    CHECK_INT(fx_end_job(fx, LINE("2"), STATE_FAILED, 0, NULL), ERR_EXISTS);
    CHECK_INT(fx_job(fx, LINE("1")), ERR_EXISTS);
    CHECK_INT(fx_batch(fx, "b", BATCH_SEALED, 3, NULL), 0);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT finished_at IS NULL FROM batch"), 1);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM batch_line"), 3);
    CHECK_INT(store_unfinished(fx->writer), 1);
    fx->now_ms++;
    finish(fx, LINE("1"), STATE_SUCCEEDED);
    CHECK_INT(fx_int(fx, "SELECT finished_at FROM batch"), 1000001);
    CHECK_INT(fx_int(fx, "SELECT n_total FROM batch"), 3);
    CHECK_INT(fx_int(fx, "SELECT n_succeeded FROM batch"), 2);
    CHECK_INT(fx_int(fx, "SELECT n_failed FROM batch"), 1);
    CHECK_INT(fx_int(fx, "SELECT prompt_tokens FROM batch"), 30);
    CHECK_INT(fx_int(fx, "SELECT cost=0.75 FROM batch"), 1);
    CHECK_INT(fx_int(fx, "SELECT first_off FROM batch"), 0);
    CHECK_INT(fx_int(fx, "SELECT last_off FROM batch"), 2);
    fx_begin(fx);
    fx->now_ms++;
    fx_batch(fx, "b", BATCH_RECEIVING, -1, &detail);
    CHECK_INT(detail, BATCH_SEALED);
    CHECK_INT(fx_batch(fx, "b", BATCH_SEALED, 3, NULL), 0);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT finished_at FROM batch"), 1000001); /* a repeat is not its end */
    fx_free(fx);
}

TEST(cancelled_batch_stays_cancelled)
{
    struct fixture *fx = fx_new();

    fx_begin(fx);
    CHECK_INT(fx_batch(fx, "b", BATCH_RECEIVING, -1, NULL), 0);
    CHECK_INT(fx_batch(fx, "b", BATCH_CANCELLED, -1, NULL), 0);
    CHECK_INT(fx_batch(fx, "b", BATCH_SEALED, 7, NULL), 0);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT state FROM batch"), BATCH_CANCELLED);
    CHECK_INT(fx_int(fx, "SELECT n_lines FROM batch"), 7);
    fx_free(fx);
}

TEST(batch_id_without_a_batch_only_groups)
{
    struct fixture *fx = fx_new();

    submit(fx, LINE("0"));
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM batch_line"), 0);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM job WHERE batch IS NULL AND batch_id='b'"), 1);
    finish(fx, LINE("0"), STATE_SUCCEEDED);
    /* When the batch comes and sends the line again, the job joins with its end. */
    fx_begin(fx);
    CHECK_INT(fx_batch(fx, "b", BATCH_RECEIVING, -1, NULL), 0);
    CHECK_INT(fx_job(fx, LINE("0")), ERR_EXISTS);
    CHECK_INT(fx_job(fx, LINE("0")), ERR_EXISTS);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM batch_line WHERE batch=1 AND line=0 AND job=1"), 1);
    CHECK_INT(fx_int(fx, "SELECT n_total=1 AND n_succeeded=1 FROM batch"), 1);
    CHECK_INT(fx_int(fx, "SELECT first_off FROM batch"), 0);
    fx_free(fx);
}

TEST(line_of_a_changed_input_moves)
{
    struct fixture *fx = fx_new();

    fx_begin(fx);
    CHECK_INT(fx_batch(fx, "b", BATCH_RECEIVING, -1, NULL), 0);
    CHECK_INT(fx_job(fx, "{\"id\":\"x\",\"model\":\"m\",\"prompt\":\"1\",\"batch_id\":\"b\","
                         "\"batch_line\":0}"),
              0);
    CHECK_INT(fx_job(fx, "{\"id\":\"y\",\"model\":\"m\",\"prompt\":\"2\",\"batch_id\":\"b\","
                         "\"batch_line\":0}"),
              0);
    CHECK_INT(fx_job(fx, "{\"id\":\"x\",\"model\":\"m\",\"prompt\":\"1\",\"batch_id\":\"b\","
                         "\"batch_line\":1}"),
              ERR_EXISTS);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT job FROM batch_line WHERE line=0"), 2);
    CHECK_INT(fx_int(fx, "SELECT job FROM batch_line WHERE line=1"), 1);
    CHECK_INT(fx_int(fx, "SELECT n_total FROM batch"), 2);
    fx_free(fx);
}

TEST(full_queue_takes_only_what_it_knows)
{
    struct fixture *fx = fx_new();
    struct position source = {TOPIC_SCHEDULED, 0, 0};

    fx_close_writer(fx);
    fx_open_writer(fx, 2);
    fx_begin(fx);
    CHECK_INT(fx_job(fx, JOB_LATER), 0);
    CHECK_INT(fx_job(fx, JOB_A), 0);
    CHECK_INT(fx_job(fx, "{\"id\":\"c\",\"model\":\"m\",\"prompt\":\"hi\"}"), ERR_FULL);
    CHECK_INT(fx_job(fx, JOB_A), ERR_EXISTS);
    CHECK_INT(fx_job_from(fx, JOB_LATER, source, NULL), 0);
    CHECK_INT(fx_end(fx, true), 0);
    finish(fx, JOB_A, STATE_SUCCEEDED);
    submit(fx, "{\"id\":\"c\",\"model\":\"m\",\"prompt\":\"hi\"}");
    fx_free(fx);
}

TEST(rollback_forgets_everything)
{
    struct fixture *fx = fx_new();

    submit(fx, JOB_A);
    fx_begin(fx);
    CHECK_INT(fx_batch(fx, "b", BATCH_RECEIVING, -1, NULL), 0);
    CHECK_INT(fx_job(fx, LINE("0")), 0);
    CHECK_INT(fx_end_job(fx, JOB_A, STATE_SUCCEEDED, 1, NULL), 0);
    CHECK_INT(fx_end(fx, false), ERR_IO);
    fx->next[TOPIC_COMPLETIONS] = 0;
    CHECK_INT(store_unfinished(fx->writer), 1);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM batch"), 0);
    fx_begin(fx);
    CHECK_INT(fx_job(fx, LINE("0")), 0);
    CHECK_INT(fx_end(fx, true), 0);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM batch_line"), 0);
    finish(fx, JOB_A, STATE_SUCCEEDED);
    CHECK_INT(store_unfinished(fx->writer), 1);
    fx_free(fx);
}

TEST(broken_database_stops_the_transaction)
{
    struct fixture *fx = fx_new();

    submit(fx, JOB_A);
    CHECK_INT(db_exec(fx->db,
                      "CREATE TRIGGER no BEFORE INSERT ON call BEGIN SELECT raise(FAIL, 'no'); END",
                      NULL),
              0);
    fx_begin(fx);
    CHECK_INT(fx_end_job(fx, JOB_A, STATE_SUCCEEDED, 1, NULL), ERR_INTERNAL);
    CHECK_INT(fx_job(fx, LINE("0")), ERR_INTERNAL);
    CHECK_INT(fx_end(fx, true), ERR_INTERNAL);
    CHECK_INT(fx_int(fx, "SELECT state FROM job"), STATE_QUEUED);
    CHECK_INT(db_exec(fx->db, "DROP TRIGGER no", NULL), 0);
    finish(fx, JOB_A, STATE_SUCCEEDED);
    fx_free(fx);
}

TEST(unfinished_survives_a_restart)
{
    struct fixture *fx = fx_new();

    submit(fx, JOB_A);
    submit(fx, JOB_LATER);
    fx_close_writer(fx);
    fx_open_writer(fx, 100);
    finish(fx, JOB_A, STATE_EXPIRED);
    CHECK_INT(store_unfinished(fx->writer), 1);
    fx_free(fx);
}

TEST(what_is_no_job_is_invalid)
{
    struct fixture *fx = fx_new();
    struct record r = {.value = STR("{\"prompt\":1}"), .source = POSITION_NONE};
    struct record end = {.value = STR("{}"), .key = STR("a"), .source = POSITION_NONE};
    struct record other = {.value = STR("x"), .key = STR("node/x"), .source = POSITION_NONE};

    fx_begin(fx);
    CHECK_INT(fx_apply(fx, &r, TOPIC_JOBS), ERR_INVALID);
    CHECK_INT(fx_apply(fx, &end, TOPIC_COMPLETIONS), ERR_INVALID);
    end.headers[HEADER_STATUS] = STR("succeeded");
    CHECK_INT(fx_apply(fx, &end, TOPIC_COMPLETIONS), ERR_INVALID);
    CHECK_INT(fx_apply(fx, &other, TOPIC_META), 0);
    CHECK_INT(fx_apply(fx, &other, TOPIC_DEAD), 0);
    CHECK_INT(fx_end(fx, true), 0);
    fx_free(fx);
}

struct waiter {
    struct watcher w;
    int n_woken;
};

static void on_wake(struct watcher *w)
{
    ((struct waiter *)(void *)w)->n_woken++;
}

TEST(watchers_are_woken_after_the_commit_only)
{
    struct fixture *fx = fx_new();
    struct waiter job = {.w = {.on_wake = on_wake}}, feed = {.w = {.on_wake = on_wake}};

    submit(fx, JOB_A);
    live_watch(fx->live, STR("default"), STR("a"), &job.w);
    live_watch(fx->live, STR_NONE, STR_NONE, &feed.w);
    fx_begin(fx);
    CHECK_INT(fx_end_job(fx, JOB_A, STATE_SUCCEEDED, 1, NULL), 0);
    CHECK_INT(job.n_woken + feed.n_woken, 0);
    CHECK_INT(fx_end(fx, false), ERR_IO);
    CHECK_INT(job.n_woken + feed.n_woken, 0);
    fx->next[TOPIC_COMPLETIONS] = 0;
    finish(fx, JOB_A, STATE_SUCCEEDED);
    CHECK_INT(job.n_woken, 1);
    CHECK_INT(feed.n_woken, 1);
    live_unwatch(fx->live, &job.w);
    live_unwatch(fx->live, &feed.w);
    fx_free(fx);
}

TEST(a_record_of_times_to_come_deletes_nothing)
{
    struct fixture *fx = fx_new();

    store_set_retention(fx->writer, 1);
    fx->now_ms = clock_wall_ms();
    submit(fx, JOB_A);
    finish(fx, JOB_A, STATE_SUCCEEDED);
    fx->now_ms += INT64_C(10) * 365 * 86400000;
    submit(fx, "{\"id\":\"c\",\"model\":\"m\",\"prompt\":\"hi\"}");
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM job"), 2);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM \"genq.completions\""), 1);
    fx_free(fx);
}

TEST(retention_deletes_what_is_old_in_steps)
{
    struct fixture *fx = fx_new();
    const int64_t day = 86400000;

    store_set_retention(fx->writer, 1);
    fx_begin(fx);
    CHECK_INT(fx_batch(fx, "b", BATCH_RECEIVING, -1, NULL), 0);
    CHECK_INT(fx_job(fx, LINE("0")), 0);
    CHECK_INT(fx_job(fx, LINE("1")), 0);
    CHECK_INT(fx_batch(fx, "b", BATCH_SEALED, 2, NULL), 0);
    CHECK_INT(fx_end_job(fx, LINE("0"), STATE_SUCCEEDED, 1, NULL), 0);
    CHECK_INT(fx_end(fx, true), 0);
    fx->now_ms += 2 * day;
    finish(fx, LINE("1"), STATE_SUCCEEDED);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM job WHERE id='b-0'"), 0);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM batch_line"), 1);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM call"), 1);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM batch"), 1); /* it ended just now */
    CHECK_INT(fx_int(fx, "SELECT value FROM fact WHERE name='oldest'"), 1);
    fx->now_ms += 500; /* the next step is not due, though something is old */
    fx_begin(fx);
    CHECK_INT(fx_job(fx, JOB_A), 0);
    CHECK_INT(fx_end(fx, true), 0);
    fx->now_ms += 2 * day;
    submit(fx, "{\"id\":\"c\",\"model\":\"m\",\"prompt\":\"hi\"}");
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM job"), 2); /* waiting ones stay */
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM batch"), 0);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM batch_line"), 0);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM call"), 0);
    CHECK_INT(fx_int(fx, "SELECT count(*) FROM \"genq.completions\""), 0);
    CHECK_INT(fx_int(fx, "SELECT value FROM fact WHERE name='oldest'"), 2);
    fx_free(fx);
}
