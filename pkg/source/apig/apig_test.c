/* The API as the gate drives it: what requests become, what answers become, and which signatures count. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/uri.h"
#include "huawei/sign.h"
#include "source/apig/apig.h"
#include "tests/support/clock.h"
#include "tests/support/trigger.h"

#define DATE "20240102T030405Z"

static struct set_clock still = { .monotonic = 1704164645 * USEC_SEC, .wall = 1704164645 * USEC_SEC };
static const struct clock still_clock = SET_CLOCK(&still);

static struct {
        struct loop *loop;
        struct trigger *trigger;
        struct services services;
        struct source *source;
        struct task wake;
        char folder[64];
} api;

static const char *uid_of_api = "u";

static void open_api(const char *source, const char *secrets)
{
        BUF_AT_END struct buf text = BUF_INIT(65536);
        struct error err;

        buf_printf(&text, "apig: %s", source);
        assert_int_equal(loop_new(&api.loop, &err), 0);
        api.trigger = test_trigger_of(
                (struct test_trigger_spec){ .name = "api", .uid = uid_of_api, .source = text.p });
        api.services = (struct services){ .loop = api.loop,
                                          .clock = &still_clock,
                                          .trigger = api.trigger,
                                          .secrets = secrets,
                                          .wake = &api.wake };
        if (apig_source.open(&api.source, api.trigger->source_spec, &api.services, &err) < 0)
                fail_msg("%s", err.text);
}

static int close_api(void **state UNUSED)
{
        api.source = apig_source.push->free(api.source);
        api.trigger = trigger_free(api.trigger);
        api.loop = loop_free(api.loop);
        return 0;
}

/* ---- requests, as the codec leaves them --------------------------------- */

static struct str header(const struct push_request *q, const char *name)
{
        const struct str *head = q->head;

        for (const char *p = head->p; p < head->p + head->n;) {
                struct str key = str_of(p), value = str_of(p + key.n + 1);

                if (str_equal_nocase(key, str_of(name)))
                        return value;
                p = value.p + value.n + 1;
        }
        return (struct str){ 0 };
}

static void each_header(const struct push_request *q, void (*each)(void *, struct str, struct str),
                        void *cookie)
{
        const struct str *head = q->head;

        for (const char *p = head->p; p < head->p + head->n;) {
                struct str key = str_of(p), value = str_of(p + key.n + 1);

                each(cookie, key, value);
                p = value.p + value.n + 1;
        }
}

static struct push_request request(const char *path, const char *query, const struct str *head)
{
        return (struct push_request){ .method = STR("GET"),
                                      .path = str_of(path),
                                      .query = str_of(query),
                                      .client = STR("192.0.2.1"),
                                      .id = STR("0123456789abcdef0123456789abcdef"),
                                      .head = head,
                                      .header = header,
                                      .each_header = each_header };
}

static struct push_reply new_reply(void)
{
        return (struct push_reply){ .headers = BUF_INIT(1 << 20), .body = BUF_INIT(1 << 20) };
}

static void reply_done(struct push_reply *r)
{
        buf_done(&r->headers);
        buf_done(&r->body);
}

static void names_that_a_reader_takes_for_one_are_one(void **state UNUSED)
{
        static const struct str none;
        const struct push_request q = request("/a", "%ff=1&a=2&%fe=3&%c3%bc=4&%ef%bf%bd=5", &none);
        struct push_reply reply = new_reply();
        BUF_AT_END struct buf text = BUF_INIT(65536);
        struct record *record;
        struct writer w;
        json_t *event, *query;
        size_t n = 1;

        open_api("{path: /a}", NULL);
        assert_int_equal(apig_source.push->receive(api.source, 1, &q, &record, &n, &reply), PUSH_DELIVER);
        writer_init(&w, &text);
        api.trigger->event->dialect = DIALECT_CLASSIC;
        apig_source.shape->encode(api.trigger, &record, 1, &w);
        event = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
        query = json_object_get(event, "queryStringParameters");
        assert_int_equal(json_object_size(query), 3);
        assert_int_equal(json_array_size(json_object_get(query, "\xef\xbf\xbd")), 3);
        assert_string_equal(json_string_value(json_object_get(query, "\xc3\xbc")), "4");
        json_decref(event);
        apig_source.push->finish(api.source, 1, &record, 1, &(struct push_outcome){ .result = PUSH_TIMEOUT },
                                 &reply);
        reply_done(&reply);
}

