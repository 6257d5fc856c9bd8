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

static const char *const credentials_names[] = { "Secret",         "Environment", "Metadata",
                                                 "ServiceAccount", "PodIdentity", NULL };
static const struct field agency_fields[] = {
        FIELD(STRING, "name", struct cloud_agency, name, .required = true, .min = 1, .max = 64,
              .help = "The agency's name."),
        FIELD(STRING, "domain", struct cloud_agency, domain, .required = true, .min = 1, .max = 64,
              .help = "The name of the account that made it."),
};
static const struct type agency_type = TYPE("CloudAgency", struct cloud_agency, agency_fields,
                                            "An agency whose rights are used instead of the keys' own.");
static const struct field service_account_fields[] = {
        FIELD(STRING, "providerURN", struct cloud_service_account, provider_urn, .required = true, .min = 1,
              .max = 512, .help = "The URN of the identity provider that trusts the cluster's tokens."),
        FIELD(STRING, "agencyURN", struct cloud_service_account, agency_urn, .required = true, .min = 1,
              .max = 512, .help = "The URN of the agency that the ServiceAccount may assume."),
        FIELD(STRING, "audience", struct cloud_service_account, audience, .min = 1, .max = 256,
              .help = "Whom the token is made for: what the identity provider takes as its client; by "
                      "default "
                      "the cluster's own audience. In a cluster alone."),
};
static const struct type service_account_type = TYPE(
        "CloudServiceAccount", struct cloud_service_account, service_account_fields,
        "An agency that the token of the worker's ServiceAccount stands for. By default what "
        "HUAWEICLOUD_OIDC_PROVIDER_URN and HUAWEICLOUD_OIDC_AGENCY_URN say in the environment.");
static const struct field credentials_fields[] = {
        FIELD(ENUM, "type", struct cloud_credentials, type, .fallback = "Secret", .values = credentials_names,
              .help = "Where the keys come from. Secret: the three below. Environment: HUAWEICLOUD_SDK_AK, "
                      "_SK and _SECURITY_TOKEN. Metadata: the agency of the machine. ServiceAccount: an "
                      "agency, by the token of the worker's ServiceAccount. PodIdentity: what CCE gives the "
                      "pod."),
        FIELD(OBJECT, "accessKeySecretRef", struct cloud_credentials, access_key, .object = &secret_ref_type,
              .cloud = "ak", .help = "The access key (AK)."),
        FIELD(OBJECT, "secretKeySecretRef", struct cloud_credentials, secret_key, .object = &secret_ref_type,
              .cloud = "sk", .help = "The secret key (SK)."),
        FIELD(OBJECT, "securityTokenSecretRef", struct cloud_credentials, security_token,
              .object = &secret_ref_type, .help = "The security token of temporary keys."),
        FIELD(OBJECT, "agency", struct cloud_credentials, agency, .object = &agency_type,
              .help = "With keys of a Secret or the environment: the agency that they assume."),
        FIELD(OBJECT, "serviceAccount", struct cloud_credentials, service_account,
              .object = &service_account_type,
              .help = "With type ServiceAccount: what its token stands for."),
};

static bool keys_fit(const void *object)
{
        const struct cloud_credentials *c = object;

        return c->type == CLOUD_CREDENTIALS_SECRET ? c->access_key && c->secret_key
                                                   : !c->access_key && !c->secret_key && !c->security_token;
}

static bool agency_fits(const void *object)
{
        const struct cloud_credentials *c = object;

        return !c->agency || c->type == CLOUD_CREDENTIALS_SECRET || c->type == CLOUD_CREDENTIALS_ENVIRONMENT;
}

static bool service_account_fits(const void *object)
{
        const struct cloud_credentials *c = object;

        return !c->service_account || c->type == CLOUD_CREDENTIALS_SERVICE_ACCOUNT;
}

#define TYPE_OF_KEYS "(has(self.type) ? self.type : 'Secret')"
static const struct rule credentials_rules[] = {
        RULE(.cel = TYPE_OF_KEYS
             " == 'Secret' ? has(self.accessKeySecretRef) && has(self.secretKeySecretRef) : "
             "!has(self.accessKeySecretRef) && !has(self.secretKeySecretRef) && "
             "!has(self.securityTokenSecretRef)",
             .check = keys_fit,
             .message =
                     "type Secret, the default, needs accessKeySecretRef and secretKeySecretRef; other types "
                     "have none"),
        RULE(.cel = "!has(self.agency) || " TYPE_OF_KEYS " in ['Secret', 'Environment']", .path = "agency",
             .check = agency_fits,
             .message = "an agency is assumed with keys: of type Secret or Environment"),
        RULE(.cel = "!has(self.serviceAccount) || " TYPE_OF_KEYS " == 'ServiceAccount'",
             .path = "serviceAccount", .check = service_account_fits,
             .message = "is for type ServiceAccount alone"),
};
static const struct type credentials_type = TYPE(
        "CloudCredentials", struct cloud_credentials, credentials_fields,
        "Keys that requests are signed with. They may change at any time; temporary ones are renewed before "
        "they expire.",
        RULES(credentials_rules));
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
              .help = "The service's address; by default the region's, from the table of the official SDKs."),
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

const struct cloud_spec *trigger_cloud(const struct trigger *t)
{
        const void *found = NULL;

        schema_each(t->types[t->source].type, t->source_spec, &cloud_type, note, &found);
        return found;
}

const struct listener_spec *trigger_listener(const struct trigger *t)
{
        const void *found = NULL;

        schema_each(t->types[t->source].type, t->source_spec, &listener_type, note, &found);
        return found;
}
