/* SMN's messages, made into FunctionGraph's event in both dialects and into what a filter sees, and looked at
 * as alarms: each is JSON with exactly its members, and the message arrives as it was sent. */
#include "api.h"
#include "json/check.h"
#include "source/cloudeye/cloudeye.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char urn[] = "urn:smn:xx-xxxxx-x:bb8695913bb74682b9ca82a8803b60d8:topic", name[] = "topic",
            namespace_[] = "shop";
static struct function_spec function;
static struct event_spec event_spec;
static struct smn_spec spec = { .topic_urn = urn };
static struct trigger trigger_ = { .name = name,
                                   .namespace_ = namespace_,
                                   .source_spec = &spec,
                                   .function = &function,
                                   .event = &event_spec };

static json_t *parsed(const struct buf *text, size_t members)
{
        json_t *root = json_loadb(text->p, text->n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);

        DEMAND(!text->failed && json_is_object(root) && json_object_size(root) == members);
        return root;
}

static bool is(const json_t *value, struct str s)
{
        return json_is_string(value) &&
               str_equal((struct str){ json_string_value(value), json_string_length(value) }, s);
}

static void check_record(const json_t *record, const struct notification *n, bool message_too)
{
        const json_t *smn = json_object_get(record, "smn");

        DEMAND(json_object_size(record) == 4 && json_object_size(smn) == 7);
        DEMAND(json_is_string(json_object_get(record, "event_subscription_urn")) &&
               json_is_null(json_object_get(smn, "message_attributes")));
        DEMAND(is(json_object_get(smn, "message_id"), n->message_id) &&
               is(json_object_get(smn, "topic_urn"), n->topic_urn) &&
               is(json_object_get(smn, "timestamp"), n->timestamp));
        DEMAND(n->subject.p ? is(json_object_get(smn, "subject"), n->subject)
                            : json_is_null(json_object_get(smn, "subject")));
        DEMAND(json_object_get(smn, "message") &&
               (!message_too || is(json_object_get(smn, "message"), n->message)));
}

static void check(struct smn_message *m)
{
        static const enum dialect dialects[] = { DIALECT_CLASSIC, DIALECT_CURRENT };
        BUF_AT_END struct buf text = BUF_INIT((size_t)16 << 20);
        struct record *record = &m->record;
        struct writer w;
        json_t *root;

        for (size_t i = 0; i < COUNT_OF(dialects); i++) {
                buf_reset(&text);
                writer_init(&w, &text);
                event_spec.dialect = (int)dialects[i];
                smn_source.shape->encode(&trigger_, &record, 1, &w);
                root = parsed(&text, dialects[i] == DIALECT_CLASSIC ? 4 : 1);
                DEMAND(json_array_size(json_object_get(root, "record")) == 1);
                check_record(json_array_get(json_object_get(root, "record"), 0), &m->notification, true);
                json_decref(root);
        }
        buf_reset(&text);
        writer_init(&w, &text);
        smn_source.shape->describe(record, &w);
        /* What the message holds as JSON stands there as it is, and may be more than the parser takes. */
        DEMAND(!text.failed && json_is_value(buf_view(&text), NULL));
        root = json_loadb(text.p, text.n, JSON_ALLOW_NUL, NULL);
        if (root)
                check_record(root, &m->notification, false);
        json_decref(root);
}

static void check_alarm(struct str message)
{
        static char alarm[] = "a", raised[] = "alarm", major[] = "Major";
        static char *alarms[] = { alarm }, *states[] = { raised }, *severities[] = { major };
        struct cloudeye_spec any = { 0 }, some = { .alarms = { alarms, 1 },
                                                   .severities = { severities, 1 },
                                                   .states = { states, 1 } };
        struct str text = message;
        json_t *root;

        if (str_starts(text, STR("\xef\xbb\xbf")))
                text = (struct str){ text.p + 3, text.n - 3 };
        root = json_loadb(text.p, text.n, 0, NULL);
        DEMAND(cloudeye_wants(&any, message)); /* whatever it looks like */
        DEMAND(!cloudeye_wants(&some, message) || json_is_object(root));
        json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct notification n;
        struct smn_message *m;
        const char *why;

        if (size > NOTIFICATION_BODY_MOST)
                return 0;
        check_alarm((struct str){ (const char *)data, size });
        if (notification_parse((struct str){ (const char *)data, size }, &n, &why) < 0)
                return 0;
        if (n.kind != NOTIFICATION_MESSAGE) {
                notification_done(&n);
                return 0;
        }
        m = smn_message_new(&trigger_, clock_wall(&still_clock), &n);
        DEMAND(m);
        check_alarm(m->notification.message);
        check(m);
        smn_message_free(m);
        return 0;
}
