/* The source as a worker drives it, with keys and certificates of the test's own: what is accepted, what is
 * refused, once each, and FunctionGraph's event. */
#include <jansson.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/random.h"
#include "source/smn/smn.h"

#include <cmocka.h>

#include "tests/sim/memory.h"
#include "tests/support/clock.h"
#include "tests/support/identity.h"
#include "tests/support/trigger.h"

#define REGION "xx-xxxxx-x"
#define HOST "https://smn." REGION ".myhuaweicloud.com"
#define PATH "/smn/SMN_" REGION "_"
#define GOOD HOST PATH "0123456789abcdef0123456789ABCDEF.pem"
#define EXPIRED HOST PATH "0123456789abcdef0123456789abcde0.pem"
#define ELLIPTIC HOST PATH "0123456789abcdef0123456789abcde1.pem"
#define MISSING HOST PATH "0123456789abcdef0123456789abcde2.pem"
#define PROJECT "bb8695913bb74682b9ca82a8803b60d8"
static char urn[] = "urn:smn:" REGION ":" PROJECT ":serverless_Test", function_name[] = "test";
static char function_urn[] = "urn:fss:xx-xxxxx-xxx:" PROJECT ":function:default:obsTrigger-Test1:latest";

static struct function_spec function = { .name = function_name };
static struct event_spec event_of_trigger;
static struct smn_spec spec = { .topic_urn = urn, .timeout = 4 * USEC_SEC };
static struct trigger trigger = TEST_TRIGGER("topic", .source_spec = &spec, .function = &function,
                                             .event = &event_of_trigger);
static struct services services;
static struct loop *loop;
static struct task wake;
static struct source *source;
static EVP_PKEY *key, *other_key, *elliptic_key;
static struct buf good_pem, expired_pem, elliptic_pem;
static struct random r;

/* ---- time --------------------------------------------------------------- */

static struct set_clock test_time;
static const struct clock test_clock = SET_CLOCK(&test_time);

/* ---- what is fetched ---------------------------------------------------- */

static struct {
        struct fetch_request *request; /* NULL: it is answered, or cancelled */
        char url[4096];
} asked[256];
static size_t asked_n;
static bool hold_answers;
static int confirm_status = 200;

static int test_submit(void *cookie UNUSED, struct fetch_request *q, struct error *err UNUSED)
{
        assert_true(asked_n < COUNT_OF(asked));
        request_begin(&q->request);
        q->answer.max = q->answer_max;
        buf_reset(&q->answer);
        asked[asked_n].request = q;
        (void)snprintf(asked[asked_n++].url, sizeof(asked[0].url), STR_FMT, STR_ARG(q->url));
        return 0;
}

static void test_cancel(void *cookie UNUSED, struct fetch_request *q)
{
        for (size_t i = 0; i < asked_n; i++)
                if (asked[i].request == q)
                        asked[i].request = NULL;
}

static bool answer_fetches(void)
{
        bool any = false;

        for (size_t i = 0; i < asked_n && !hold_answers; i++) {
                struct fetch_request *q = TAKE(asked[i].request);
                const char *url = asked[i].url;

                if (!q)
                        continue;
                q->status = 200;
                if (strcmp(url, GOOD) == 0)
                        buf_str(&q->answer, buf_view(&good_pem));
                else if (strcmp(url, EXPIRED) == 0)
                        buf_str(&q->answer, buf_view(&expired_pem));
                else if (strcmp(url, ELLIPTIC) == 0)
                        buf_str(&q->answer, buf_view(&elliptic_pem));
                else if (strcmp(url, HOST "/confirm?token=1") == 0)
                        q->status = confirm_status;
                else
                        q->status = 404;
                request_end(&q->request, loop);
                any = true;
        }
        return any;
}

static const struct fetch_ops test_fetch = { test_submit, test_cancel };

/* ---- keys --------------------------------------------------------------- */

static void make_certificate(EVP_PKEY *k, long days, struct buf *pem)
{
        const int64_t day = 86400, then = 1510718400; /* 2017-11-15 */
        struct identity i = identity_new(
                (struct identity_config){ .key = k, .from = 1500000000, .until = then + days * day });

        identity_pem(&i, false, pem);
        identity_done(&i);
}

static int group_setup(void **state UNUSED)
{
        struct error err;

        key = EVP_RSA_gen(2048);
        other_key = EVP_RSA_gen(2048);
        elliptic_key = EVP_EC_gen("P-256");
        make_certificate(key, 30, &good_pem);
        make_certificate(key, -30, &expired_pem);
        make_certificate(elliptic_key, 30, &elliptic_pem);
        return loop_new(&loop, &err);
}

static int group_teardown(void **state UNUSED)
{
        EVP_PKEY_free(key);
        EVP_PKEY_free(other_key);
        EVP_PKEY_free(elliptic_key);
        buf_done(&good_pem);
        buf_done(&expired_pem);
        buf_done(&elliptic_pem);
        loop = loop_free(loop);
        return 0;
}

static void no_turn(struct task *t UNUSED, usec now UNUSED) {}

static int setup(void **state UNUSED)
{
        struct error err;

        asked_n = 0;
        hold_answers = false;
        confirm_status = 200;
        test_time.wall = 1510718400 * USEC_SEC; /* 2017-11-15T04:00:00Z */
        test_time.monotonic = USEC_HOUR;
        wake = (struct task){ .turn = no_turn };
        services = (struct services){ .loop = loop,
                                      .clock = &test_clock,
                                      .trigger = &trigger,
                                      .fetch = { &test_fetch, NULL },
                                      .wake = &wake };
        random_init(&r, 1);
        return smn_source.open(&source, &spec, &services, &err);
}

static int teardown(void **state UNUSED)
{
        source = smn_source.push->free(source);
        loop_forget(loop, &wake);
        return 0;
}

