/* `genq topics plan` and `genq topics apply`: Kafka's topics as the config wants them. */
#include "base/json.h"
#include "broker-config/kafka_topics.h"
#include "producer/cli/cli.h"
#include <stdio.h>

enum { LINE_MAX_BYTES = 1 << 16 };

/* ---- what is said ---- */

static const char *plural(int n)
{
    return n == 1 ? "" : "s";
}

static void put_created(struct buf *b, const struct topic_plan *p)
{
    size_t i;

    buf_addf(b, "%d partition%s, replication factor %d\n", p->partitions_wanted,
             plural(p->partitions_wanted), p->replication_wanted);
    for (i = 0; i < p->n_settings; i++)
        buf_addf(b, "    %s = %s\n", p->settings[i].namez, p->settings[i].toz);
}

static void put_text(struct buf *b, const struct topic_plan *p, enum topic_step step, bool is_done)
{
    static const char *const verbs[TOPIC_STEPS_][2] = {
        [TOPIC_STEP_CREATE] = {"create", "created"},
        [TOPIC_STEP_PARTITIONS] = {"add partitions", "added partitions"},
        [TOPIC_STEP_SETTINGS] = {"alter", "altered"},
    };
    const struct setting_plan *s;
    size_t i;

    buf_addf(b, "%s %s: ", verbs[step][is_done], p->namez);
    if (step == TOPIC_STEP_CREATE) {
        put_created(b, p);
        return;
    }
    if (step == TOPIC_STEP_PARTITIONS) {
        buf_addf(b, "%d -> %d\n", p->partitions, p->partitions_wanted);
        return;
    }
    for (i = 0, s = p->settings; i < p->n_settings; i++, s++)
        if (s->is_change)
            buf_addf(b, "%s%s %s -> %s", b->p[b->n - 1] == ' ' ? "" : ", ", s->namez,
                     s->fromz ? s->fromz : "(none)", s->toz);
    buf_addc(b, '\n');
}

static void put_json_settings(struct buf *b, const struct topic_plan *p, bool is_new)
{
    const struct setting_plan *s;
    const char *sepz = "";
    size_t i;

    json_put_name(b, "settings");
    buf_addc(b, '{');
    for (i = 0, s = p->settings; i < p->n_settings; i++, s++) {
        if (!s->is_change)
            continue;
        buf_addz(b, sepz);
        sepz = ",";
        if (is_new) {
            json_put_member_str(b, s->namez, str_z(s->toz));
            continue;
        }
        json_put_name(b, s->namez);
        buf_addc(b, '{');
        json_put_member_opt(b, "from", str_z(s->fromz));
        buf_addc(b, ',');
        json_put_member_str(b, "to", str_z(s->toz));
        buf_addc(b, '}');
    }
    buf_addc(b, '}');
}

static void put_json(struct buf *b, const struct topic_plan *p, enum topic_step step)
{
    static const char *const names[TOPIC_STEPS_] = {
        [TOPIC_STEP_CREATE] = "create",
        [TOPIC_STEP_PARTITIONS] = "add_partitions",
        [TOPIC_STEP_SETTINGS] = "alter",
    };

    buf_addf(b, "{\"object\":\"topic.step\",\"step\":\"%s\",", names[step]);
    json_put_member_str(b, "topic", str_z(p->namez));
    buf_addc(b, ',');
    if (step == TOPIC_STEP_PARTITIONS)
        buf_addf(b, "\"from\":%d,\"to\":%d", p->partitions, p->partitions_wanted);
    if (step == TOPIC_STEP_CREATE)
        buf_addf(b, "\"partitions\":%d,\"replication\":%d,", p->partitions_wanted,
                 p->replication_wanted);
    if (step != TOPIC_STEP_PARTITIONS)
        put_json_settings(b, p, step == TOPIC_STEP_CREATE);
    buf_addz(b, "}\n");
}

static void print_step(const struct cli *c, const struct topic_plan *p, enum topic_step step,
                       bool is_done)
{
    struct buf b;

    buf_init(&b, LINE_MAX_BYTES);
    if (c->is_json)
        put_json(&b, p, step);
    else
        put_text(&b, p, step, is_done);
    fwrite(b.p, 1, b.n, stdout);
    buf_release(&b);
}

static void print_note(const struct cli *c, const struct topic_plan *p, struct buf *note)
{
    struct buf b;

    buf_init(&b, LINE_MAX_BYTES);
    if (c->is_json) {
        buf_addz(&b, "{\"object\":\"topic.note\",");
        json_put_member_str(&b, "topic", str_z(p->namez));
        buf_addc(&b, ',');
        json_put_member_str(&b, "message", buf_str(note));
        buf_addz(&b, "}\n");
    } else {
        buf_addf(&b, "note %s: %.*s\n", p->namez, STR_ARG(buf_str(note)));
    }
    fwrite(b.p, 1, b.n, stdout);
    buf_release(&b);
    buf_clear(note);
}

