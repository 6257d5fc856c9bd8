/* Reading members of jansson's values. Any thread. */
#pragma once

#include <jansson.h>

#include "base/base.h"

/* A view of a string; p NULL: it is none, or is not there. */
static inline struct str json_text(const json_t *value) { return (struct str){ json_string_value(value), json_string_length(value) }; }
static inline struct str json_member(const json_t *object, const char *name) { return json_text(json_object_get(object, name)); }
