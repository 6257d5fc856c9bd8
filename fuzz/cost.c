/* What a byte from strangers may cost: steps for each byte of the input, in all that takes such bytes apart.
 * A cost that grows faster than the input shows as an input that is too dear. */
#include "api.h"
#include "base/pairs.h"
#include "base/uri.h"
#include "filter/filter.h"
#include "fuzz/lib/steps.h"
#include "json/check.h"
#include "json/members.h"
#include "json/pick.h"
#include "source/obs/records.h"
#include "source/smn/notification.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A few times what the dearest bytes of the corpus take: what is quadratic passes it by far at 64 KiB. */
enum { FIXED = 20000, EACH_BYTE = 150 };

/* ---- what takes bytes apart --------------------------------------------- */

static void request(struct str bytes)
{
        static struct api *a;
        struct push_reply reply = { .headers = BUF_INIT(1 << 20), .body = BUF_INIT(1 << 20) };
        BUF_AT_END struct buf text = BUF_INIT((size_t)16 << 20);
        struct record *record;
        struct http_intake k;
        struct push_request q;
        struct writer w;
        size_t n = 1;

        if (!a)
                a = api_new("apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: api, "
                            "namespace: shop, uid: u}\nspec: {source: {apig: {path: '/{first}/{rest+}'}}, "
                            "sink: {uri: 'http://f/'}}",
                            NULL);
        if (call_take(&k, bytes)) {
                q = call_of(&k.codec.message);
                if (a->kind->push->receive(a->source, 1, &q, &record, &n, &reply) == PUSH_DELIVER) {
                        writer_init(&w, &text);
                        a->trigger->event->dialect = DIALECT_CURRENT;
                        a->kind->shape->encode(a->trigger, &record, 1, &w);
                        buf_reset(&text);
                        writer_init(&w, &text);
                        a->kind->shape->describe(record, &w);
                        a->kind->push->finish(a->source, 1, &record, 1,
                                              &(struct push_outcome){ .result = PUSH_TIMEOUT }, &reply);
                }
        }
        http_intake_done(&k);
        buf_done(&reply.headers);
        buf_done(&reply.body);
}

static void pairs(struct str bytes)
{
        PAIRS_AT_END struct pairs p = PAIRS_INIT(bytes.n % 2);

        while (bytes.n)
                pairs_add(&p, str_cut(&bytes, '\n'), (struct str){ 0 });
        pairs_group(&p);
}

static void judged(struct str bytes)
{
        static struct filter *f;
        struct error err;
        bool matches;

        if (!f)
                DEMAND(filter_new(&f,
                                  STR("{\"a\":{\"x\":[1],\"y\":[{\"wildcard\":\"*a*b\"}]},\"b\":[{\"exists\":"
                                      "false}]}"),
                                  &err) == 0);
        (void)filter_match(f, bytes, &matches, &err);
}

static void notification(struct str bytes)
{
        struct notification n;
        const char *why;

        if (notification_parse(bytes, &n, &why) == 0)
                notification_done(&n);
}

static void records(struct str bytes)
{
        struct obs_records all;

        if (obs_parse(bytes, &all) == OBS_RECORDS)
                obs_records_done(&all);
}

static void path(struct str bytes)
{
        BUF_AT_END struct buf a = BUF_INIT(1 << 20), b = BUF_INIT(1 << 20);

        (void)uri_path(bytes, &a);
        (void)uri_path_merged(bytes, &b);
}

static void text(struct str bytes)
{
        BUF_AT_END struct buf out = BUF_INIT(1 << 20);

        writer_escape(&out, bytes);
        DEMAND(out.n == writer_escaped(bytes));
        (void)json_is_value(bytes, NULL);
}

/* Passed by, whatever they are, but for one within another. */
struct few {
        struct json_value b;
};
static const struct json_member few_members[] = {
        MEMBER(TEXT, "a.b", struct few, b),
};
static const struct json_object few_object = JSON_OBJECT("it", few_members);

static void picked(struct str bytes)
{
        struct json_pick p = { .out = BUF_INIT(1 << 20) };
        struct few value;
        struct error err;

        (void)json_read_object(bytes, &few_object, &value, &err);
        json_pick_begin(&p, STR("batchItemFailures"));
        json_pick_feed(&p, bytes);
        (void)json_pick_end(&p);
        buf_done(&p.out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static void (*const all[])(struct str) = { request, pairs, judged, notification,
                                                   records, path,  text,   picked };
        struct str bytes = { (const char *)data + 1, size - 1 };
        uint64_t before;

        if (!size)
                return 0;
        all[data[0] % COUNT_OF(all)](bytes); /* what is made once is not counted */
        before = steps;
        all[data[0] % COUNT_OF(all)](bytes);
        if (getenv("FUZZ_COST"))
                (void)fprintf(stderr, "%d: %zu bytes, %.1f steps a byte\n", data[0] % (int)COUNT_OF(all),
                              size, (double)(steps - before) / (double)size);
        DEMAND(steps - before <= FIXED + (uint64_t)EACH_BYTE * size);
        return 0;
}
