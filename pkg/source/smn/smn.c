#include "source/smn/smn.h"

#include "source/cloud.h"
#include "source/smn/subscription.h"

static const struct field smn_fields[] = { SMN_FIELDS };
static const struct rule smn_rules[] = { TOPIC_RULES };
const struct type smn_type = TYPE("SmnSource", struct smn_spec, smn_fields,
                                  "Messages of a topic of Simple Message Notification.", RULES(smn_rules));

struct smn {
        struct source source;
        const struct smn_spec *spec;
        bool (*wanted)(const void *spec, struct str message); /* NULL: each is */
        const struct services *services;
        struct inbox *inbox;
        struct topic *topic;
        uint64_t unwanted;
};

static struct smn *smn_of(const struct source *s) { return CONTAINER_OF(s, struct smn, source); }

static size_t records_of(void *cookie UNUSED, struct inbox_item *i, struct record **records,
                         size_t most UNUSED)
{
        records[0] = &CONTAINER_OF(i, struct smn_message, item)->record;
        return 1;
}

static void drop_message(void *cookie UNUSED, struct inbox_item *i)
{
        smn_message_free(CONTAINER_OF(i, struct smn_message, item));
}

static void admit(void *cookie, uint64_t call, struct notification *n)
{
        struct smn *s = cookie;
        struct smn_message *m;
        bool before = inbox_knows(s->inbox, n->message_id);

        if (before || (s->wanted && !s->wanted(s->spec, n->message))) {
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

struct source *smn_free(struct source *source)
{
        struct smn *s = smn_of(source);

        if (!s)
                return NULL;
        (void)topic_free(s->topic);
        (void)inbox_free(s->inbox);
        free(s);
        return NULL;
}

int smn_open_for(struct source **out, const struct smn_spec *spec, bool (*wanted)(const void *, struct str),
                 const struct services *services, struct error *err)
{
        struct smn *s = calloc(1, sizeof(*s));
        struct inbox_config inbox = { .services = services,
                                      .wake = services->wake,
                                      .remember_most = 4096,
                                      .waiting_for = "waiting for the subscription's confirmation",
                                      .cookie = s,
                                      .records = records_of,
                                      .drop = drop_message };
        struct topic_config topic = {
                .spec = spec, .services = services, .wake = services->wake, .cookie = s, .admit = admit
        };

        if (!s)
                return error_memory(err);
        s->spec = spec;
        s->wanted = wanted;
        s->services = services;
        inbox.patience = s->spec->timeout;
        if (inbox_new(&s->inbox, &inbox, err) < 0) {
                (void)smn_free(&s->source);
                return -1;
        }
        topic.inbox = s->inbox;
        if (topic_new(&s->topic, &topic, err) < 0) {
                (void)smn_free(&s->source);
                return -1;
        }
        *out = &s->source;
        return 0;
}

static int smn_open(struct source **out, const void *spec, const struct services *services, struct error *err)
{
        return smn_open_for(out, spec, NULL, services, err);
}

size_t smn_poll(struct source *source, struct push_event *events, size_t max, usec now)
{
        struct smn *s = smn_of(source);

        topic_poll(s->topic, now);
        return inbox_poll(s->inbox, events, max, now);
}

usec smn_deadline(const struct source *source)
{
        const struct smn *s = smn_of(source);

        return MIN_OF(topic_deadline(s->topic), inbox_deadline(s->inbox));
}
void smn_stop(struct source *source)
{
        struct smn *s = smn_of(source);

        inbox_stop(s->inbox);
}

static unsigned route(struct source *source, const struct push_request *q UNUSED, struct str path)
{
        struct smn *s = smn_of(source);

        return smn_route(s->services->trigger, path);
}

static enum push_verdict receive(struct source *source, uint64_t call, const struct push_request *q,
                                 struct record **records UNUSED, size_t *n UNUSED, struct push_reply *reply)
{
        struct smn *s = smn_of(source);

        return topic_receive(s->topic, call, q, reply);
}

static void finish(struct source *source, uint64_t call UNUSED, struct record *const *records,
                   size_t n UNUSED, const struct push_outcome *o, struct push_reply *reply)
{
        struct smn *s = smn_of(source);

        inbox_finish(s->inbox, &CONTAINER_OF(records[0], struct smn_message, record)->item, o, reply);
}

static void gone(struct source *source, uint64_t call)
{
        struct smn *s = smn_of(source);

        if (!topic_gone(s->topic, call))
                (void)inbox_gone(s->inbox, call);
}

static usec timeout(const struct source *source)
{
        const struct smn *s = smn_of(source);

        return s->spec->timeout;
}
void smn_origin(const struct trigger *t, struct buf *b)
{
        buf_text(b, ((const struct smn_spec *)t->source_spec)->topic_urn);
}

bool smn_outside(const struct trigger *t, struct buf *what)
{
        const struct smn_spec *spec = t->source_spec;

        if (!spec->subscription || !spec->subscription->manage)
                return false;
        buf_printf(what, "the subscription of %s to ", spec->topic_urn);
        subscription_endpoint(t, spec, what);
        return true;
}

static void counts(const struct source *source, struct push_counts *out)
{
        const struct smn *s = smn_of(source);

        *out = (struct push_counts){ .unwanted = s->unwanted };
}

const struct shape smn_shape = {
        .ce_type = "dev.sluice.smn.notification",
        .describe = smn_describe,
        .encode = smn_encode,
        .event = smn_event,
        .sample = smn_sample,
        .sample_free = smn_sample_free,
};
const struct push_ops smn_push = {
        .counts = counts,
        .route = route,
        .receive = receive,
        .finish = finish,
        .gone = gone,
        .timeout = timeout,
        .path = smn_path,
        .poll = smn_poll,
        .deadline = smn_deadline,
        .stop = smn_stop,
        .free = smn_free,
};
const struct source_kind smn_source = {
        .name = "smn",
        .type = &smn_type,
        .shape = &smn_shape,
        .push = &smn_push,
        .open = smn_open,
        .origin = smn_origin,
        .external = smn_outside,
        .warnings = source_account_warnings,
};