/* ---- messages ----------------------------------------------------------- */

static json_t *set(json_t *body, const char *member, const char *value)
{
        assert_int_equal(json_object_set_new(body, member, json_string(value)), 0);
        return body;
}

static void sign_text(json_t *body, EVP_PKEY *by, struct str text)
{
        unsigned char signature[512];
        size_t n = sizeof(signature);
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        BUF_AT_END struct buf base64 = BUF_INIT(4096);

        assert_int_equal(EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, by), 1);
        assert_int_equal(EVP_DigestSign(context, signature, &n, (const unsigned char *)text.p, text.n), 1);
        EVP_MD_CTX_free(context);
        buf_base64(&base64, (struct str){ (const char *)signature, n });
        set(body, "signature", base64.p);
}

/* As SMN does it, written down once more: not by the code under test. */
static void sign(json_t *body, EVP_PKEY *by, bool with_subject)
{
        static const char *const names[] = { "message",   "message_id", "subject", "subscribe_url",
                                             "timestamp", "topic_urn",  "type" };
        bool message = strcmp(json_string_value(json_object_get(body, "type")), "Notification") == 0;
        BUF_AT_END struct buf text = BUF_INIT(1 << 20);

        for (size_t i = 0; i < COUNT_OF(names); i++) {
                const char *value = json_string_value(json_object_get(body, names[i]));

                if (i == 2 ? !message || !with_subject : i == 3 ? message : false)
                        continue;
                buf_printf(&text, "%s\n%s\n", names[i], value ? value : "");
        }
        sign_text(body, by, buf_view(&text));
}

static void time_of(usec wall, char out[32])
{
        BUF_AT_END struct buf text = BUF_INIT(64);

        time_format(&text, wall / USEC_SEC * USEC_SEC);
        (void)snprintf(out, 32, "%s", text.p);
}

static json_t *message(const char *text, const char *subject)
{
        static uint64_t number;
        json_t *body = json_object();
        char id[33], at[32];

        (void)snprintf(id, sizeof(id), "%032llx", (unsigned long long)++number);
        time_of(test_time.wall, at);
        set(body, "signature", "");
        set(body, "topic_urn", urn);
        set(body, "message_id", id);
        set(body, "signature_version", "v1");
        set(body, "type", "Notification");
        set(body, "message", text);
        if (subject)
                set(body, "subject", subject);
        set(body, "unsubscribe_url", HOST "/unsubscribe");
        set(body, "signing_cert_url", GOOD);
        set(body, "timestamp", at);
        return body;
}

/* ---- calls -------------------------------------------------------------- */

static struct {
        const char *type, *id, *topic;
} headers;
static struct str test_header(const struct push_request *q UNUSED, const char *header)
{
        return str_equal_nocase(str_of(header), STR("X-SMN-Message-Type")) ? str_of(headers.type)
               : str_equal_nocase(str_of(header), STR("X-SMN-Message-Id")) ? str_of(headers.id)
               : str_equal_nocase(str_of(header), STR("X-SMN-Topic-Urn"))  ? str_of(headers.topic)
                                                                           : (struct str){ 0 };
}

static struct push_reply reply_space;
static uint64_t next_call;
static size_t delivered;
static struct {
        uint64_t call;
        struct record *record;
} lent[64];
static size_t lent_n;
static int statuses[4096]; /* of calls, by number; 0: none yet */
static char state_text[512];
static enum source_state state;
static struct buf event_text, document_text;
static enum push_result outcome = PUSH_ACCEPTED;
static bool keep;

static void reset_reply(void)
{
        reply_space.headers.max = reply_space.body.max = 4096;
        buf_reset(&reply_space.headers);
        buf_reset(&reply_space.body);
        reply_space.status = 0;
}

static void finish_as(uint64_t call, struct record *record, enum push_result result)
{
        struct push_outcome o = { .result = result };

        reset_reply();
        smn_source.push->finish(source, call, &record, 1, &o, &reply_space);
        statuses[call] = reply_space.status;
}

static void poll_all(void)
{
        struct push_event events[64];
        bool more;
        size_t n;

        do {
                more = answer_fetches();
                n = smn_source.push->poll(source, events, COUNT_OF(events), test_time.monotonic);
                for (size_t i = 0; i < n; i++) {
                        const struct push_event *e = &events[i];

                        if (e->kind == PUSH_EVENT_STATE) {
                                state = e->state;
                                (void)snprintf(state_text, sizeof(state_text), "%s", e->text);
                        } else if (e->kind == PUSH_EVENT_CALL && e->verdict == PUSH_REPLY)
                                statuses[e->call] = e->reply->status;
                        else if (e->kind == PUSH_EVENT_CALL) {
                                struct writer w;

                                delivered++;
                                event_text.max = document_text.max = 1 << 20;
                                buf_reset(&event_text);
                                buf_reset(&document_text);
                                writer_init(&w, &event_text);
                                trigger.event->dialect = DIALECT_CLASSIC;
                                smn_source.shape->encode(&trigger, e->records, e->n, &w);
                                writer_init(&w, &document_text);
                                smn_source.shape->describe(e->records[0], &w);
                                if (keep) {
                                        lent[lent_n].call = e->call;
                                        lent[lent_n++].record = e->records[0];
                                } else
                                        finish_as(e->call, e->records[0], outcome);
                        }
                }
        } while (more || n);
}

