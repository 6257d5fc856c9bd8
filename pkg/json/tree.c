#include "json/tree.h"

#include <stdio.h>

#include "json/scan.h"

/* Each value but the first stands behind a comma or as the first of what was opened. What is no JSON is not
 * found here: the parser builds no more of it than what was counted up to there. */
bool json_few_values(struct str text, size_t most)
{
        struct scan s;
        struct str ignored;
        bool escaped;
        size_t n = 1;

        scan_init(&s, text);
        while (s.p < s.end && n <= most) {
                if (*s.p == '"') {
                        if (!scan_string(&s, &ignored, &escaped))
                                return true;
                        continue;
                }
                n += *s.p == ',' || *s.p == '[' || *s.p == '{';
                s.p++;
        }
        return n <= most;
}

json_t *json_tree(struct str text, size_t flags, size_t most, json_error_t *at)
{
        if (json_few_values(text, most))
                return json_loadb(text.p ? text.p : "", text.n, flags, at);
        if (at) {
                *at = (json_error_t){ .line = -1, .column = -1 };
                (void)snprintf(at->text, sizeof(at->text), "more than %zu values", most);
        }
        return NULL;
}
