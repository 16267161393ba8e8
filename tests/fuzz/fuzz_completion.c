/* A completion that is read has what a store needs; its strings are all in its own memory. */
#include "schema/envelope.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool cond)
{
    if (!cond)
        abort();
}

static void touch(struct str s)
{
    size_t i;

    for (i = 0; i < s.n; i++)
        require(s.p[i] != '\0'); /* JSON texts have none */
}

static void check_view(const struct completion_view *v)
{
    require(id_is_valid(v->id) && id_is_valid(v->tenant) && v->state < STATE_COUNT_);
    require(v->priority < PRIORITY_COUNT_);
    touch(v->model);
    touch(v->batch_id);
    touch(v->queue);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct completion_view v;
    struct str tenant, id;
    struct err e = {0};
    struct buf mem;

    if (completion_read(&v, str_of(data, size), &e) == 0) {
        check_view(&v);
        completion_view_release(&v);
    } else {
        require(e.code == ERR_INVALID && e.msg[0]);
    }
    buf_init(&mem, 256);
    if (cancel_read(str_of(data, size), &tenant, &id, &mem, NULL) == 0)
        require(id_is_valid(tenant) && id_is_valid(id));
    buf_release(&mem);
    return 0;
}
