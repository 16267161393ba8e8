/* The progress of long work, on stderr. On a terminal one line that is drawn over and over, at most
 * 10 times a second, with a note below it where there is one; elsewhere a plain line every 10 s and
 * at the end.
 *
 *     [#####.....] 123/1000  45.2 jobs/s  12.3k tokens  2 failed  ETA 0:21
 *     waiting: no engine node is up
 *
 * Legal sequence: progress_init; set done, failed, tokens and progress_update, any number of times;
 * progress_end. One thread. */
#pragma once
#include "base/buf.h"

struct progress {
    int64_t total;      /* jobs; -1: not known (may be set later) */
    int64_t done;       /* ended so far, the failed among them */
    int64_t failed;
    int64_t tokens;     /* 0: not shown */
    int64_t n_before;   /* of done, ended before this run: shown, but not in the rate */
    const char *unitz;  /* "jobs" */
    int64_t started_ms; /* monotonic; set by progress_init */
    int fd;             /* stderr */
    /* private */
    bool is_terminal, is_drawn;
    char note[160], told[160]; /* told: the note last printed on a plain stream */
    int64_t drawn_ms;          /* when it was last shown; -1: never */
    int64_t sampled_ms, sampled; /* the rate's last sample: when, and done - n_before then */
    double rate;               /* jobs a second, of about the last 15 s */
};

/* Starts the clock. total -1: not known. Shows nothing yet. */
void progress_init(struct progress *p, int64_t total);
/* A line of text below the bar ("waiting: …"), copied; NULL or "" takes it away. Shown with the
 * next update. */
void progress_note(struct progress *p, const char *textz);
/* Shows the state, if it is time. now_ms: monotonic. */
void progress_update(struct progress *p, int64_t now_ms);
/* Takes the line off a terminal, to print something else there; the next update draws it again. */
void progress_clear(struct progress *p);
/* Shows the last state, with the time it took. */
void progress_end(struct progress *p, int64_t now_ms);

/* The parts, without output. */
/* Takes a sample of the rate; progress_update does. */
void progress_sample(struct progress *p, int64_t now_ms);
/* One line of at most `width` columns, without a line break; is_end: with the time it took in place
 * of the ETA; width 0: a plain line without a bar. */
void progress_format(const struct progress *p, int64_t now_ms, int width, bool is_end,
                     struct buf *b);
/* 999, 1.2k, 12.3k, 123k, 1.2M …; negative numbers count as 0. */
void progress_put_count(struct buf *b, int64_t n);
/* 0:21, 12:05, 1:02:03, 3d 04:05. */
void progress_put_time(struct buf *b, int64_t ms);