/* ---- paths -------------------------------------------------------------- */

static unsigned score(const char *pattern, bool prefix, const char *path, struct str *values)
{
        BUF_AT_END struct buf why = BUF_INIT(1024), space = BUF_INIT(65536);
        struct apig_path *p;
        unsigned got;

        if (apig_path_new(&p, pattern, prefix, &why) < 0)
                fail_msg("%s: %s", pattern, why.p);
        got = apig_path_match(p, uri_path(str_of(path), &space), values);
        (void)apig_path_free(p);
        return got;
}

static void equivalent_spellings_match(void **state UNUSED)
{
        static const struct {
                const char *pattern, *path;
                bool prefix, matches;
        } table[] = {
                { "/admin/{p+}", "/%61dmin/users", false, true },
                { "/admin/{p+}", "/x/%2e%2E/admin/users", false, true },
                { "/admin/{p+}", "/./admin/users", false, true },
                { "/admin", "/x/../%61dmin/y", true, true },
                { "/caf%C3%A9", "/caf%c3%a9", false, true },
                { "/caf%c3%a9", "/caf%C3%A9", false, true },
                { "/%6dy%2Dapi", "/my-api", false, true },
                { "/a/../b/./{c}", "/b/1", false, true },
                { "/a/{x}/../{y}", "/a/1", false, true },
                { "/a|b", "/a%7Cb", false, true },
                { "/a%2Fb", "/a%2fb", false, true },
                { "/a/b", "/a%2Fb", false, false },
                { "/a%2Fb", "/a/b", false, false },
                { "/admin", "//admin", false, false },
                { "/a", "/A", false, false },
                { "/a$", "/a%24", false, false },
                { "/%61", "/%2561", false, false },
        };

        for (size_t i = 0; i < COUNT_OF(table); i++)
                if ((score(table[i].pattern, table[i].prefix, table[i].path, NULL) > 0) != table[i].matches)
                        fail_msg("%s and %s", table[i].pattern, table[i].path);
}

static void what_is_no_path_is_refused(void **state UNUSED)
{
        static const char *const bad[] = { "/a?b", "/a#b",   "/{a",     "/a}",      "/{a}b", "/{}",
                                           "/{+}", "/{a b}", "/{a+}/b", "/{a}/{a}", "a" };

        for (size_t i = 0; i < COUNT_OF(bad); i++) {
                BUF_AT_END struct buf why = BUF_INIT(1024);
                struct apig_path *p;

                if (apig_path_new(&p, bad[i], false, &why) == 0)
                        fail_msg("%s was taken", bad[i]);
                assert_true(why.n > 0);
        }
}

/* The event for one request, parsed. */
static json_t *event_of(const struct push_request *q, enum dialect dialect)
{
        struct push_reply reply = new_reply();
        BUF_AT_END struct buf text = BUF_INIT(4 << 20);
        struct record *record;
        struct writer w;
        json_t *event;
        size_t n = 1;

        assert_int_equal(apig_source.push->receive(api.source, 1, q, &record, &n, &reply), PUSH_DELIVER);
        writer_init(&w, &text);
        api.trigger->event->dialect = (int)dialect;
        apig_source.shape->encode(api.trigger, &record, 1, &w);
        assert_false(text.failed);
        event = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
        assert_non_null(event);
        apig_source.push->finish(api.source, 1, &record, 1, &(struct push_outcome){ .result = PUSH_TIMEOUT },
                                 &reply);
        reply_done(&reply);
        return event;
}

static void a_path_comes_as_it_was_sent_and_its_parameters_decoded_once(void **state UNUSED)
{
        static const struct {
                const char *path, *a, *rest;
        } table[] = {
                { "/%78/1/b/c", "1", "b/c" },
                { "/x/%2541/%2fd%2F/./e", "%41", "/d//e" },
                { "/x/%%341/%61%zz", "%41", "a%zz" },
                { "/x/y/../caf%c3%a9/%2e%2e%2f", "caf\xc3\xa9", "../" },
        };
        static const struct str none;

        open_api("{path: '/x/{a}/{rest+}'}", NULL);
        for (size_t i = 0; i < COUNT_OF(table); i++) {
                const struct push_request q = request(table[i].path, "", &none);
                json_t *event = event_of(&q, DIALECT_CLASSIC),
                       *parameters = json_object_get(event, "pathParameters");

                assert_string_equal(json_string_value(json_object_get(event, "path")), table[i].path);
                assert_string_equal(json_string_value(json_object_get(parameters, "a")), table[i].a);
                assert_string_equal(json_string_value(json_object_get(parameters, "rest")), table[i].rest);
                json_decref(event);
        }
}

