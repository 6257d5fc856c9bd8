/* The tables of spec.delivery and what is in it. */
#include "api/tables.h"

/* ---- secrets ------------------------------------------------------------ */

static const struct field secret_ref_fields[] = {
        FIELD(STRING, "name", struct secret_ref, name, .required = true, .min = 1, .max = 253,
              .pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
              .format = "a Secret's name: lower-case letters, digits, - and .",
              .help = "The Secret, in the Trigger's namespace."),
        FIELD(STRING, "key", struct secret_ref, key, .required = true, .min = 1, .max = 253,
              .pattern = "^[-._a-zA-Z0-9]+$", .format = "letters, digits, -, _ and .",
              .help = "The key in it."),
};

static bool key_no_folder(const void *object)
{
        const struct secret_ref *r = object;

        return strncmp(r->key, "..", 2) != 0 && strcmp(r->key, ".") != 0;
}

static const struct rule secret_ref_rules[] = {
        RULE(.cel = "!self.key.startsWith('..') && self.key != '.'", .path = "key", .check = key_no_folder,
             .message = "a key must not begin with two dots"),
};
const struct type secret_ref_type = TYPE("SecretKeyRef", struct secret_ref, secret_ref_fields,
                                         "A value in a Secret.", RULES(secret_ref_rules));

#define SECRET_FIELD(name, object_, member, text, ...)                                                       \
        FIELD(OBJECT, name, object_, member, .object = &secret_ref_type, .help = text, __VA_ARGS__)

/* ---- headers ------------------------------------------------------------ */

#define HEADER_NAME_PATTERN "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$"
/* Those that the client, the connection or the format writes, or that tell what an event is and where it
 * comes from: in lower case, for the CRD and for us. */
#define HEADER_RESERVED                                                                                      \
        "^(host|connection|content-.*|transfer-.*|te|trailer|upgrade|expect|keep-.*|proxy-.*|user-agent|ce-" \
        ".*|x-sluice-.*|x-cff-.*|traceparent|tracestate)$"

static const struct field header_fields[] = {
        FIELD(STRING, "name", struct header_spec, name, .required = true, .min = 1, .max = 128,
              .pattern = HEADER_NAME_PATTERN, .format = "a header's name", .help = "The header's name."),
        FIELD(STRING, "value", struct header_spec, value, .min = 1, .max = 4096, .pattern = HEADER_PATTERN,
              .format = HEADER_WORDS, .help = "Its value."),
        SECRET_FIELD("secretRef", struct header_spec, secret, "Where its value is kept, instead of value."),
};

static bool header_one_value(const void *object)
{
        const struct header_spec *h = object;

        return !h->value != !h->secret;
}

static bool header_not_reserved(const void *object)
{
        BUF_AT_END struct buf name = BUF_INIT(256);

        for (const char *p = ((const struct header_spec *)object)->name; *p; p++)
                buf_char(&name, *p >= 'A' && *p <= 'Z' ? (char)(*p | 0x20) : *p);
        buf_char(&name, 0);
        return !name.failed && !schema_matches(HEADER_RESERVED, name.p);
}

static const struct rule header_rules[] = {
        RULE(.cel = "has(self.value) != has(self.secretRef)",
             .message = "give value or secretRef, one of them", .check = header_one_value),
        RULE(.cel = "!self.name.matches(r'(?i)" HEADER_RESERVED "')", .path = "name",
             .message = "this header is written by the program itself: choose another name",
             .check = header_not_reserved),
};
static const struct type header_type = TYPE("Header", struct header_spec, header_fields,
                                            "A header of each request.", RULES(header_rules));

/* ---- authentication ----------------------------------------------------- */

static const struct field basic_fields[] = {
        SECRET_FIELD("usernameSecretRef", struct basic_spec, username, "The user's name.", .required = true),
        SECRET_FIELD("passwordSecretRef", struct basic_spec, password, "The password.", .required = true),
};
static const struct type basic_type = TYPE("BasicAuthentication", struct basic_spec, basic_fields,
                                           "A user name and a password (RFC 7617).");

static const struct field bearer_fields[] = { SECRET_FIELD("tokenSecretRef", struct bearer_spec, token,
                                                           "The token.", .required = true) };
static const struct type bearer_type = TYPE("BearerAuthentication", struct bearer_spec, bearer_fields,
                                            "A token (RFC 6750).");

