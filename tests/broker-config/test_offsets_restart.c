/* A partition read by one owner after the other, each killed at a random moment, as the driver for
 * Kafka does it: offsets taken in order, finished in any order, committed now and then with
 * offsets_code, restored with offsets_done. Held against a naive model after every commit. A
 * failure prints its seed. */
#include "base/buf.h"
#include "broker-config/offsets_code.h"
#include "tests/lib/test.h"
#include <stdio.h>
#include <stdlib.h>

struct plan {
    unsigned seed;
    int64_t first;
    int64_t span; /* offsets in the partition */
    size_t unfinished_max;
    int64_t spread_max;
    int hole_share; /* per cent of the offsets are never delivered */
    int take_share; /* per cent of the steps take one */
    int new_share;  /* per cent of the finished are among the newest, */
    int low_share;  /* of the others per mille the oldest */
    int commit_every, crash_every, redeliver_every; /* steps, on average */
    size_t cap;                                     /* of the metadata */
    bool reads_completions;                         /* at a restart, those from feed_end on */
};

struct world {
    const struct plan *p;
    struct offsets o;
    struct offsets_done d;
    int64_t next; /* to be delivered */
    /* A byte an offset, from p->first on. */
    unsigned char *is_record, *runs, *finished, *known, *committed;
    /* The completion topic: the offsets in the order in which they finished. */
    int64_t *feed, feed_end;
    char text[OFFSETS_CODE_CHARS];
    size_t n_text;
    int64_t text_low;
    int n_commits, n_skipped, n_unfit, n_completed;
    size_t longest;
};

