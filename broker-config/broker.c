/* Which driver a config means. */
#include "broker-config/broker.h"

extern const struct broker_ops broker_sqlite;

static const struct broker_ops *const drivers[] = {
    [BROKER_KIND_SQLITE] = &broker_sqlite,
};

struct broker *broker_open(const struct broker_options *o, struct err *e)
{
    return drivers[o->config->broker_kind]->open(o, e);
}
