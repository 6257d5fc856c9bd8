#include "controller/finalizers.h"

#include "json/value.h"

#define FORMER "sluice.dev/outside"

const char *const finalizers_ours[] = { FINALIZER, FORMER, NULL };
const char *const finalizers_former[] = { FORMER, NULL };
const char *const finalizers_foreground[] = { "foregroundDeletion", NULL };

static bool among(const char *const *names, const char *name)
{
        for (; *names; names++)
                if (string_equal(name, *names))
                        return true;
        return false;
}

static json_t *list_of(json_t *object)
{
        return json_object_get(json_object_get(object, "metadata"), "finalizers");
}

bool finalizers_have(json_t *object, const char *const *names)
{
        json_t *f;
        size_t i;

        json_array_foreach(list_of(object), i, f) if (among(names, json_string_value(f))) return true;
        return false;
}

json_t *finalizers_patch(json_t *object, const char *with, const char *const *without)
{
        json_t *list = json_array(), *f;
        size_t i;

        json_array_foreach(list_of(object), i, f) if (!among(without, json_string_value(f)))(void)
                json_array_append(list, f);
        if (with)
                (void)json_array_append_new(list, json_string(with));
        return json_pack("{s{ss so}}", "metadata", "resourceVersion",
                         json_cstring(json_object_get(object, "metadata"), "resourceVersion"), "finalizers",
                         list);
}
