/* The Trigger resource (sluice.dev/v1alpha1), decoded: what a user writes, with defaults filled in and rules checked. The controller, the
 * worker and the standalone mode read it through here and nowhere else. A trigger owns all it points to; immutable once decoded; any thread. */
#pragma once

#include "api/schema.h"

#define API_GROUP "sluice.dev"
#define API_VERSION "v1alpha1"
#define API_GROUP_VERSION API_GROUP "/" API_VERSION

enum ordering { ORDERING_PARTITION, ORDERING_KEY, ORDERING_NONE };
enum dialect { DIALECT_CLASSIC, DIALECT_CURRENT };
enum on_exhausted { EXHAUSTED_BLOCK, EXHAUSTED_DEAD_LETTER, EXHAUSTED_DROP };

struct sink_ref { char *api_version, *kind, *name, *namespace_; int64_t port; };
struct sink { struct sink_ref *ref; char *uri; };
struct function_spec { char *name, *version, *project, *package; };
struct event_spec { int dialect; char *region; char *instance_id; };
struct retry_spec { usec initial_backoff, max_backoff; };
struct delivery_spec {
        int ordering;
        int64_t max_in_flight;
        usec timeout;
        struct retry_spec *retry;
};
struct worker_spec {
        char *resources, *tolerations, *affinity;  /* JSON text, as a pod has them; NULL: none */
        struct string_map node_selector, labels, annotations;
        int log_level;                             /* enum log_level */
};

/* The sources that can be written in spec.source: given by whoever knows the drivers (pkg/source), so that the API names none. */
struct source_type { const char *name; const struct type *type; };
enum { SOURCE_TYPES_MAX = 32 };

struct trigger {
        char *name, *namespace_, *uid;      /* uid: "NAMESPACE/NAME" where no cluster gives one */
        int64_t generation;
        bool deleting;
        char *file;                         /* where it was read from; NULL: no file */
        unsigned line, column;              /* where the document stands in its file */

        size_t source;                      /* index into the source types */
        void *source_spec;                  /* the driver's own struct */
        struct sink *sink;
        struct function_spec *function;     /* never NULL after decode */
        struct event_spec *event;           /* never NULL after decode */
        struct delivery_spec *delivery;     /* never NULL after decode, nor its retry */
        struct worker_spec *worker;         /* never NULL after decode */
        bool suspend;
        const struct source_type *types;    /* borrowed: what decoded it */
        size_t types_n;
};

/* Decodes one document (a whole Trigger). Problems carry paths such as "spec.source.kafka.topics". NULL after a problem. */
struct trigger *trigger_decode(const struct node *, const struct source_type *, size_t n, struct problems *) MUST_CHECK;
struct trigger *trigger_free(struct trigger *); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct trigger *, trigger_free)
/* The whole resource as JSON (apiVersion, kind, metadata {name, namespace, uid, generation}, spec with defaults): what trigger.json holds. */
void trigger_write(const struct trigger *, struct writer *);

/* Adds all Triggers of a file ("-": standard input) or, not descending, of the *.yaml, *.yml, *.json in a folder, sorted by name. Lists are
 * looked into; other kinds are skipped (manifests hold them); name clashes are problems, also with what the list held before. Problems are
 * formatted into report as FILE:LINE:COL lines; report stays empty when it failed for another reason, which err tells. */
struct triggers { struct trigger **list; size_t n; };
int triggers_load(struct triggers *, const char *path, const struct source_type *, size_t n, struct buf *report, struct error *) MUST_CHECK;
void triggers_done(struct triggers *);

/* Every table that a Trigger is made of, for tests. false: no more. */
bool trigger_type_at(size_t index, const struct source_type *, size_t n, const struct type **);

/* The generated artefacts: the CRD as YAML text (JSON-style flow is not used), the chart's copy (helm template), the reference page. */
void crd_write(const struct source_type *, size_t n, bool for_chart, struct buf *);
void reference_write(const struct source_type *, size_t n, struct buf *);
