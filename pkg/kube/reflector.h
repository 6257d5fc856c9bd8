/* A reflector: keeps a copy of one collection of objects (list, then watch) and tells what changed. Resumes
 * at the last resource version, lists again when that is gone or says nothing, backs off with jitter, and
 * synthesizes deletes when a list replaces the copy. Loop's thread. */
#pragma once

#include "kube/client.h"

struct reflector;

struct reflector_config {
        struct kube_client *client;
        const char *path;     /* "/apis/apps/v1/deployments", or below /namespaces/NS/; borrowed */
        const char *selector; /* a label selector; NULL: all; borrowed */
        const char *what;     /* "Deployments": for the log; borrowed */
        /* A watch that brought nothing for so long, from its beginning to its end, is not believed: all is
         * listed again. 0: three minutes, in which three bookmarks are due. */
        usec silence_most;
        /* Makes an object smaller before it is kept, in place; NULL: only managedFields are dropped. */
        void (*trim)(json_t *object);
        /* object NULL: it is gone (before is what was known of it). During the first list before is NULL for
         * all. */
        void (*changed)(void *cookie, const char *namespace_, const char *name, json_t *before,
                        json_t *object);
        void (*synced)(void *cookie); /* once, after the first list */
        void *cookie;
};

int reflector_new(struct reflector **, const struct reflector_config *, struct error *) MUST_CHECK;
struct reflector *reflector_free(struct reflector *); /* NULL is fine */
bool reflector_synced(const struct reflector *);
/* borrowed; NULL: not there */
json_t *reflector_get(const struct reflector *, const char *namespace_, const char *name);
void reflector_each(const struct reflector *,
                    void (*each)(void *cookie, const char *namespace_, const char *name, json_t *object),
                    void *cookie);
size_t reflector_count(const struct reflector *);
