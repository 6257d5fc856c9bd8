/* Trees (jansson's) of texts that peers send. A value of two bytes becomes a hundred in a tree, so that a
 * text of megabytes could take all the memory there is: the values are counted before anything is built. Any
 * thread. */
#pragma once

#include <jansson.h>

#include "base/base.h"

/* what no answer of a service or a function needs: some 2 MiB, whatever they are */
enum { JSON_VALUES_MOST = 16384 };

/* flags and at as json_loadb has them. NULL: it is no JSON, or holds more than so many values, members of
 * objects and items of arrays all counted. */
json_t *json_tree(struct str text, size_t flags, size_t most, json_error_t *at) MUST_CHECK;
/* Does it hold no more than so many? Told before anything is built, so of what is no JSON, too. */
bool json_few_values(struct str text, size_t most);
