/* Members of objects, read by a table: what it finds, a whole parser finds as well. */
#include <jansson.h>

#include "demand.h"
#include "json/members.h"
#include "json/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct event {
        struct json_value id, text, tags;
        int64_t number, time;
};
static const struct json_member event_members[] = {
        MEMBER(TEXT, "id", struct event, id, .required = true),
        MEMBER(NUMBER, "number", struct event, number, .required = true),
        MEMBER(ANY, "body.text", struct event, text),
        MEMBER(NUMBER, "body.deep.time", struct event, time, .otherwise = INT64_MIN),
        MEMBER(ANY, "tags", struct event, tags),
};
static const struct json_object event = JSON_OBJECT("an event", event_members);

struct answer {
        struct event event;
        struct json_value next;
        const json_t *list; /* as the other one reads it; NULL: it does not */
        size_t n;
};

static void same_text(struct json_value v, const json_t *other)
{
        BUF_AT_END struct buf text = BUF_INIT(BUF_DEFAULT_MAX);

        json_value_add(v, &text);
        DEMAND(!text.failed);
        if (v.is_string && other)
                DEMAND(str_equal(buf_view(&text), json_text(other)));
        else if (v.text.p)
                DEMAND(!json_is_string(other));
}

static void same_number(int64_t n, const json_t *other)
{
        if (json_is_integer(other))
                DEMAND(n == json_integer_value(other));
        else
                DEMAND(json_is_string(other));
}

static int take(void *object, struct error *err UNUSED)
{
        struct answer *a = object;
        const json_t *one = json_array_get(a->list, a->n++),
                     *deep = json_object_get(json_object_get(one, "body"), "deep");

        if (!a->list)
                return 0;
        DEMAND(json_is_object(one));
        same_text(a->event.id, json_object_get(one, "id"));
        same_number(a->event.number, json_object_get(one, "number"));
        if (a->event.text.text.p)
                same_text(a->event.text, json_object_get(json_object_get(one, "body"), "text"));
        if (a->event.tags.text.p)
                same_text(a->event.tags, json_object_get(one, "tags"));
        if (a->event.time != INT64_MIN)
                same_number(a->event.time, json_object_get(deep, "time"));
        return 0;
}

static const struct json_member answer_members[] = {
        MEMBER(LIST, "events", struct answer, event, .items = &event, .take = take, .required = true),
        MEMBER(TEXT, "next", struct answer, next),
};
static const struct json_object answer = JSON_OBJECT("the answer", answer_members);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str text = { (const char *)data, size };
        /* of members that come twice they may take another one each */
        json_t *root = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
        struct answer a = { .list = json_object_get(root, "events") };
        struct error err = { 0 };

        if (json_read_object(text, &answer, &a, &err) < 0)
                DEMAND(err.kind == ERROR_PROTOCOL && err.text[0]);
        else if (root && a.next.text.p)
                same_text(a.next, json_object_get(root, "next"));
        a = (struct answer){ .list = json_is_array(root) ? root : NULL };
        if (json_read_list(text, answer_members, &a, &err) < 0)
                DEMAND(err.kind == ERROR_PROTOCOL && err.text[0]);
        else if (a.list)
                DEMAND(a.n == json_array_size(a.list));
        json_decref(root);
        return 0;
}
