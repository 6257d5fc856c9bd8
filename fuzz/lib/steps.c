/* How many basic blocks have run so far: what work costs, the same on every machine and however busy it is.
 * The fuzz targets are compiled with -fsanitize-coverage=trace-pc, which calls this at each block in place of
 * libFuzzer's empty function. */
#include "fuzz/lib/steps.h"

uint64_t steps;

void __wrap___sanitizer_cov_trace_pc(void);

__attribute__((no_sanitize("coverage", "address", "undefined"))) void __wrap___sanitizer_cov_trace_pc(void)
{
        steps++;
}
