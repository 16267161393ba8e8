#include "schema/record.h"

static const struct str names[] = {
#define RECORD_HEADER(id, name) {"" name, sizeof(name) - 1},
#include "schema/record.def"
#undef RECORD_HEADER
};

const char *record_header_name(enum record_header h)
{
    return names[h].p;
}

bool record_header_parse(struct str name, enum record_header *out)
{
    enum record_header h;

    for (h = 0; h < HEADER_COUNT_; h++)
        if (str_eq(name, names[h])) {
            *out = h;
            return true;
        }
    return false;
}
