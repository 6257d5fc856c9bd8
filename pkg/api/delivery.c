/* The tables of spec.delivery and what is in it. */
#include "api/tables.h"

/* ---- secrets ---------------------------------------------------------------------------------------------------------------------------- */

static const struct field secret_ref_fields[] = {
        { .name = "name", .type = FIELD_STRING, .offset = offsetof(struct secret_ref, name), .required = true, .min = 1, .max = 253,
          .pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", .format = "a Secret's name: lower-case letters, digits, - and .", .help = "The Secret, in the Trigger's namespace." },
        { .name = "key", .type = FIELD_STRING, .offset = offsetof(struct secret_ref, key), .required = true, .min = 1, .max = 253, .pattern = "^[-._a-zA-Z0-9]+$",
          .format = "letters, digits, -, _ and .", .help = "The key in it." },
};

static bool key_no_folder(const void *object)
{
        const struct secret_ref *r = object;

        return strncmp(r->key, "..", 2) != 0 && strcmp(r->key, ".") != 0;
}

static const struct rule secret_ref_rules[] = {
        { .cel = "!self.key.startsWith('..') && self.key != '.'", .path = "key", .check = key_no_folder, .message = "a key must not begin with two dots" },
};
const struct type secret_ref_type = { .name = "SecretKeyRef", .help = "A value in a Secret.", .fields = secret_ref_fields, .fields_n = COUNT_OF(secret_ref_fields),
                                      .rules = secret_ref_rules, .rules_n = COUNT_OF(secret_ref_rules), .size = sizeof(struct secret_ref) };

#define SECRET_FIELD(field_name, type_, member, text, ...) \
        { .name = field_name, .type = FIELD_OBJECT, .offset = offsetof(type_, member), .object = &secret_ref_type, .help = text, __VA_ARGS__ }

/* ---- headers ---------------------------------------------------------------------------------------------------------------------------- */

#define HEADER_NAME_PATTERN "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$"
/* Those that the client, the connection or the format writes, or that tell what an event is and where it comes from: in lower case, for the CRD and for us. */
#define HEADER_RESERVED "^(host|connection|content-.*|transfer-.*|te|trailer|upgrade|expect|keep-.*|proxy-.*|user-agent|ce-.*|x-sluice-.*|x-cff-.*|traceparent|tracestate)$"

static const struct field header_fields[] = {
        { .name = "name", .type = FIELD_STRING, .offset = offsetof(struct header_spec, name), .required = true, .min = 1, .max = 128, .pattern = HEADER_NAME_PATTERN,
          .format = "a header's name", .help = "The header's name." },
        { .name = "value", .type = FIELD_STRING, .offset = offsetof(struct header_spec, value), .min = 1, .max = 4096, .pattern = HEADER_PATTERN, .format = HEADER_WORDS,
          .help = "Its value." },
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
        { .cel = "has(self.value) != has(self.secretRef)", .message = "give value or secretRef, one of them", .check = header_one_value },
        { .cel = "!self.name.matches(r'(?i)" HEADER_RESERVED "')", .path = "name",
          .message = "this header is written by the program itself: choose another name", .check = header_not_reserved },
};
static const struct type header_type = { .name = "Header", .help = "A header of each request.", .fields = header_fields, .fields_n = COUNT_OF(header_fields),
                                         .rules = header_rules, .rules_n = COUNT_OF(header_rules), .size = sizeof(struct header_spec) };

/* ---- authentication --------------------------------------------------------------------------------------------------------------------- */

static const struct field basic_fields[] = {
        SECRET_FIELD("usernameSecretRef", struct basic_spec, username, "The user's name.", .required = true),
        SECRET_FIELD("passwordSecretRef", struct basic_spec, password, "The password.", .required = true),
};
static const struct type basic_type = { .name = "BasicAuthentication", .help = "A user name and a password (RFC 7617).", .fields = basic_fields, .fields_n = COUNT_OF(basic_fields),
                                        .size = sizeof(struct basic_spec) };

static const struct field bearer_fields[] = { SECRET_FIELD("tokenSecretRef", struct bearer_spec, token, "The token.", .required = true) };
static const struct type bearer_type = { .name = "BearerAuthentication", .help = "A token (RFC 6750).", .fields = bearer_fields, .fields_n = COUNT_OF(bearer_fields),
                                         .size = sizeof(struct bearer_spec) };

static const struct field oauth2_fields[] = {
        { .name = "tokenUrl", .type = FIELD_STRING, .offset = offsetof(struct oauth2_spec, token_url), .required = true, .min = 1, .max = 2048, .pattern = URI_PATTERN,
          .format = "an absolute http or https URL without user name and fragment", .help = "Where tokens are asked for." },
        SECRET_FIELD("clientIdSecretRef", struct oauth2_spec, client_id, "The client's id.", .required = true),
        SECRET_FIELD("clientSecretSecretRef", struct oauth2_spec, client_secret, "The client's secret.", .required = true),
        { .name = "scopes", .type = FIELD_STRINGS, .offset = offsetof(struct oauth2_spec, scopes), .max = 32, .pattern = "^[!-~]+$", .format = "a scope without spaces",
          .help = "Scopes that are asked for." },
        { .name = "audience", .type = FIELD_STRING, .offset = offsetof(struct oauth2_spec, audience), .min = 1, .max = 512, .pattern = "^[!-~]+$",
          .format = "an audience without spaces", .help = "The audience that is asked for, where the server wants one." },
};
static const struct type oauth2_type = { .name = "OAuth2ClientCredentials", .help = "A token by OAuth 2.0's client credentials (RFC 6749, 4.4), asked for again before it expires.",
                                         .fields = oauth2_fields, .fields_n = COUNT_OF(oauth2_fields), .size = sizeof(struct oauth2_spec) };

static const struct field authentication_fields[] = {
        { .name = "basic", .type = FIELD_OBJECT, .offset = offsetof(struct authentication_spec, basic), .object = &basic_type, .help = "A user name and a password." },
        { .name = "bearer", .type = FIELD_OBJECT, .offset = offsetof(struct authentication_spec, bearer), .object = &bearer_type, .help = "A token." },
        { .name = "oauth2", .type = FIELD_OBJECT, .offset = offsetof(struct authentication_spec, oauth2), .object = &oauth2_type, .help = "A token by client credentials." },
};

static bool one_authentication(const void *object)
{
        const struct authentication_spec *a = object;

        return !!a->basic + !!a->bearer + !!a->oauth2 == 1;
}

static const struct rule authentication_rules[] = {
        { .cel = "[has(self.basic), has(self.bearer), has(self.oauth2)].exists_one(given, given)", .message = "exactly one is needed: basic, bearer or oauth2", .check = one_authentication },
};
static const struct type authentication_type = { .name = "Authentication", .help = "How the Trigger shows the function who it is: exactly one of these.", .fields = authentication_fields,
                                                 .fields_n = COUNT_OF(authentication_fields), .rules = authentication_rules, .rules_n = COUNT_OF(authentication_rules),
                                                 .size = sizeof(struct authentication_spec) };

static const struct field tls_fields[] = {
        SECRET_FIELD("caSecretRef", struct tls_spec, ca, "The certificates, in PEM, of the authorities that the receiver's certificate is checked against, instead of the system's."),
        SECRET_FIELD("certSecretRef", struct tls_spec, cert, "A client certificate in PEM, with its chain."),
        SECRET_FIELD("keySecretRef", struct tls_spec, key, "Its key in PEM."),
        { .name = "verifyHostname", .type = FIELD_BOOL, .offset = offsetof(struct tls_spec, verify_hostname), .fallback = "true",
          .help = "false: the certificate may be for another name; it must still come from a trusted authority." },
};

static bool cert_with_key(const void *object)
{
        const struct tls_spec *t = object;

        return !t->cert == !t->key;
}

static const struct rule tls_rules[] = {
        { .cel = "has(self.certSecretRef) == has(self.keySecretRef)", .message = "certSecretRef and keySecretRef go together: give both or none", .check = cert_with_key },
};
static const struct type tls_type = { .name = "TLS", .help = "TLS towards the receiver, beyond the system's authorities.", .fields = tls_fields, .fields_n = COUNT_OF(tls_fields),
                                      .rules = tls_rules, .rules_n = COUNT_OF(tls_rules), .size = sizeof(struct tls_spec) };

static const struct field proxy_fields[] = {
        { .name = "url", .type = FIELD_STRING, .offset = offsetof(struct proxy_spec, url), .required = true, .min = 1, .max = 512,
          .pattern = "^http://([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\]):" PORT_PATTERN "/?$", .format = "http://HOST:PORT", .help = "The proxy, asked to connect (CONNECT) to the receiver." },
        SECRET_FIELD("usernameSecretRef", struct proxy_spec, username, "A user's name for the proxy."),
        SECRET_FIELD("passwordSecretRef", struct proxy_spec, password, "The user's password for the proxy."),
        { .name = "noProxy", .type = FIELD_STRINGS, .offset = offsetof(struct proxy_spec, no_proxy), .max = 64, .pattern = "^[A-Za-z0-9._:*/-]+$",
          .format = "a host, a domain or an address", .help = "Hosts and domains that are called without the proxy." },
};

static bool proxy_credentials(const void *object)
{
        const struct proxy_spec *p = object;

        return !p->username == !p->password;
}

static const struct rule proxy_rules[] = {
        { .cel = "has(self.usernameSecretRef) == has(self.passwordSecretRef)", .message = "usernameSecretRef and passwordSecretRef go together: give both or none",
          .check = proxy_credentials },
};
static const struct type proxy_type = { .name = "Proxy", .help = "A proxy between the worker and the receiver.", .fields = proxy_fields, .fields_n = COUNT_OF(proxy_fields),
                                        .rules = proxy_rules, .rules_n = COUNT_OF(proxy_rules), .size = sizeof(struct proxy_spec) };

/* ---- how much, how often ---------------------------------------------------------------------------------------------------------------- */

static const struct field rate_fields[] = {
        { .name = "eventsPerSecond", .type = FIELD_INT, .offset = offsetof(struct rate_spec, events_per_second), .required = true, .min = 1, .max = 1000000,
          .help = "Events a second, repeated ones included." },
        { .name = "burst", .type = FIELD_INT, .offset = offsetof(struct rate_spec, burst), .fallback = "1", .min = 1, .max = 1000000, .help = "Events that may go at once after a rest." },
};
static const struct type rate_type = { .name = "RateLimit", .help = "The most events a second.", .fields = rate_fields, .fields_n = COUNT_OF(rate_fields), .size = sizeof(struct rate_spec) };

static const struct field batch_fields[] = {
        { .name = "maxMessages", .type = FIELD_INT, .offset = offsetof(struct batch_spec, max_messages), .fallback = "1", .min = 1, .max = 10000,
          .help = "Records that go in one request at most; 1: each by itself." },
        { .name = "maxBytes", .type = FIELD_INT, .offset = offsetof(struct batch_spec, max_bytes), .fallback = "6291456", .min = 1024, .max = 33554432,
          .help = "Bytes of the encoded event at most. A record that is larger by itself goes alone." },
        { .name = "maxWait", .type = FIELD_DURATION, .offset = offsetof(struct batch_spec, max_wait), .fallback = "500ms", .max = 5 * USEC_MINUTE,
          .help = "How long a record waits for others to go with it." },
};
static const struct type batch_type = { .name = "Batch", .help = "Several records in one request.", .fields = batch_fields, .fields_n = COUNT_OF(batch_fields), .size = sizeof(struct batch_spec) };

static const char *const backoff_names[] = { [BACKOFF_EXPONENTIAL] = "Exponential", [BACKOFF_LINEAR] = "Linear", NULL };
static const char *const exhausted_names[] = { [EXHAUSTED_BLOCK] = "Block", [EXHAUSTED_DEAD_LETTER] = "DeadLetter", [EXHAUSTED_DROP] = "Drop", NULL };
static const struct field retry_fields[] = {
        { .name = "maxAttempts", .type = FIELD_INT, .offset = offsetof(struct retry_spec, max_attempts), .fallback = "0", .min = 0, .max = 10000,
          .help = "Attempts in all before onExhausted decides; 0: no limit." },
        { .name = "maxEventAge", .type = FIELD_DURATION, .offset = offsetof(struct retry_spec, max_event_age), .fallback = "0s", .max = 7 * USEC_DAY,
          .help = "How long after it was read an event is still tried again before onExhausted decides; 0s: no limit." },
        { .name = "backoff", .type = FIELD_ENUM, .offset = offsetof(struct retry_spec, backoff), .fallback = "Exponential", .values = backoff_names,
          .help = "How the longest pause grows from failure to failure: Exponential doubles it, Linear adds initialBackoff." },
        { .name = "initialBackoff", .type = FIELD_DURATION, .offset = offsetof(struct retry_spec, initial_backoff), .fallback = "200ms", .min = 10 * USEC_MSEC,
          .max = USEC_MINUTE, .help = "The longest pause after the first failure. Each pause is drawn at random below the longest." },
        { .name = "maxBackoff", .type = FIELD_DURATION, .offset = offsetof(struct retry_spec, max_backoff), .fallback = "30s", .min = 100 * USEC_MSEC, .max = USEC_HOUR,
          .help = "The longest pause there is." },
        { .name = "retryAfterMax", .type = FIELD_DURATION, .offset = offsetof(struct retry_spec, retry_after_max), .fallback = "5m", .max = USEC_DAY,
          .help = "How much of an answer's Retry-After is heeded at most; 0s: nothing." },
        { .name = "onExhausted", .type = FIELD_ENUM, .offset = offsetof(struct retry_spec, on_exhausted), .fallback = "Block", .values = exhausted_names,
          .help = "What becomes of an event that the function finally refused, or for which attempts or age are used up: Block keeps its lane waiting and tries on every maxBackoff, "
                  "DeadLetter hands it to deadLetter, Drop loses it, counted." },
        { .name = "bisect", .type = FIELD_BOOL, .offset = offsetof(struct retry_spec, bisect), .fallback = "false",
          .help = "true: a batch that the function fails on is halved until the record at fault is alone." },
};

static bool backoff_ordered(const void *object)
{
        const struct retry_spec *r = object;

        return r->initial_backoff <= r->max_backoff;
}

static const struct rule retry_rules[] = {
        { .cel = "duration(self.initialBackoff) <= duration(self.maxBackoff)", .path = "initialBackoff", .check = backoff_ordered,
          .message = "initialBackoff must not be longer than maxBackoff" },
};
static const struct type retry_type = { .name = "Retry", .help = "What is done when the function does not accept.", .fields = retry_fields,
                                        .fields_n = COUNT_OF(retry_fields), .rules = retry_rules, .rules_n = COUNT_OF(retry_rules), .size = sizeof(struct retry_spec) };

/* ---- dead letters ----------------------------------------------------------------------------------------------------------------------- */

static const struct field dead_kafka_fields[] = {
        { .name = "bootstrapServers", .type = FIELD_STRINGS, .offset = offsetof(struct dead_letter_kafka, bootstrap_servers), .required = true, .min = 1, .max = 32,
          .pattern = "^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\]):" PORT_PATTERN "$", .format = "HOST:PORT", .help = "Brokers to begin with, each HOST:PORT." },
        { .name = "topic", .type = FIELD_STRING, .offset = offsetof(struct dead_letter_kafka, topic), .required = true, .min = 1, .max = 249, .pattern = KAFKA_TOPIC_PATTERN,
          .format = KAFKA_TOPIC_FORMAT, .help = "The topic." },
};
static const struct type dead_kafka_type = { .name = "DeadLetterKafka", .help = "A Kafka topic.", .fields = dead_kafka_fields, .fields_n = COUNT_OF(dead_kafka_fields),
                                             .size = sizeof(struct dead_letter_kafka) };

static const struct field dead_letter_fields[] = {
        { .name = "ref", .type = FIELD_OBJECT, .offset = offsetof(struct dead_letter_spec, ref), .object = &sink_ref_type, .help = "A Service in the cluster." },
        { .name = "uri", .type = FIELD_STRING, .offset = offsetof(struct dead_letter_spec, uri), .min = 1, .max = 2048, .pattern = "^[!-~]+$",
          .format = "a URI without spaces, others than ASCII percent-encoded", .help = "Where dead letters are POSTed: http://… or https://…, or, with ref, a path on that Service." },
        { .name = "kafka", .type = FIELD_OBJECT, .offset = offsetof(struct dead_letter_spec, kafka), .object = &dead_kafka_type, .help = "A Kafka topic, instead." },
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
        { .cel = "(has(self.ref) || has(self.uri)) != has(self.kafka)", .message = "give ref, uri or both, or else kafka", .check = dead_given },
        { .cel = "!has(self.uri) || self.uri.matches(has(self.ref) ? " QUOTED(PATH_PATTERN) " : " QUOTED(URI_PATTERN) ")", .path = "uri", .check = dead_uri,
          .message = "the URI must be absolute, http://HOST[:PORT]/PATH or https://…, or with ref a path that begins with one /, without fragment" },
};
static const struct type dead_letter_type = { .name = "DeadLetter", .help = "Who receives what the function did not accept.", .fields = dead_letter_fields,
                                              .fields_n = COUNT_OF(dead_letter_fields), .rules = dead_letter_rules, .rules_n = COUNT_OF(dead_letter_rules),
                                              .size = sizeof(struct dead_letter_spec) };

/* ---- delivery --------------------------------------------------------------------------------------------------------------------------- */

static const char *const ordering_names[] = { [ORDERING_PARTITION] = "Partition", [ORDERING_KEY] = "Key", [ORDERING_NONE] = "None", NULL };
const char *const delivery_methods[] = { "POST", "PUT", "PATCH", NULL };
static const char *const version_names[] = { [WIRE_AUTO] = "Auto", [WIRE_HTTP_1_1] = "HTTP/1.1", [WIRE_HTTP_2] = "HTTP/2", NULL };
static const char *const compression_names[] = { [COMPRESSION_NONE] = "None", [COMPRESSION_GZIP] = "Gzip", NULL };
static const struct field delivery_fields[] = {
        { .name = "ordering", .type = FIELD_ENUM, .offset = offsetof(struct delivery_spec, ordering), .fallback = "Partition", .values = ordering_names,
          .help = "What is delivered in order, one request after the other: all of a Partition, those of one Key, or None." },
        { .name = "maxInFlight", .type = FIELD_INT, .offset = offsetof(struct delivery_spec, max_in_flight), .fallback = "32", .min = 1, .max = 1000,
          .help = "The most requests that are under way at once; fewer while the function is slow or overloaded." },
        { .name = "initialInFlight", .type = FIELD_INT, .offset = offsetof(struct delivery_spec, initial_in_flight), .fallback = "8", .min = 1, .max = 1000,
          .help = "How many requests are under way at once before the function has shown what it can take; maxInFlight where that is less." },
        { .name = "rateLimit", .type = FIELD_OBJECT, .offset = offsetof(struct delivery_spec, rate_limit), .object = &rate_type, .help = "The most events a second; by default no limit." },
        { .name = "timeout", .type = FIELD_DURATION, .offset = offsetof(struct delivery_spec, timeout), .fallback = "1m", .min = USEC_SEC, .max = 15 * USEC_MINUTE,
          .help = "How long an attempt may take, from connecting to the end of the answer." },
        { .name = "connectTimeout", .type = FIELD_DURATION, .offset = offsetof(struct delivery_spec, connect_timeout), .fallback = "10s", .min = 100 * USEC_MSEC, .max = USEC_MINUTE,
          .help = "How long connecting may take, TLS included." },
        { .name = "answerTimeout", .type = FIELD_DURATION, .offset = offsetof(struct delivery_spec, answer_timeout), .min = 10 * USEC_MSEC, .max = 15 * USEC_MINUTE,
          .help = "How long the function may take from the end of the request to the end of its answer; by default what timeout leaves." },
        { .name = "method", .type = FIELD_ENUM, .offset = offsetof(struct delivery_spec, method), .fallback = "POST", .values = delivery_methods, .help = "The method of requests." },
        { .name = "headers", .type = FIELD_OBJECTS, .offset = offsetof(struct delivery_spec, headers), .object = &header_type, .max = 32, .help = "Further headers of each request." },
        { .name = "authentication", .type = FIELD_OBJECT, .offset = offsetof(struct delivery_spec, authentication), .object = &authentication_type,
          .help = "How the Trigger shows the function who it is: exactly one of these." },
        { .name = "tls", .type = FIELD_OBJECT, .offset = offsetof(struct delivery_spec, tls), .object = &tls_type, .help = "TLS towards the receiver, beyond the system's authorities." },
        { .name = "proxy", .type = FIELD_OBJECT, .offset = offsetof(struct delivery_spec, proxy), .object = &proxy_type, .help = "A proxy between the worker and the receiver." },
        { .name = "httpVersion", .type = FIELD_ENUM, .offset = offsetof(struct delivery_spec, http_version), .fallback = "Auto", .values = version_names,
          .help = "Auto: HTTP/2 where TLS agrees on it, else HTTP/1.1. HTTP/2: also without TLS, by prior knowledge." },
        { .name = "compression", .type = FIELD_ENUM, .offset = offsetof(struct delivery_spec, compression), .fallback = "None", .values = compression_names,
          .help = "How bodies above 1 KiB are compressed (Content-Encoding)." },
        { .name = "batch", .type = FIELD_OBJECT, .offset = offsetof(struct delivery_spec, batch), .fallback = "{}", .object = &batch_type, .help = "Several records in one request." },
        { .name = "retry", .type = FIELD_OBJECT, .offset = offsetof(struct delivery_spec, retry), .fallback = "{}", .object = &retry_type,
          .help = "What is done when the function does not accept." },
        { .name = "deadLetter", .type = FIELD_OBJECT, .offset = offsetof(struct delivery_spec, dead_letter), .object = &dead_letter_type,
          .help = "Who receives what the function did not accept, with onExhausted: DeadLetter." },
        { .name = "partialFailures", .type = FIELD_BOOL, .offset = offsetof(struct delivery_spec, partial_failures), .fallback = "false",
          .help = "true: a 2xx answer {\"batchItemFailures\": [{\"itemIdentifier\": ID}]} names the records of a batch that failed, by id or by place from 0; the others are accepted." },
};

static bool dead_letter_there(const void *object)
{
        const struct delivery_spec *d = object;

        return !d->retry || (d->retry->on_exhausted == EXHAUSTED_DEAD_LETTER) == (d->dead_letter != NULL);
}

static bool batch_for_parts(const void *object)
{
        const struct delivery_spec *d = object;

        return !d->batch || !d->retry || d->batch->max_messages > 1 || !(d->partial_failures || d->retry->bisect);
}

static bool answer_within(const void *object)
{
        const struct delivery_spec *d = object;

        return d->answer_timeout <= d->timeout;
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
        { .cel = "!has(self.authentication) || !has(self.headers) || !self.headers.exists(h, h.name.matches(r'(?i)^authorization$'))", .path = "headers", .check = one_authorization,
          .message = "Authorization is what authentication writes: give one of them" },
        { .cel = "!has(self.answerTimeout) || duration(self.answerTimeout) <= duration(self.timeout)", .path = "answerTimeout", .check = answer_within,
          .message = "answerTimeout must not be above timeout, which bounds the whole attempt" },
        { .cel = "(self.retry.onExhausted == 'DeadLetter') == has(self.deadLetter)", .path = "deadLetter", .check = dead_letter_there,
          .message = "deadLetter and retry.onExhausted: DeadLetter go together: give both or none" },
        { .cel = "self.batch.maxMessages > 1 || !(self.partialFailures || self.retry.bisect)", .path = "batch", .check = batch_for_parts,
          .message = "partialFailures and retry.bisect need a batch: give batch.maxMessages above 1" },
};
const struct type delivery_type = { .name = "Delivery", .help = "How events are delivered.", .fields = delivery_fields, .fields_n = COUNT_OF(delivery_fields),
                                    .rules = delivery_rules, .rules_n = COUNT_OF(delivery_rules), .size = sizeof(struct delivery_spec) };

const struct type *const delivery_types[] = { &delivery_type, &secret_ref_type, &header_type, &basic_type, &bearer_type, &oauth2_type, &authentication_type, &tls_type, &proxy_type,
                                              &rate_type, &batch_type, &retry_type, &dead_kafka_type, &dead_letter_type, NULL };