/* Those of a struct oauth2_spec that stands at `at` in an object; then what its tokenURL has more. */
#define OAUTH2_FIELDS(object_, at, ...)                                                                      \
        FIELD(STRING, "tokenURL", object_, at token_url, .required = true, .min = 1, .max = 2048,            \
              .pattern = URI_PATTERN,                                                                        \
              .format = "an absolute http or https URL without user name and fragment",                      \
              .help = "Where tokens are asked for.", __VA_ARGS__),                                           \
                SECRET_FIELD("clientIdSecretRef", object_, at client_id, "The client's id.",                 \
                             .required = true),                                                              \
                SECRET_FIELD("clientSecretSecretRef", object_, at client_secret, "The client's secret.",     \
                             .required = true),                                                              \
                FIELD(STRINGS, "scopes", object_, at scopes, .max = 32, .pattern = "^[!-~]+$",               \
                      .format = "a scope without spaces", .help = "Scopes that are asked for."),             \
                FIELD(STRING, "audience", object_, at audience, .min = 1, .max = 512, .pattern = "^[!-~]+$", \
                      .format = "an audience without spaces",                                                \
                      .help = "The audience that is asked for, where the server wants one.")

static const struct field oauth2_fields[] = { OAUTH2_FIELDS(struct oauth2_spec, , .former = "tokenUrl") };
static const struct type oauth2_type = TYPE(
        "OAuth2ClientCredentials", struct oauth2_spec, oauth2_fields,
        "A token by OAuth 2.0's client credentials (RFC 6749, 4.4), asked for again before it expires.");

static const struct field authentication_fields[] = {
        FIELD(OBJECT, "basic", struct authentication_spec, basic, .object = &basic_type,
              .help = "A user name and a password."),
        FIELD(OBJECT, "bearer", struct authentication_spec, bearer, .object = &bearer_type,
              .help = "A token."),
        FIELD(OBJECT, "oauth2", struct authentication_spec, oauth2, .object = &oauth2_type,
              .help = "A token by client credentials."),
};

static bool one_authentication(const void *object)
{
        const struct authentication_spec *a = object;

        return !!a->basic + !!a->bearer + !!a->oauth2 == 1;
}

static const struct rule authentication_rules[] = {
        RULE(.cel = "[has(self.basic), has(self.bearer), has(self.oauth2)].exists_one(given, given)",
             .message = "exactly one is needed: basic, bearer or oauth2", .check = one_authentication),
};
static const struct type authentication_type = TYPE(
        "Authentication", struct authentication_spec, authentication_fields,
        "How the Trigger shows the function who it is: exactly one of these.", RULES(authentication_rules));

static const struct field tls_fields[] = {
        SECRET_FIELD("caSecretRef", struct tls_spec, ca,
                     "The certificates, in PEM, of the authorities that the receiver's certificate is "
                     "checked against, instead of the system's."),
        SECRET_FIELD("certSecretRef", struct tls_spec, cert, "A client certificate in PEM, with its chain."),
        SECRET_FIELD("keySecretRef", struct tls_spec, key, "Its key in PEM."),
        FIELD(BOOL, "verifyHostname", struct tls_spec, verify_hostname, .fallback = "true",
              .help = "false: the certificate may be for another name; it must still come from a trusted "
                      "authority."),
};

static bool cert_with_key(const void *object)
{
        const struct tls_spec *t = object;

        return !t->cert == !t->key;
}

static const struct rule tls_rules[] = {
        RULE(.cel = "has(self.certSecretRef) == has(self.keySecretRef)",
             .message = "certSecretRef and keySecretRef go together: give both or none",
             .check = cert_with_key),
};
const struct type tls_type = TYPE("TLS", struct tls_spec, tls_fields,
                                  "TLS towards the receiver, beyond the system's authorities.",
                                  RULES(tls_rules));

static const struct field proxy_fields[] = {
        FIELD(STRING, "url", struct proxy_spec, url, .required = true, .min = 1, .max = 512,
              .pattern = "^http://([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\]):" PORT_PATTERN "/?$",
              .format = "http://HOST:PORT", .help = "The proxy, asked to connect (CONNECT) to the receiver."),
        SECRET_FIELD("usernameSecretRef", struct proxy_spec, username, "A user's name for the proxy."),
        SECRET_FIELD("passwordSecretRef", struct proxy_spec, password, "The user's password for the proxy."),
        FIELD(STRINGS, "noProxy", struct proxy_spec, no_proxy, .max = 64, .pattern = "^[A-Za-z0-9._:*/-]+$",
              .format = "a host, a domain or an address",
              .help = "Hosts and domains that are called without the proxy."),
};

