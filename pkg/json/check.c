#include "json/check.h"

#include "json/scan.h"

bool json_is_value(struct str text)
{
        struct scan s;

        if (text.n == 0)
                return false;
        scan_init(&s, text);
        return scan_skip(&s, SCAN_ANY_DEPTH) && scan_peek(&s) == '\0' && s.p == s.end && str_is_utf8(text);
}
