/* How a member of the group is destroyed. */
#include "base/buf.h"
#include "base/log.h"
#include "broker-config/kafka_inside.h"
#include <stdlib.h>

enum { PART_MS = 5000 };

struct parting {
    rd_kafka_t *member;
    uv_mutex_t lock;
    uv_cond_t over;
    bool is_over;
};

static void part(void *data)
{
    struct parting *p = data;

    rd_kafka_destroy_flags(p->member, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    uv_mutex_lock(&p->lock);
    p->is_over = true;
    uv_cond_signal(&p->over);
    uv_mutex_unlock(&p->lock);
}

static bool is_soon_over(struct parting *p)
{
    uint64_t now_ns = uv_hrtime(), until_ns = now_ns + (uint64_t)PART_MS * 1000000;
    bool is_over;

    uv_mutex_lock(&p->lock);
    for (; !p->is_over && now_ns < until_ns; now_ns = uv_hrtime())
        uv_cond_timedwait(&p->over, &p->lock, until_ns - now_ns);
    is_over = p->is_over;
    uv_mutex_unlock(&p->lock);
    return is_over;
}

bool kafka_part(rd_kafka_t *member)
{
    struct parting *p = xcalloc(1, sizeof *p);
    uv_thread_t thread;

    p->member = member;
    if (uv_mutex_init(&p->lock) != 0 || uv_cond_init(&p->over) != 0 ||
        uv_thread_create(&thread, part, p) != 0)
        abort(); /* no memory */
    if (!is_soon_over(p)) {
        log_warn("group_left_behind", LI("after_ms", PART_MS));
        return false;
    }
    uv_thread_join(&thread);
    uv_cond_destroy(&p->over);
    uv_mutex_destroy(&p->lock);
    free(p);
    return true;
}
