/* The Trigger resource (sluice.dev/v1alpha1), decoded: what a user writes, with defaults filled in and rules
 * checked. The controller, the worker and the standalone mode read it through here and nowhere else. A
 * trigger owns all it points to; immutable once decoded; any thread. */
#pragma once

#include "record/policy.h"
#include "api/schema.h"

#define API_GROUP "sluice.dev"
#define API_VERSION "v1alpha1"
#define API_GROUP_VERSION API_GROUP "/" API_VERSION

enum dialect { DIALECT_CLASSIC, DIALECT_CURRENT };

struct sink_ref {
        char *api_version, *kind, *name, *namespace_;
        int64_t port;
};
struct sink {
        struct sink_ref *ref;
        char *uri;
        char *ca_certs;
};
struct function_spec {
        char *name, *version, *urn, *project, *package, *init_path;
};
enum event_format {
        FORMAT_FUNCTION_GRAPH,
        FORMAT_CLOUDEVENTS_BINARY,
        FORMAT_CLOUDEVENTS_STRUCTURED,
        FORMAT_CLOUDEVENTS_BATCH
};
struct event_spec {
        int format, dialect;
        char *region;
        char *instance_id;
};
struct ce_overrides {
        struct string_map extensions;
};
/* JSON text */
struct filter_spec {
        char *pattern;
};
struct transform_spec {
        char *jq;
        usec timeout;
};

/* A value in a Secret of the Trigger's namespace. */
struct secret_ref {
        char *name, *key;
};
/* value or secret */
struct header_spec {
        char *name, *value;
        struct secret_ref *secret;
};
struct basic_spec {
        struct secret_ref *username, *password;
};
struct bearer_spec {
        struct secret_ref *token;
};
struct oauth2_spec {
        char *token_url;
        struct secret_ref *client_id, *client_secret;
        struct strings scopes;
        char *audience;
};
/* exactly one */
struct authentication_spec {
        struct basic_spec *basic;
        struct bearer_spec *bearer;
        struct oauth2_spec *oauth2;
};
struct tls_spec {
        struct secret_ref *ca, *cert, *key;
        bool verify_hostname;
};
struct proxy_spec {
        char *url;
        struct secret_ref *username, *password;
        struct strings no_proxy;
};
struct rate_spec {
        int64_t events_per_second, burst;
};
struct batch_spec {
        int64_t max_messages, max_bytes;
        usec max_wait;
};
enum backoff_kind { BACKOFF_EXPONENTIAL, BACKOFF_LINEAR };
struct retry_spec {
        int64_t max_attempts; /* 0: no limit */
        usec max_event_age;   /* 0: no limit */
        int backoff;
        usec initial_backoff, max_backoff, retry_after_max;
        int on_exhausted;
        bool bisect;
};
enum kafka_mechanism { KAFKA_PLAIN, KAFKA_SCRAM_SHA_256, KAFKA_SCRAM_SHA_512, KAFKA_OAUTHBEARER };
struct kafka_oauth_spec {
        struct oauth2_spec client;
        struct secret_ref *ca; /* NULL: the system's authorities */
};
struct kafka_sasl_spec {
        int mechanism;
        struct secret_ref *username, *password; /* with OAUTHBEARER: NULL */
        struct kafka_oauth_spec *oauth;         /* with OAUTHBEARER; else NULL */
};
/* Where a Kafka cluster is, and who we are there. */
struct kafka_cluster {
        struct strings bootstrap_servers;
        struct kafka_sasl_spec *sasl; /* NULL: nobody */
        struct tls_spec *tls;         /* NULL: no TLS */
};
struct dead_letter_kafka {
        struct kafka_cluster cluster;
        char *topic;
};
/* ref and uri as a sink, or kafka */
struct dead_letter_spec {
        struct sink_ref *ref;
        char *uri;
        struct dead_letter_kafka *kafka;
};
enum wire_version { WIRE_AUTO, WIRE_HTTP_1_1, WIRE_HTTP_2 };
enum compression { COMPRESSION_NONE, COMPRESSION_GZIP };
struct delivery_spec {
        int ordering;
        int64_t max_in_flight, initial_in_flight;
        struct rate_spec *rate_limit;                    /* NULL: none */
        usec timeout, connect_timeout, response_timeout; /* response_timeout 0: what timeout leaves */
        int method;                                      /* of delivery_methods */
        struct objects headers;                          /* struct header_spec */
        struct authentication_spec *authentication;
        struct tls_spec *tls;
        struct proxy_spec *proxy;
        int http_version, compression;
        struct batch_spec *batch; /* never NULL after decode */
        struct retry_spec *retry; /* never NULL after decode */
        struct dead_letter_spec *dead_letter;
        bool partial_failures;
};
extern const char *const delivery_methods[]; /* "POST", … */
struct worker_spec {
        char *resources, *tolerations, *affinity; /* JSON text, as a pod has them; NULL: none */
        struct string_map node_selector, labels, annotations;
        int log_level; /* enum log_level */
};

