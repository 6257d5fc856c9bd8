#include "source/kafka/positions.h"

/* ---- deciding ----------------------------------------------------------- */

static int64_t first_begin(const struct whereabouts *w, enum kafka_start start)
{
        switch (start) {
        case KAFKA_EARLIEST: return w->low;
        case KAFKA_LATEST: return w->high;
        case KAFKA_TIMESTAMP: return w->since >= 0 ? w->since : w->high;
        }
        return w->low;
}

struct begin begin_of(const struct whereabouts *w, bool first, enum kafka_start start)
{
        if (w->reached < 0)
                return (struct begin){ .reason = first ? BEGIN_FIRST : BEGIN_NEW,
                                       .at = first ? first_begin(w, start) : w->low };
        if (w->low >= 0 && w->reached < w->low)
                return (struct begin){ .reason = BEGIN_RETENTION,
                                       .at = w->low,
                                       .lost = (uint64_t)(w->low - w->reached) };
        if (w->high >= 0 && w->reached > w->high)
                return (struct begin){ .reason = BEGIN_RECREATED, .at = w->low };
        return (struct begin){ .reason = BEGIN_REACHED, .at = w->reached };
}

/* ---- asking ------------------------------------------------------------- */

struct lookup {
        struct helper_job job;
        rd_kafka_t *rk;
        /* low and high: of those that are asked about, in another order perhaps */
        rd_kafka_topic_partition_list_t *committed, *low, *high, *since;
        int what;
        usec time;       /* 0: no time is asked about */
        int patience_ms; /* with one question */
        usec until;      /* with all of them */
        rd_kafka_resp_err_t error;
        bool taken;
};

/* An error that may be one partition's alone, though librdkafka gives it for the whole list. Of a broker that
 * does not answer nothing is learnt by asking it about fewer. */
static bool may_be_of_one(rd_kafka_resp_err_t r)
{
        switch ((int)r) {
        case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
        case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
        case RD_KAFKA_RESP_ERR__INVALID_ARG:
        case RD_KAFKA_RESP_ERR__NOENT:
        case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        case 100: /* UNKNOWN_TOPIC_ID and INCONSISTENT_TOPIC_ID, which older releases of librdkafka have no
                     names for */
        case 103:
        case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
        case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
        case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
        case RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE:
        case RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR:
        case RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE:
        case RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH:
        case RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH:
        case RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT: return true;
        default: return false;
        }
}

/* How long one of so many questions that are left may take. */
static int patience(const struct lookup *l, int questions)
{
        usec left = (l->until - clock_monotonic(&system_clock)) / MAX_OF(questions, 1) / USEC_MSEC;

        return (int)MAX_OF(MIN_OF(left, (usec)l->patience_ms), (usec)1);
}

typedef rd_kafka_resp_err_t question(rd_kafka_t *, rd_kafka_topic_partition_list_t *, int64_t mark,
                                     int patience_ms);

static rd_kafka_resp_err_t ask_committed(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list,
                                         int64_t mark UNUSED, int patience_ms)
{
        return rd_kafka_committed(rk, list, patience_ms);
}

/* The protocol's own marks for the first offset and the end stand for themselves where a time is asked about:
 * one request a broker. */
static rd_kafka_resp_err_t ask_bound(rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, int64_t mark,
                                     int patience_ms)
{
        for (int i = 0; i < list->cnt; i++)
                list->elems[i].offset = mark;
        return rd_kafka_offsets_for_times(rk, list, patience_ms);
}

struct asked {
        rd_kafka_topic_partition_list_t *list;
        int64_t mark;
        question *question;
};

static rd_kafka_resp_err_t ask_each(const struct lookup *, const struct asked *, int from, int to,
                                    int patience_ms);

/* One that is wrong is found in few questions. */
static rd_kafka_resp_err_t ask_halves(const struct lookup *l, const struct asked *a, int from, int to)
{
        int middle = from + (to - from) / 2;
        rd_kafka_resp_err_t r = ask_each(l, a, from, middle, patience(l, 1));

        return r ? r : ask_each(l, a, middle, to, patience(l, 1));
}

/* Any thread: librdkafka frees it. */
static void copy_metadata(rd_kafka_topic_partition_t *to, const rd_kafka_topic_partition_t *from)
{
        free(to->metadata);
        to->metadata_size = 0;
        to->metadata = from->metadata_size ? malloc(from->metadata_size) : NULL;
        if (!to->metadata)
                return;
        memcpy(to->metadata, from->metadata, from->metadata_size);
        to->metadata_size = from->metadata_size;
}

