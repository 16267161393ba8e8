/* The events of one job, numbered from 1: status changes, partial text, restarts. Bounded; not
 * thread safe: live.c's lock is around it. */
#pragma once
#include "base/buf.h"

enum stream_kind { STREAM_RUNNING, STREAM_QUEUED, STREAM_TEXT, STREAM_CUT, STREAM_RESTART };
#define STREAM_KIND_COUNT (STREAM_RESTART + 1)

/* An event, or several deltas in a row as one. */
struct stream_part {
    int64_t first, last; /* numbers */
    enum stream_kind kind;
    int attempt;
    bool is_first;   /* of those that there still are */
    struct str data; /* a delta's text, the node of `running`; borrowed */
};

struct stream {
    struct buf text; /* of all events: deltas' text, the node of a status */
    struct stream_event *events;
    size_t n, room;
    size_t max_bytes; /* of text and events together */
    int64_t base;     /* number of the event before events[0] */
    bool has_deltas;  /* since the last restart */
    bool is_cut;      /* a delta was dropped since */
};

void stream_init(struct stream *s, size_t max_bytes);
void stream_release(struct stream *s);

/* Status running. Where an attempt before sent text, that text is void: only `restart` is left
 * of the events so far. */
void stream_start(struct stream *s, int attempt, struct str node);
/* Status queued. */
void stream_requeue(struct stream *s, int attempt);
/* Partial text. Past max_bytes it is dropped, and so is what comes after: readers keep an exact
 * beginning, an empty delta with "is_cut":true says so, and the completion has the rest. False when
 * there is no news. */
bool stream_delta(struct stream *s, int attempt, struct str text);

/* The same from another process' stream, where it has number p->last: `restart` voids what came
 * before; numbers go on from its. (p->first is not looked at.) False when there is no news. */
bool stream_mirror(struct stream *s, const struct stream_part *p);

/* What comes after number `after`. False when there is nothing. */
bool stream_next(const struct stream *s, int64_t after, struct stream_part *p);

/* Appends the events after number `after` as SSE frames (see live_events), as many whole ones as
 * b has room for. Gives the last number written. Numbers of a stream that is no more get all
 * there is. */
int64_t stream_print(const struct stream *s, int64_t after, struct buf *b);
