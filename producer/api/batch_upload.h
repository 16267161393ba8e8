/* What the two files of POST /api/v1/batches share: batch_upload.c is the request with its
 * publishes and its reply, batch_lines.c makes lines into jobs. On the request's thread, but for
 * what says otherwise. */
#pragma once
#include "producer/api/api.h"
#include "producer/submit.h"

enum {
    LINES_A_PUBLISH = 256,
    BATCH_ID_MAX = 52, /* a line's number must fit behind it in an id */
};

/* One publish of lines. */
struct piece {
    struct piece *next; /* landed ones */
    struct upload *upload;
    struct submission *submission;
    size_t n_bytes;
    int code;                         /* of its publish */
    bool is_refused[LINES_A_PUBLISH]; /* recorded as failed */
    int64_t numbers[LINES_A_PUBLISH]; /* line numbers from 1, blank ones counted, for messages */
};

/* The batch's own record: made, or sealed. */
struct meta {
    struct publish publish;
    struct record record;
    struct buf mem;
    struct upload *upload;
    bool is_sent;
    bool is_acked; /* under the flight's lock */
};

struct upload {
    struct flight flight; /* first */
    /* under the flight's lock */
    struct piece *landed;
    int n_in_flight; /* publishes, the batch's own as well */
    int code;        /* what a publish failed with */
    /* the request's thread */
    char id[ID_MAX + 1], tenant[ID_MAX + 1];
    bool is_id_made; /* by us, and so are its lines' */
    char model[JOB_NAME_MAX_BYTES + 1]; /* for lines that name none; "": they are refused */
    struct buf input;                   /* body that is not cut into lines yet */
    size_t at;                          /* in it: where the next line begins */
    bool is_input_over, is_dropping;    /* the rest of a line that is too long */
    struct piece *piece;                /* being filled */
    struct meta created, sealed;
    bool is_created; /* the log has the batch's record */
    int64_t n_lines, n_numbers, n_accepted, n_refused;
    int n_errors;
    struct buf errors; /* elements of the reply's `errors` */
    int status;        /* of a reply that is due as soon as the body is over; 0: none */
    enum reason reason;
    const char *codez;
    char message[sizeof(((struct err *)NULL)->msg)];
};

/* The next line of the input, whole; false when it is not all there. One past max_bytes is dropped,
 * and only told of. */
bool lines_next(struct upload *u, int64_t max_bytes, struct str *line, bool *is_too_long);
/* Makes the line a job of u->piece, or records it there as failed. False: it is blank. */
bool lines_take(struct upload *u, struct request *q, struct str line, bool is_too_long);
/* Counts a line that was refused, and tells of the first few in the reply. */
void lines_add_error(struct upload *u, int64_t number, struct str id, const char *messagez);
/* NULL allowed. */
void piece_free(struct piece *p);

/* batch_upload.c's: a piece's publish is over. On the broker's thread. */
void upload_lines_done(struct submission *s, int code);