extern const struct type secret_ref_type, tls_type, kafka_sasl_type;
/* The fields of a struct kafka_cluster that stands in an object; then what its bootstrapServers have more. */
#define KAFKA_CLUSTER_FIELDS(object_, member, help_, ...)                                                    \
        FIELD(STRINGS, "bootstrapServers", object_, member.bootstrap_servers, .required = true, .min = 1,    \
              .max = 32, .pattern = "^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\]):" PORT_PATTERN "$",             \
              .format = "HOST:PORT", .help = help_, __VA_ARGS__),                                            \
                FIELD(OBJECT, "sasl", object_, member.sasl, .object = &kafka_sasl_type,                      \
                      .help = "Who we are to the brokers, by SASL; by default nobody."),                     \
                FIELD(OBJECT, "tls", object_, member.tls, .object = &tls_type,                               \
                      .help = "TLS towards the brokers; {}: with the system's authorities. By default "      \
                              "none.")
/* What pkg/http can call: no user info, no fragment. */
#define URI_PATTERN "^https?://([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(:" PORT_PATTERN ")?(/[^# [:cntrl:]]*)?$"

/* How a push source is reached: members of its spec. */
struct expose_spec {
        char *host, *ingress_class_name, *tls_secret_name;
        struct string_map annotations;
};
struct listener_tls {
        char *secret_name;
        struct secret_ref *client_ca;
};
struct listener_spec {
        struct listener_tls *tls;
        struct strings trusted_proxies;
};
extern const struct type expose_type, listener_type;
#define REACH_FIELDS(spec, member)                                                                           \
        FIELD(OBJECT, "expose", struct spec, member expose, .object = &expose_type,                          \
              .help = "Callers outside the cluster reach it through an Ingress that is made for it."),       \
                FIELD(OBJECT, "listener", struct spec, member listener, .object = &listener_type,            \
                      .help = "How the worker's pod listens; by default without TLS.")

/* A member of the specs of sources that call the cloud. */
enum cloud_credentials_type {
        CLOUD_CREDENTIALS_SECRET,
        CLOUD_CREDENTIALS_ENVIRONMENT,
        CLOUD_CREDENTIALS_METADATA,
        CLOUD_CREDENTIALS_SERVICE_ACCOUNT,
        CLOUD_CREDENTIALS_POD_IDENTITY,
};
struct cloud_agency {
        char *name, *domain;
};
struct cloud_service_account {
        char *provider_urn, *agency_urn, *audience; /* audience NULL: the cluster's own */
};
struct cloud_credentials {
        int type;                                                    /* enum cloud_credentials_type */
        struct secret_ref *access_key, *secret_key, *security_token; /* of a Secret; else NULL */
        struct cloud_agency *agency;                                 /* NULL: none */
        struct cloud_service_account *service_account;               /* NULL: by the environment */
};
struct cloud_spec {
        char *region, *project_id, *endpoint;
        struct cloud_credentials *credentials;
};
extern const struct type cloud_type;

/* The sources that can be written in spec.source: given by whoever knows the sources (pkg/source), so that
 * the API names none. */
struct trigger;
struct source_type {
        const char *name;
        const struct type *type;
        /* Does the source's spec agree with how its events are delivered? false: why not. NULL: always. */
        bool (*fits)(const void *spec, const struct delivery_spec *, struct buf *why);
        bool shared; /* several workers may share what it reads (port/claims.h) */
        /* With shared: positions are in the store. Without a cluster that is one process's alone, which then
         * shares with nobody. */
        bool stored;
        bool storeless; /* positions are kept where the events come from, or there are none */
        /* Do two Triggers of this source get into each other's way? Says what they have in common, and what
         * to do. key: appends what is the same of all that do. field: of the source's spec. All NULL: never.
         */
        void (*clash_key)(const struct trigger *, struct buf *);
        bool (*clash)(const struct trigger *, const struct trigger *, struct buf *why);
        const char *clash_field;
};
enum { SOURCE_TYPES_MAX = 32 };

