#include "delivery/flow.h"

#include "base/backoff.h"

/* A window of failures with nothing accepted between them opens the circuit; a small one needs a few. */
enum { OPENS_AT_LEAST = 4 };
static const usec RAMP_STEP = USEC_SEC / 2;
static const usec BASELINE_SPAN = USEC_MINUTE;
/* Slower than this is no question of taste: four times what it was, and by more than a network's or a
 * scheduler's whims. */
static const usec LATENCY_FACTOR = 4, LATENCY_SLACK = 100 * USEC_MSEC;

void flow_init(struct flow *f, const struct flow_config *config, usec now)
{
        *f = (struct flow){ .config = *config };
        f->limit = MAX_OF(MIN_OF(config->initial, config->most), 1u);
        f->threshold = config->most;
        f->epoch = now;
        f->paid_until = BUCKET_FULL;
}

static struct bucket_rate rate(const struct flow *f)
{
        return bucket_rate(f->config.rate, USEC_SEC, f->config.burst);
}

static bool affordable(const struct flow *f, usec now)
{
        struct bucket_rate r;

        if (!f->config.rate)
                return true;
        r = rate(f);
        return bucket_gives(&r, f->paid_until, now);
}

bool flow_allows(const struct flow *f, uint32_t in_flight, usec now)
{
        return now >= f->paused_until && in_flight < (uint32_t)f->limit && affordable(f, now);
}

void flow_sent(struct flow *f, uint32_t events, usec now)
{
        struct bucket_rate r;

        if (!f->config.rate)
                return;
        r = rate(f);
        f->paid_until = bucket_take(&r, f->paid_until, events, now);
}

static void lower(struct flow *f, double factor, usec now)
{
        f->threshold = MAX_OF(f->limit * 0.9, 1.0);
        f->limit = MAX_OF(f->limit * factor, 1.0);
        f->epoch = now;
}

/* Follows the lowest latency of the last one to two minutes, so that a function which became slower for good
 * is accepted in the end. */
static void watch_latency(struct flow *f, usec sent_at, usec now)
{
        usec took = MAX_OF(now - sent_at, (usec)1);

        if (now >= f->lowest_until) {
                f->baseline = f->lowest ? f->lowest : took;
                f->lowest = took;
                f->lowest_until = now + BASELINE_SPAN;
        }
        f->lowest = MIN_OF(f->lowest, took);
        f->baseline = MIN_OF(f->baseline, took);
        f->latency = f->latency ? f->latency + (took - f->latency) / 8 : took;
        if (sent_at > f->epoch && f->latency > f->baseline * LATENCY_FACTOR + LATENCY_SLACK)
                lower(f, 0.9, now);
}

static void ramp_up(struct flow *f, usec now)
{
        if (f->ramp == 0)
                return;
        if (now >= f->ramp_at) {
                f->ramp *= 2;
                f->ramp_at = now + RAMP_STEP;
        }
        f->limit = MIN_OF(f->limit, f->ramp);
        if (f->ramp >= f->config.most)
                f->ramp = 0;
}

void flow_accepted(struct flow *f, uint32_t in_flight, usec sent_at, usec now)
{
        if (f->opened) {
                f->ramp = 1;
                f->ramp_at = now + RAMP_STEP;
        }
        f->failed = f->opened = 0;
        watch_latency(f, sent_at, now);
        if (in_flight + 1 >= (uint32_t)f->limit / 2) {
                f->limit += f->limit < f->threshold ? 1 : 2 / f->limit;
                f->limit = MIN_OF(f->limit, (double)f->config.most);
        } else { /* what was not used proves nothing, and holds nothing back */
                f->overloaded = false;
        }
        ramp_up(f, now);
        if (f->limit * 2 >= f->before)
                f->overloaded = false;
}

void flow_refused(struct flow *f, struct random *random, usec sent_at, usec retry_after, usec now)
{
        bool first = sent_at > f->epoch;
        double before = f->limit;

        f->failed++;
        if (!f->overloaded)
                f->before = f->limit;
        f->overloaded = true;
        if (retry_after)
                f->paused_until = MAX_OF(f->paused_until, now + retry_after);
        if (!first)
                return;
        lower(f, 0.7, now);
        if (f->failed < MAX_OF((unsigned)before, (unsigned)OPENS_AT_LEAST))
                return;
        f->limit = 1;
        f->ramp = 0;
        f->threshold = MAX_OF(f->threshold, (double)f->config.most / 2);
        f->paused_until = MAX_OF(f->paused_until,
                                 now + backoff_full_jitter(random, f->config.pause_initial,
                                                           f->config.pause_most, f->opened, USEC_MSEC));
        f->opened = MIN_OF(f->opened + 1, 30u);
}

usec flow_deadline(const struct flow *f, usec now)
{
        usec at = f->paused_until;

        if (!affordable(f, now)) {
                struct bucket_rate r = rate(f);

                at = MAX_OF(at, bucket_at(&r, f->paid_until, now));
        }
        return at > now ? at : USEC_NEVER;
}

bool flow_is_open(const struct flow *f) { return f->opened > 0; }
bool flow_paused(const struct flow *f, usec now) { return now < f->paused_until; }

bool flow_throttles(const struct flow *f, usec now)
{
        return flow_paused(f, now) || (f->overloaded && f->limit * 2 < f->before);
}