/* Sends and polls; the status so far. */
static struct str client; /* whose call it is */
/* Of the source's allocations this one fails, or all from there on; 0: none. */
static uint64_t starve;
static bool starve_for_good;
static uint64_t send_text(struct str body)
{
        struct push_request q = { .method = STR("POST"),
                                  .path = STR("/shop/topic"),
                                  .body = body,
                                  .client = client,
                                  .header = test_header };
        struct record *records[PUSH_RECORDS_MOST];
        uint64_t call = ++next_call;
        size_t n = COUNT_OF(records);

        assert_true(call < COUNT_OF(statuses));
        statuses[call] = 0;
        reset_reply();
        memory_fails(starve, starve_for_good);
        if (smn_source.push->receive(source, call, &q, records, &n, &reply_space) == PUSH_REPLY)
                statuses[call] = reply_space.status;
        poll_all();
        memory_fails(0, false);
        return call;
}

static uint64_t send(const json_t *body)
{
        FREE_AT_END char *text = json_dumps(body, 0);

        headers.type = json_string_value(json_object_get(body, "type"));
        headers.id = json_string_value(json_object_get(body, "message_id"));
        headers.topic = json_string_value(json_object_get(body, "topic_urn"));
        return send_text(str_of(text));
}

/* ---- generated ---------------------------------------------------------- */

static const char *random_text(char *out, size_t most, bool lines)
{
        static const char *const pieces[] = { "a",
                                              "Z",
                                              " ",
                                              "\"",
                                              "\\",
                                              "\xc3\xa4",
                                              "\xe6\xb6\x88\xe6\x81\xaf",
                                              "\xf0\x9f\x98\x80",
                                              "message",
                                              "{\"a\":1}",
                                              "\t",
                                              "subject" };
        size_t n = random_below(&r, most), used = 0;

        for (size_t i = 0; i < n; i++) {
                const char *piece = lines && random_below(&r, 6) == 0
                                            ? "\n"
                                            : pieces[random_below(&r, COUNT_OF(pieces))];

                memcpy(out + used, piece, strlen(piece));
                used += strlen(piece);
        }
        out[used] = 0;
        return out;
}

static json_t *reordered(json_t *body)
{
        static const char *const order[] = { "type",           "timestamp",  "signing_cert_url",
                                             "message",        "message_id", "subject",
                                             "topic_urn",      "signature",  "signature_version",
                                             "unsubscribe_url" };
        json_t *other = json_object();

        for (size_t i = 0; i < COUNT_OF(order); i++)
                if (json_object_get(body, order[i]))
                        (void)json_object_set(other, order[i], json_object_get(body, order[i]));
        json_decref(body);
        return other;
}

static void flip(json_t *body)
{
        const char *old = json_string_value(json_object_get(body, "signature"));
        char text[600];
        size_t at = random_below(&r, strlen(old) - 4);

        (void)snprintf(text, sizeof(text), "%s", old);
        text[at] = text[at] == 'A' ? 'B' : 'A';
        set(body, "signature", text);
}

enum {
        AS_IT_IS,
        FORGED,
        OTHER_KEY,
        SHORT_SIGNATURE,
        NO_BASE64,
        REORDERED,
        DUPLICATED,
        REPLAYED,
        FUTURE,
        BARELY,
        OTHER_TOPIC,
        OTHER_TYPE,
        UNKNOWN_TYPE,
        NO_SUBJECT,
        EMPTY_SUBJECT,
        EMPTY_SIGNED,
        LINES_IN_SUBJECT,
        SUBJECT_ADDED,
        SUBJECT_TAKEN,
        SUBJECT_CHANGED,
        OTHERS_SIGNATURE,
        VERSION_2,
        NO_VERSION,
        MESSAGE_CHANGED,
        ID_CHANGED,
        TIME_CHANGED,
        CUT_SHORT,
        MEMBER_TWICE,
        MESSAGE_A_NUMBER,
        HEADER_TYPE,
        HEADER_ID,
        HEADER_TOPIC,
        NO_HEADERS,
        MORE_MEMBERS,
        MUTATIONS
};

/* A message before anything is done to it. */
static json_t *whole_message(unsigned mutation)
{
        bool empty = mutation == EMPTY_SUBJECT || mutation == EMPTY_SIGNED;
        char text[2048], subject[512];
        json_t *body = message(random_text(text, 60, true), mutation == NO_SUBJECT ? NULL
                                                            : empty                ? ""
                                                                    : random_text(subject, 30, false));
        const char *subject_value = json_string_value(json_object_get(body, "subject"));

        if (subject_value && !subject_value[0] && !empty)
                set(body, "subject", "s");
        sign(body, key, mutation != NO_SUBJECT && mutation != EMPTY_SUBJECT);
        return body;
}

static void sign_as_of(json_t *body, usec time)
{
        char at[32];

        time_of(time, at);
        sign(set(body, "timestamp", at), key, true);
}

static void take_signature_of_another(json_t *body)
{
        json_t *other = message("another", "s");

        sign(other, key, true);
        (void)json_object_set(body, "signature", json_object_get(other, "signature"));
        json_decref(other);
}

/* What is changed and signed again, with some key. Returns what is to be answered; 0: it is no such one. */
static int mutate_and_sign(unsigned mutation, json_t *body)
{
        switch (mutation) {
        case OTHER_KEY: sign(body, other_key, true); return 403;
        case REPLAYED: sign_as_of(body, test_time.wall - USEC_HOUR - USEC_SEC); return 403;
        case FUTURE: sign_as_of(body, test_time.wall + 15 * USEC_MINUTE + USEC_SEC); return 403;
        case BARELY: sign_as_of(body, test_time.wall - USEC_HOUR); return 200;
        case OTHER_TOPIC:
                sign(set(body, "topic_urn", "urn:smn:" REGION ":" PROJECT ":other"), key, true);
                return 403;
        case UNKNOWN_TYPE: sign(set(body, "type", "Other"), key, true); return 400;
        case LINES_IN_SUBJECT: sign(set(body, "subject", "two\nlines"), key, true); return 200;
        case SUBJECT_ADDED: sign(body, key, false); return 403;
        default: return 0;
        }
}

