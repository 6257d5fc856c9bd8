#include "source/shape.h"

#include "json/yaml.h"

enum { SHOWN = 60 };

static bool is_among(struct str name, struct str known)
{
        while (known.n)
                if (str_equal(str_trim(str_cut(&known, ',')), name))
                        return true;
        return false;
}

int shape_members(const struct node *document, const char *known, struct error *err)
{
        for (size_t i = 0; document->kind == NODE_MAP && i < document->n; i++) {
                const struct member *m = &document->members[i];

                if (!is_among(m->key, str_of(known)))
                        return error_set(err, ERROR_INVALID,
                                         "%u:%u: unknown member \"" STR_FMT "\" of the record; known are %s",
                                         m->line, m->column, STR_ARG(text_clip(m->key, SHOWN)), known);
        }
        return 0;
}
