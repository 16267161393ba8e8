/* Metadata that decodes is a set that encodes to metadata no longer, which decodes to the same set.
 * The first byte says whether the rest is a text or a body that gets its check and base64 here. */
#include "base/base64.h"
#include "base/sha256.h"
#include "broker-config/offsets_code.h"
#include <stdlib.h>

enum { LOW = 1000, BODY_MAX = 3067 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool cond)
{
    if (!cond)
        abort();
}

static struct str make_text(const uint8_t *body, size_t n, char dst[OFFSETS_CODE_CHARS])
{
    uint8_t bytes[8 + BODY_MAX + 4] = {LOW & 255, LOW >> 8}, digest[SHA256_LEN];

    memcpy(bytes + 8, body, n);
    sha256(str_of(bytes, 8 + n), digest);
    memcpy(bytes + 8 + n, digest, 4);
    dst[0] = '1';
    return str_of(dst, 1 + base64_encode(bytes + 8, n + 4, dst + 1));
}

static void check_again(struct str text, const struct offsets_done *d, int64_t feed_end)
{
    char again[OFFSETS_CODE_CHARS];
    struct offsets_done back;
    struct offsets o;
    int64_t feed, at;
    size_t n;

    offsets_init(&o, LOW);
    n = offsets_encode(&o, d, feed_end, again, sizeof again);
    require(n > 0 && n <= text.n && n <= offsets_code_chars(&o, d));
    require(offsets_decode(str_of(again, n), LOW, &back, &feed));
    require(feed == feed_end && back.end == d->end);
    for (at = LOW; at < d->end; at += 64)
        require(offsets_done_flags(&back, at) == offsets_done_flags(d, at));
    offsets_done_release(&back);
    offsets_release(&o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char made[OFFSETS_CODE_CHARS];
    struct offsets_done d;
    int64_t feed_end;
    struct str text;

    if (size == 0)
        return 0;
    text = str_of(data + 1, size - 1);
    if (data[0] % 2 && size - 1 <= BODY_MAX)
        text = make_text(data + 1, size - 1, made);
    if (offsets_decode(text, LOW, &d, &feed_end))
        check_again(text, &d, feed_end);
    else
        require(feed_end == -1 && d.end == LOW && !d.bits);
    offsets_done_release(&d);
    return 0;
}