static int mutate(unsigned mutation, json_t **body)
{
        char at[32];

        switch (mutation) {
        case AS_IT_IS:
        case NO_SUBJECT:
        case EMPTY_SUBJECT: return 200;
        case EMPTY_SIGNED: return 403;
        case REORDERED: *body = reordered(*body); return 200;
        case MORE_MEMBERS: set(*body, "something", "new"); return 200;
        case FORGED: flip(*body); return 403;
        case SHORT_SIGNATURE: set(*body, "signature", "AAAA"); return 403;
        case NO_BASE64: set(*body, "signature", "!!!!"); return 403;
        case OTHER_TYPE:
                set(set(*body, "type", "SubscriptionConfirmation"), "subscribe_url", HOST "/confirm?token=1");
                return 403;
        case SUBJECT_TAKEN: (void)json_object_del(*body, "subject"); return 403;
        case SUBJECT_CHANGED: set(*body, "subject", "another"); return 403;
        case OTHERS_SIGNATURE: take_signature_of_another(*body); return 403;
        case VERSION_2: set(*body, "signature_version", "v2"); return 403;
        case NO_VERSION: (void)json_object_del(*body, "signature_version"); return 403;
        case MESSAGE_CHANGED: set(*body, "message", "changed"); return 403;
        case ID_CHANGED: set(*body, "message_id", "ffffffffffffffffffffffffffffffff"); return 403;
        case TIME_CHANGED:
                time_of(test_time.wall - USEC_SEC, at);
                set(*body, "timestamp", at);
                return 403;
        case MESSAGE_A_NUMBER: (void)json_object_set_new(*body, "message", json_integer(1)); return 400;
        default: return 400; /* of the text, and of the headers */
        }
}

/* Its headers, and its text as it goes over the wire. */
static uint64_t send_mutated(unsigned mutation, const json_t *body)
{
        BUF_AT_END struct buf text = BUF_INIT(1 << 20);
        FREE_AT_END char *plain = json_dumps(body, 0);

        headers.type = mutation == HEADER_TYPE ? "SubscriptionConfirmation"
                                               : json_string_value(json_object_get(body, "type"));
        headers.id = mutation == HEADER_ID ? "0" : json_string_value(json_object_get(body, "message_id"));
        headers.topic = mutation == HEADER_TOPIC ? "urn:smn:" REGION ":" PROJECT ":other"
                                                 : json_string_value(json_object_get(body, "topic_urn"));
        if (mutation == NO_HEADERS)
                headers.type = headers.id = headers.topic = NULL;
        buf_text(&text, plain);
        if (mutation == CUT_SHORT || mutation == MEMBER_TWICE)
                text.n--;
        if (mutation == MEMBER_TWICE)
                buf_text(&text, " , \"message\": \"other\"}");
        return send_text(buf_view(&text));
}

static void mutated(unsigned mutation)
{
        json_t *body = whole_message(mutation);
        size_t before = delivered;
        int status;
        uint64_t call;

        if (mutation == DUPLICATED) {
                for (int i = 0; i < 2; i++) {
                        assert_int_equal(statuses[send(body)], 200);
                        assert_int_equal(delivered, before + 1);
                }
                json_decref(body);
                return;
        }
        if (!(status = mutate_and_sign(mutation, body)))
                status = mutate(mutation, &body);
        call = send_mutated(mutation, body);
        if (statuses[call] != status) {
                FREE_AT_END char *plain = json_dumps(body, 0);

                fail_msg("mutation %u: %d, expected %d: %s", mutation, statuses[call], status, plain);
        }
        assert_int_equal(delivered, before + (status == 200));
        json_decref(body);
}

static void what_is_right_is_accepted_and_nothing_else(void **unused UNUSED)
{
        for (unsigned i = 0; i < 10 * MUTATIONS; i++)
                mutated(i % MUTATIONS);
        assert_int_equal(asked_n, 1); /* the certificate, once */
        assert_int_equal(state, SOURCE_CONNECTED);
        test_time.monotonic += USEC_MINUTE;
        mutated(FORGED);
        assert_non_null(strstr(state_text, "refused: bad signature, "));
        mutated(DUPLICATED); /* which is accepted */
        assert_string_equal(state_text, "");
}

