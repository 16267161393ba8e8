/* Preloaded before librdkafka: a consumer that is destroyed never ends. */
#include <unistd.h>

void rd_kafka_destroy_flags(void *client, int flags);

void rd_kafka_destroy_flags(void *client, int flags)
{
    (void)client, (void)flags;
    for (;;)
        pause();
}
