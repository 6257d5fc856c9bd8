/* What must hold, whatever the bytes: otherwise the fuzzer has found something. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#define DEMAND(condition)                                                                                    \
        do {                                                                                                 \
                if (!(condition)) {                                                                          \
                        (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                \
                        abort();                                                                             \
                }                                                                                            \
        } while (0)
