/* Is a text exactly one JSON value (RFC 8259)? One pass, no tree. Any thread. */
#pragma once

#include "base/base.h"

/* Valid UTF-8 throughout, however deep it is nested, white space around it allowed. */
bool json_is_value(struct str);