/* However many there are, each is there once, in the authorizer's event and in the filter's document too. */
static void all_parameters_come(void **state UNUSED)
{
        BUF_AT_END struct buf query = BUF_INIT(1 << 20), text = BUF_INIT(4 << 20);
        static const struct str none;
        struct apig_request r;
        struct push_request q;
        struct writer w;
        json_t *event, *map;

        for (int i = 0; i < 5000; i++)
                buf_printf(&query, "%sp%d=%d&same=%d", i ? "&" : "", i, i, i);
        q = request("/a", query.p, &none);
        open_api("{path: /a}", NULL);
        event = event_of(&q, DIALECT_CLASSIC);
        map = json_object_get(event, "queryStringParameters");
        assert_int_equal(json_object_size(map), 5001);
        assert_int_equal(json_array_size(json_object_get(map, "same")), 5000);
        assert_string_equal(json_string_value(json_array_get(json_object_get(map, "same"), 4999)), "4999");
        assert_string_equal(json_string_value(json_object_get(map, "p4999")), "4999");
        json_decref(event);
        r = (struct apig_request){ .record.origin = &r, .spec = api.trigger->source_spec, .request = q };
        writer_init(&w, &text);
        apig_describe(&r.record, &w);
        event = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
        assert_int_equal(json_object_size(json_object_get(event, "query")), 5001);
        json_decref(event);
}

static void lines_of_a_header_are_joined_as_its_grammar_says(void **state UNUSED)
{
        const struct str head = STR("Cookie\0a=1\0Accept\0x\0COOKIE\0b=2\0accept\0y\0cookie\0c=3; d=4\0");
        const struct push_request q = request("/a", "cookie=1&cookie=2", &head);
        json_t *event, *map;

        open_api("{path: /a}", NULL);
        event = event_of(&q, DIALECT_CURRENT);
        map = json_object_get(event, "headers");
        assert_string_equal(json_string_value(json_object_get(map, "cookie")), "a=1; b=2; c=3; d=4");
        assert_string_equal(json_string_value(json_object_get(map, "accept")), "x,y");
        assert_int_equal(json_object_size(map), 2);
        assert_string_equal(
                json_string_value(json_object_get(json_object_get(event, "queryStringParameters"), "cookie")),
                "1,2");
        json_decref(event);
        event = event_of(&q, DIALECT_CLASSIC);
        assert_int_equal(json_array_size(json_object_get(json_object_get(event, "headers"), "Cookie")), 3);
        json_decref(event);
}

/* ---- answers ------------------------------------------------------------ */

