#include "source/dis/stream.h"

#include <stdio.h>

enum { PARTITIONS_MOST = 10000, LIST_MOST = 500 };

void dis_discover(struct poller *p, struct cloud_request *q)
{
        struct dis *d = dis_of(p);

        if (d->first != FIRST_LIST && d->first != FIRST_OVER) {
                dis_first_ask(d, q);
                return;
        }
        buf_printf(&q->path, "/v2/{project_id}/streams/%s", d->spec->stream);
        buf_printf(&q->what, "stream %s", d->spec->stream);
        if (*d->after)
                poller_query(q, "start_partitionId", str_of(d->after));
        else {
                d->unsettled = false;
                d->described = 0;
        }
        d->listing_at = now_of(p);
        poller_query_int(q, "limit_partitions", LIST_MOST);
}

bool dis_read_name(const json_t *id, char out[DIS_NAME_MOST + 1])
{
        const char *text = json_string_value(id);
        int64_t number = json_is_integer(id) ? (int64_t)json_integer_value(id) : -1;

        if (number < 0 && (!text || !*text || strlen(text) > DIS_NAME_MOST || strchr(text, '/')))
                return false;
        if (number < 0 && (!str_to_int64(str_of(text), &number) || number < 0))
                (void)snprintf(out, DIS_NAME_MOST + 1, "%s", text);
        else
                (void)snprintf(out, DIS_NAME_MOST + 1, "shardId-%010lld", (long long)number);
        return true;
}

/* "[289911 : 289927]": the oldest and the next; null is 0, and so is a range that is not there. false: there
 * is none yet, since the stream is being rescaled. */
static bool read_range(const json_t *range, int64_t *oldest, int64_t *newest)
{
        struct str text = str_of(json_is_string(range) ? json_string_value(range) : "[0 : 0]"), first;

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
        if (HASH_COUNT(d->partitions) >= PARTITIONS_MOST) {
                (void)error_set(err, ERROR_PROTOCOL, "stream %s has more than %d partitions", d->spec->stream,
                                (int)PARTITIONS_MOST);
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

        at->at = at->ahead = -1;
        at->load = LOAD_CHECKPOINT;
        at->make_app = at->by_time = at->reset = at->found = false;
        at->empty_since = at->empty = 0;
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

static int take_partition(struct dis *d, const json_t *told, struct error *err)
{
        const char *status = json_string_value(json_object_get(told, "status"));
        bool active = status && strcmp(status, "ACTIVE") == 0;
        char name[DIS_NAME_MOST + 1];
        struct partition *at;

        if (!status || !dis_read_name(json_object_get(told, "partition_id"), name))
                return error_set(err, ERROR_PROTOCOL, "a partition of stream %s has no id or no status",
                                 d->spec->stream);
        (void)snprintf(d->after, sizeof(d->after), "%s", name);
        if (!(at = partition_get(d, name, err)))
                return -1;
        d->described++;
        at->described_at = d->listing_at;
        if (strcmp(status, "EXPIRED") == 0) {
                if (at->added)
                        reader_end(d->poller.reader, at->track);
                at->late = true; /* when it comes back all that it has is new */
                return 0;
        }
        if (!read_range(json_object_get(told, "sequence_number_range"), &at->oldest, &at->newest)) {
                d->unsettled = true;
                return 0;
        }
        tell_lag(d, at);
        if (at->added)
                return 0;
        /* One that takes nothing more is read to its end, once. */
        if (active || (at->end < at->newest && at->oldest != at->newest))
                at->found = true;
        else
                at->late = true;
        return 0;
}

/* Once where each begins is known. */
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

static enum poller_step listed(struct dis *d, struct str body, struct error *err)
{
        JSON_AT_END json_t *root = read_object(body, err);
        const json_t *list = json_object_get(root, "partitions"), *told;
        bool more = json_is_true(json_object_get(root, "has_more_partitions"));
        char before[DIS_NAME_MOST + 1];
        size_t i;

        if (!root)
                return POLLER_FAILED;
        (void)snprintf(before, sizeof(before), "%s", d->after);
        json_array_foreach(list, i, told) if (take_partition(d, told, err) < 0) return POLLER_FAILED;
        if (more && strcmp(before, d->after) != 0)
                return POLLER_AGAIN;
        *d->after = 0;
        if (more || !json_is_array(list))
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
