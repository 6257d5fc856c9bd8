#include "source/shape.h"

#include "json/yaml.h"

enum { SHOWN = 60 };

int shape_members(const struct node *document, const char *const *known, struct error *err)
{
        BUF_AT_END struct buf names = BUF_INIT(1024);

        for (const char *const *k = known; *k; k++)
                buf_printf(&names, "%s%s", names.n ? ", " : "", *k);
        for (size_t i = 0; document->kind == NODE_MAP && i < document->n; i++) {
                const struct member *m = &document->members[i];
                const char *const *k = known;

                while (*k && !str_is(m->key, *k))
                        k++;
                if (!*k)
                        return error_set(err, ERROR_INVALID,
                                         "%u:%u: unknown member \"" STR_FMT "\" of the record; known are %s",
                                         m->line, m->column, STR_ARG(text_clip(m->key, SHOWN)),
                                         names.p ? names.p : "");
        }
        return 0;
}