static void answers_become_responses(void **state UNUSED)
{
        static const struct {
                const char *answer, *body, *headers;
                int status;
        } good[] = {
                ROW("{\"statusCode\":204}", "", "", 204),
                ROW(" { \"body\" : \"a\\u00fc\\ud83d\\ude00\\n\" , \"statusCode\" : 200 } ",
                    "a\xc3\xbc\xf0\x9f\x98\x80\n", "Content-Type: text/plain; charset=utf-8\r\n", 200),
                ROW("{\"statusCode\":201,\"isBase64Encoded\":true,\"body\":\"YW\\/\\u002f\"}", "ao\xff",
                    "Content-Type: text/plain; charset=utf-8\r\n", 201),
                ROW("{\"statusCode\":200,\"headers\":{\"A\":\"b\",\"C\":[\"d\",\"e\"],\"F\":1,\"G\":true},"
                    "\"body\":\"\"}",
                    "", "A: b\r\nC: d\r\nC: e\r\nF: 1\r\nG: true\r\n", 200),
                ROW("{\"statusCode\":200,\"headers\":{\"connection\":\"close\",\"Content-Length\":\"9\","
                    "\"TRANSFER-ENCODING\":\"chunked\",\"Date\":\"x\",\"X\":\"y\"}}",
                    "", "X: y\r\n", 200),
                ROW("{\"statusCode\":200,\"headers\":null,\"other\":{\"body\":[{}]},\"body\":\"1\",\"body\":"
                    "\"2\",\"headers\":{\"content-type\":\"a\"}}",
                    "2", "content-type: a\r\n", 200),
                ROW("{\"st\\u0061tusCode\":200}", "", "", 200),
                ROW("\xef\xbb\xbf{\"statusCode\":200}", "", "", 200),
                ROW("{\"statusCode\":200,\"body\":null,\"isBase64Encoded\":null,\"headers\":null,\"other\":"
                    "null}",
                    "", "", 200),
                ROW("{\"statusCode\":200,\"body\":\"x\",\"headers\":{\"A\":null,\"B\":[null,\"c\",null],"
                    "\"Content-Type\":null}}",
                    "x", "B: c\r\nContent-Type: text/plain; charset=utf-8\r\n", 200),
                ROW("{\"statusCode\":200,\"body\":\"x\",\"body\":null}", "", "", 200),
        };
        static const char *const bad[] = {
                "",
                "[]",
                "{}",
                "{\"statusCode\":200",
                "{\"statusCode\":200}}",
                "{\"statusCode\":200,}",
                "{\"statusCode\":\"200\"}",
                "{\"statusCode\":2e2}",
                "{\"statusCode\":199}",
                "{\"statusCode\":600}",
                "{\"statusCode\":null}",
                "{\"statusCode\":200,\"headers\":{\"a b\":null}}",
                "{\"statusCode\":200,\"body\":\"\\ud83d\"}",
                "{\"statusCode\":200,\"body\":\"\xff\"}",
                "{\"statusCode\":200,\"body\":\"%\",\"isBase64Encoded\":true}",
                "{\"statusCode\":200,\"isBase64Encoded\":1}",
                "{\"statusCode\":200,\"headers\":[]}",
                "{\"statusCode\":200,\"headers\":{\"a b\":\"c\"}}",
                "{\"statusCode\":200,\"headers\":{\"a\":{}}}",
                "{\"statusCode\":200,\"headers\":{\"\":\"c\"}}",
                "{\"statusCode\":200,\"headers\":{\"a\":\"b\\r\\nc: d\"}}",
                "{\"statusCode\":200,\"headers\":{\"a\":\"b\\u0000c\"}}",
        };

        for (size_t i = 0; i < COUNT_OF(good); i++) {
                struct push_reply reply = new_reply();
                BUF_AT_END struct buf why = BUF_INIT(1024);

                if (!apig_answer(str_of(good[i].answer), &reply, &why))
                        fail_msg("%s: %s", good[i].answer, why.p);
                assert_int_equal(reply.status, good[i].status);
                assert_true(str_is(buf_view(&reply.body), good[i].body));
                assert_true(str_is(buf_view(&reply.headers), good[i].headers));
                reply_done(&reply);
        }
        for (size_t i = 0; i < COUNT_OF(bad); i++) {
                struct push_reply reply = new_reply();
                BUF_AT_END struct buf why = BUF_INIT(1024);

                if (apig_answer(str_of(bad[i]), &reply, &why))
                        fail_msg("taken: %s", bad[i]);
                assert_true(why.n > 0);
                reply_done(&reply);
        }
}

/* A tree of them would take a hundred times their bytes. */
static void headers_of_very_many_values_are_refused(void **state UNUSED)
{
        static const struct {
                const char *open, *piece, *close;
                bool numbered;
        } shapes[] = {
                { "", "", "", true },
                { "\"a\":[", "\"\"", "]", false },
                { "\"a\":[", "1", "]", false },
                { "\"a\":[", "null", "]", false },
                { "\"a\":1,\"b\":[", "[]", "]", false },
        };

        for (size_t i = 0; i < COUNT_OF(shapes); i++) {
                struct push_reply reply = new_reply();
                BUF_AT_END struct buf text = BUF_INIT(1 << 20), why = BUF_INIT(1024);

                buf_printf(&text, "{\"statusCode\":200,\"headers\":{%s", shapes[i].open);
                for (unsigned n = 0; n < 5000; n++) {
                        buf_text(&text, n ? "," : "");
                        if (shapes[i].numbered)
                                buf_printf(&text, "\"a%u\":\"\"", n);
                        else
                                buf_text(&text, shapes[i].piece);
                }
                buf_printf(&text, "%s}}", shapes[i].close);
                assert_false(apig_answer(buf_view(&text), &reply, &why));
                assert_int_equal(reply.headers.n, 0); /* nothing was built */
                reply_done(&reply);
        }
}

