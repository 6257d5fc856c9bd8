#include "source/services.h"

#include <stdarg.h>
#include <stdio.h>

void source_tell(const struct services *s, const struct notice *notice)
{
        char text[NOTICE_TEXT_MOST];
        struct notice plain = *notice;

        if (!s->notices.tell)
                return;
        text_print(text, sizeof(text), "%s", notice->text);
        plain.text = text;
        s->notices.tell(s->notices.cookie, &plain);
}

void source_warn(const struct services *s, const char *reason, uint64_t lost, const char *format, ...)
{
        char text[NOTICE_TEXT_MOST];
        va_list args;

        va_start(args, format);
        (void)vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        source_tell(s, &(struct notice){ .reason = reason, .text = text, .lost = lost, .times = 1 });
}
