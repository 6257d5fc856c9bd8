/* Reading members of jansson's values. Any thread. */
#pragma once

#include <jansson.h>

#include "base/base.h"

/* A view of a string; p NULL: it is none, or is not there. */
static inline struct str json_text(const json_t *value)
{
        return (struct str){ json_string_value(value), json_string_length(value) };
}
/* As a C string, for what is kept or compared as one; "": it is none, or is not there. */
static inline const char *json_cstring(const json_t *object, const char *name)
{
        const char *s = json_string_value(json_object_get(object, name));

        return s ? s : "";
}
static inline struct str json_member(const json_t *object, const char *name)
{
        return json_text(json_object_get(object, name));
}
