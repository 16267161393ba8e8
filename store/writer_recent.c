#include "store/writer_internal.h"

static struct recent_job *place_of(const struct store_writer *w, struct position at)
{
    return &w->recent[(uint64_t)at.offset & (RECENT_JOBS - 1)];
}

void recent_add(struct store_writer *w, struct position at, int64_t seq, int64_t batch)
{
    *place_of(w, at) = (struct recent_job){at, seq, batch};
}

bool recent_find(const struct store_writer *w, struct position at, struct job_row *row)
{
    const struct recent_job *job = place_of(w, at);

    if (job->seq == 0 || job->at.topic != at.topic ||
        job->at.partition != at.partition || job->at.offset != at.offset)
        return false;
    row->seq = job->seq;
    row->batch = job->batch;
    return true;
}

void recent_forget(struct store_writer *w)
{
    memset(w->recent, 0, RECENT_JOBS * sizeof w->recent[0]);
}
