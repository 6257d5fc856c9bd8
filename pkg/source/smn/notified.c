#include "source/smn/notified.h"

#include "source/smn/subscription.h"

enum { ROUTE_EXACT = 1U << 30 }; /* above any API's */

static struct notified *notified_of(const struct source *s)
{
        return CONTAINER_OF((struct source *)(uintptr_t)s, struct notified, source);
}

/* ---- where it is reached ------------------------------------------------ */

void notified_path(const struct trigger *t, struct buf *b)
{
        buf_printf(b, "/%s/%s", t->namespace_, t->name);
}

static unsigned route(struct source *source, const struct push_request *q UNUSED, struct str path)
{
        const struct trigger *t = notified_of(source)->services->trigger;
        struct str first = str_cut(&path, '/'), namespace_ = str_cut(&path, '/');

        return first.n == 0 && str_is(namespace_, t->namespace_) && str_is(path, t->name) ? ROUTE_EXACT : 0;
}

bool notified_external(const struct trigger *t, struct buf *what)
{
        const struct smn_spec *spec = t->source_spec;

        if (!spec->subscription || !spec->subscription->manage)
                return false;
        buf_printf(what, "the subscription of %s to ", spec->topic_urn);
        subscription_endpoint(t, spec, what);
        return true;
}

/* ---- requests ----------------------------------------------------------- */

static enum push_verdict receive(struct source *source, uint64_t call, const struct push_request *q,
                                 struct record **records UNUSED, size_t *n UNUSED, struct push_reply *reply)
{
        struct notified *s = notified_of(source);

        return s->topic ? topic_receive(s->topic, call, q, reply) : s->kind->receive(s, call, q, reply);
}

static void finish(struct source *source, uint64_t call UNUSED, struct record *const *records,
                   size_t n UNUSED, const struct push_outcome *o, struct push_reply *reply)
{
        struct notified *s = notified_of(source);

        inbox_finish(s->inbox, s->kind->item(records[0]), o, reply);
}

static void gone(struct source *source, uint64_t call)
{
        struct notified *s = notified_of(source);

        if (!s->topic || !topic_gone(s->topic, call))
                (void)inbox_gone(s->inbox, call);
}

static usec timeout(const struct source *source) { return notified_of(source)->spec->timeout; }

static void counts(const struct source *source, struct push_counts *out)
{
        *out = (struct push_counts){ .unwanted = notified_of(source)->unwanted };
}

/* ---- its turn ----------------------------------------------------------- */

static size_t poll(struct source *source, struct push_event *events, size_t max, usec now)
{
        struct notified *s = notified_of(source);

        if (s->topic)
                topic_poll(s->topic, now);
        if (s->kind->look)
                s->kind->look(s);
        return inbox_poll(s->inbox, events, max, now);
}

static usec deadline(const struct source *source)
{
        const struct notified *s = notified_of(source);

        return MIN_OF(s->topic ? topic_deadline(s->topic) : USEC_NEVER, inbox_deadline(s->inbox));
}

static void inherit(struct source *source, struct source *of)
{
        struct notified *s = notified_of(source), *before = notified_of(of);

        inbox_inherit(s->inbox, before->inbox);
        if (before->topic)
                topic_pass_on(before->topic, s->topic);
}

static void stop(struct source *source) { inbox_stop(notified_of(source)->inbox); }

/* ---- life --------------------------------------------------------------- */

static struct source *free_source(struct source *source)
{
        struct notified *s;

        if (!source)
                return NULL;
        s = notified_of(source);
        (void)topic_free(s->topic);
        (void)inbox_free(s->inbox);
        s->kind->free(s);
        return NULL;
}

static void admit(void *cookie, uint64_t call, struct notification *n)
{
        struct notified *s = cookie;

        s->kind->admit(s, call, n);
}

static size_t records_of(void *cookie, struct inbox_item *i, struct record **records, size_t most)
{
        struct notified *s = cookie;

        return s->kind->records(s, i, records, most);
}

static void drop(void *cookie, struct inbox_item *i) { ((struct notified *)cookie)->kind->drop(i); }

int notified_open(struct notified *s, const struct notified_kind *kind, const struct smn_spec *spec,
                  bool topic, const struct services *services, struct error *err)
{
        const struct inbox_config inbox = {
                .services = services,
                .patience = spec->timeout,
                .remember_most = kind->remember_most,
                .waiting_for = topic ? "waiting for the subscription's confirmation" : NULL,
                .cookie = s,
                .records = records_of,
                .drop = drop
        };
        struct topic_config config = { .spec = spec, .services = services, .cookie = s, .admit = admit };

        s->kind = kind;
        s->spec = spec;
        s->services = services;
        if (inbox_new(&s->inbox, &inbox, err) < 0) {
                (void)free_source(&s->source);
                return -1;
        }
        config.inbox = s->inbox;
        if (topic && topic_new(&s->topic, &config, err) < 0) {
                (void)free_source(&s->source);
                return -1;
        }
        return 0;
}

const struct push_ops notified_push = {
        .side_by_side = true,
        .inherit = inherit,
        .counts = counts,
        .route = route,
        .receive = receive,
        .finish = finish,
        .gone = gone,
        .timeout = timeout,
        .path = notified_path,
        .poll = poll,
        .deadline = deadline,
        .stop = stop,
        .free = free_source,
};
