#include <jansson.h>
#include <stdio.h>

#include "base/random.h"
#include "huawei/sign.h"
#include "json/tree.h"
#include "source/apig/apig.h"

/* ---- the spec ----------------------------------------------------------- */

static const struct field credentials_fields[] = {
        FIELD(OBJECT, "accessKeySecretRef", struct apig_iam_credentials, access, .required = true,
              .object = &secret_ref_type, .help = "The access key (AK)."),
        FIELD(OBJECT, "secretKeySecretRef", struct apig_iam_credentials, secret, .required = true,
              .object = &secret_ref_type, .help = "The secret key (SK)."),
        FIELD(STRING, "domainID", struct apig_iam_credentials, domain_id, .former = "domainId", .min = 1,
              .max = 64, .pattern = "^[A-Za-z0-9_-]+$", .format = "a domain's id",
              .help = "The domain (account) of the key, sent as X-Domain-Id."),
};
static const struct type credentials_type = TYPE("IAMCredentials", struct apig_iam_credentials,
                                                 credentials_fields,
                                                 "A key whose user may look at tokens of others.");

#define ID_PATTERN "^[A-Za-z0-9_-]{1,64}$"
static const struct field iam_fields[] = {
        FIELD(STRING, "endpoint", struct apig_iam, endpoint, .required = true, .min = 1, .max = 512,
              .pattern = "^https?://([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(:" PORT_PATTERN ")?/?$",
              .format = "http or https URL of a host",
              .help = "IAM's endpoint, https://iam.REGION.myhuaweicloud.com, or that of any Keystone (v3)."),
        FIELD(OBJECT, "credentials", struct apig_iam, credentials, .object = &credentials_type,
              .help = "The key that requests to IAM are signed with. Without one a token asks about itself, "
                      "which tokens of more than 7 KiB can't."),
        FIELD(STRINGS, "projects", struct apig_iam, projects, .max = 256, .pattern = ID_PATTERN,
              .format = "a project's id", .help = "The ids of the projects whose tokens are accepted."),
        FIELD(STRINGS, "domains", struct apig_iam, domains, .max = 256, .pattern = ID_PATTERN,
              .format = "a domain's id",
              .help = "The ids of the domains (accounts) whose tokens are accepted: those for the domain, "
                      "and those for any of its projects."),
        FIELD(DURATION, "cacheTTL", struct apig_iam, cache_ttl, .former = "cacheTtl", .fallback = "5m",
              .max = USEC_HOUR,
              .help = "How long what IAM said about a token holds, at most until it expires; a token that is "
                      "revoked is accepted for as long. 0s: IAM is asked about each request."),
        FIELD(DURATION, "timeout", struct apig_iam, timeout, .fallback = "5s", .min = USEC_MSEC,
              .max = USEC_MINUTE,
              .help = "How long IAM may take; it is part of the time that the source's timeout allows for "
                      "all."),
        FIELD(OBJECT, "caSecretRef", struct apig_iam, ca, .object = &secret_ref_type,
              .help = "The authorities (PEM) that vouch for IAM; by default the system's."),
};

static bool someone_only(const void *object)
{
        const struct apig_iam *i = object;

        return i->projects.n || i->domains.n;
}

static const struct rule iam_rules[] = {
        RULE(.cel = "(has(self.projects) && size(self.projects) > 0) || (has(self.domains) && "
                    "size(self.domains) > 0)",
             .check = someone_only,
             .message = "give projects or domains: otherwise every user of the cloud could call"),
};
const struct type apig_iam_type = TYPE("IAM", struct apig_iam, iam_fields, "Tokens that IAM says are valid.",
                                       RULES(iam_rules));

/* ---- the question and the answer: GET /v3/auth/tokens ------------------- */

/* Without a key of ours the token asks about itself. */
static void write_question(void *cookie, const struct judge_wait *w, struct buf *headers,
                           struct buf *body UNUSED)
{
        const struct push_request *q = &CONTAINER_OF(w, struct apig_request, wait)->request;
        const struct apig_asker *a = cookie;
        struct str token = q->header(q, "X-Auth-Token"), host = str_of(strstr(a->iam->endpoint, "://") + 3);
        char date[17];
        struct sign_header signed_headers[4] = { { STR("Host"), str_cut(&host, '/') },
                                                 { STR("X-Sdk-Date"), { date, 16 } },
                                                 { STR("X-Subject-Token"), token } };
        struct sign_request r = { .method = STR("GET"),
                                  .path = STR(APIG_IAM_PATH),
                                  .query = STR(APIG_IAM_QUERY),
                                  .headers = signed_headers,
                                  .headers_n = 3 };

