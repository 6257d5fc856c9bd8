#include "source/dis/stream.h"

#include <stdio.h>

enum { LIST_MOST = 500 };

void dis_ask_for_stream(const struct dis *d, struct cloud_request *q, int partitions)
{
        buf_printf(&q->path, "/v2/{project_id}/streams/%s", d->spec->stream);
        buf_printf(&q->what, "stream %s", d->spec->stream);
        poller_query_int(q, "limit_partitions", partitions);
}

void dis_discover(struct poller *p, struct cloud_request *q)
{
        struct dis *d = dis_of(p);

        if (d->first != FIRST_LIST && d->first != FIRST_OVER) {
                dis_first_ask(d, q);
                return;
        }
        dis_ask_for_stream(d, q, LIST_MOST);
        if (*d->after)
                poller_query(q, "start_partitionId", str_of(d->after));
        else {
                d->unsettled = false;
                d->described = 0;
        }
        d->listing_at = now_of(p);
}

bool dis_read_name(struct json_value id, char out[DIS_NAME_MOST + 1])
{
        char text[DIS_NAME_MOST + 1];
        struct buf name = BUF_ON(text);
        int64_t number;

        json_value_add(id, &name);
        if (name.failed || !name.n || strlen(text) != name.n || strchr(text, '/'))
                return false;
        if (str_to_int64(buf_view(&name), &number) && number >= 0)
                (void)snprintf(out, DIS_NAME_MOST + 1, "shardId-%010lld", (long long)number);
        else if (id.is_string)
                (void)snprintf(out, DIS_NAME_MOST + 1, "%s", text);
        else
                return false;
        return true;
}

/* Parses "[289911 : 289927]": the oldest record and the next one to be written. null, or no range at all, is
 * 0. false: the text is no range, as while the stream is being rescaled. */
static bool read_range(struct json_value range, int64_t *oldest, int64_t *newest)
{
        struct str text = range.is_string ? range.text : STR("[0 : 0]"), first;

        if (!str_starts(text, STR("[")) || text.p[text.n - 1] != ']')
                return false;
        text = (struct str){ text.p + 1, text.n - 2 };
        first = str_trim(str_cut(&text, ':'));
        *oldest = MAX_OF(number_of(first), (int64_t)0);
        *newest = MAX_OF(number_of(str_trim(text)), *oldest);
        return true;
}

static struct partition *partition_get(struct dis *d, const char *name, struct error *err)
{
        struct partition *at;

        HASH_FIND_STR(d->partitions, name, at);
        if (at)
                return at;
        if (HASH_COUNT(d->partitions) >= DIS_PARTITIONS_MOST) {
                (void)error_set(err, ERROR_PROTOCOL, "stream %s has more than %d partitions", d->spec->stream,
                                (int)DIS_PARTITIONS_MOST);
                return NULL;
        }
        if (!(at = calloc(1, sizeof(*at)))) {
                (void)error_memory(err);
                return NULL;
        }
        (void)snprintf(at->name, sizeof(at->name), "%s", name);
        at->late = d->listed;
        at->end = -1;
        at->cursor.max = 64 << 10;
        HASH_ADD_STR(d->partitions, name, at);
        if (at->hh.tbl)
                return at;
        free(at);
        (void)error_memory(err);
        return NULL;
}

static int partition_add(struct dis *d, struct partition *at, struct error *err)
{
        struct error why;

        stand_at(d, at, -1);
        at->ahead = -1;
        at->load = LOAD_CHECKPOINT;
        at->make_app = at->by_time = at->reset = at->found = false;
        at->empty_since = at->empty = 0;
        at->another = at->unsaid = false;
        cursor_drop(at);
        if (reader_add(d->poller.reader, str_of(at->name), at, &at->track, &why) == 0) {
                at->added = true;
                at->end = -1;
                return 0;
        }
        if (why.kind == ERROR_EXISTS)
                return 0;
        if (err)
                *err = why;
        return -1;
}

struct told { /* a partition, as the list describes it */
        struct json_value id, status, range;
};
static const struct json_member told_members[] = {
        MEMBER(ANY, "partition_id", struct told, id),
        MEMBER(TEXT, "status", struct told, status, .required = true),
        MEMBER(ANY, "sequence_number_range", struct told, range),
};
static const struct json_object told_object = JSON_OBJECT("a partition", told_members);

/* If the stream was recreated since the partition was read to its end, all of its records are new. */
static void look_at_end(const struct dis *d, struct partition *at)
{
        if (at->added || !at->of || !d->created || at->of == d->created)
                return;
        at->of = d->created;
        at->end = -1;
        at->late = true;
}

struct listing {
        struct told told; /* the current item */
        struct json_value more;
        struct dis *d;
};

