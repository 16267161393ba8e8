/* genq.yaml's tree into struct config. config.c's alone. */
#pragma once
#include "base/yaml.h"
#include "broker-config/config.h"

/* Fills c, which holds the defaults and no engines, models or queues, from the tree. ERR_INVALID
 * with "namez:line:column: key: why". */
int config_load_tree(struct config *c, const struct yaml *tree, const char *namez, struct err *e);

/* Checks an engine that has its url: cuts trailing slashes, gives it a name, and turns its API
 * key into a header. ERR_INVALID with why. */
int config_engine_complete(struct config_engine *en, struct err *e);
/* Adds an engine with all defaults; the pointer is good until the next one. */
struct config_engine *config_add_engine(struct config *c);
/* The engine with this name other than `en`, or NULL. */
const struct config_engine *config_same_name(const struct config *c,
                                             const struct config_engine *en);