static void certificates_come_from_smn_alone(void **unused UNUSED)
{
        static const struct {
                const char *url;
                int status;
        } urls[] = {
                ROW(GOOD, 200),
                ROW(EXPIRED, 403),
                ROW(ELLIPTIC, 503),
                ROW(MISSING, 503),
                ROW("http://smn." REGION ".myhuaweicloud.com" PATH "0123456789abcdef0123456789abcdef.pem",
                    403),
                ROW("https://smn.other.myhuaweicloud.com" PATH "0123456789abcdef0123456789abcdef.pem", 403),
                ROW("https://smn." REGION ".myhuaweicloud.com.evil.test" PATH
                    "0123456789abcdef0123456789abcdef.pem",
                    403),
                ROW("https://smn." REGION ".myhuaweicloud.com:8443" PATH
                    "0123456789abcdef0123456789abcdef.pem",
                    403),
                ROW("https://smn." REGION ".myhuaweicloud.com." PATH "0123456789abcdef0123456789abcdef.pem",
                    403),
                ROW("https://a@smn." REGION ".myhuaweicloud.com" PATH "0123456789abcdef0123456789abcdef.pem",
                    403),
                ROW("https://smn." REGION ".myhuaweicloud.com@evil.test" PATH
                    "0123456789abcdef0123456789abcdef.pem",
                    403),
                ROW(HOST "/smn/SMN_other_0123456789abcdef0123456789abcdef.pem", 403),
                ROW(HOST PATH "0123456789abcdef0123456789abcde.pem", 403),
                ROW(HOST PATH "0123456789abcdef0123456789abcdefa.pem", 403),
                ROW(HOST PATH "0123456789abcdef0123456789abcdeg.pem", 403),
                ROW(HOST PATH "0123456789abcdef0123456789abcdef.pem?a", 403),
                ROW(HOST PATH "0123456789abcdef0123456789abcdef.pem/..", 403),
                ROW(HOST "/smn/../user" PATH "0123456789abcdef0123456789abcdef.pem", 403),
                ROW(HOST "/smn/SMN_" REGION "_../../../../../../../../../../x.pem", 403),
                ROW(HOST "//smn/SMN_" REGION "_0123456789abcdef0123456789abcdef.pem", 403),
                ROW(HOST, 403),
                ROW("https://", 403),
                ROW("file:///etc/passwd", 403),
        };

        for (size_t i = 0; i < COUNT_OF(urls); i++) {
                json_t *body = message("m", "s");
                uint64_t call;

                sign(set(body, "signing_cert_url", urls[i].url), key, true);
                call = send(body);
                if (statuses[call] != urls[i].status)
                        fail_msg("%s: %d", urls[i].url, statuses[call]);
                json_decref(body);
        }
        assert_int_equal(asked_n, 4);
        /* What failed is asked for again after a while, not at once. */
        for (int i = 0; i < 3; i++) {
                json_t *body = message("m", "s");

                sign(set(body, "signing_cert_url", MISSING), key, true);
                assert_int_equal(statuses[send(body)], 503);
                json_decref(body);
                test_time.monotonic += 2 * USEC_SEC;
        }
        assert_int_equal(asked_n, 5);
}

/* Not every region's SMN is below myhuaweicloud.com. */
static void certificates_and_confirmations_come_from_the_region_s_own_host(void **unused UNUSED)
{
        static const struct {
                const char *region, *host;
                int status;
        } table[] = {
                ROW("eu-west-101", "smn.eu-west-101.myhuaweicloud.eu", 503),
                ROW("eu-west-101", "smn.eu-west-101.myhuaweicloud.com", 403),
                ROW("cn-north-2", "smn.cn-north-2.myhuaweicloud.cn", 503),
                ROW("cn-north-2", "smn.cn-north-2.myhuaweicloud.com", 403),
                ROW("cn-north-4", "smn.cn-north-4.myhuaweicloud.com", 503),
                ROW("cn-north-4", "smn.cn-north-4.myhuaweicloud.eu", 403),
        };
        struct error err;

        for (size_t i = 0; i < COUNT_OF(table); i++) {
                char topic[128], url[256];
                struct smn_spec regional = spec;
                json_t *body = message("m", "s");

                source = smn_source.push->free(source);
                asked_n = 0;
                (void)snprintf(topic, sizeof(topic), "urn:smn:%s:" PROJECT ":topic", table[i].region);
                regional.topic_urn = topic;
                assert_int_equal(smn_source.open(&source, &regional, &services, &err), 0);
                (void)snprintf(url, sizeof(url), "https://%s/smn/SMN_%s_0123456789abcdef0123456789abcdef.pem",
                               table[i].host, table[i].region);
                set(set(body, "topic_urn", topic), "signing_cert_url", url);
                set(body, "signature", "bm9uZQ==");
                /* asked for, though not there; or not even asked for */
                assert_int_equal(statuses[send(body)], table[i].status);
                assert_int_equal(asked_n, table[i].status == 503);
                json_decref(body);
                source = smn_source.push->free(source); /* before its spec */
        }
}

/* Nobody has signed anything yet when it is asked for. */
static void at_a_trusted_host_too_nothing_but_a_certificate_is_asked_for(void **unused UNUSED)
{
        static char host[] = "cloud.example.test:8443";
        static char *hosts[] = { host };
        static struct trusted_spec trusted = { .hosts = { .list = hosts, .n = 1 } };
        struct smn_spec private = spec;
        static const struct {
                const char *url;
                int status;
        } urls[] = {
                { "https://cloud.example.test:8443/", 403 },
                { "https://cloud.example.test:8443/restart?now=1", 403 },
                { "https://cloud.example.test:8443/logout", 403 },
                { "https://cloud.example.test:8443/a/../b.pem", 403 },
                { "https://cloud.example.test:8443/a%2fb.pem", 403 },
                { "https://cloud.example.test:8443/a;b.pem", 403 },
                { "https://cloud.example.test:8443/.pemx", 403 },
                /* asked for; it is not there */
                { "https://cloud.example.test:8443/certificates/smn.pem", 503 },
                { "https://cloud.example.test:8443" PATH "0123456789abcdef0123456789abcdef.pem?a=b", 403 },
                { "https://cloud.example.test:8443" PATH "0123456789abcdef0123456789abcdef.pem#a", 403 },
                { "https://cloud.example.test" PATH "0123456789abcdef0123456789abcdef.pem", 403 },
                /* asked for; it is not there */
                { "https://cloud.example.test:8443" PATH "0123456789abcdef0123456789abcdef.pem", 503 },
        };
        struct error err;

        source = smn_source.push->free(source);
        private.trusted = &trusted;
        assert_int_equal(smn_source.open(&source, &private, &services, &err), 0);
        for (size_t i = 0; i < COUNT_OF(urls); i++) {
                json_t *body = message("m", "s");
                uint64_t call = send(
                        set(set(body, "signature", "bm9uZQ=="), "signing_cert_url", urls[i].url));

                if (statuses[call] != urls[i].status)
                        fail_msg("%s: %d", urls[i].url, statuses[call]);
                json_decref(body);
        }
        assert_int_equal(asked_n, 2);
        source = smn_source.push->free(source); /* before its spec */
}