enum { TRIGGER_REPLICAS_MOST = 64 };

struct trigger {
        char *name, *namespace_, *uid; /* uid: "NAMESPACE/NAME" where no cluster gives one */
        int64_t generation;
        bool deleting;
        char *file;                  /* where it was read from; NULL: no file */
        unsigned line, column;       /* where the document stands in its file */
        unsigned jq_line, jq_column; /* where transform.jq does, if there is one */

        size_t source;     /* index into the source types */
        void *source_spec; /* the source's own struct */
        struct sink *sink;
        struct function_spec *function;    /* never NULL after decode */
        struct event_spec *event;          /* never NULL after decode */
        struct ce_overrides *ce_overrides; /* NULL: none, as the next two */
        struct filter_spec *filter;
        struct transform_spec *transform;
        struct delivery_spec *delivery; /* never NULL after decode */
        struct worker_spec *worker;     /* never NULL after decode */
        int64_t replicas;
        bool suspend;
        const struct source_type *types; /* borrowed: what decoded it */
        size_t types_n;
};

/* Decodes one document (a whole Trigger). Problems carry paths such as "spec.source.kafka.topics". NULL after
 * a problem. */
struct trigger *trigger_decode(const struct node *, const struct source_type *, size_t n,
                               struct problems *) MUST_CHECK;
struct trigger *trigger_free(struct trigger *); /* takes NULL, returns NULL */
DEFINE_CLEANUP(struct trigger *, trigger_free)
/* The whole resource as JSON (apiVersion, kind, metadata {name, namespace, uid, generation}, spec with
 * defaults): what trigger.json holds. */
void trigger_write(const struct trigger *, struct writer *);

/* NULL: it says nothing of it. */
const struct expose_spec *trigger_expose(const struct trigger *);
const struct listener_spec *trigger_listener(const struct trigger *);
const struct cloud_spec *trigger_cloud(const struct trigger *);
/* Each value in a Secret that the Trigger refers to. */
void trigger_secrets(const struct trigger *, void (*each)(void *cookie, const struct secret_ref *),
                     void *cookie);

/* Adds all Triggers of a file ("-": standard input) or, not descending, of the *.yaml, *.yml, *.json in a
 * folder, sorted by name. Lists are looked into; other kinds are skipped (manifests hold them); name clashes
 * are problems, and so are two whose sources clash, also with what the list held before. Problems are
 * formatted into report as FILE:LINE:COL lines; report stays empty when it failed for another reason, which
 * err tells. */
struct triggers {
        struct trigger **list;
        size_t n;
        /* by name; by uid; by what they clash with: of the loader */
        struct trigger_place *places, *uids, *claims;
        /* set before loading: what another version wrote is run, without the members that this one does not
         * know */
        bool pass_unknown;
        /* set before loading: hears of each file and folder before it is read; NULL: nobody does */
        void (*visit)(void *cookie, const char *path, bool folder);
        /* set before loading: asked before each Trigger; true: what follows is not read; NULL: all is */
        bool (*stop)(void *cookie);
        void *cookie;
        size_t unknown; /* so many were passed by; the first: */
        char first_unknown[160];
};
int triggers_load(struct triggers *, const char *path, const struct source_type *, size_t n,
                  struct buf *report, struct error *) MUST_CHECK;
void triggers_done(struct triggers *);
/* The one of that name, or, without a name, the only one. NULL with the reason. */
struct trigger *triggers_find(const struct triggers *, const char *name, struct error *);

/* Every table that a Trigger is made of, for tests. false: no more. */
bool trigger_type_at(size_t index, const struct source_type *, size_t n, const struct type **);

/* The generated artefacts: the CRD as YAML text (JSON-style flow is not used), the chart's copy (helm
 * template), the reference page. */
void crd_write(const struct source_type *, size_t n, bool for_chart, struct buf *);
void reference_write(const struct source_type *, size_t n, struct buf *);
