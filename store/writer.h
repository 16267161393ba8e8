/* The store's writing side: what the broker's hook applies to the database, on the writer thread
 * and in the append's transaction. First completion of an id wins; a late one's calls enter the
 * ledger as wasted.
 *
 * Order. The tables come out the same for every order of the records that keeps the order within
 * each partition, which is all that a follower of Kafka sees: a completion may come before its
 * job, a job before its batch, `due` before `scheduled`. Where records say different things, the
 * first of a partition counts, and such records nearly always share one: all completions, all
 * batches, and in each job topic all jobs of one id. Gateways may differ only in
 * - which of two different jobs of one id was first, when they are in different topics (another
 *   queue or priority, or one is scheduled) or sessions;
 * - whether a job's id is known, when a batch's line of that id was refused as well;
 * - which of two jobs of a batch has a line that both claim. */
#pragma once
#include "base/db.h"
#include "broker-config/topics.h"
#include "store/live.h"

struct store_writer;

/* Prepares statements on the broker's connection at the first apply. `live` is told what ended
 * once it is durable (NULL allowed). max_unfinished: jobs beyond which new ones get ERR_FULL; 0:
 * none, as where the records stand in Kafka already. */
struct store_writer *store_writer_new(const struct topics *t, struct live *live,
                                      int64_t max_unfinished);
void store_writer_free(struct store_writer *w);

/* Before the first apply: on_commit is called after each transaction that became durable, on the
 * writer thread; it may only hand over. */
void store_set_on_commit(struct store_writer *w, void (*on_commit)(void *data), void *data);

/* Before the first apply: what ended more than `days` ago is deleted in small steps, by the
 * clock of the records (0, the default: never). */
void store_set_retention(struct store_writer *w, int64_t days);

/* The three hooks of broker.h (data = the writer). The bytes of applied records must stay until
 * committed.
 * Job record (jobs.* or scheduled): a new id adds a job row, state queued or scheduled, and its
 *   place in its batch (batch_line). A known id: with a source on the scheduled topic it is
 *   `due` (state queued, new position); same digest: ERR_EXISTS, detail = its state (and its
 *   batch line is noted again when it is of the same batch); another digest: ERR_CONFLICT. The
 *   record of a completion that came first gets 0. ERR_FULL past max_unfinished; ERR_INVALID when
 *   it is no job.
 * Completion: the job's row ends, ledger rows are added, the batch's counters move. A job that
 *   is not known is added as ended (a line that was refused; or its record is yet to come). Already
 *   ended: ERR_EXISTS, detail = its state; its calls enter the ledger as wasted.
 * Meta: batch rows; a batch that is created again: ERR_EXISTS, detail = its state.
 * Others: nothing.
 * After a failure of the database itself (ERR_IO, …) nothing more is written, and all that follow
 * up to committed(false) give the same code. */
int store_apply(void *writer, struct db *db, struct record *r);
int store_flush(void *writer, struct db *db);
void store_committed(void *writer, bool is_ok);

/* Reads what the database in `dataz` knows before the first apply: the unfinished jobs. Any thread:
 * an apply that came first stays right. */
int store_load(struct store_writer *w, const char *dataz, struct err *e);
/* Jobs not ended yet; any thread. 0 until store_load or the first apply has read it. */
int64_t store_unfinished(const struct store_writer *w);
