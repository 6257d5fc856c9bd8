#include "json/check.h"

#include "json/scan.h"

bool json_is_value(struct str text, bool *no_memory)
{
        struct scan s;

        if (text.n == 0)
                return false;
        scan_init(&s, text);
        if (scan_skip(&s, SCAN_ANY_DEPTH) && scan_peek(&s) == '\0' && s.p == s.end && str_is_utf8(text))
                return true;
        if (no_memory)
                *no_memory = *no_memory || s.no_memory;
        return false;
}
