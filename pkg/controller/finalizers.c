#include "controller/finalizers.h"

#include "json/value.h"

static json_t *list_of(json_t *object)
{
        return json_object_get(json_object_get(object, "metadata"), "finalizers");
}

bool finalizers_have(json_t *object, const char *name)
{
        json_t *f;
        size_t i;

        json_array_foreach(list_of(object), i, f) if (string_equal(json_string_value(f), name)) return true;
        return false;
}

json_t *finalizers_patch(json_t *object, const char *with, const char *without)
{
        json_t *list = json_array(), *f;
        size_t i;

        json_array_foreach(list_of(object), i,
                           f) if (!without || !string_equal(json_string_value(f), without))(void)
                json_array_append(list, f);
        if (with)
                (void)json_array_append_new(list, json_string(with));
        return json_pack("{s{ss so}}", "metadata", "resourceVersion",
                         json_cstring(json_object_get(object, "metadata"), "resourceVersion"), "finalizers",
                         list);
}
