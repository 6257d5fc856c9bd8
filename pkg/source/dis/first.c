#include "source/dis/stream.h"

#include <stdio.h>

/* The first start of an app with startPosition Latest. Before anything is read, the current end of each
 * partition is saved as its checkpoint. Otherwise records that arrive before the first checkpoint would be
 * skipped after a restart, or by another worker that takes over the partition.
 *
 * The checkpoint of the first partition in the list is saved last. Once it exists, the first start is
 * complete, and any partition without a checkpoint is a new one that is read from its oldest record.
 *
 * A worker that finds the first start incomplete finishes it. Several may do so at once: each of them read
 * the list before it saw that the first start is incomplete, so no position that it saves lies beyond the end
 * of the partition at the time when the first start was completed. */

enum { STATES_MOST = 1000 };
/* Marks these checkpoints in their metadata, to tell them from those of other clients. The stream's creation
 * time follows. */
static const char FIRST_START[] = "first start";

struct str dis_metadata_of(struct json_value saved)
{
        struct str text = saved.is_string ? saved.text : (struct str){ 0 };
        size_t n = str_starts(text, str_of(FIRST_START)) ? strlen(FIRST_START) : 0;

        return str_trim((struct str){ text.p + n, text.n - n });
}

/* The partition was readable in the first list. Later ones are read from their beginning instead. */
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
        char number[24], text[64];
        struct buf metadata = BUF_ON(text);

        switch (d->first) {
        case FIRST_APP: dis_ask_for_app(d, q); return;
        case FIRST_CHECK: dis_ask_for_checkpoint(d, d->at, q); return;
        case FIRST_SAVE:
                (void)snprintf(number, sizeof(number), "%lld", (long long)d->at->newest);
                buf_printf(&metadata, "%s%s", FIRST_START, d->created ? " " : "");
                dis_write_metadata(d->created, false, &metadata);
                dis_ask_to_save(d, d->at, str_of(number), buf_view(&metadata), q);
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
        else
                d->states = 0;
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

struct state { /* a partition's, as the app's status lists it */
        struct json_value id, number;
};
static const struct json_member state_members[] = {
        MEMBER(ANY, "partition_id", struct state, id),
        MEMBER(ANY, "sequence_number", struct state, number),
};
static const struct json_object state_object = JSON_OBJECT("a state", state_members);

struct states {
        struct state state; /* the current item */
        struct json_value more;
        struct dis *d;
};

static int take_state(void *object, struct error *err UNUSED)
{
        const struct states *all = object;
        struct dis *d = all->d;
        char name[DIS_NAME_MOST + 1];
        struct partition *at;

        if (!dis_read_name(all->state.id, name))
                return 0;
        (void)snprintf(d->after, sizeof(d->after), "%s", name);
        d->states++;
        HASH_FIND_STR(d->partitions, name, at);
        if (at)
                at->has_checkpoint = dis_sequence_of(all->state.number) >= 0;
        return 0;
}

static const struct json_member states_members[] = {
        MEMBER(LIST, "partition_consuming_states", struct states, state, .items = &state_object,
               .take = take_state),
        MEMBER(ANY, "has_more", struct states, more),
};
static const struct json_object states_object = JSON_OBJECT("the answer", states_members);

static enum poller_step state_got(struct dis *d, struct str body, struct error *err)
{
        struct states all = { .d = d };
        char before[DIS_NAME_MOST + 1];

        (void)snprintf(before, sizeof(before), "%s", d->after);
        if (read_answer(body, &states_object, &all, err) < 0) {
                *d->after = 0;
                return POLLER_FAILED;
        }
        if (!json_value_is(all.more, "true"))
                return state_known(d);
        if (strcmp(before, d->after) != 0 && d->states <= DIS_PARTITIONS_MOST)
                return POLLER_AGAIN;
        *d->after = 0;
        return (enum poller_step)error_set(err, ERROR_PROTOCOL, "the list of checkpoints has no end");
}

struct saved {
        struct json_value metadata;
};
static const struct json_member saved_members[] = {
        MEMBER(ANY, "metadata", struct saved, metadata),
};
static const struct json_object saved_object = JSON_OBJECT("the answer", saved_members);

enum poller_step dis_first_answered(struct dis *d, struct str body, struct error *err)
{
        struct saved last;

        if (d->first == FIRST_APP)
                return save_next(d);
        if (d->first == FIRST_SAVE) {
                d->at->has_checkpoint = true;
                return save_next(d);
        }
        if (d->first != FIRST_CHECK)
                return state_got(d, body, err);
        if (read_answer(body, &saved_object, &last, err) < 0)
                return POLLER_FAILED;
        return last.metadata.is_string && str_starts(last.metadata.text, str_of(FIRST_START)) ? save_next(d)
                                                                                              : over(d);
}

enum poller_step dis_first_refused(struct dis *d, const struct cloud_error *r)
{
        if (string_equal(r->code, "DIS.4332")) { /* no such app */
                d->first = FIRST_APP;
                return POLLER_AGAIN;
        }
        if (d->first == FIRST_APP && string_equal(r->code, "DIS.4330")) { /* another worker was faster */
                d->first = FIRST_STATE;
                return POLLER_AGAIN;
        }
        if (d->first != FIRST_SAVE || !dis_cannot_be_saved(r))
                return POLLER_FAILED;
        d->at->has_checkpoint = true; /* none to save: if it comes back, it is read from its oldest record */
        return save_next(d);
}
