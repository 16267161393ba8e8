/* Which driver a config means. */
#include "broker-config/broker.h"

extern const struct broker_ops broker_sqlite, broker_kafka;

static const struct broker_ops *const drivers[] = {
    [BROKER_KIND_SQLITE] = &broker_sqlite,
    [BROKER_KIND_KAFKA] = &broker_kafka,
};

struct broker *broker_open(const struct broker_options *o, struct err *e)
{
    return drivers[o->config->broker_kind]->open(o, e);
}
