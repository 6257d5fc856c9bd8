/* Is a text exactly one JSON value (RFC 8259)? One pass, no tree, no allocation. Any thread. */
#pragma once

#include "base/base.h"

enum { JSON_DEPTH_MAX = 256 };
/* Valid UTF-8 throughout, nested at most JSON_DEPTH_MAX deep, white space around it allowed. */
bool json_is_value(struct str);