/* What differs, and is nothing that `apply` can change. */
static void print_notes(const struct cli *c, const struct topic_plan *p)
{
    struct buf b;

    buf_init(&b, LINE_MAX_BYTES);
    if (p->is_foreign) {
        buf_addz(&b, "the config has no such queue; no worker takes what is in it");
        print_note(c, p, &b);
    } else if (p->is_there && p->partitions > p->partitions_wanted) {
        buf_addf(&b, "has %d partitions, the config wants %d; Kafka cannot take partitions away",
                 p->partitions, p->partitions_wanted);
        print_note(c, p, &b);
    }
    if (!p->is_foreign && p->is_there && p->replication != p->replication_wanted) {
        buf_addf(&b,
                 "has replication factor %d, the config wants %d; genq does not move replicas, "
                 "Kafka's kafka-reassign-partitions.sh does",
                 p->replication, p->replication_wanted);
        print_note(c, p, &b);
    }
    if (p->min_insync_left) {
        buf_addf(&b,
                 "min.insync.replicas stays as it is: %lld, as the config wants, is more than "
                 "replication factor %d, and nothing could be written",
                 (long long)p->min_insync_left, p->replication);
        print_note(c, p, &b);
    }
    buf_release(&b);
}

static void print_all_notes(const struct cli *c, const struct kafka_plan *plan)
{
    size_t i;

    for (i = 0; i < plan->n; i++)
        print_notes(c, &plan->topics[i]);
}

static void print_plan(const struct cli *c, const struct kafka_plan *plan)
{
    size_t i;
    int step;

    for (i = 0; i < plan->n; i++)
        for (step = 0; step < TOPIC_STEPS_; step++)
            if (topic_plan_has(&plan->topics[i], (enum topic_step)step))
                print_step(c, &plan->topics[i], (enum topic_step)step, false);
    print_all_notes(c, plan);
}

static void print_nothing(const struct cli *c)
{
    if (!c->is_json)
        printf("nothing to do\n");
}

/* ---- the commands ---- */

struct applying {
    const struct cli *cli;
    size_t n_steps;
};

static void on_step(void *data, const struct topic_plan *p, enum topic_step step)
{
    struct applying *a = data;

    print_step(a->cli, p, step, true);
    a->n_steps++;
}

static int plan_topics(const struct cli *c, const struct config *config, const struct topics *t,
                       struct kafka_plan *plan, struct err *e)
{
    int rc = kafka_topics_plan(config, t, plan, e);

    if (rc < 0)
        return rc;
    print_plan(c, plan);
    if (kafka_plan_steps(plan) > 0)
        return EXIT_SOME_FAILED;
    print_nothing(c);
    return EXIT_WELL;
}

static int apply_topics(const struct cli *c, const struct config *config, const struct topics *t,
                        struct kafka_plan *left, struct err *e)
{
    struct applying a = {.cli = c};
    int rc = kafka_topics_apply(config, t, on_step, &a, left, e);

    if (rc < 0)
        return rc;
    print_all_notes(c, left);
    if (a.n_steps == 0)
        print_nothing(c);
    return EXIT_WELL;
}

static int run_with(struct cli *c,
                    int (*act)(const struct cli *c, const struct config *config,
                               const struct topics *t, struct kafka_plan *plan, struct err *e))
{
    struct config *config = cli_config(c);
    struct kafka_plan plan;
    struct topics *t;
    struct err e = {0};
    int rc;

    if (!config)
        return EXIT_USAGE;
    if (config->broker_kind != BROKER_KIND_KAFKA) {
        config_free(config);
        return cli_fail(EXIT_USAGE, "topics are made in Kafka only, and the config has "
                                    "broker: {kind: sqlite}, which needs none");
    }
    t = topics_new(config);
    rc = act(c, config, t, &plan, &e);
    kafka_plan_release(&plan);
    topics_free(t);
    config_free(config);
    return rc < 0 ? cli_fail(cli_exit_err(&e), "%s", e.msg) : rc;
}

static int run_plan(struct cli *c)
{
    return run_with(c, plan_topics);
}

static int run_apply(struct cli *c)
{
    return run_with(c, apply_topics);
}

const struct cli_command command_topics_plan = {
    .namez = "topics plan",
    .summaryz = "show what differs between Kafka's topics and the config",
    .detailsz =
        "Prints what 'genq topics apply' would do, and what differs but is not for it to\n"
        "change: fewer partitions, another replication factor.\n"
        "Exit code 0: nothing to do; 1: there is something to do; 3: Kafka cannot be reached.",
    .run = run_plan,
    .examplez = "genq topics plan --config genq.yaml",
};

const struct cli_command command_topics_apply = {
    .namez = "topics apply",
    .summaryz = "make and alter Kafka's topics as the config wants them",
    .detailsz =
        "Makes missing topics, adds partitions, alters settings; prints what it did. Settings\n"
        "that genq has no opinion on stay. It may be run again, and by several at once.\n"
        "Exit code 3: Kafka cannot be reached, or does not show the changes in time.",
    .run = run_apply,
    .examplez = "genq topics apply --config genq.yaml",
};
