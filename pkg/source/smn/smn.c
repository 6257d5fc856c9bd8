#include "source/smn/smn.h"

#include "source/cloud.h"

static const struct field smn_fields[] = { SMN_FIELDS };
static const struct rule smn_rules[] = { TOPIC_RULES };
const struct type smn_type = TYPE("SmnSource", struct smn_spec, smn_fields,
                                  "Messages of a topic of Simple Message Notification.", RULES(smn_rules));

struct smn {
        struct notified notified;                             /* the first member */
        bool (*wanted)(const void *spec, struct str message); /* NULL: each is */
};

static size_t records_of(struct notified *s UNUSED, struct inbox_item *i, struct record **records,
                         size_t most UNUSED)
{
        records[0] = &CONTAINER_OF(i, struct smn_message, item)->record;
        return 1;
}

static void drop_message(struct inbox_item *i)
{
        smn_message_free(CONTAINER_OF(i, struct smn_message, item));
}

static struct inbox_item *item_of(struct record *r)
{
        return &CONTAINER_OF(r, struct smn_message, record)->item;
}

static void admit(struct notified *s, uint64_t call, struct notification *n)
{
        const struct smn *of = CONTAINER_OF(s, struct smn, notified);
        struct smn_message *m;
        bool before = inbox_knows(s->inbox, n->message_id);

        if (before || (of->wanted && !of->wanted(s->spec, n->message))) {
                s->unwanted += !before;
                inbox_answer(s->inbox, call, 200, before ? "delivered before" : "not wanted", 0);
                notification_done(n);
                return;
        }
        m = smn_message_new(s->services->trigger, clock_wall(s->services->clock), n);
        if (m)
                inbox_add(s->inbox, &m->item, call, &m->record.id, NULL, 1);
        else
                inbox_answer(s->inbox, call, 503, "out of memory", USEC_SEC);
}

static void smn_free(struct notified *s) { free(CONTAINER_OF(s, struct smn, notified)); }

int smn_open_for(struct source **out, const struct smn_spec *spec, bool (*wanted)(const void *, struct str),
                 const struct services *services, struct error *err)
{
        static const struct notified_kind kind = { .admit = admit,
                                                   .records = records_of,
                                                   .drop = drop_message,
                                                   .item = item_of,
                                                   .free = smn_free,
                                                   .remember_most = 4096 };
        struct smn *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->wanted = wanted;
        if (notified_open(&s->notified, &kind, spec, true, services, err) < 0)
                return -1;
        *out = &s->notified.source;
        return 0;
}

static int smn_open(struct source **out, const void *spec, const struct services *services, struct error *err)
{
        return smn_open_for(out, spec, NULL, services, err);
}

void smn_origin(const struct trigger *t, struct buf *b)
{
        buf_text(b, ((const struct smn_spec *)t->source_spec)->topic_urn);
}

const struct shape smn_shape = {
        .ce_type = "dev.sluice.smn.notification",
        .describe = smn_describe,
        .encode = smn_encode,
        .event = smn_event,
        .sample = smn_sample,
        .sample_free = smn_sample_free,
};
const struct source_kind smn_source = {
        .name = "smn",
        .type = &smn_type,
        .shape = &smn_shape,
        .push = &notified_push,
        .open = smn_open,
        .origin = smn_origin,
        .external = notified_external,
        .warnings = source_account_warnings,
};