#define HOLDS(w, cond) \
    do { \
        if (!(cond)) { \
            printf("# seed %u\n", (w)->p->seed); \
            fflush(stdout); \
            test_fail(__FILE__, __LINE__, #cond); \
        } \
    } while (0)

static bool chance(int per_cent)
{
    return random() % 100 < per_cent;
}

static bool once_in(int steps)
{
    return steps > 0 && random() % steps == 0;
}

static void start_world(struct world *w, const struct plan *p)
{
    size_t n = (size_t)p->span, i;

    *w = (struct world){.p = p, .next = p->first, .text_low = p->first};
    w->is_record = xcalloc(n, 1);
    w->runs = xcalloc(n, 1);
    w->finished = xcalloc(n, 1);
    w->known = xcalloc(n, 1);
    w->committed = xcalloc(n, 1);
    w->feed = xcalloc(n, sizeof *w->feed);
    srandom(p->seed);
    for (i = 0; i < n; i++)
        w->is_record[i] = !chance(p->hole_share) || i + 1 == n;
    offsets_init(&w->o, p->first);
    offsets_done_init(&w->d, p->first);
}

static void end_world(struct world *w)
{
    free(w->is_record);
    free(w->runs);
    free(w->finished);
    free(w->known);
    free(w->committed);
    free(w->feed);
    offsets_release(&w->o);
    offsets_done_release(&w->d);
}

static void finish(struct world *w, int64_t at)
{
    size_t i = (size_t)(at - w->p->first);

    HOLDS(w, offsets_finish(&w->o, at));
    HOLDS(w, !offsets_finish(&w->o, at));
    if (!w->finished[i])
        w->feed[w->feed_end++] = at;
    w->finished[i] = w->known[i] = 1;
}

static void deliver(struct world *w)
{
    size_t i;

    for (;; w->next++) {
        i = (size_t)(w->next - w->p->first);
        if (w->is_record[i])
            break;
        w->known[i] = 1;
    }
    HOLDS(w, offsets_take(&w->o, w->next));
    if (offsets_done_has(&w->d, w->next)) {
        HOLDS(w, w->known[i]);
        HOLDS(w, offsets_finish(&w->o, w->next));
        w->n_skipped++;
    } else {
        HOLDS(w, !w->committed[i] && !w->known[i]);
        HOLDS(w, !w->p->reads_completions || !w->finished[i]);
        w->runs[i] = 1;
    }
    w->next++;
}

/* Whether intake takes another one: its two limits, and the end of the partition. */
static bool may_take(const struct world *w)
{
    return w->next < w->p->first + w->p->span && w->o.n_unfinished < w->p->unfinished_max &&
           w->next - w->o.low < w->p->spread_max;
}

static void finish_some(struct world *w)
{
    int64_t width = w->o.end - w->o.low, at = w->o.low;

    if (w->o.n_unfinished == 0)
        return;
    if (chance(w->p->new_share))
        at = w->o.end - 1 - random() % (width < 20 ? width : 20);
    else if (random() % 1000 >= w->p->low_share)
        at += random() % width;
    while (at < w->o.end && offsets_is_finished(&w->o, at))
        at++;
    finish(w, at < w->o.end ? at : w->o.low);
}

/* What the text says is what the model knows, neither more nor less. */
static void check_text(struct world *w)
{
    struct offsets_done d;
    int64_t feed, i;

    HOLDS(w, offsets_decode(str_of(w->text, w->n_text), w->text_low, &d, &feed));
    HOLDS(w, feed == w->feed_end);
    for (i = 0; i < w->p->span; i++)
        HOLDS(w, offsets_done_has(&d, w->p->first + i) == w->known[i]);
    HOLDS(w, !offsets_done_has(&d, w->p->first + w->p->span));
    offsets_done_release(&d);
}

static void commit(struct world *w)
{
    char text[OFFSETS_CODE_CHARS];
    size_t n = offsets_encode(&w->o, &w->d, w->feed_end, text, w->p->cap);

    HOLDS(w, n > 0 || offsets_code_chars(&w->o, &w->d) > w->p->cap);
    HOLDS(w, n <= w->p->cap && offsets_code_chars(&w->o, &w->d) >= n);
    if (n == 0) {
        w->n_unfit++;
        return;
    }
    memcpy(w->text, text, n);
    w->n_text = n;
    w->longest = n > w->longest ? n : w->longest;
    w->text_low = w->o.low;
    memcpy(w->committed, w->known, (size_t)w->p->span);
    check_text(w);
    w->n_commits++;
}

static void restart(struct world *w)
{
    int64_t feed = 0;

    offsets_release(&w->o);
    offsets_done_release(&w->d);
    HOLDS(w,
          offsets_decode(str_of(w->text, w->n_text), w->text_low, &w->d, &feed) == (w->n_text > 0));
    memcpy(w->known, w->committed, (size_t)w->p->span);
    for (feed = feed < 0 ? 0 : feed; w->p->reads_completions && feed < w->feed_end; feed++) {
        HOLDS(w, offsets_done_add(&w->d, w->feed[feed], w->feed[feed] + 1));
        w->known[w->feed[feed] - w->p->first] = 1;
        w->n_completed++;
    }
    offsets_init(&w->o, w->text_low);
    w->next = w->text_low;
}

static void check_end(struct world *w)
{
    int64_t i;

    HOLDS(w, w->o.n_unfinished == 0);
    HOLDS(w, w->o.low == w->p->first + w->p->span);
    for (i = 0; i < w->p->span; i++) {
        HOLDS(w, w->runs[i] == w->is_record[i]);
        HOLDS(w, w->finished[i] == w->is_record[i]);
    }
}

/* Until all is finished; killed until the work takes so long that it would not end. */
static void run(struct world *w, const struct plan *p)
{
    int64_t step, patience = 20 * p->span;

    start_world(w, p);
    for (step = 0; w->o.low < p->first + p->span; step++) {
        if (may_take(w) && (w->o.n_unfinished == 0 || chance(p->take_share)))
            deliver(w);
        else
            finish_some(w);
        if (once_in(p->redeliver_every) && w->o.end > p->first)
            HOLDS(w, !offsets_take(&w->o, p->first + random() % (w->o.end - p->first)));
        if (once_in(p->commit_every))
            commit(w);
        if (step < patience && once_in(p->crash_every))
            restart(w);
    }
    check_end(w);
}

TEST(random_lives_run_each_once_or_more_and_none_that_a_commit_holds)
{
    static const int64_t firsts[] = {0, 37, 64, INT64_C(1) << 50};
    int skipped = 0, unfit = 0, completed = 0;
    unsigned seed;

    for (seed = 1; seed <= 3000; seed++) {
        struct plan p = {.seed = seed, .first = firsts[seed % 4]};
        struct world w;

        srandom(seed);
        p.span = 1 + random() % 600;
        p.unfinished_max = 1 + (size_t)random() % 150;
        p.spread_max = 1 + random() % 400;
        p.hole_share = random() % 3 ? 0 : (int)(random() % 90);
        p.take_share = 20 + (int)(random() % 60);
        p.new_share = (int)(random() % 101);
        p.low_share = random() % 2 ? 100 : 3;
        p.commit_every = 1 + (int)(random() % 100);
        p.crash_every = 50 + (int)(random() % 500);
        p.redeliver_every = 10;
        p.cap = random() % 4 ? OFFSETS_CODE_CHARS : 16 + (size_t)random() % 40;
        p.reads_completions = random() % 2;
        run(&w, &p);
        skipped += w.n_skipped;
        unfit += w.n_unfit;
        completed += w.n_completed;
        end_world(&w);
    }
    CHECK(skipped > 10000);
    CHECK(unfit > 1000);
    CHECK(completed > 10000);
}

/* At intake's own limits every commit fits, also those of an owner that has not yet taken again all
 * that it was told is finished. */
TEST(lives_at_the_limits_of_intake_fit_in_every_commit)
{
    size_t longest = 0;
    unsigned seed;

    for (seed = 1; seed <= 8; seed++) {
        struct plan p = {.seed = seed,
                         .first = 1000,
                         .span = 250000,
                         .unfinished_max = OFFSETS_MAX_UNFINISHED,
                         .spread_max = OFFSETS_MAX_SPREAD,
                         .take_share = 51 + (int)seed % 2,
                         .new_share = (int)(seed % 4) * 30,
                         .low_share = (int)(seed % 3) / 2,
                         .commit_every = 10000,
                         .crash_every = 120000,
                         .cap = OFFSETS_CODE_CHARS,
                         .reads_completions = seed % 2};
        struct world w;

        run(&w, &p);
        CHECK_INT(w.n_unfit, 0);
        CHECK(w.n_commits > 10);
        longest = w.longest > longest ? w.longest : longest;
        end_world(&w);
    }
    CHECK(longest > 3500);
}