static bool proxy_credentials(const void *object)
{
        const struct proxy_spec *p = object;

        return !p->username == !p->password;
}

static const struct rule proxy_rules[] = {
        RULE(.cel = "has(self.usernameSecretRef) == has(self.passwordSecretRef)",
             .message = "usernameSecretRef and passwordSecretRef go together: give both or none",
             .check = proxy_credentials),
};
static const struct type proxy_type = TYPE("Proxy", struct proxy_spec, proxy_fields,
                                           "A proxy between the worker and the receiver.",
                                           RULES(proxy_rules));

/* ---- how much, how often ------------------------------------------------ */

static const struct field rate_fields[] = {
        FIELD(INT, "eventsPerSecond", struct rate_spec, events_per_second, .required = true, .min = 1,
              .max = 1000000, .help = "Events a second, repeated ones included."),
        FIELD(INT, "burst", struct rate_spec, burst, .fallback = "1", .min = 1, .max = 1000000,
              .help = "Events that may go at once after a rest."),
};
static const struct type rate_type = TYPE("RateLimit", struct rate_spec, rate_fields,
                                          "The most events a second.");

static const struct field batch_fields[] = {
        FIELD(INT, "maxMessages", struct batch_spec, max_messages, .fallback = "1", .min = 1, .max = 10000,
              .help = "Records that go in one request at most; 1: each by itself."),
        FIELD(INT, "maxBytes", struct batch_spec, max_bytes, .fallback = "6291456", .min = 1024,
              .max = 33554432,
              .help = "Bytes of the encoded event at most. A record that is larger by itself goes alone."),
        FIELD(DURATION, "maxWait", struct batch_spec, max_wait, .fallback = "500ms", .max = 5 * USEC_MINUTE,
              .help = "How long a record waits for others to go with it."),
};
static const struct type batch_type = TYPE("Batch", struct batch_spec, batch_fields,
                                           "Several records in one request.");

static const char *const backoff_names[] = {
        [BACKOFF_EXPONENTIAL] = "Exponential", [BACKOFF_LINEAR] = "Linear", NULL
};
static const char *const exhausted_names[] = {
        [EXHAUSTED_BLOCK] = "Block", [EXHAUSTED_DEAD_LETTER] = "DeadLetter", [EXHAUSTED_DROP] = "Drop", NULL
};
static const struct field retry_fields[] = {
        FIELD(INT, "maxAttempts", struct retry_spec, max_attempts, .fallback = "0", .min = 0, .max = 10000,
              .help = "Attempts in all before onExhausted decides; 0: no limit."),
        FIELD(DURATION, "maxEventAge", struct retry_spec, max_event_age, .fallback = "0s",
              .max = 7 * USEC_DAY,
              .help = "How long after it was read an event is still tried again before onExhausted decides; "
                      "0s: no limit."),
        FIELD(ENUM, "backoff", struct retry_spec, backoff, .fallback = "Exponential", .values = backoff_names,
              .help = "How the longest pause grows from failure to failure: Exponential doubles it, Linear "
                      "adds initialBackoff."),
        FIELD(DURATION, "initialBackoff", struct retry_spec, initial_backoff, .fallback = "200ms",
              .min = 10 * USEC_MSEC, .max = USEC_MINUTE,
              .help = "The longest pause after the first failure. Each pause is drawn at random below the "
                      "longest."),
        FIELD(DURATION, "maxBackoff", struct retry_spec, max_backoff, .fallback = "30s",
              .min = 100 * USEC_MSEC, .max = USEC_HOUR, .help = "The longest pause there is."),
        FIELD(DURATION, "retryAfterMax", struct retry_spec, retry_after_max, .fallback = "5m",
              .max = USEC_DAY, .help = "How much of an answer's Retry-After is heeded at most; 0s: nothing."),
        FIELD(ENUM, "onExhausted", struct retry_spec, on_exhausted, .fallback = "Block",
              .values = exhausted_names,
              .help = "What becomes of an event that the function finally refused, or for which attempts or "
                      "age are used up: Block keeps its lane waiting and tries on every maxBackoff, "
                      "DeadLetter hands it to deadLetter, Drop loses it, counted."),
        FIELD(BOOL, "bisect", struct retry_spec, bisect, .fallback = "false",
              .help = "true: a batch that the function fails on is halved until the record at fault is "
                      "alone."),
};

