#include "controller/trim.h"

#include <string.h>

#include "controller/children.h"
#include "json/value.h"

/* Keeps only the members named. */
static void only(json_t *object, const char *const *names)
{
        const char *key;
        json_t *value;
        void *next;

        json_object_foreach_safe(object, next, key, value)
        {
                bool wanted = false;

                for (size_t i = 0; names[i]; i++)
                        wanted = wanted || strcmp(key, names[i]) == 0;
                if (!wanted)
                        (void)json_object_del(object, key);
        }
}

/* Of labels only whose it is, of annotations only what was applied, of conditions only those of a type. */
static void trim_metadata(json_t *metadata)
{
        static const char *const labels[] = { LABEL_INSTANCE, NULL }, *const annotations[] = {
                ANNOTATION_HASH, NULL
        };

        only(json_object_get(metadata, "labels"), labels);
        only(json_object_get(metadata, "annotations"), annotations);
}

static void only_conditions(json_t *status, const char *type)
{
        json_t *list = json_object_get(status, "conditions");

        for (size_t i = json_array_size(list); i-- > 0;)
                if (strcmp(json_cstring(json_array_get(list, i), "type"), type) != 0)
                        (void)json_array_remove(list, i);
}

static const char *const basic_metadata[] = {
        "name", "namespace", "uid", "resourceVersion", "generation", "labels", "deletionTimestamp", NULL
};

void trim_trigger(json_t *o)
{
        json_t *annotations = json_object_get(json_object_get(o, "metadata"), "annotations");

        (void)json_object_del(annotations, "kubectl.kubernetes.io/last-applied-configuration");
}

void trim_deployment(json_t *o)
{
        static const char *const top[] = { "metadata", "spec", "status", NULL },
                                 *const spec[] = { "replicas", NULL },
                                 *const status[] = { "availableReplicas", "replicas", "conditions",
                                                     "observedGeneration", NULL },
                                 *const metadata[] = { "name",        "namespace",
                                                       "uid",         "resourceVersion",
                                                       "generation",  "labels",
                                                       "annotations", "deletionTimestamp",
                                                       NULL };

        only(o, top);
        only(json_object_get(o, "metadata"), metadata);
        only(json_object_get(o, "spec"), spec);
        only(json_object_get(o, "status"), status);
        trim_metadata(json_object_get(o, "metadata"));
        only_conditions(json_object_get(o, "status"), "ReplicaFailure");
}

void trim_pod(json_t *o)
{
        static const char *const top[] = { "metadata", "status", NULL }, *const status[] = {
                "phase", "conditions", "containerStatuses", NULL
        };
        static const char *const container[] = { "state", "lastState", "ready", NULL };
        json_t *c;
        size_t i;

        only(o, top);
        only(json_object_get(o, "metadata"), basic_metadata);
        only(json_object_get(o, "status"), status);
        trim_metadata(json_object_get(o, "metadata"));
        only_conditions(json_object_get(o, "status"), "PodScheduled");
        json_array_foreach(json_object_get(json_object_get(o, "status"), "containerStatuses"), i, c)
                only(c, container);
}

void trim_service(json_t *o)
{
        static const char *const top[] = { "metadata", "spec", NULL },
                                 *const spec[] = { "ports", "type", NULL },
                                 *const port[] = { "name", "port", NULL };
        static const char *const metadata[] = { "name", "namespace", "resourceVersion", NULL };
        json_t *p;
        size_t i;

        only(o, top);
        only(json_object_get(o, "metadata"), metadata);
        only(json_object_get(o, "spec"), spec);
        json_array_foreach(json_object_get(json_object_get(o, "spec"), "ports"), i, p) only(p, port);
}