/* "message_id" within a text could make two messages of one signature. */
static void what_is_signed_is_read_in_one_way(void **unused UNUSED)
{
        json_t *body = message("a\nmessage_id\n0123456789abcdef\nsubject\nb", NULL);
        const char *id = json_string_value(json_object_get(body, "message_id"));
        char subject[128];

        sign(body, key, false);
        (void)snprintf(subject, sizeof(subject), "b\nmessage_id\n%s", id);
        assert_int_equal(statuses[send(body)], 200);
        set(set(set(body, "message", "a"), "subject", subject), "message_id", "0123456789abcdef");
        assert_int_equal(statuses[send(body)], 400);
        json_decref(body);
}

static void several_wait_for_one_certificate(void **unused UNUSED)
{
        json_t *bodies[5];
        uint64_t calls[5];

        hold_answers = true;
        for (size_t i = 0; i < 5; i++) {
                bodies[i] = message("m", "s");
                sign(bodies[i], key, true);
                calls[i] = send(bodies[i]);
                assert_int_equal(statuses[calls[i]], 0);
        }
        assert_int_equal(asked_n, 1);
        smn_source.push->gone(source, calls[4]);
        hold_answers = false;
        poll_all();
        for (size_t i = 0; i < 4; i++)
                assert_int_equal(statuses[calls[i]], 200);
        assert_int_equal(statuses[calls[4]], 0);
        for (size_t i = 0; i < 5; i++)
                json_decref(bodies[i]);
}

static void a_certificate_that_never_comes_is_not_waited_for(void **unused UNUSED)
{
        json_t *body = message("m", "s");
        uint64_t call;

        hold_answers = true;
        sign(body, key, true);
        call = send(body);
        assert_int_equal(smn_source.push->deadline(source), test_time.monotonic + spec.timeout);
        test_time.monotonic += spec.timeout;
        poll_all();
        assert_int_equal(statuses[call], 503);
        json_decref(body);
}

static uint64_t unsigned_one(struct str from)
{
        static unsigned number;
        json_t *body = message("m", "s");
        char url[256];
        uint64_t call;

        (void)snprintf(url, sizeof(url), HOST PATH "%032x.pem", ++number);
        client = from;
        call = send(set(set(body, "signing_cert_url", url), "signature", "AAAA"));
        client = (struct str){ 0 };
        json_decref(body);
        return call;
}

static uint64_t signed_one(struct str from)
{
        json_t *body = message("m", "s");
        uint64_t call;

        sign(body, key, true);
        client = from;
        call = send(body);
        client = (struct str){ 0 };
        json_decref(body);
        return call;
}

/* Whether their certificates hang or do not exist. */
static void strangers_crowd_out_no_certificate_that_was_good(void **unused UNUSED)
{
        assert_int_equal(statuses[signed_one(STR("192.0.2.1"))], 200);
        for (int hang = 0; hang < 2; hang++) {
                hold_answers = hang;
                for (int i = 0; i < 100; i++) {
                        /* SMN's own address, too: a proxy may hide them all */
                        (void)unsigned_one(i % 2 ? STR("192.0.2.1") : STR("198.51.100.1"));
                        test_time.monotonic += 1000;
                        assert_int_equal(statuses[signed_one(STR("192.0.2.1"))], 200);
                }
        }
        for (size_t i = 1; i < asked_n; i++)
                assert_string_not_equal(asked[i].url, GOOD);
}

/* Whatever allocation fails, alone or with all after it: the sender hears 200 only of what was delivered, and
 * the next message is. */
static void without_memory_no_message_is_lost(void **unused UNUSED)
{
        for (int for_good = 0; for_good < 2; for_good++)
                for (uint64_t at = 1;; at++) {
                        uint64_t before = delivered, call;
                        bool failed;

                        test_time.monotonic +=
                                USEC_MINUTE; /* a certificate that did not come is asked for again */
                        starve = at;
                        starve_for_good = for_good;
                        call = signed_one(STR("192.0.2.1"));
                        starve = 0;
                        failed = memory_failed();
                        if (statuses[call] == 200)
                                assert_int_equal(delivered, before + 1);
                        else if (statuses[call] < 500)
                                fail_msg("allocation %d: %d", (int)at, statuses[call]);
                        test_time.monotonic += USEC_MINUTE;
                        assert_int_equal(statuses[signed_one(STR("192.0.2.1"))], 200);
                        if (!failed)
                                break;
                }
}

static size_t under_way(void)
{
        size_t n = 0;

        for (size_t i = 0; i < asked_n; i++)
                n += asked[i].request != NULL;
        return n;
}

/* One address has two fetches at most, strangers together four; those whose messages were signed always find
 * one. */
static void strangers_use_up_a_part_of_the_fetches(void **unused UNUSED)
{
        assert_int_equal(statuses[signed_one(STR("192.0.2.1"))], 200);
        hold_answers = true;
        for (int i = 0; i < 5; i++)
                (void)unsigned_one(STR("198.51.100.1"));
        assert_int_equal(under_way(), 2);
        for (int i = 0; i < 5; i++)
                (void)unsigned_one(STR("198.51.100.2"));
        assert_int_equal(under_way(), 4);
        assert_int_equal(statuses[unsigned_one(STR("198.51.100.3"))], 503);
        assert_int_equal(under_way(), 4);
        assert_int_equal(statuses[unsigned_one(STR("192.0.2.1"))], 0);
        assert_int_equal(under_way(), 5);
}

