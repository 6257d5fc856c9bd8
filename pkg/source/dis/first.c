#include "source/dis/stream.h"

#include <stdio.h>

/* The first start of an app with startPosition Latest: before anything is read, the end of each partition is
 * saved as its checkpoint, so that what comes between then and its first record is lost neither by a restart
 * nor by another worker that begins to read it. It is over once the first partition of the list has a
 * checkpoint, which is saved last; from then on a partition that has none is a new one, and is read from its
 * oldest record.
 *
 * Whoever finds it unfinished makes it, several workers at once, too: each had read the list before it saw
 * that nothing was saved, so none saves a position behind what was there when the last one ended. */

enum { STATES_MOST = 1000 };
/* In the metadata of these checkpoints: what other clients saved is no first start. */
static const char FIRST_START[] = "first start";

/* Could be read when the list was: no later one, which is read from its beginning. */
static bool takes_part(const struct partition *at) { return !at->late; }

static struct partition *last_to_save(struct dis *d)
{
        struct partition *at, *next;

        HASH_ITER(hh, d->partitions, at, next)
        if (takes_part(at))
                return at;
        return NULL;
}

static struct partition *next_to_save(struct dis *d)
{
        struct partition *last = last_to_save(d), *at, *next;

        HASH_ITER(hh, d->partitions, at, next)
        if (takes_part(at) && at != last && !at->has_checkpoint)
                return at;
        return last && !last->has_checkpoint ? last : NULL;
}

static struct partition *one_with_checkpoint(struct dis *d)
{
        struct partition *at, *next;

        HASH_ITER(hh, d->partitions, at, next)
        if (at->has_checkpoint)
                return at;
        return NULL;
}

/* ---- what is asked ------------------------------------------------------ */

void dis_first_ask(struct dis *d, struct cloud_request *q)
{
        char number[24];

        switch (d->first) {
        case FIRST_APP: dis_ask_for_app(d, q); return;
        case FIRST_CHECK: dis_ask_for_checkpoint(d, d->at, q); return;
        case FIRST_SAVE:
                (void)snprintf(number, sizeof(number), "%lld", (long long)d->at->newest);
                dis_ask_to_save(d, d->at, str_of(number), FIRST_START, q);
                return;
        case FIRST_STATE:
        case FIRST_OVER:
        case FIRST_LIST: break;
        }
        buf_printf(&q->path, "/v2/{project_id}/apps/%s/streams/%s", d->app.p, d->spec->stream);
        buf_printf(&q->what, "checkpoints of app %s", d->app.p);
        poller_query(q, "checkpoint_type", STR("LAST_READ"));
        if (*d->after)
                poller_query(q, "start_partition_id", str_of(d->after));
        poller_query_int(q, "limit", STATES_MOST);
}

/* ---- what is answered --------------------------------------------------- */

static enum poller_step over(struct dis *d)
{
        d->first = FIRST_OVER;
        return POLLER_DONE;
}

static enum poller_step save_next(struct dis *d)
{
        d->first = FIRST_SAVE;
        d->at = next_to_save(d);
        return d->at ? POLLER_AGAIN : over(d);
}

static enum poller_step state_known(struct dis *d)
{
        struct partition *last = last_to_save(d);

        *d->after = 0;
        d->at = one_with_checkpoint(d);
        if (!last || last->has_checkpoint)
                return over(d);
        if (!d->at)
                return save_next(d);
        d->first = FIRST_CHECK;
        return POLLER_AGAIN;
}

static enum poller_step state_got(struct dis *d, const json_t *root, struct error *err)
{
        const json_t *states = json_object_get(root, "partition_consuming_states"), *state;
        char name[DIS_NAME_MOST + 1], before[DIS_NAME_MOST + 1];
        struct partition *at;
        size_t i;

        (void)snprintf(before, sizeof(before), "%s", d->after);
        json_array_foreach(states, i, state)
        {
                if (!dis_read_name(json_object_get(state, "partition_id"), name))
                        continue;
                (void)snprintf(d->after, sizeof(d->after), "%s", name);
                HASH_FIND_STR(d->partitions, name, at);
                if (at)
                        at->has_checkpoint = dis_sequence_of(state, "sequence_number") >= 0;
        }
        if (!json_is_true(json_object_get(root, "has_more")))
                return state_known(d);
        if (strcmp(before, d->after) != 0)
                return POLLER_AGAIN;
        *d->after = 0;
        return (enum poller_step)error_set(err, ERROR_PROTOCOL, "the list of checkpoints has no end");
}

enum poller_step dis_first_answered(struct dis *d, struct str body, struct error *err)
{
        JSON_AT_END json_t *root = NULL;
        const char *metadata;

        if (d->first == FIRST_APP)
                return save_next(d);
        if (d->first == FIRST_SAVE) {
                d->at->has_checkpoint = true;
                return save_next(d);
        }
        if (!(root = read_object(body, err)))
                return POLLER_FAILED;
        if (d->first != FIRST_CHECK)
                return state_got(d, root, err);
        metadata = json_string_value(json_object_get(root, "metadata"));
        return string_equal(metadata, FIRST_START) ? save_next(d) : over(d);
}

enum poller_step dis_first_refused(struct dis *d, const struct cloud_error *r)
{
        if (string_equal(r->code, "DIS.4332")) { /* no such app */
                d->first = FIRST_APP;
                return POLLER_AGAIN;
        }
        if (d->first == FIRST_APP && string_equal(r->code, "DIS.4330")) { /* another has just made it */
                d->first = FIRST_STATE;
                return POLLER_AGAIN;
        }
        if (d->first != FIRST_SAVE || !dis_cannot_be_saved(r))
                return POLLER_FAILED;
        d->at->has_checkpoint = true; /* it is read from its oldest record */
        return save_next(d);
}