static bool backoff_ordered(const void *object)
{
        const struct retry_spec *r = object;

        return r->initial_backoff <= r->max_backoff;
}

static const struct rule retry_rules[] = {
        RULE(.cel = "duration(self.initialBackoff) <= duration(self.maxBackoff)", .path = "initialBackoff",
             .check = backoff_ordered, .message = "initialBackoff must not be longer than maxBackoff"),
};
static const struct type retry_type = TYPE("Retry", struct retry_spec, retry_fields,
                                           "What is done when the function does not accept.",
                                           RULES(retry_rules));

/* ---- dead letters ------------------------------------------------------- */

static const struct field kafka_oauth_fields[] = {
        OAUTH2_FIELDS(struct kafka_oauth_spec, client., .former = NULL),
        SECRET_FIELD("caSecretRef", struct kafka_oauth_spec, ca,
                     "The certificates, in PEM, of the authorities that tokenURL's certificate is checked "
                     "against, instead of the system's."),
};
static const struct type kafka_oauth_type = TYPE(
        "KafkaOAuth", struct kafka_oauth_spec, kafka_oauth_fields,
        "A token by OAuth 2.0's client credentials (RFC 6749, 4.4), asked for again before it expires.");

static const char *const mechanism_names[] = { "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER",
                                               NULL };
static const struct field kafka_sasl_fields[] = {
        FIELD(ENUM, "mechanism", struct kafka_sasl_spec, mechanism, .fallback = "PLAIN",
              .values = mechanism_names,
              .help = "PLAIN shows the password itself, and OAUTHBEARER a token: use them with tls. The "
                      "SCRAM "
                      "mechanisms prove that the password is known."),
        SECRET_FIELD("usernameSecretRef", struct kafka_sasl_spec, username, "The user's name."),
        SECRET_FIELD("passwordSecretRef", struct kafka_sasl_spec, password, "The password."),
        FIELD(OBJECT, "oauth", struct kafka_sasl_spec, oauth, .object = &kafka_oauth_type,
              .help = "With OAUTHBEARER: who gives tokens for the brokers."),
};

static bool sasl_complete(const void *object)
{
        const struct kafka_sasl_spec *s = object;

        return s->mechanism == KAFKA_OAUTHBEARER ? s->oauth && !s->username && !s->password
                                                 : !s->oauth && s->username && s->password;
}

static const struct rule kafka_sasl_rules[] = {
        RULE(.cel = "self.mechanism == 'OAUTHBEARER' ? has(self.oauth) && !has(self.usernameSecretRef) && "
                    "!has(self.passwordSecretRef) : !has(self.oauth) && has(self.usernameSecretRef) && "
                    "has(self.passwordSecretRef)",
             .message = "OAUTHBEARER goes with oauth, each other mechanism with usernameSecretRef and "
                        "passwordSecretRef",
             .check = sasl_complete),
};
const struct type kafka_sasl_type = TYPE("KafkaSASL", struct kafka_sasl_spec, kafka_sasl_fields,
                                         "A user name and a password for Kafka, or a token.",
                                         RULES(kafka_sasl_rules));

static const struct field dead_kafka_fields[] = {
        KAFKA_CLUSTER_FIELDS(struct dead_letter_kafka, cluster, "Brokers to begin with, each HOST:PORT."),
        FIELD(STRING, "topic", struct dead_letter_kafka, topic, .required = true, .min = 1, .max = 249,
              .pattern = KAFKA_TOPIC_PATTERN, .format = KAFKA_TOPIC_FORMAT, .help = "The topic."),
};
static const struct type dead_kafka_type = TYPE("DeadLetterKafka", struct dead_letter_kafka,
                                                dead_kafka_fields, "A Kafka topic.");

