#include "options.h"

#include "transform/child.h"

/* Internal: the child that a transform starts. It has no options. */
int cmd_transform_child(int argc UNUSED, char **argv UNUSED) { return transform_child_main(); }
