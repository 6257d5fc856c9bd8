#include "tests/support/trigger.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

struct node *test_yaml(struct str text, struct documents *docs)
{
        struct problems problems = { 0 };

        if (yaml_parse(docs, text, &problems) < 0)
                fail_msg("%s", problems.list[0].text);
        problems_done(&problems);
        assert_true(docs->n > 0);
        return docs->roots[0];
}

struct trigger *test_trigger(struct str text)
{
        struct documents docs = { 0 };
        struct problems problems = { 0 };
        struct trigger *t = trigger_decode(test_yaml(text, &docs), source_types(), source_kinds_n, &problems);

        if (!t)
                fail_msg("%s: %s", problems.list[0].path, problems.list[0].text);
        documents_done(&docs);
        problems_done(&problems);
        return t;
}

struct trigger *test_trigger_of(struct test_trigger_spec spec)
{
        static const char kafka[] = "kafka: {bootstrapServers: ['k:1'], topics: [orders]}";
        BUF_AT_END struct buf text = BUF_INIT(65536);

        buf_printf(&text,
                   "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\n"
                   "metadata: {name: %s, namespace: shop, uid: %s}\n"
                   "spec:\n  source: {%s}\n  sink: {uri: 'http://elsewhere/f'}\n%s\n",
                   spec.name ? spec.name : "orders", spec.uid ? spec.uid : "u",
                   spec.source ? spec.source : kafka, spec.more ? spec.more : "");
        return test_trigger(buf_view(&text));
}

struct record *test_record(const struct shape *shape, const struct trigger *t, usec at, const char *document)
{
        struct documents docs = { 0 };
        struct record *r;
        struct error err;

        if (shape->sample(t, test_yaml(str_of(document), &docs), at, &r, &err) < 0)
                fail_msg("%s: %s", document, err.text);
        documents_done(&docs);
        return r;
}