static const struct field dead_letter_fields[] = {
        FIELD(OBJECT, "ref", struct dead_letter_spec, ref, .object = &sink_ref_type,
              .help = "A Service in the cluster."),
        FIELD(STRING, "uri", struct dead_letter_spec, uri, .min = 1, .max = 2048, .pattern = "^[!-~]+$",
              .format = "a URI without spaces, others than ASCII percent-encoded",
              .help = "Where dead letters are POSTed: http://… or https://…, or, with ref, a path on that "
                      "Service."),
        FIELD(OBJECT, "kafka", struct dead_letter_spec, kafka, .object = &dead_kafka_type,
              .help = "A Kafka topic, instead."),
};

static bool dead_given(const void *object)
{
        const struct dead_letter_spec *d = object;

        return (d->ref || d->uri) != (d->kafka != NULL);
}

static bool dead_uri(const void *object)
{
        const struct dead_letter_spec *d = object;

        return !d->uri || schema_matches(d->ref ? PATH_PATTERN : URI_PATTERN, d->uri);
}

static const struct rule dead_letter_rules[] = {
        RULE(.cel = "(has(self.ref) || has(self.uri)) != has(self.kafka)",
             .message = "give ref, uri or both, or else kafka", .check = dead_given),
        RULE(.cel = "!has(self.uri) || self.uri.matches(has(self.ref) ? " QUOTED(PATH_PATTERN) " : " QUOTED(
                     URI_PATTERN) ")",
             .path = "uri", .check = dead_uri,
             .message = "the URI must be absolute, http://HOST[:PORT]/PATH or https://…, or with ref a path "
                        "that begins with one /, without fragment"),
};
static const struct type dead_letter_type = TYPE("DeadLetter", struct dead_letter_spec, dead_letter_fields,
                                                 "Who receives what the function did not accept.",
                                                 RULES(dead_letter_rules));

/* ---- delivery ----------------------------------------------------------- */

static const char *const ordering_names[] = {
        [ORDERING_PARTITION] = "Partition", [ORDERING_KEY] = "Key", [ORDERING_NONE] = "None", NULL
};
const char *const delivery_methods[] = { "POST", "PUT", "PATCH", NULL };
static const char *const version_names[] = {
        [WIRE_AUTO] = "Auto", [WIRE_HTTP_1_1] = "HTTP/1.1", [WIRE_HTTP_2] = "HTTP/2", NULL
};
static const char *const compression_names[] = {
        [COMPRESSION_NONE] = "None", [COMPRESSION_GZIP] = "Gzip", NULL
};
static const struct field delivery_fields[] = {
        FIELD(ENUM, "ordering", struct delivery_spec, ordering, .fallback = "Partition",
              .values = ordering_names,
              .help = "What is delivered in order, one request after the other: all of a Partition, those of "
                      "one Key, or None."),
        FIELD(INT, "maxInFlight", struct delivery_spec, max_in_flight, .fallback = "32", .min = 1,
              .max = 1000,
              .help = "The most requests that are under way at once; fewer while the function is slow or "
                      "overloaded."),
        FIELD(INT, "initialInFlight", struct delivery_spec, initial_in_flight, .fallback = "8", .min = 1,
              .max = 1000,
              .help = "How many requests are under way at once before the function has shown what it can "
                      "take; maxInFlight where that is less."),
        FIELD(OBJECT, "rateLimit", struct delivery_spec, rate_limit, .object = &rate_type,
              .help = "The most events a second; by default no limit."),
        FIELD(DURATION, "timeout", struct delivery_spec, timeout, .fallback = "1m", .min = USEC_SEC,
              .max = 15 * USEC_MINUTE,
              .help = "How long an attempt may take, from connecting to the end of the answer."),
        FIELD(DURATION, "connectTimeout", struct delivery_spec, connect_timeout, .fallback = "10s",
              .min = 100 * USEC_MSEC, .max = USEC_MINUTE,
              .help = "How long connecting may take, TLS included."),
        FIELD(DURATION, "responseTimeout", struct delivery_spec, response_timeout, .former = "answerTimeout",
              .min = 10 * USEC_MSEC, .max = 15 * USEC_MINUTE,
              .help = "How long the function may take from the end of the request to the end of its answer; "
                      "by default what timeout leaves."),
        FIELD(ENUM, "method", struct delivery_spec, method, .fallback = "POST", .values = delivery_methods,
              .help = "The method of requests."),
        FIELD(OBJECTS, "headers", struct delivery_spec, headers, .object = &header_type, .max = 32,
              .help = "Further headers of each request."),
        FIELD(OBJECT, "authentication", struct delivery_spec, authentication, .object = &authentication_type,
              .help = "How the Trigger shows the function who it is: exactly one of these."),
        FIELD(OBJECT, "tls", struct delivery_spec, tls, .object = &tls_type,
              .help = "TLS towards the receiver, beyond the system's authorities."),
        FIELD(OBJECT, "proxy", struct delivery_spec, proxy, .object = &proxy_type,
              .help = "A proxy between the worker and the receiver."),
        FIELD(ENUM, "httpVersion", struct delivery_spec, http_version, .fallback = "Auto",
              .values = version_names,
              .help = "Auto: HTTP/2 where TLS agrees on it, else HTTP/1.1. HTTP/2: also without TLS, by "
                      "prior knowledge."),
        FIELD(ENUM, "compression", struct delivery_spec, compression, .fallback = "None",
              .values = compression_names,
              .help = "How bodies above 1 KiB are compressed (Content-Encoding)."),
        FIELD(OBJECT, "batch", struct delivery_spec, batch, .fallback = "{}", .object = &batch_type,
              .help = "Several records in one request."),
        FIELD(OBJECT, "retry", struct delivery_spec, retry, .fallback = "{}", .object = &retry_type,
              .help = "What is done when the function does not accept."),
        FIELD(OBJECT, "deadLetter", struct delivery_spec, dead_letter, .object = &dead_letter_type,
              .help = "Who receives what the function did not accept, with onExhausted: DeadLetter."),
        FIELD(BOOL, "partialFailures", struct delivery_spec, partial_failures, .fallback = "false",
              .help = "true: a 2xx answer {\"batchItemFailures\": [{\"itemIdentifier\": ID}]} names the "
                      "records of a batch that failed, by id or by place from 0; the others are accepted."),
};

