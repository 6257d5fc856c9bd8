#include "host/report.h"

#include <stdio.h>

#include "api/worker.h"
#include "kube/report.h"

static const usec REFRESH = 15 * USEC_SEC;
/* A failure that is over sooner is not reported. */
static const usec SETTLING = USEC_SEC;

struct report {
        const struct trigger *trigger;
        struct kube_report *kube;
        enum delivery_state delivery; /* as reported */
        usec delivery_since;          /* when it began to differ from that; 0: it does not */
};

const char *report_uid(const struct trigger *t) { return strchr(t->uid, '/') ? NULL : t->uid; }

int report_new(struct report **out, struct kube_client *kube, const char *pod, const struct trigger *t,
               struct error *err)
{
        BUF_AT_END struct buf manager = BUF_INIT(4096);
        struct report *r = calloc(1, sizeof(*r));
        struct kube_report_config config = { .api_version = API_GROUP_VERSION,
                                             .kind = "Trigger",
                                             .resource = "triggers",
                                             .namespace_ = t->namespace_,
                                             .name = t->name,
                                             .uid = report_uid(t),
                                             .pod = pod };

        buf_printf(&manager, WORKER_FIELD_MANAGER "%s", pod);
        config.manager = manager.p;
        if (!r || manager.failed) {
                free(r);
                return error_memory(err);
        }
        r->trigger = t;
        if (kube_report_new(&r->kube, kube, &config, err) < 0) {
                free(r);
                return -1;
        }
        *out = r;
        return 0;
}

struct report *report_free(struct report *r)
{
        if (!r)
                return NULL;
        (void)kube_report_free(r->kube);
        free(r);
        return NULL;
}

/* Only a delivery state that lasts is reported. Returns when to look again; USEC_NEVER: no need. */
static usec settle_state(struct report *r, const struct pipeline_status *s, usec now)
{
        if (s->delivery == r->delivery) {
                r->delivery_since = 0;
                return USEC_NEVER;
        }
        if (!r->delivery_since)
                r->delivery_since = now;
        if (now - r->delivery_since < SETTLING)
                return r->delivery_since + SETTLING;
        r->delivery = s->delivery;
        r->delivery_since = 0;
        return USEC_NEVER;
}

/* struct worker_status has char * members, and the pipeline's texts are const: hence the copies. */
static void write_report(struct report *r, const struct pipeline_status *s)
{
        char source[sizeof(s->source_text)], delivery[sizeof(s->delivery_text)],
                lost[sizeof(s->warnings.lost_text)];
        char source_state[32], delivery_state[32], outcome[32];
        BUF_AT_END struct buf clock = BUF_INIT(256);
        struct worker_status status = { .observed_generation = r->trigger->generation,
                                        .last_event_time = s->last_event,
                                        .last_delivery_time = s->last_delivery,
                                        .last_run_time = s->runs.last,
                                        .next_run_time = s->runs.next,
                                        .oldest_pending_time = s->oldest,
                                        .lag = s->lag,
                                        .lost = (int64_t)s->warnings.lost };

        (void)snprintf(source_state, sizeof(source_state), "%s", source_state_name(s->source));
        (void)snprintf(source, sizeof(source), "%s", s->source_text);
        (void)snprintf(delivery_state, sizeof(delivery_state), "%s", pipeline_delivery_name(r->delivery));
        (void)snprintf(delivery, sizeof(delivery), "%s", s->delivery_text);
        (void)snprintf(lost, sizeof(lost), "%s", s->warnings.lost_text);
        status.source_state = source_state;
        status.source_message = *source ? source : NULL;
        status.delivery_state = delivery_state;
        status.delivery_message = r->delivery == DELIVERY_IDLE || !*delivery ? NULL : delivery;
        (void)snprintf(outcome, sizeof(outcome), "%s", outcome_name(s->runs.outcome));
        status.last_run_outcome = s->runs.last ? outcome : NULL;
        status.lost_message = *lost ? lost : NULL;
        pipeline_clock(s, &clock);
        status.clock_message = clock.n ? clock.p : NULL;
        kube_report_set(r->kube, &status);
}

usec report_tell(struct report *r, const struct pipeline_status *s, usec now)
{
        usec next = settle_state(r, s, now);

        write_report(r, s);
        return MIN_OF(next, now + REFRESH);
}
