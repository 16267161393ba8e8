/* A config that loads prints as one that loads and prints the same. */
#include "base/buf.h"
#include "broker-config/config.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool cond)
{
    if (!cond)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0};
    struct config *c = config_parse(str_of(data, size), "fuzz", &e), *again;
    struct buf one, two;

    if (!c) {
        require(e.code != 0 && e.msg[0]);
        return 0;
    }
    require(c->n_engines > 0 && config_has_queue(c, STR("default")));
    buf_init(&one, 1 << 24);
    buf_init(&two, 1 << 24);
    config_print(c, &one);
    again = config_parse(buf_str(&one), "again", &e);
    require(again);
    config_print(again, &two);
    require(str_eq(buf_str(&one), buf_str(&two)));
    config_free(again);
    config_free(c);
    buf_release(&one);
    buf_release(&two);
    return 0;
}