/* What one partition is wrong about is told of it alone; the error is one of all. */
static rd_kafka_resp_err_t ask_each(const struct lookup *l, const struct asked *a, int from, int to,
                                    int patience_ms)
{
        rd_kafka_topic_partition_list_t *const list = a->list, *some;
        rd_kafka_resp_err_t r;

        if (from == to)
                return RD_KAFKA_RESP_ERR_NO_ERROR;
        some = rd_kafka_topic_partition_list_new(to - from);
        for (int i = from; i < to; i++)
                rd_kafka_topic_partition_list_add(some, list->elems[i].topic, list->elems[i].partition)
                        ->offset = RD_KAFKA_OFFSET_INVALID;
        r = a->question(l->rk, some, a->mark, patience_ms);
        for (int i = from; !r && i < to; i++) {
                const rd_kafka_topic_partition_t *found = rd_kafka_topic_partition_list_find(
                        some, list->elems[i].topic, list->elems[i].partition);

                list->elems[i].err = found ? found->err : RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
                list->elems[i].offset = found ? found->offset : RD_KAFKA_OFFSET_INVALID;
                if (found)
                        copy_metadata(&list->elems[i], found);
        }
        rd_kafka_topic_partition_list_destroy(some);
        if (!r || !may_be_of_one(r))
                return r;
        if (to - from > 1)
                return ask_halves(l, a, from, to);
        list->elems[from].err = r;
        list->elems[from].offset = RD_KAFKA_OFFSET_INVALID;
        return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static int32_t leader_of(const struct rd_kafka_metadata *m, const rd_kafka_topic_partition_t *p)
{
        for (int t = 0; t < m->topic_cnt; t++)
                for (int i = 0; strcmp(m->topics[t].topic, p->topic) == 0 && i < m->topics[t].partition_cnt;
                     i++)
                        if (m->topics[t].partitions[i].id == p->partition)
                                return m->topics[t].partitions[i].leader;
        return -1;
}

static int by_offset(const void *a_, const void *b_, void *opaque UNUSED)
{
        const rd_kafka_topic_partition_t *a = a_, *b = b_;

        return (a->offset > b->offset) - (a->offset < b->offset);
}

/* Brings those together that one broker leads. Each carries its leader as its offset. */
static bool sort_by_leader(const struct lookup *l, rd_kafka_topic_partition_list_t *list)
{
        const struct rd_kafka_metadata *m;

        if (rd_kafka_metadata(l->rk, 0, NULL, &m, patience(l, 2)) != RD_KAFKA_RESP_ERR_NO_ERROR)
                return false;
        for (int i = 0; i < list->cnt; i++)
                list->elems[i].offset = leader_of(m, &list->elems[i]);
        rd_kafka_metadata_destroy(m);
        rd_kafka_topic_partition_list_sort(list, by_offset, NULL);
        return true;
}

static void mark(rd_kafka_topic_partition_list_t *list, int from, int to, rd_kafka_resp_err_t r)
{
        for (int i = from; i < to; i++) {
                list->elems[i].err = r;
                list->elems[i].offset = RD_KAFKA_OFFSET_INVALID;
        }
}

/* Behind the last partition from there on that the same broker leads. */
static int end_of_leader(const rd_kafka_topic_partition_list_t *list, int from)
{
        int to = from;

        while (to < list->cnt && list->elems[to].offset == list->elems[from].offset)
                to++;
        return to;
}

static void ask_leaders(const struct lookup *l, const struct asked *a)
{
        int leaders = 0;

        for (int from = 0; from < a->list->cnt; from = end_of_leader(a->list, from))
                leaders++;
        for (int from = 0, to; from < a->list->cnt; from = to) {
                rd_kafka_resp_err_t r;

                to = end_of_leader(a->list, from);
                r = ask_each(l, a, from, to, patience(l, leaders--));
                if (r)
                        mark(a->list, from, to, r);
        }
}

/* Bounds are asked of the partitions' leaders, of which one may be down: that leaves the partitions of the
 * others known. */
static void ask_bounds(const struct lookup *l, rd_kafka_topic_partition_list_t *list, int64_t bound)
{
        const struct asked a = { .list = list, .mark = bound, .question = ask_bound };
        rd_kafka_resp_err_t r = ask_each(l, &a, 0, list->cnt, patience(l, 1));

        if (r && sort_by_leader(l, list) && end_of_leader(list, 0) < list->cnt)
                ask_leaders(l, &a);
        else if (r)
                mark(list, 0, list->cnt, r);
}

static bool wants_bounds(const struct lookup *l, const rd_kafka_topic_partition_t *p)
{
        return l->what & LOOKUP_BOUNDS || (!p->err && p->offset < 0);
}

static void ask(struct lookup *l)
{
        const struct asked committed = { .list = l->committed, .question = ask_committed };

        if (l->what & LOOKUP_COMMITTED)
                l->error = ask_each(l, &committed, 0, l->committed->cnt, patience(l, 1));
        for (int i = 0; !l->error && i < l->committed->cnt; i++) {
                const rd_kafka_topic_partition_t *p = &l->committed->elems[i];

                if (!wants_bounds(l, p))
                        continue;
                (void)rd_kafka_topic_partition_list_add(l->low, p->topic, p->partition);
        }
        if (l->error)
                return;
        ask_bounds(l, l->low, RD_KAFKA_OFFSET_BEGINNING);
        for (int i = 0; i < l->low->cnt; i++)
                if (!l->low->elems[i].err)
                        (void)rd_kafka_topic_partition_list_add(l->high, l->low->elems[i].topic,
                                                                l->low->elems[i].partition);
        ask_bounds(l, l->high, RD_KAFKA_OFFSET_END);
        for (int i = 0; l->time && i < l->high->cnt; i++)
                if (!l->high->elems[i].err)
                        (void)rd_kafka_topic_partition_list_add(l->since, l->high->elems[i].topic,
                                                                l->high->elems[i].partition);
        ask_bounds(l, l->since, l->time / USEC_MSEC);
}

static void work(struct helper_job *job) { ask(CONTAINER_OF(job, struct lookup, job)); }

int lookup_begin(struct lookup **out, rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *list, int what,
                 usec since, int patience_ms, struct helper *helper, struct error *err)
{
        struct lookup *l = calloc(1, sizeof(*l));

        if (!l)
                return error_memory(err);
        *l = (struct lookup){ .job.work = work,
                              .rk = rk,
                              .what = what,
                              .time = since,
                              .patience_ms = patience_ms,
                              .until = clock_monotonic(&system_clock) + 3 * patience_ms * USEC_MSEC };
        l->committed = rd_kafka_topic_partition_list_copy(list);
        l->low = rd_kafka_topic_partition_list_new(list->cnt);
        l->high = rd_kafka_topic_partition_list_new(list->cnt);
        l->since = rd_kafka_topic_partition_list_new(list->cnt);
        for (int i = 0; i < l->committed->cnt; i++) {
                l->committed->elems[i].offset = RD_KAFKA_OFFSET_INVALID;
                l->committed->elems[i].err = RD_KAFKA_RESP_ERR_NO_ERROR;
        }
        if (helper_submit(helper, &l->job, err) < 0) {
                (void)lookup_free(l);
                return error_wrap(err, "ask the brokers about positions");
        }
        *out = l;
        return 0;
}

void lookup_taken(struct helper_job *job) { CONTAINER_OF(job, struct lookup, job)->taken = true; }
bool lookup_done(const struct lookup *l) { return l->taken; }
rd_kafka_resp_err_t lookup_error(const struct lookup *l) { return l->error; }
size_t lookup_count(const struct lookup *l) { return (size_t)l->committed->cnt; }

static rd_kafka_resp_err_t bound_of(rd_kafka_topic_partition_list_t *list,
                                    const rd_kafka_topic_partition_t *p, int64_t *bound)
{
        const rd_kafka_topic_partition_t *found = rd_kafka_topic_partition_list_find(list, p->topic,
                                                                                     p->partition);

        *bound = found && !found->err && found->offset >= 0 ? found->offset : -1;
        return !found || *bound >= 0 ? RD_KAFKA_RESP_ERR_NO_ERROR
               : found->err          ? found->err
                                     : RD_KAFKA_RESP_ERR__NO_OFFSET;
}

rd_kafka_resp_err_t lookup_take(const struct lookup *l, size_t i, const char **topic, int32_t *partition,
                                struct whereabouts *w)
{
        const rd_kafka_topic_partition_t *p = &l->committed->elems[i];
        rd_kafka_resp_err_t low, high, since;

        *topic = p->topic;
        *partition = p->partition;
        w->reached = p->offset >= 0 ? p->offset : -1;
        low = bound_of(l->low, p, &w->low);
        high = bound_of(l->high, p, &w->high);
        since = bound_of(l->since, p, &w->since);
        if (since == RD_KAFKA_RESP_ERR__NO_OFFSET) /* there is none yet */
                since = RD_KAFKA_RESP_ERR_NO_ERROR;
        return p->err ? p->err : low ? low : high ? high : since;
}

struct str lookup_metadata(const struct lookup *l, size_t i)
{
        const rd_kafka_topic_partition_t *p = &l->committed->elems[i];

        return (struct str){ p->metadata, p->metadata ? p->metadata_size : 0 };
}

struct lookup *lookup_free(struct lookup *l)
{
        if (!l)
                return NULL;
        rd_kafka_topic_partition_list_destroy(l->committed);
        rd_kafka_topic_partition_list_destroy(l->low);
        rd_kafka_topic_partition_list_destroy(l->high);
        rd_kafka_topic_partition_list_destroy(l->since);
        free(l);
        return NULL;
}