static int take_partition(void *object, struct error *err)
{
        const struct listing *l = object;
        struct dis *d = l->d;
        char name[DIS_NAME_MOST + 1];
        struct partition *at;

        if (!dis_read_name(l->told.id, name))
                return error_set(err, ERROR_PROTOCOL, "a partition has no partition_id");
        (void)snprintf(d->after, sizeof(d->after), "%s", name);
        if (!(at = partition_get(d, name, err)))
                return -1;
        d->described++;
        at->described_at = d->listing_at;
        look_at_end(d, at);
        if (str_is(l->told.status.text, "EXPIRED")) {
                if (at->added)
                        reader_end(d->poller.reader, at->track);
                at->late = true; /* if it comes back, all of its records are new */
                return 0;
        }
        if (!read_range(l->told.range, &at->oldest, &at->newest)) {
                d->unsettled = true;
                return 0;
        }
        dis_look_again(d, at);
        dis_look_beyond(d, at, l->told.range.is_string);
        tell_lag(d, at);
        if (at->added)
                return 0;
        /* A partition that is closed for writing is read to its end, once. */
        if (str_is(l->told.status.text, "ACTIVE") || (at->end < at->newest && at->oldest != at->newest))
                at->found = true;
        else
                at->late = true;
        return 0;
}

/* Called once the start of each partition is known. */
static enum poller_step add_found(struct dis *d, struct error *err)
{
        struct partition *at, *next;
        bool any = false;

        HASH_ITER(hh, d->partitions, at, next)
        {
                if (at->found && partition_add(d, at, err) < 0)
                        return POLLER_FAILED;
                any |= at->added;
        }
        d->listed = true;
        if (!d->described)
                say_unread(d, "the list names none");
        else if (!any)
                say_unread(d, "those that the list names have expired, or were read to their end");
        return POLLER_DONE;
}

static enum poller_step first_start(struct dis *d, enum poller_step step, struct error *err)
{
        return step == POLLER_DONE ? add_found(d, err) : step;
}

enum poller_step dis_discover_refused(struct poller *p, const struct cloud_error *refusal, struct error *err)
{
        struct dis *d = dis_of(p);

        if (d->first == FIRST_LIST || d->first == FIRST_OVER)
                return POLLER_FAILED;
        return first_start(d, dis_first_refused(d, refusal), err);
}

static const struct json_member listing_members[] = {
        MEMBER(LIST, "partitions", struct listing, told, .items = &told_object, .take = take_partition,
               .required = true),
        MEMBER(ANY, "has_more_partitions", struct listing, more),
};
static const struct json_object listing_object = JSON_OBJECT("the answer", listing_members);

struct stream {
        struct json_value created;
};
/* Read in a pass of its own: the partitions are judged by it, and it may follow them in the text. */
static const struct json_member stream_members[] = {
        MEMBER(ANY, "create_time", struct stream, created),
};
static const struct json_object stream_object = JSON_OBJECT("the answer", stream_members);

int dis_read_created(struct dis *d, struct str body, struct error *err)
{
        struct stream stream;

        if (read_answer(body, &stream_object, &stream, err) < 0)
                return -1;
        dis_told_created(d, MAX_OF(dis_sequence_of(stream.created), (int64_t)0));
        return 0;
}

static enum poller_step listed(struct dis *d, struct str body, struct error *err)
{
        struct listing l = { .d = d };
        char before[DIS_NAME_MOST + 1];

        (void)snprintf(before, sizeof(before), "%s", d->after);
        if (!*before && dis_read_created(d, body, err) < 0)
                return POLLER_FAILED;
        if (read_answer(body, &listing_object, &l, err) < 0) {
                *d->after = 0; /* list from the start again, so that no partition is skipped */
                return POLLER_FAILED;
        }
        if (json_value_is(l.more, "true") && strcmp(before, d->after) != 0 &&
            d->described <= DIS_PARTITIONS_MOST)
                return POLLER_AGAIN;
        *d->after = 0;
        if (json_value_is(l.more, "true"))
                return (enum poller_step)error_set(err, ERROR_PROTOCOL, "the list of partitions has no end");
        if (d->unsettled) {
                (void)error_set(err, ERROR_REFUSED, "stream %s is being rescaled", d->spec->stream);
                err->retry = true;
                return POLLER_FAILED;
        }
        if (d->first == FIRST_OVER || d->spec->start != DIS_LATEST)
                return add_found(d, err);
        d->first = FIRST_STATE;
        return POLLER_AGAIN;
}

enum poller_step dis_discovered(struct poller *p, struct str body, struct error *err)
{
        struct dis *d = dis_of(p);

        if (d->first == FIRST_LIST || d->first == FIRST_OVER)
                return listed(d, body, err);
        return first_start(d, dis_first_answered(d, body, err), err);
}
