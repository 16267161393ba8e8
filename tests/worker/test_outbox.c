#include "tests/lib/test.h"
#include "worker/outbox.h"
#include <stdlib.h>

/* A broker that is told how to answer. It acknowledges when asked to, from the loop's own thread. */
struct fake {
    struct broker head;
    int refuse, fail; /* publishes still to be refused, or failed */
    int code;         /* with which code */
    int exists_from;  /* records from this key's first letter on are there already */
    struct publish *taken;
    int n_publishes;
};

static int fake_publish(struct broker *b, struct publish *p)
{
    struct fake *f = (struct fake *)(void *)b;

    if (f->refuse > 0) {
        f->refuse--;
        return f->code;
    }
    f->n_publishes++;
    p->next = f->taken;
    f->taken = p;
    return 0;
}

static const struct broker_ops fake_ops = {.namez = "fake", .publish = fake_publish};

static void acknowledge(struct fake *f)
{
    struct publish *p;
    size_t i;
    int code;

    while ((p = f->taken) != NULL) {
        f->taken = p->next;
        code = f->fail > 0 ? f->code : 0;
        f->fail -= f->fail > 0;
        for (i = 0; i < p->n; i++)
            p->records[i].code =
                f->exists_from && p->records[i].key.p[0] >= f->exists_from ? ERR_EXISTS : 0;
        p->on_ack(p, code);
    }
}

struct box {
    uv_loop_t loop;
    struct fake fake;
    struct inbox *inbox;
    struct outbox out;
};

static char sent[64]; /* keys in the order of their acknowledgement; lower case: not durable */
static size_t n_sent;

static void on_sent(struct outgoing *o, int code)
{
    sent[n_sent++] = (char)(o->record.key.p[0] + (code == 0 ? 0 : 'a' - 'A'));
    free(o);
}

static void open_box(struct box *b)
{
    *b = (struct box){.fake = {.head = {&fake_ops}}};
    uv_loop_init(&b->loop);
    b->inbox = inbox_new(&b->loop);
    outbox_init(&b->out, &b->fake.head, b->inbox, &b->loop);
}

static void close_box(struct box *b)
{
    CHECK_INT(outbox_count(&b->out), 0);
    inbox_free(b->inbox);
    uv_close((uv_handle_t *)&b->out.timer, NULL);
    uv_run(&b->loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&b->loop), 0);
}

static void add(struct box *b, const char *key)
{
    struct outgoing *o = xcalloc(1, sizeof *o);

    o->record.key = str_of(key, 1);
    o->on_sent = on_sent;
    outbox_add(&b->out, o);
}

/* One turn: what is pending goes out, what was taken is acknowledged. */
static void turn(struct box *b)
{
    outbox_flush(&b->out, false);
    acknowledge(&b->fake);
    inbox_drain(b->inbox);
}

TEST(a_turn_is_one_publish_in_order)
{
    struct box b;

    open_box(&b);
    add(&b, "A");
    add(&b, "B");
    add(&b, "C");
    turn(&b);
    CHECK_INT(b.fake.n_publishes, 1);
    CHECK_STR(str_of(sent, n_sent), "ABC");
    turn(&b);
    CHECK_INT(b.fake.n_publishes, 1);
    close_box(&b);
}

/* Runs until all is sent; the backoff is the outbox's own timer. */
static void settle(struct box *b)
{
    while (outbox_count(&b->out) > 0) {
        uv_run(&b->loop, UV_RUN_ONCE);
        acknowledge(&b->fake);
        inbox_drain(b->inbox);
    }
}

TEST(what_a_full_queue_refuses_is_kept_in_order)
{
    struct box b;

    open_box(&b);
    b.fake.refuse = 3;
    b.fake.code = ERR_FULL;
    add(&b, "A");
    add(&b, "B");
    turn(&b);
    CHECK_INT(b.out.backoff_ms, 50);
    CHECK_INT(b.out.failed_with, ERR_FULL);
    add(&b, "C");
    turn(&b); /* suspended */
    CHECK_INT(b.fake.n_publishes, 0);
    settle(&b);
    CHECK_INT(b.fake.n_publishes, 1);
    CHECK_STR(str_of(sent, n_sent), "ABC");
    CHECK_INT(b.out.backoff_ms, 0);
    close_box(&b);
}

TEST(what_a_full_disk_failed_is_kept)
{
    struct box b;

    open_box(&b);
    b.fake.fail = 2;
    b.fake.code = ERR_IO;
    add(&b, "A");
    add(&b, "B");
    turn(&b);
    CHECK_INT(n_sent, 0);
    settle(&b);
    CHECK_STR(str_of(sent, n_sent), "AB");
    CHECK_INT(b.fake.n_publishes, 3);
    close_box(&b);
}

TEST(a_record_that_is_there_already_is_told)
{
    struct box b;

    open_box(&b);
    b.fake.exists_from = 'B';
    add(&b, "A");
    add(&b, "B");
    turn(&b);
    CHECK_STR(str_of(sent, n_sent), "Ab");
    CHECK_INT(b.out.backoff_ms, 0);
    close_box(&b);
}

TEST(dropping_gives_up_what_cannot_be_written)
{
    struct box b;

    open_box(&b);
    b.fake.fail = 1;
    b.fake.code = ERR_IO;
    add(&b, "A");
    outbox_flush(&b.out, false); /* with the broker */
    add(&b, "B");
    outbox_drop(&b.out);
    CHECK_STR(str_of(sent, n_sent), "b");
    turn(&b);
    CHECK_STR(str_of(sent, n_sent), "ba");
    uv_timer_stop(&b.out.timer);
    close_box(&b);
}
