/* The ack window: how long it is, and whether the delivery settings fit into it. The window can't be
 * extended, and a message that is redelivered starts over: its attempts and age are counted from zero. So a
 * retry limit that ends in a dead letter or a drop is only ever reached if it fits into one window. */
#include "source/dms/dms.h"

/* MARGIN: reserved at the end of the window, for network delay and clock differences. SLACK: overhead between
 * attempts besides the back-off. */
static const usec ACK_WAIT_MOST = 300 * USEC_SEC, MARGIN = 2 * USEC_SEC, SLACK = USEC_SEC;

static bool gives_up(const struct delivery_spec *d) { return d->retry->on_exhausted != EXHAUSTED_BLOCK; }

/* The sum of the back-off pauses, each at its maximum (they are jittered). */
static usec pauses(const struct delivery_spec *d)
{
        const struct retry_spec *r = d->retry;
        usec all = 0, pause = r->initial_backoff;

        for (int64_t n = 1; n < r->max_attempts; n++) {
                all += MIN_OF(pause, r->max_backoff);
                pause = r->backoff == BACKOFF_LINEAR ? pause + r->initial_backoff
                                                     : MIN_OF(pause, r->max_backoff) * 2;
        }
        return all;
}

/* How long a message may wait for its batch to fill. */
static usec batch_wait(const struct delivery_spec *d)
{
        return d->batch->max_messages > 1 ? d->batch->max_wait : 0;
}

/* The ackWait that is needed if delivery ends at most that long after the message was received: the engine
 * only starts an attempt while the window leaves time for a whole request. */
static usec window_for(const struct delivery_spec *d, usec end)
{
        usec all = end + batch_wait(d) + d->timeout + SLACK + MARGIN;

        return (all + USEC_SEC - 1) / USEC_SEC * USEC_SEC;
}

/* 0: attempts are unlimited, or nothing happens when they are used up (Block). */
static usec attempts_need(const struct delivery_spec *d)
{
        return d->retry->max_attempts && gives_up(d)
                       ? window_for(d, d->retry->max_attempts * d->timeout + pauses(d))
                       : 0;
}

/* An attempt in flight when maxEventAge is reached may still finish. */
static usec age_needs(const struct delivery_spec *d)
{
        return d->retry->max_event_age && gives_up(d) ? window_for(d, d->retry->max_event_age + d->timeout)
                                                      : 0;
}

usec dms_ack_wait(const struct dms_spec *spec, const struct delivery_spec *d)
{
        usec wanted = MAX_OF(attempts_need(d), age_needs(d));

        wanted = MAX_OF(wanted, d->timeout + 30 * USEC_SEC);
        return spec->ack_wait ? spec->ack_wait : MIN_OF(wanted, ACK_WAIT_MOST);
}

usec dms_lease(const struct dms_spec *spec, const struct delivery_spec *d)
{
        usec ack_wait = dms_ack_wait(spec, d), spare = (ack_wait - d->timeout) / 2;

        return ack_wait - MIN_OF(MARGIN, spare);
}

/* The limit that the sum exceeds, and how to fix it. */
static void say_what_to_do(const struct dms_spec *spec, usec needed, const char *lower, struct buf *why)
{
        if (spec->ack_wait) {
                buf_text(why, ", ackWait is ");
                duration_plain(why, spec->ack_wait);
        } else {
                buf_text(why, ", and a queue leaves a message with one consumer for at most 300s");
        }
        buf_text(why, ", and what comes again is counted anew: ");
        if (needed <= ACK_WAIT_MOST) {
                buf_text(why, "raise ackWait to ");
                duration_plain(why, needed);
                buf_text(why, ", or ");
        }
        buf_text(why, lower);
}

static void say_sum(const struct delivery_spec *d, usec needed, struct buf *why)
{
        if (batch_wait(d)) {
                buf_text(why, ", delivery.batch.maxWait ");
                duration_plain(why, batch_wait(d));
        }
        buf_text(why, ", and time for one more request are ");
        duration_plain(why, needed);
        buf_text(why, " in all");
}

static void say_attempts(const struct dms_spec *spec, const struct delivery_spec *d, usec needed,
                         struct buf *why)
{
        buf_printf(why, "delivery.retry.maxAttempts is never reached: %lld times delivery.timeout ",
                   (long long)d->retry->max_attempts);
        duration_plain(why, d->timeout);
        if (d->retry->max_attempts > 1) {
                buf_text(why, ", pauses up to ");
                duration_plain(why, pauses(d));
        }
        say_sum(d, needed, why);
        say_what_to_do(spec, needed, "lower maxAttempts, delivery.timeout or delivery.retry.maxBackoff", why);
}

static void say_age(const struct dms_spec *spec, const struct delivery_spec *d, usec needed, struct buf *why)
{
        buf_text(why, "delivery.retry.maxEventAge is never reached: ");
        duration_plain(why, d->retry->max_event_age);
        buf_text(why, ", an attempt of delivery.timeout ");
        duration_plain(why, d->timeout);
        say_sum(d, needed, why);
        say_what_to_do(spec, needed, "lower maxEventAge or delivery.timeout", why);
}

bool dms_fits(const void *object, const struct delivery_spec *d, struct buf *why)
{
        const struct dms_spec *spec = object;
        usec window = dms_ack_wait(spec, d);

        if (window <= d->timeout)
                buf_text(why,
                         spec->ack_wait
                                 ? "ackWait must exceed delivery.timeout: the queue would give a message out "
                                   "again while the function still works on it"
                                 : "delivery.timeout must be below 300s, the longest time that the queue "
                                   "leaves a message with one consumer");
        else if (attempts_need(d) > window)
                say_attempts(spec, d, attempts_need(d), why);
        else if (age_needs(d) > window)
                say_age(spec, d, age_needs(d), why);
        else
                return true;
        return false;
}
