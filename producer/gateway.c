#include "producer/gateway.h"
#include "base/clock.h"
#include "base/file.h"
#include "broker-config/config.h"
#include <stdatomic.h>

enum { LOOK_EVERY_MS = 1000 };

/* What was last seen of the disk. One data directory a process, so one answer for all. */
static struct {
    _Atomic int64_t looked_ms; /* monotonic; 0: never */
    _Atomic int64_t free_bytes;
} disk;

static int64_t free_bytes(const char *dataz)
{
    int64_t now_ms = clock_mono_ms(), looked_ms = atomic_load(&disk.looked_ms);

    if (looked_ms == 0 || now_ms - looked_ms >= LOOK_EVERY_MS) {
        atomic_store(&disk.free_bytes, file_disk_free(dataz));
        atomic_store(&disk.looked_ms, now_ms);
    }
    return atomic_load(&disk.free_bytes);
}

int gateway_has_room(const struct gateway *g, struct err *e)
{
    int64_t n = free_bytes(g->config->data);

    if (n < 0)
        return err_set(e, ERR_FULL, "the data directory cannot be looked at");
    if (n < g->config->limits_disk_free_bytes)
        return err_set(e, ERR_FULL,
                       "the data directory's disk has %lld bytes left, less than "
                       "limits.disk_free_bytes (%lld)",
                       (long long)n, (long long)g->config->limits_disk_free_bytes);
    return 0;
}
