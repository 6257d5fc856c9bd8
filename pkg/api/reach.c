#include "api/trigger.h"

#define HOST_PATTERN "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
#define HOST_WORDS "a DNS name: lower-case letters, digits, - and ."

/* ---- how a push source is reached -------------------------------------------------------------------------------------------------------- */

static const struct field expose_fields[] = {
        { .name = "host", .type = FIELD_STRING, .offset = offsetof(struct expose_spec, host), .required = true, .min = 1, .max = 253, .pattern = HOST_PATTERN, .format = HOST_WORDS,
          .help = "The host that callers outside the cluster name." },
        { .name = "ingressClassName", .type = FIELD_STRING, .offset = offsetof(struct expose_spec, ingress_class_name), .min = 1, .max = 253, .pattern = HOST_PATTERN, .format = HOST_WORDS,
          .help = "Which of the cluster's ingress controllers serves it; by default the cluster's default." },
        { .name = "tlsSecretName", .type = FIELD_STRING, .offset = offsetof(struct expose_spec, tls_secret_name), .min = 1, .max = 253, .pattern = HOST_PATTERN, .format = HOST_WORDS,
          .help = "The Secret (kubernetes.io/tls) with the host's certificate, read by the ingress controller. Without it callers use http." },
        { .name = "annotations", .type = FIELD_MAP, .offset = offsetof(struct expose_spec, annotations), .max = 64,
          .help = "Annotations of the Ingress, such as an ingress controller's options." },
};
const struct type expose_type = { .name = "Expose", .help = "An Ingress in front of the Trigger's Service; it goes when this does.", .fields = expose_fields,
                                  .fields_n = COUNT_OF(expose_fields), .size = sizeof(struct expose_spec) };

static const struct field listener_tls_fields[] = {
        { .name = "secretName", .type = FIELD_STRING, .offset = offsetof(struct listener_tls, secret_name), .required = true, .min = 1, .max = 253, .pattern = HOST_PATTERN, .format = HOST_WORDS,
          .help = "The Secret (kubernetes.io/tls) with the certificate for the Service's name. A renewed one is used without a restart." },
        { .name = "clientCASecretRef", .type = FIELD_OBJECT, .offset = offsetof(struct listener_tls, client_ca), .object = &secret_ref_type,
          .help = "The authorities (PEM) whose certificates callers must show; by default they need none." },
};
static const struct type listener_tls_type = { .name = "ListenerTLS", .help = "TLS of the worker's listener.", .fields = listener_tls_fields, .fields_n = COUNT_OF(listener_tls_fields),
                                               .size = sizeof(struct listener_tls) };
static const struct field listener_fields[] = {
        { .name = "tls", .type = FIELD_OBJECT, .offset = offsetof(struct listener_spec, tls), .object = &listener_tls_type,
          .help = "Serve with TLS: the Service's port is then 443 instead of 80." },
        { .name = "trustedProxies", .type = FIELD_STRINGS, .offset = offsetof(struct listener_spec, trusted_proxies), .max = 16, .pattern = "^[0-9A-Fa-f:.]{2,45}(/[0-9]{1,3})?$",
          .format = "an address or a CIDR", .help = "The proxies, such as the ingress controller's pods, whose X-Forwarded-For and -Proto are believed." },
};
const struct type listener_type = { .name = "Listener", .help = "How the worker's pod listens. `sluice run` has options instead.", .fields = listener_fields,
                                    .fields_n = COUNT_OF(listener_fields), .size = sizeof(struct listener_spec) };

/* ---- the cloud --------------------------------------------------------------------------------------------------------------------------- */

static const struct field credentials_fields[] = {
        { .name = "accessKeySecretRef", .type = FIELD_OBJECT, .offset = offsetof(struct cloud_credentials, access_key), .required = true, .object = &secret_ref_type, .help = "The access key (AK).",
          .cloud = "ak" },
        { .name = "secretKeySecretRef", .type = FIELD_OBJECT, .offset = offsetof(struct cloud_credentials, secret_key), .required = true, .object = &secret_ref_type, .help = "The secret key (SK).",
          .cloud = "sk" },
        { .name = "securityTokenSecretRef", .type = FIELD_OBJECT, .offset = offsetof(struct cloud_credentials, security_token), .object = &secret_ref_type,
          .help = "The security token of temporary keys." },
};
static const struct type credentials_type = { .name = "CloudCredentials", .help = "Keys that requests are signed with. They may change at any time.", .fields = credentials_fields,
                                              .fields_n = COUNT_OF(credentials_fields), .size = sizeof(struct cloud_credentials) };
static const struct field cloud_fields[] = {
        { .name = "region", .type = FIELD_STRING, .offset = offsetof(struct cloud_spec, region), .pattern = "^[a-z0-9-]{1,64}$", .format = "a region such as eu-west-101",
          .help = "The region; by default that of the resource's URN." },
        { .name = "projectId", .type = FIELD_STRING, .offset = offsetof(struct cloud_spec, project_id), .pattern = "^[A-Za-z0-9]{1,64}$", .format = "a project's id",
          .help = "The project's id; by default that of the resource's URN.", .cloud = "project_id" },
        { .name = "endpoint", .type = FIELD_STRING, .offset = offsetof(struct cloud_spec, endpoint), .max = 512, .pattern = "^https?://[A-Za-z0-9.-]{1,253}(:" PORT_PATTERN ")?$",
          .format = "http://HOST[:PORT] or https://…", .help = "The service's address; by default https://SERVICE.REGION.myhuaweicloud.com." },
        { .name = "credentials", .type = FIELD_OBJECT, .offset = offsetof(struct cloud_spec, credentials), .required = true, .object = &credentials_type,
          .help = "Keys that requests are signed with." },
};
const struct type cloud_type = { .name = "Cloud", .help = "Where the cloud's services are called, and as whom.", .fields = cloud_fields, .fields_n = COUNT_OF(cloud_fields),
                                 .size = sizeof(struct cloud_spec) };

/* ---- found in a Trigger ------------------------------------------------------------------------------------------------------------------ */

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