static void a_length_is_heard_and_not_sent(void **state UNUSED)
{
        static const struct {
                const char *headers;
                int64_t length;
        } table[] = {
                { "{}", -1 },
                { "{\"content-LENGTH\":\"5\"}", 5 },
                { "{\"Content-Length\":5}", 5 },
                { "{\"Content-Length\":[\"5\"]}", 5 },
                { "{\"Content-Length\":[\"5\",5],\"content-length\":\" 5\"}", 5 },
                { "{\"Content-Length\":[\"5\",\"6\"]}", -2 },
                { "{\"Content-Length\":\"-5\"}", -2 },
                { "{\"Content-Length\":\"5, 5\"}", -2 },
                { "{\"Content-Length\":\"x\"}", -2 },
                { "{\"Content-Length\":null}", -1 },
        };

        for (size_t i = 0; i < COUNT_OF(table); i++) {
                struct push_reply reply = new_reply();
                BUF_AT_END struct buf text = BUF_INIT(1024), why = BUF_INIT(1024);

                buf_printf(&text, "{\"statusCode\":200,\"headers\":%s}", table[i].headers);
                assert_true(apig_answer(buf_view(&text), &reply, &why));
                assert_int_equal(reply.length, table[i].length);
                assert_int_equal(reply.headers.n, 0);
                reply_done(&reply);
        }
}

/* Without a cluster; what Python's uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_DNS, "sluice.dev"), "shop/api") says.
 */
static void an_api_has_an_id_of_its_own(void **state UNUSED)
{
        static char without[] = "shop/api", given[] = "1c5b2f6a-9c1e-4a56-8f7a-0a4f3f1d2b3c";
        static const struct str none;
        const struct push_request q = request("/a", "", &none);

        for (int own = 0; own < 2; own++)
                for (int dialect = 0; dialect < 2; dialect++) {
                        json_t *event;

                        uid_of_api = own ? without : given;
                        open_api("{path: /a}", NULL);
                        event = event_of(&q, dialect ? DIALECT_CURRENT : DIALECT_CLASSIC);
                        assert_string_equal(json_string_value(json_object_get(
                                                    json_object_get(event, "requestContext"), "apiId")),
                                            own ? "f8d8b6b9-632a-5649-81ca-d9ed250ba3c4" : given);
                        json_decref(event);
                        (void)close_api(NULL);
                }
        uid_of_api = "u";
}

/* ---- signatures --------------------------------------------------------- */

static void write_secret(const char *name, const char *value)
{
        char path[128];
        FILE *f;

        (void)snprintf(path, sizeof(path), "%s/callers/%s", api.folder, name);
        f = fopen(path, "w");
        assert_true(f && fputs(value, f) >= 0 && fclose(f) == 0);
}

static void open_signed(void)
{
        char path[128];

        (void)snprintf(api.folder, sizeof(api.folder), "/tmp/apig-test-XXXXXX");
        assert_non_null(mkdtemp(api.folder));
        (void)snprintf(path, sizeof(path), "%s/callers", api.folder);
        assert_int_equal(mkdir(path, 0700), 0);
        write_secret("access", "AK");
        write_secret("secret", "SK");
        open_api("{path: /a, match: Prefix, authentication: {type: App, keys: [{accessKeySecretRef: {name: "
                 "callers, key: access}, secretKeySecretRef: {name: callers, key: secret}}]}}",
                 api.folder);
}

static int close_signed(void **state)
{
        char path[128];
        static const char *const names[] = { "callers/access", "callers/secret", "callers", "" };

        for (size_t i = 0; i < COUNT_OF(names); i++) {
                (void)snprintf(path, sizeof(path), "%s/%s", api.folder, names[i]);
                (void)remove(path);
        }
        return close_api(state);
}

static struct {
        const char *signed_path, *path;
} paths = { "/a", "/a" };

