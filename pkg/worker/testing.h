/* What tests of the worker's parts begin with: a Trigger from YAML, and Kafka records as previews make them.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "json/yaml.h"
#include "source/source.h"

UNUSED static struct node *parse_yaml(struct str text, struct documents *docs)
{
        struct problems problems = { 0 };

        if (yaml_parse(docs, text, &problems) < 0)
                fail_msg("%s", problems.list[0].text);
        problems_done(&problems);
        return docs->roots[0];
}

UNUSED static struct trigger *decode_trigger(struct str text)
{
        struct documents docs = { 0 };
        struct problems problems = { 0 };
        struct trigger *t = trigger_decode(parse_yaml(text, &docs), source_types(), source_kinds_n,
                                           &problems);

        if (!t)
                fail_msg("%s: %s", problems.list[0].path, problems.list[0].text);
        documents_done(&docs);
        problems_done(&problems);
        return t;
}

/* A Kafka Trigger; more: lines of its spec. */
UNUSED static struct trigger *kafka_trigger(const char *more)
{
        BUF_AT_END struct buf text = BUF_INIT(65536);

        buf_printf(&text,
                   "apiVersion: sluice.dev/v1alpha1\nkind: Trigger\nmetadata: {name: orders, namespace: "
                   "shop, uid: u}\nspec:\n"
                   "  source: {kafka: {bootstrapServers: ['k:1'], topics: [orders]}}\n  sink: {uri: "
                   "'http://elsewhere/f'}\n%s\n",
                   more);
        return decode_trigger(buf_view(&text));
}

/* Of the Trigger's own source; freed by its shape's sample_free. */
UNUSED static struct record *sample_record(const struct trigger *t, const char *document)
{
        struct documents docs = { 0 };
        struct record *r;
        struct error err;

        if (trigger_source(t)->shape->sample(t, parse_yaml(str_of(document), &docs),
                                             clock_wall(&system_clock), &r, &err) < 0)
                fail_msg("%s", err.text);
        documents_done(&docs);
        return r;
}
