#include <stdio.h>

#include "source/dis/stream.h"

/* Detects that a stream was deleted and created again under the same name. The new stream numbers its records
 * from 0, so a checkpoint of the old stream is meaningless, even if the new one has a record of that number.
 *
 * A stream is identified by its creation time, as the service describes it. Each checkpoint stores that time
 * in its metadata ("created=1767225600000"). If a stream is recreated while it is read, the marks of the new
 * stream's records carry its creation time behind the number ("20/1767225660500"). Once a stream was
 * recreated, the metadata also say so ("created=1767225660500 again"), and the ids of its records contain the
 * creation time, since STREAM/PARTITION/NUMBER would repeat ids of the old stream.
 *
 * If the service does not tell the creation time, or the checkpoint does not (an earlier version saved it), a
 * position beyond the end of the stream is the only evidence. */

static const char CREATED[] = "created=", AGAIN[] = " again";
/* So many descriptions in a row must agree: a single one may come from a replica that lags behind, or from a
 * service that reports a different time with each answer. */
enum { PROVEN = 2 };
static const usec ASK_AGAIN = 2 * USEC_SEC;

/* ---- which stream a position is of -------------------------------------- */

int64_t dis_position(const struct partition *at, struct str mark)
{
        struct str number = str_cut(&mark, '/');
        int64_t created = mark.n ? number_of(mark) : at->first_of;

        return created == at->of ? number_of(number) : -1;
}

int64_t dis_made_again(const struct partition *at)
{
        return at->first_again || at->of != at->first_of ? at->of : 0;
}

void dis_write_metadata(int64_t created, bool again, struct buf *out)
{
        if (created)
                buf_printf(out, "%s%lld%s", CREATED, (long long)created, again ? AGAIN : "");
}

int64_t dis_read_metadata(struct str metadata, bool *again)
{
        int64_t created;

        *again = false;
        if (!str_starts(metadata, str_of(CREATED)))
                return 0;
        metadata = (struct str){ metadata.p + strlen(CREATED), metadata.n - strlen(CREATED) };
        created = number_of(str_cut(&metadata, ' '));
        *again = created > 0 && str_is(metadata, AGAIN + 1);
        return MAX_OF(created, (int64_t)0);
}

void dis_write_first_mark(const struct partition *at, struct buf *out)
{
        buf_printf(out, "0/%lld", (long long)at->of);
}

/* ---- what a list says --------------------------------------------------- */

void dis_told_created(struct dis *d, int64_t created)
{
        bool first = !d->created && !d->told_created;

        d->proven = created == d->told_created;
        if (first || d->proven) {
                d->created = created;
                d->disagreed = 0;
        } else if (++d->disagreed <= PROVEN)
                poller_discover_by(&d->poller, now_of(&d->poller) + ASK_AGAIN);
        d->told_created = created;
}

void dis_look_again(struct dis *d, struct partition *at)
{
        if (!at->of)
                at->of = at->first_of = d->created;
        at->another = d->created && d->created != at->of;
}

/* Ignores descriptions that say nothing about the position: those requested before it was reached, those
 * without a range, and those of partitions that have no position or are being reset. */
void dis_look_beyond(struct dis *d, struct partition *at, bool has_range)
{
        if (!at->added || at->at < 0 || at->reset || !has_range || at->described_at <= at->stands_since)
                return;
        if (at->at <= at->newest) {
                at->beyond = 0;
                return;
        }
        if (++at->beyond < PROVEN) /* time for a lagging replica to catch up */
                poller_discover_by(&d->poller, now_of(&d->poller) + ASK_AGAIN);
}

bool dis_stands_nowhere(const struct partition *at) { return at->beyond || at->another; }

/* ---- what follows from it ----------------------------------------------- */

void dis_start_over(const struct dis *d, struct partition *at, const char *why)
{
        if (!at->reset)
                reader_warn(d->poller.reader, "PositionOutOfRange",
                            "partition %s goes on at its oldest record: %s", at->name, why);
        at->reset = true;
        at->beyond = 0;
        cursor_drop(at);
}

/* If records of the old stream were read, the checkpoint of the new one is saved before anything is read of
 * it: the ids depend on what the checkpoint says, and must be the same after a restart. Otherwise there is
 * only a cursor of the old stream to drop. */
static void leave_stream(const struct dis *d, struct partition *at)
{
        BUF_AT_END struct buf why = BUF_INIT(1024);

        buf_printf(&why, "its position %lld is of the stream that was created at ", (long long)at->at);
        time_format(&why, poller_time(at->of));
        buf_text(&why, "; that was deleted, and made again at ");
        time_format(&why, poller_time(d->created));
        if (at->at >= 0)
                dis_start_over(d, at, why.failed ? "the stream was made again" : why.p);
        at->unsaid = at->at >= 0 || at->of != at->first_of;
        at->of = d->created;
        if (!at->unsaid)
                at->first_of = at->of;
        cursor_drop(at);
        stand_at(d, at, -1);
        at->another = false;
        at->ahead = at->end = -1;
        tell_lag(d, at);
}

void dis_leave_position(const struct dis *d, struct partition *at)
{
        char why[200];

        if (at->another) {
                leave_stream(d, at);
                return;
        }
        if (at->beyond < PROVEN)
                return;
        (void)snprintf(why, sizeof(why),
                       "its position %lld lies beyond the end of the stream, %lld, which was probably "
                       "deleted and made again",
                       (long long)at->at, (long long)at->newest);
        dis_start_over(d, at, why);
        tell_lag(d, at);
}
