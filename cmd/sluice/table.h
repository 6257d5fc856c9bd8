/* The live table of `sluice run`: the triggers, their sources, states and counts. On a terminal it stays at
 * the top while other lines scroll beneath it; elsewhere it is a plain line per trigger whenever one changes.
 */
#pragma once

#include "worker/pipeline.h"

struct table_row {
        const struct trigger *trigger;
        const char *sink;
        struct pipeline_status status;
};

bool table_is_terminal(void);
void table_begin(void); /* reserves the top lines; terminal only, as the next */
void table_draw(const struct table_row *, size_t n, usec now);
/* Prints one plain line. false: standard output takes none just now. */
bool table_line(const struct table_row *, usec now);
void table_end(void);
/* Appends the row as it is drawn, cut to the width. */
void table_row(struct buf *, const struct table_row *, size_t columns);
