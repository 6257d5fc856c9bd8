#include "controller/decode.h"

struct trigger *decode_object(json_t *object, const struct source_type *types, size_t types_n,
                              struct problems *problems)
{
        struct documents docs = { 0 };
        FREE_AT_END char *json = json_dumps(object, JSON_COMPACT);
        struct trigger *t = NULL;

        problems->pass_unknown = true;
        if (json && yaml_parse(&docs, str_of(json), problems) == 0 && docs.n == 1)
                t = trigger_decode(docs.roots[0], types, types_n, problems);
        documents_done(&docs);
        return t;
}
