#include "api/trigger.h"

#define HOST_PATTERN "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
#define HOST_WORDS "a DNS name: lower-case letters, digits, - and ."

/* ---- how a push source is reached --------------------------------------- */

static const struct field expose_fields[] = {
        FIELD(STRING, "host", struct expose_spec, host, .required = true, .min = 1, .max = 253,
              .pattern = HOST_PATTERN, .format = HOST_WORDS,
              .help = "The host that callers outside the cluster name."),
        FIELD(STRING, "ingressClassName", struct expose_spec, ingress_class_name, .min = 1, .max = 253,
              .pattern = HOST_PATTERN, .format = HOST_WORDS,
              .help = "Which of the cluster's ingress controllers serves it; by default the cluster's "
                      "default."),
        FIELD(STRING, "tlsSecretName", struct expose_spec, tls_secret_name, .min = 1, .max = 253,
              .pattern = HOST_PATTERN, .format = HOST_WORDS,
              .help = "The Secret (kubernetes.io/tls) with the host's certificate, read by the ingress "
                      "controller. Without it callers use http."),
        FIELD(MAP, "annotations", struct expose_spec, annotations, .max = 64,
              .help = "Annotations of the Ingress, such as an ingress controller's options."),
};
const struct type expose_type = TYPE("Expose", struct expose_spec, expose_fields,
                                     "An Ingress in front of the Trigger's Service; it goes when this does.");

static const struct field listener_tls_fields[] = {
        FIELD(STRING, "secretName", struct listener_tls, secret_name, .required = true, .min = 1, .max = 253,
              .pattern = HOST_PATTERN, .format = HOST_WORDS,
              .help = "The Secret (kubernetes.io/tls) with the certificate for the Service's name. A renewed "
                      "one is used without a restart."),
        FIELD(OBJECT, "clientCASecretRef", struct listener_tls, client_ca, .object = &secret_ref_type,
              .help = "The authorities (PEM) whose certificates callers must show; by default they need "
                      "none."),
};
static const struct type listener_tls_type = TYPE("ListenerTLS", struct listener_tls, listener_tls_fields,
                                                  "TLS of the worker's listener.");
static const struct field listener_fields[] = {
        FIELD(OBJECT, "tls", struct listener_spec, tls, .object = &listener_tls_type,
              .help = "Serve with TLS: the Service's port is then 443 instead of 80."),
        FIELD(STRINGS, "trustedProxies", struct listener_spec, trusted_proxies, .max = 16,
              .pattern = "^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?$", .format = "an address or a CIDR",
              .help = "The proxies, such as the ingress controller's pods, whose X-Forwarded-For and -Proto "
                      "are believed."),
};
const struct type listener_type = TYPE("Listener", struct listener_spec, listener_fields,
                                       "How the worker's pod listens. `sluice run` has options instead.");

/* ---- the cloud ---------------------------------------------------------- */

static const struct field credentials_fields[] = {
        FIELD(OBJECT, "accessKeySecretRef", struct cloud_credentials, access_key, .required = true,
              .object = &secret_ref_type, .cloud = "ak", .help = "The access key (AK)."),
        FIELD(OBJECT, "secretKeySecretRef", struct cloud_credentials, secret_key, .required = true,
              .object = &secret_ref_type, .cloud = "sk", .help = "The secret key (SK)."),
        FIELD(OBJECT, "securityTokenSecretRef", struct cloud_credentials, security_token,
              .object = &secret_ref_type, .help = "The security token of temporary keys."),
};
static const struct type credentials_type = TYPE(
        "CloudCredentials", struct cloud_credentials, credentials_fields,
        "Keys that requests are signed with. They may change at any time.");
static const struct field cloud_fields[] = {
        FIELD(STRING, "region", struct cloud_spec, region, .pattern = "^[a-z0-9-]{1,64}$",
              .format = "a region such as eu-west-101",
              .help = "The region; by default that of the resource's URN."),
        FIELD(STRING, "projectID", struct cloud_spec, project_id, .former = "projectId",
              .pattern = "^[A-Za-z0-9]{1,64}$", .format = "a project's id", .cloud = "project_id",
              .help = "The project's id; by default that of the resource's URN."),
        FIELD(STRING, "endpoint", struct cloud_spec, endpoint, .max = 512,
              .pattern = "^https?://[A-Za-z0-9.-]{1,253}(:" PORT_PATTERN ")?$",
              .format = "http://HOST[:PORT] or https://…",
              .help = "The service's address; by default https://SERVICE.REGION.myhuaweicloud.com."),
        FIELD(OBJECT, "credentials", struct cloud_spec, credentials, .required = true,
              .object = &credentials_type, .help = "Keys that requests are signed with."),
};
const struct type cloud_type = TYPE("Cloud", struct cloud_spec, cloud_fields,
                                    "Where the cloud's services are called, and as whom.");

/* ---- found in a Trigger ------------------------------------------------- */

static void note(void *cookie, const void *found) { *(const void **)cookie = found; }

const struct expose_spec *trigger_expose(const struct trigger *t)
{
        const void *found = NULL;

        schema_each(t->types[t->source].type, t->source_spec, &expose_type, note, &found);
        return found;
}

const struct listener_spec *trigger_listener(const struct trigger *t)
{
        const void *found = NULL;

        schema_each(t->types[t->source].type, t->source_spec, &listener_type, note, &found);
        return found;
}