/* Signed with these headers; then these come. */
static bool let_in(const char *query, const struct sign_header *headers, size_t n, const char *more,
                   size_t more_n, struct str body, struct str sent_body)
{
        const struct sign_request r = { .method = STR("GET"),
                                        .path = str_of(paths.signed_path),
                                        .query = str_of(query),
                                        .headers = headers,
                                        .headers_n = n,
                                        .body = body };
        BUF_AT_END struct buf head = BUF_INIT(65536), authorization = BUF_INIT(65536);
        struct push_reply reply = new_reply();
        struct record *record;
        struct push_request q;
        struct str view;
        char signature[65];
        size_t records = 1;
        bool in;

        sign_request(&r, STR(DATE), STR("SK"), signature);
        buf_text(&authorization, "SDK-HMAC-SHA256 Access=AK, SignedHeaders=");
        for (size_t i = 0; i < n; i++) {
                buf_printf(&authorization, "%s" STR_FMT, i ? ";" : "", STR_ARG(headers[i].name));
                if (headers[i].value.n)
                        buf_printf(&head, STR_FMT "%c" STR_FMT "%c", STR_ARG(headers[i].name), 0,
                                   STR_ARG(headers[i].value), 0);
        }
        buf_printf(&authorization, ", Signature=%s", signature);
        buf_printf(&head, "Authorization%c" STR_FMT "%c", 0, STR_ARG(buf_view(&authorization)), 0);
        buf_add(&head, more, more_n);
        view = buf_view(&head);
        q = request(paths.path, query, &view);
        q.body = sent_body;
        in = apig_source.push->receive(api.source, 1, &q, &record, &records, &reply) == PUSH_DELIVER;
        if (in)
                apig_source.push->finish(api.source, 1, &record, 1,
                                         &(struct push_outcome){ .result = PUSH_TIMEOUT }, &reply);
        else
                assert_int_equal(reply.status, 401);
        reply_done(&reply);
        return in;
}

static void what_is_signed_is_what_comes(void **state UNUSED)
{
        static const struct sign_header
                plain[] = { { STR("Host"), STR("h") },
                            { STR("X-Sdk-Date"), STR(DATE) },
                            { STR("X-One"), STR("1") } },
                missing[] = { { STR("Host"), STR("h") },
                              { STR("X-Sdk-Date"), STR(DATE) },
                              { STR("X-None"), { 0 } } },
                unsigned_body[] = { { STR("Host"), STR("h") },
                                    { STR("X-Sdk-Date"), STR(DATE) },
                                    { STR("X-Sdk-Content-Sha256"), STR("UNSIGNED-PAYLOAD") } },
                stated[] = { ROW(STR("Host"), STR("h")), ROW(STR("X-Sdk-Date"), STR(DATE)),
                             ROW(STR("X-Sdk-Content-Sha256"),
                                 STR("ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb")) };
        BUF_AT_END struct buf query = BUF_INIT(65536);
        const struct str a = STR("a"), b = STR("b");

        open_signed();
        assert_true(let_in("x=1", plain, 3, "", 0, a, a));
        assert_false(let_in("x=1", plain, 3, "", 0, a, b));
        assert_true(let_in("x=1", plain, 3, "Other\0001", 8, a, a));
        assert_false(let_in("x=1", plain, 3, "x-one\0002", 8, a, a));
        assert_false(let_in("x=1", missing, 3, "", 0, a, a));
        assert_true(let_in("x=1", unsigned_body, 3, "", 0, a, b));
        assert_true(let_in("x=1", stated, 3, "", 0, a, a));
        assert_false(let_in("x=1", stated, 3, "", 0, a, b));
        /* More parameters than are looked at: their signature is nobody's. */
        for (int i = 0; i < 513; i++)
                buf_printf(&query, "%s%d=1", i ? "&" : "", i);
        assert_false(let_in(query.p, plain, 3, "", 0, a, a));
        buf_drop(&query, 4);
        assert_true(let_in(query.p, plain, 3, "", 0, a, a));
}