/* What is kept of a notification is what is signed, whatever else its body holds. */
static void what_waits_is_no_larger_than_what_came(void **unused UNUSED)
{
        static const char *const fillers[] = { "[]", "{}", "0", "\"\"", "{\"a\":[0,[{}]]}" };
        BUF_AT_END struct buf body = BUF_INIT(1 << 20);
        struct notification n;
        const char *why;

        for (size_t i = 0; i < COUNT_OF(fillers); i++) {
                buf_reset(&body);
                buf_printf(&body, "{\"x\":[%s", fillers[i]);
                for (int k = 0; k < 10000; k++)
                        buf_printf(&body, ",%s", fillers[i]);
                buf_printf(&body, "],\"type\":\"Notification\",\"message_\\u0069d\":\"m\",\"topic_urn\":"
                                  "\"u\",\"message\":\"\\u00e4\\n\",\"timestamp\":\"2017-11-15T04:02:24Z\","
                                  "\"signing_cert_url\":\"c\","
                                  "\"signature\":\"AAAA\",\"signature_version\":\"v1\",\"subject\":null}");
                if (notification_parse(buf_view(&body), &n, &why) < 0)
                        fail_msg("%s", why);
                assert_true(str_is(n.message_id, "m") && str_is(n.message, "\xc3\xa4\n") && !n.subject.p &&
                            str_is(n.signature_version, "v1"));
                assert_true(n.text.cap < 512);
                notification_done(&n);
        }
}

static void calls_of_one_message_share_its_outcome(void **unused UNUSED)
{
        json_t *body = message("m", "s"), *another = message("n", "s");
        size_t before = delivered;
        uint64_t first, second, third;

        sign(body, key, true);
        sign(another, key, true);
        keep = true;
        lent_n = 0;
        first = send(body);
        second = send(body);
        third = send(body);
        assert_int_equal(lent_n, 1);
        (void)send(another);
        assert_int_equal(lent_n, 2);
        finish_as(lent[1].call, lent[1].record, PUSH_ACCEPTED);
        smn_source.push->gone(source, third);
        /* It fails: both hear it, and it may come again. */
        finish_as(first, lent[0].record, PUSH_TIMEOUT);
        poll_all();
        assert_int_equal(statuses[first], 504);
        assert_int_equal(statuses[second], 504);
        lent_n = 0;
        first = send(body);
        second = send(body);
        /* The first caller leaves: the second call goes on, anew. */
        finish_as(first, lent[0].record, PUSH_GONE);
        poll_all();
        assert_int_equal(lent_n, 2);
        assert_int_equal(lent[1].call, second);
        finish_as(second, lent[1].record, PUSH_ACCEPTED);
        keep = false;
        assert_int_equal(statuses[send(body)], 200);
        assert_int_equal(delivered, before + 4);
        /* After an hour it is forgotten. But then it is too old. */
        test_time.monotonic += USEC_HOUR + 1;
        test_time.wall += USEC_HOUR + USEC_SEC;
        assert_int_equal(statuses[send(body)], 403);
        json_decref(body);
        json_decref(another);
}

static void outcomes_become_answers(void **unused UNUSED)
{
        static const struct {
                enum push_result result;
                int status;
        } table[] = {
                { PUSH_ACCEPTED, 200 },    { PUSH_FILTERED, 200 },  { PUSH_FAILED, 500 },
                { PUSH_UNREACHABLE, 502 }, { PUSH_TIMEOUT, 504 },   { PUSH_BUSY, 503 },
                { PUSH_LIMITED, 503 },     { PUSH_NOT_READY, 503 },
        };

        for (size_t i = 0; i < COUNT_OF(table); i++) {
                json_t *body = message("m", "s");

                sign(body, key, true);
                outcome = table[i].result;
                assert_int_equal(statuses[send(body)], table[i].status);
                assert_int_equal(strstr(reply_space.headers.p, "Retry-After: 1\r\n") != NULL,
                                 table[i].status == 503);
                json_decref(body);
        }
        outcome = PUSH_ACCEPTED;
}

static json_t *confirmation(const char *type, const char *url)
{
        json_t *body = message("You are invited", NULL);

        (void)json_object_del(body, "unsubscribe_url");
        sign(set(set(body, "type", type), "subscribe_url", url), key, false);
        return body;
}

static void subscriptions_are_confirmed(void **unused UNUSED)
{
        static const struct {
                const char *type, *url;
                int status;
                size_t asks;
        } table[] = {
                ROW("SubscriptionConfirmation", HOST "/confirm?token=1", 200, 1),
                ROW("HttpSubscriptionUserConfirm", HOST "/confirm?token=1", 200, 1),
                ROW("UnsubscribeConfirmation", HOST "/confirm?token=1", 200, 0),
                ROW("HttpSubscriptionUserUnsubscribe", HOST "/confirm?token=1", 200, 0),
                ROW("SubscriptionConfirmation", "https://evil.test/confirm?token=1", 403, 0),
                ROW("SubscriptionConfirmation", "http://smn." REGION ".myhuaweicloud.com/confirm?token=1",
                    403, 0),
                ROW("SubscriptionConfirmation", HOST ":80/confirm?token=1", 403, 0),
                ROW("SubscriptionConfirmation", HOST "/missing", 502, 1),
        };
        size_t before;

        poll_all();
        assert_int_equal(state, SOURCE_CONNECTING);
        assert_string_equal(state_text, "waiting for the subscription's confirmation");
        for (size_t i = 0; i < COUNT_OF(table); i++) {
                json_t *body = confirmation(table[i].type, table[i].url);

                before = asked_n;
                assert_int_equal(statuses[send(body)], table[i].status);
                assert_int_equal(asked_n - before, table[i].asks + (i == 0)); /* and the certificate */
                json_decref(body);
        }
        /* It was cancelled, and what was confirmed since was not answered as it should. */
        assert_int_equal(state, SOURCE_DISCONNECTED);
        assert_non_null(strstr(state_text, "the subscription was cancelled"));
        json_t *again = confirmation("SubscriptionConfirmation", HOST "/confirm?token=1");
        assert_int_equal(statuses[send(again)], 200);
        json_decref(again);
        assert_int_equal(state, SOURCE_CONNECTED);
        assert_null(strstr(state_text, "cancelled"));
        /* One that is not signed leads nowhere. */
        json_t *forged = confirmation("SubscriptionConfirmation", HOST "/confirm?token=1");
        sign(forged, other_key, false);
        before = asked_n;
        assert_int_equal(statuses[send(forged)], 403);
        assert_int_equal(asked_n, before);
        json_decref(forged);
}

