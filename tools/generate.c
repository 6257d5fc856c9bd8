/* Writes the artefacts that come from the field tables: generate crd|chart-crd|reference. */
#include <stdio.h>

#include "source/source.h"

int main(int argc, char **argv)
{
        BUF_AT_END struct buf out = BUF_INIT(BUF_DEFAULT_MAX);

        if (argc == 2 && strcmp(argv[1], "crd") == 0)
                crd_write(source_types(), source_kinds_n, false, &out);
        else if (argc == 2 && strcmp(argv[1], "chart-crd") == 0)
                crd_write(source_types(), source_kinds_n, true, &out);
        else if (argc == 2 && strcmp(argv[1], "reference") == 0)
                reference_write(source_types(), source_kinds_n, &out);
        else {
                (void)fprintf(stderr, "Usage: generate crd|chart-crd|reference\n");
                return 2;
        }
        if (out.failed || fwrite(out.p, 1, out.n, stdout) != out.n || fflush(stdout) != 0) {
                (void)fprintf(stderr, "generate: %s could not be written\n", argv[1]);
                return 1;
        }
        return 0;
}
