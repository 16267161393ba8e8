/* Header bytes that decode encode to bytes that decode to the same headers. */
#include "broker-config/header_codec.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool cond)
{
    if (!cond)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct headers first, again;
    struct record r = {0};
    struct buf b;
    int h;

    if (header_decode(str_of(data, size), &first) != 0)
        return 0;
    memcpy(r.headers, first.all, sizeof r.headers);
    buf_init(&b, size + 64);
    require(header_encode(&r, &b) == 0);
    require(b.n <= size);
    require(header_decode(buf_str(&b), &again) == 0);
    for (h = 0; h < HEADER_COUNT_; h++) {
        require((r.headers[h].p != NULL) == (again.all[h].p != NULL));
        require(str_eq(r.headers[h], again.all[h]));
    }
    buf_release(&b);
    return 0;
}