/* ---- shapes ------------------------------------------------------------- */

static void the_event_is_the_golden_one(void **unused UNUSED)
{
        json_error_t at;
        json_t *golden = json_load_file("pkg/source/smn/testdata/classic.json", 0, &at), *found,
               *body = message("This is the message body of smn trigger",
                               "This is the message title of smn trigger");

        assert_non_null(golden);
        function.urn = function_urn;
        set(set(body, "message_id", "a5dbd701d70d4ac2a153e7dd6dd9b601"), "timestamp", "2017-11-15T04:02:24Z");
        sign(body, key, true);
        assert_int_equal(statuses[send(body)], 200);
        function.urn = NULL;
        found = json_loadb(event_text.p, event_text.n, 0, &at);
        assert_int_equal(strlen(json_string_value(json_object_get(found, "requestId"))), 36);
        /* each message has its own */
        (void)json_object_set(found, "requestId", json_object_get(golden, "requestId"));
        FREE_AT_END char *a = json_dumps(golden, 0), *b = json_dumps(found, 0);
        assert_string_equal(b, a);
        json_decref(golden);
        json_decref(found);
        json_decref(body);
}

static void the_document_and_the_current_dialect(void **unused UNUSED)
{
        json_t *body = message("\xef\xbb\xbf{\"a\":[1,2]}", NULL); /* a byte order mark hides nothing */
        static char region[] = "eu-west-0";

        event_of_trigger.region = region;
        sign(body, key, false);
        assert_int_equal(statuses[send(body)], 200);
        event_of_trigger.region = NULL;
        assert_non_null(strstr(document_text.p, "\"message\":{\"a\":[1,2]}"));
        assert_non_null(strstr(document_text.p, "\"subject\":null"));
        assert_non_null(strstr(document_text.p, "\"event_subscription_urn\":\"urn:fss:eu-west-0:" PROJECT
                                                ":function:default:test:latest\""));
        assert_non_null(strstr(event_text.p, "\"message\":\"\xef\xbb\xbf{\\\"a\\\":[1,2]}\""));
        json_decref(body);
}

static void a_saved_message_is_a_sample(void **unused UNUSED)
{
        static const char text[] = "{\"type\": \"Notification\", \"message\": \"saved\", \"subject\": \"s\", "
                                   "\"message_id\": \"1\"}";
        struct record *record = test_record(smn_source.shape, &trigger, clock_wall(services.clock), text);
        BUF_AT_END struct buf out = BUF_INIT(4096);
        struct writer w;

        writer_init(&w, &out);
        trigger.event->dialect = DIALECT_CURRENT;
        smn_source.shape->encode(&trigger, &record, 1, &w);
        assert_non_null(strstr(out.p, "\"message\":\"saved\",\"timestamp\":\"2017-11-15T04:00:00Z\""));
        assert_null(strstr(out.p, "requestId"));
        smn_source.shape->sample_free(record);
}

static void it_is_found_at_its_path(void **unused UNUSED)
{
        static const struct {
                const char *path;
                bool ours;
        } table[] = { { "/shop/topic", true }, { "/shop/topic/", false }, { "/shop/topics", false },
                      { "/shop", false },      { "//shop/topic", false }, { "shop/topic", false } };

        for (size_t i = 0; i < COUNT_OF(table); i++) {
                struct push_request q = { .path = str_of(table[i].path) };

                assert_int_equal(smn_source.push->route(source, &q, q.path) > 0, table[i].ours);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(what_is_right_is_accepted_and_nothing_else, setup, teardown),
                cmocka_unit_test_setup_teardown(certificates_come_from_smn_alone, setup, teardown),
                cmocka_unit_test_setup_teardown(
                        certificates_and_confirmations_come_from_the_region_s_own_host, setup, teardown),
                cmocka_unit_test_setup_teardown(at_a_trusted_host_too_nothing_but_a_certificate_is_asked_for,
                                                setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_signed_is_read_in_one_way, setup, teardown),
                cmocka_unit_test_setup_teardown(several_wait_for_one_certificate, setup, teardown),
                cmocka_unit_test_setup_teardown(a_certificate_that_never_comes_is_not_waited_for, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(strangers_crowd_out_no_certificate_that_was_good, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(without_memory_no_message_is_lost, setup, teardown),
                cmocka_unit_test_setup_teardown(strangers_use_up_a_part_of_the_fetches, setup, teardown),
                cmocka_unit_test_setup_teardown(what_waits_is_no_larger_than_what_came, setup, teardown),
                cmocka_unit_test_setup_teardown(calls_of_one_message_share_its_outcome, setup, teardown),
                cmocka_unit_test_setup_teardown(outcomes_become_answers, setup, teardown),
                cmocka_unit_test_setup_teardown(subscriptions_are_confirmed, setup, teardown),
                cmocka_unit_test_setup_teardown(the_event_is_the_golden_one, setup, teardown),
                cmocka_unit_test_setup_teardown(the_document_and_the_current_dialect, setup, teardown),
                cmocka_unit_test_setup_teardown(a_saved_message_is_a_sample, setup, teardown),
                cmocka_unit_test_setup_teardown(it_is_found_at_its_path, setup, teardown),
        };
        int result = cmocka_run_group_tests_name("smn", tests, group_setup, group_teardown);

        buf_done(&reply_space.headers);
        buf_done(&reply_space.body);
        buf_done(&event_text);
        buf_done(&document_text);
        return result;
}
