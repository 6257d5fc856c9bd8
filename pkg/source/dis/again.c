#include <stdio.h>

#include "source/dis/stream.h"

/* A stream that was deleted and made again under the same name: its numbers begin anew, and a position in the
 * one before is none in it, even where it has a record of that number. Which one a position is of tells the
 * time when the stream was created, as it is described: that is saved with each checkpoint, in its metadata,
 * and follows the number in the marks of those that came later ("20/1767225600000"). Once a stream was made
 * again the metadata say that, too ("created=1767225600000 again"), and the ids of its records the time.
 * Where the service does not tell it, or an earlier version has saved the checkpoint, a position that lies
 * beyond the end does. */

static const char CREATED[] = "created=", AGAIN[] = " again";
/* By so many lists in a row it is no mistake of a replica that is behind, or of a service that makes the time
 * up. */
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

/* A list that was asked for before it got there does not know, nor does one without a range; and one that was
 * read elsewhere, or is about to be, stands nowhere. */
void dis_look_beyond(struct dis *d, struct partition *at, bool has_range)
{
        if (!at->added || at->at < 0 || at->reset || !has_range || at->described_at <= at->stands_since)
                return;
        if (at->at <= at->newest) {
                at->beyond = 0;
                return;
        }
        if (++at->beyond < PROVEN) /* a replica that is behind has caught up by then */
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

/* A partition without a position has read nothing of the stream before, but may have a cursor of it. One that
 * has read some saves first that the stream was made again: the ids that it gives from now on depend on it,
 * and must be the same after a restart. */
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
