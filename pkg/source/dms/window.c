/* How long a message is ours, and whether the delivery fits into that time. The window can't be renewed, and
 * what is let go comes again as a message that was never tried: attempts and age are counted anew. So what
 * the user wants to end in a dead letter, or dropped, must come to its end within one window. */
#include "source/dms/dms.h"

/* MARGIN: of the window, for what passes between the queue's clock and ours. SLACK: for what passes between
 * one attempt and the next besides their pause. */
static const usec ACK_WAIT_MOST = 300 * USEC_SEC, MARGIN = 2 * USEC_SEC, SLACK = USEC_SEC;

static bool gives_up(const struct delivery_spec *d) { return d->retry->on_exhausted != EXHAUSTED_BLOCK; }

/* All pauses between the attempts, each the longest that may be drawn. */
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

/* A message that waits for others to go with it. */
static usec batch_wait(const struct delivery_spec *d)
{
        return d->batch->max_messages > 1 ? d->batch->max_wait : 0;
}

/* What ackWait must be for an end that comes so long after the message at the latest: the delivery has to
 * hear of it while there is still time for another request. */
static usec window_for(const struct delivery_spec *d, usec end)
{
        usec all = end + batch_wait(d) + d->timeout + SLACK + MARGIN;

        return (all + USEC_SEC - 1) / USEC_SEC * USEC_SEC;
}

/* 0: the number of attempts has no limit, or what comes behind it needs no window. */
static usec attempts_need(const struct delivery_spec *d)
{
        return d->retry->max_attempts && gives_up(d)
                       ? window_for(d, d->retry->max_attempts * d->timeout + pauses(d))
                       : 0;
}

/* An attempt that is under way when the age is reached may still end. */
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

/* What the sum is held against, and what to do about it. */
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
