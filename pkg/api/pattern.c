#include <regex.h>

#include "api/schema.h"

/* Compiling a pattern takes a hundred times as long as matching it, and all Triggers that are read are
 * checked by the same few, which stand in tables. So each thread keeps what it compiled, found by its
 * address, until it has read them all: together they take as much memory as a quarter of an idle worker. */
struct pattern {
        struct pattern *next;
        const char *text;
        regex_t re;
};
enum { ROWS = 64 };
static _Thread_local struct pattern *known[ROWS];

static struct pattern **row_of(const char *text) { return &known[((uintptr_t)text >> 4) % ROWS]; }

static struct pattern *find(const char *text)
{
        for (struct pattern *p = *row_of(text); p; p = p->next)
                if (p->text == text)
                        return p;
        return NULL;
}

static struct pattern *compile(const char *text)
{
        struct pattern *p = malloc(sizeof(*p)), **row = row_of(text);

        if (!p || regcomp(&p->re, text, REG_EXTENDED | REG_NOSUB) != 0) {
                free(p);
                return NULL;
        }
        p->text = text;
        p->next = *row;
        *row = p;
        return p;
}

bool schema_matches(const char *pattern, const char *text)
{
        struct pattern *p = find(pattern);

        p = p ? p : compile(pattern);
        return p && regexec(&p->re, text, 0, NULL, 0) == 0;
}

void schema_forget_patterns(void)
{
        for (size_t i = 0; i < ROWS; i++)
                for (struct pattern *p; (p = known[i]);) {
                        known[i] = p->next;
                        regfree(&p->re);
                        free(p);
                }
}