static bool dead_letter_there(const void *object)
{
        const struct delivery_spec *d = object;

        return !d->retry || (d->retry->on_exhausted == EXHAUSTED_DEAD_LETTER) == (d->dead_letter != NULL);
}

static bool batch_for_parts(const void *object)
{
        const struct delivery_spec *d = object;

        return !d->batch || !d->retry || d->batch->max_messages > 1 ||
               !(d->partial_failures || d->retry->bisect);
}

static bool answer_within(const void *object)
{
        const struct delivery_spec *d = object;

        return d->response_timeout <= d->timeout;
}

static bool one_authorization(const void *object)
{
        const struct delivery_spec *d = object;

        for (size_t i = 0; d->authentication && i < d->headers.n; i++) {
                const struct header_spec *h = d->headers.list[i];

                if (str_equal_nocase(str_of(h->name), STR("Authorization")))
                        return false;
        }
        return true;
}

static const struct rule delivery_rules[] = {
        RULE(.cel = "!has(self.authentication) || !has(self.headers) || !self.headers.exists(h, "
                    "h.name.matches(r'(?i)^authorization$'))",
             .path = "headers", .check = one_authorization,
             .message = "Authorization is what authentication writes: give one of them"),
        RULE(.cel = "!has(self.responseTimeout) || duration(self.responseTimeout) <= duration(self.timeout)",
             .path = "responseTimeout", .check = answer_within,
             .message = "responseTimeout must not be above timeout, which bounds the whole attempt"),
        RULE(.cel = "(self.retry.onExhausted == 'DeadLetter') == has(self.deadLetter)", .path = "deadLetter",
             .check = dead_letter_there,
             .message = "deadLetter and retry.onExhausted: DeadLetter go together: give both or none"),
        RULE(.cel = "self.batch.maxMessages > 1 || !(self.partialFailures || self.retry.bisect)",
             .path = "batch", .check = batch_for_parts,
             .message = "partialFailures and retry.bisect need a batch: give batch.maxMessages above 1"),
};
const struct type delivery_type = TYPE("Delivery", struct delivery_spec, delivery_fields,
                                       "How events are delivered.", RULES(delivery_rules));

const struct type *const delivery_types[] = {
        &delivery_type,       &secret_ref_type, &header_type,      &basic_type, &bearer_type, &oauth2_type,
        &authentication_type, &tls_type,        &proxy_type,       &rate_type,  &batch_type,  &retry_type,
        &kafka_sasl_type,     &dead_kafka_type, &dead_letter_type, NULL
};
