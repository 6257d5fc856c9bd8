#include "options.h"

#include "transform/child.h"

/* Not for people: what a transform's parent starts. Knows no options. */
int cmd_transform_child(int argc UNUSED, char **argv UNUSED) { return transform_child_main(); }
