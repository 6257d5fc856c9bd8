/* The filter, asked as tests/filter/Reference.java asks Amazon's engine: reads lines "pattern TAB event",
 * answers each with true, false, "refused: why" (the pattern) or "error: why" (the event). With --explain,
 * false is followed by the reason. */
#include <stdio.h>

#include "filter/filter.h"

static void answer(struct str pattern, struct str event, bool explain)
{
        BUF_AT_END struct buf why = BUF_INIT(4096);
        CLEANUP(filter_freep) struct filter *f = NULL;
        struct error err;
        bool matches;

        if (filter_new(&f, pattern, &err) < 0)
                printf("refused: %s\n", err.text);
        else if (filter_match(f, event, &matches, &err) < 0)
                printf("error: %s\n", err.text);
        else if (matches || !explain)
                printf("%s\n", matches ? "true" : "false");
        else {
                filter_explain(f, event, &why);
                printf("false: " STR_FMT "\n", STR_ARG(buf_view(&why)));
        }
}

int main(int argc, char **argv)
{
        bool explain = argc > 1 && string_equal(argv[1], "--explain");
        char *line = NULL;
        size_t cap = 0;

        for (ssize_t n = getline(&line, &cap, stdin); n > 0; n = getline(&line, &cap, stdin)) {
                struct str event = { line, (size_t)n - (line[n - 1] == '\n') },
                           pattern = str_cut(&event, '\t');

                answer(pattern, event, explain);
        }
        free(line);
        return 0;
}
