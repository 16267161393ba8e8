/* Engine replies: byte 0 picks driver, kind, stream and how the rest is cut into pieces. */
#include "worker/engine.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct engine_reply r;
    struct buf delta, names;
    struct err e;
    int rc = 0;

    if (n < 2)
        return 0;
    const struct engine_ops *ops = engine_by_api(data[0] & 1 ? ENGINE_API_OLLAMA : ENGINE_API_OPENAI);
    size_t step = (size_t)(data[0] >> 4) + 1;
    struct str body = str_of(data + 1, n - 1);

    buf_init(&delta, 1 << 16);
    buf_init(&names, 1 << 16);
    engine_reply_init(&r, (enum job_kind)((data[0] >> 2 & 3) % 3), data[0] & 2, 1 << 16);
    for (size_t at = 0; rc == 0 && at < body.n; at += step)
        rc = ops->feed(&r, str_of(body.p + at, body.n - at < step ? body.n - at : step), &delta);
    if (rc == 0 && ops->end(&r, 200, STR_NONE) == ENGINE_OK && !r.is_done)
        abort(); /* success is only what the engine called done */
    ops->end(&r, 500, body);
    ops->read_models(body, &names, &e);
    if (ops->read_slots)
        ops->read_slots(body);
    engine_reply_release(&r);
    buf_release(&delta);
    buf_release(&names);
    return 0;
}