static void the_signature_of_a_path_lets_no_other_in(void **state UNUSED)
{
        static const struct {
                const char *signed_path, *path;
                bool in;
        } table[] = {
                { "/a/o/7/note", "/a/o/7/note", true },
                { "/a/o/7%20note", "/a/o/7%20note", true },
                { "/a/%6F/7", "/a/o/7", true },
                { "/a/o/7%252Fnote", "/a/o/7%252Fnote", true },
                { "/a/o/7/note", "/a/o/7%2Fnote", false },
                { "/a/o/7/note", "/a/o/7%2fnote", false },
                { "/a/o/7%2Fnote", "/a/o/7/note", true },
                { "/a/o/7%2Fnote", "/a/o/7%2Fnote", false },
                { "/a/o/7/note", "/a%2Fo/7/note", false },
                { "/a/o/7/note", "/a/o/7%252Fnote", false },
                { "/a/o/7%5Cnote", "/a/o/7/note", false },
                { "/a/o/7/note", "/a/o/7%5Cnote", false },
        };
        static const struct sign_header plain[] = { { STR("Host"), STR("h") },
                                                    { STR("X-Sdk-Date"), STR(DATE) } };

        open_signed();
        for (size_t i = 0; i < COUNT_OF(table); i++) {
                paths.signed_path = table[i].signed_path;
                paths.path = table[i].path;
                if (let_in("x=1", plain, 2, "", 0, STR("a"), STR("a")) != table[i].in)
                        fail_msg("signed %s, came %s", table[i].signed_path, table[i].path);
        }
        paths.signed_path = paths.path = "/a";
}

/* What no API has received is refused in the gateway's shape. */
static void refusals_have_the_gateways_shape(void **state UNUSED)
{
        static const struct {
                enum push_refusal why;
                int listeners, status;
                const char *code, *message;
        } table[] = {
                ROW(PUSH_NOT_HTTP, 413, 413, "APIG.0201", "words of the listener"),
                ROW(PUSH_HEAD_TOO_LONG, 431, 494, "APIG.0201", "words of the listener"),
                ROW(PUSH_NO_PATH, 404, 404, "APIG.0101", "The API does not exist or has not been published"),
                ROW(PUSH_GUARDED_PATH, 400, 400, "APIG.0201", "Bad request: the path holds slashes"),
                ROW(PUSH_STOPPING, 503, 503, "APIG.0202", "Backend unavailable: the worker is stopping"),
                ROW(PUSH_OVERLOADED, 503, 503, "APIG.0202", "words of the listener"),
                ROW(PUSH_NO_MEMORY, 503, 503, "APIG.0202", "Backend unavailable"),
        };

        for (size_t i = 0; i < COUNT_OF(table); i++) {
                struct push_reply r = { .headers = BUF_INIT(1024), .body = BUF_INIT(1024) };
                char expected[256];

                apig_source.push->refuse(&(struct push_refused){ .why = table[i].why,
                                                                 .status = table[i].listeners,
                                                                 .text = "words of the listener",
                                                                 .id = STR("0123") },
                                         &r);
                (void)snprintf(expected, sizeof(expected), "{\"error_code\":\"%s\",\"error_msg\":\"%s",
                               table[i].code, table[i].message);
                assert_int_equal(r.status, table[i].status);
                assert_true(str_starts(buf_view(&r.body), str_of(expected)));
                assert_non_null(strstr(r.body.p, "\"request_id\":\"0123\"}"));
                assert_non_null(strstr(r.headers.p, "X-Request-Id: 0123\r\n"));
                assert_int_equal(strstr(r.headers.p, "Retry-After: 1\r\n") != NULL, r.status == 503);
                buf_done(&r.headers);
                buf_done(&r.body);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(names_that_a_reader_takes_for_one_are_one, close_api),
                cmocka_unit_test(equivalent_spellings_match),
                cmocka_unit_test(what_is_no_path_is_refused),
                cmocka_unit_test_teardown(a_path_comes_as_it_was_sent_and_its_parameters_decoded_once,
                                          close_api),
                cmocka_unit_test_teardown(all_parameters_come, close_api),
                cmocka_unit_test_teardown(lines_of_a_header_are_joined_as_its_grammar_says, close_api),
                cmocka_unit_test(answers_become_responses),
                cmocka_unit_test(refusals_have_the_gateways_shape),
                cmocka_unit_test(headers_of_very_many_values_are_refused),
                cmocka_unit_test(a_length_is_heard_and_not_sent),
                cmocka_unit_test(an_api_has_an_id_of_its_own),
                cmocka_unit_test_teardown(what_is_signed_is_what_comes, close_signed),
                cmocka_unit_test_teardown(the_signature_of_a_path_lets_no_other_in, close_signed),
        };
        return cmocka_run_group_tests_name("apig", tests, NULL, NULL);
}