        if (!a->iam->credentials) {
                buf_printf(headers, "X-Subject-Token: " STR_FMT "\r\nX-Auth-Token: " STR_FMT "\r\n",
                           STR_ARG(token), STR_ARG(token));
                return;
        }
        if (a->iam->credentials->domain_id)
                signed_headers[r.headers_n++] = (struct sign_header){
                        STR("X-Domain-Id"), str_of(a->iam->credentials->domain_id)
                };
        sign_time(clock_wall(a->services->clock), date);
        sign_headers(&r, a->access, a->secret, headers);
}

static bool listed(const struct strings *list, const char *id)
{
        for (size_t i = 0; id && i < list->n; i++)
                if (strcmp(list->list[i], id) == 0)
                        return true;
        return false;
}

static void member(struct writer *w, const char *name, json_t *object, const char *key)
{
        const char *value = json_string_value(json_object_get(object, key));

        if (!value)
                return;
        writer_key(w, str_of(name));
        writer_string(w, str_of(value));
}

static void write_context(json_t *user, json_t *project, json_t *domain, struct buf *out)
{
        struct writer w;

        writer_init(&w, out);
        writer_object(&w);
        member(&w, "userId", user, "id");
        member(&w, "userName", user, "name");
        member(&w, "projectId", project, "id");
        member(&w, "projectName", project, "name");
        member(&w, "domainId", domain, "id");
        member(&w, "domainName", domain, "name");
        writer_object_end(&w);
}

static struct verdict *refuse(int status, const char *code, const char *message)
{
        struct verdict *v = verdict_refuse(status, code, message);

        if (v)
                v->lasting = true;
        return v;
}

static struct verdict *judge_token(const struct apig_asker *a, json_t *token, usec now, struct buf *why)
{
        json_t *user = json_object_get(token, "user"), *project = json_object_get(token, "project");
        json_t *domain = project ? json_object_get(project, "domain") : json_object_get(token, "domain");
        const char *expires = json_string_value(json_object_get(token, "expires_at")),
                   *user_id = json_string_value(json_object_get(user, "id"));
        usec until, wall = clock_wall(a->services->clock);
        BUF_AT_END struct buf context = BUF_INIT(16384);
        struct verdict *v;

        if (!user_id || !expires || !time_parse(str_of(expires), &until)) {
                buf_text(why, "its answer has no token with user.id and expires_at");
                return NULL;
        }
        if (until <= wall)
                return refuse(401, "APIG.0307", "The token must be updated");
        if (!listed(&a->iam->projects, json_string_value(json_object_get(project, "id"))) &&
            !listed(&a->iam->domains, json_string_value(json_object_get(domain, "id"))))
                return refuse(403, "APIG.0302", "The IAM user is not authorized to access the API");
        write_context(user, project, domain, &context);
        if (context.failed) {
                buf_text(why, "its answer is too long");
                return NULL;
        }
        v = verdict_new(buf_view(&context));
        if (!v)
                return NULL;
        v->allowed = v->lasting = true;
        v->until = now + (until - wall);
        v->caller = hash_bytes(a->seed, str_of(user_id)) | 1;
        return v;
}

/* What is no JSON object does not come from IAM, but from a wrong address or a proxy: it says nothing about
 * the token. */
static struct verdict *read_answer(void *cookie, const struct http_request *c, usec now, struct buf *why)
{
        json_t *root = c->body_cut ? NULL
                                   : json_tree(c->body, JSON_REJECT_DUPLICATES, JSON_VALUES_MOST, NULL);
        struct verdict *v = NULL;

        if (c->status == 401 && ((const struct apig_asker *)cookie)->iam->credentials)
                /* a token that it does not know is 404 */
                buf_text(why, "it refuses our own key, that of credentials (401)");
        else if (json_is_object(root) && (c->status == 401 || c->status == 404))
                v = refuse(401, "APIG.0301", "Incorrect IAM authentication information: decrypt token fail");
        else if (json_is_object(root) && c->status == 200)
                v = judge_token(cookie, json_object_get(root, "token"), now, why);
        else
                buf_printf(why, "it answered %d", c->status);
        json_decref(root);
        return v;
}

const struct judge_kind apig_iam_kind = {
        .name = "iam", .code = "APIG.0301", .write = write_question, .read = read_answer, .quote = apig_quote
};
