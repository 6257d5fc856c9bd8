#include "source/kafka/positions.h"

#include <pthread.h>
#include <stdatomic.h>

enum { PATIENCE_MS = 5000 };

/* ---- deciding ------------------------------------------------------------------------------------------------------------------------ */

struct begin begin_of(const struct whereabouts *w, bool first, bool latest)
{
        if (w->reached < 0)
                return (struct begin){ .reason = first ? BEGIN_FIRST : BEGIN_NEW, .at = first && latest ? w->high : w->low };
        if (w->low >= 0 && w->reached < w->low)
                return (struct begin){ .reason = BEGIN_RETENTION, .at = w->low, .lost = (uint64_t)(w->low - w->reached) };
        if (w->high >= 0 && w->reached > w->high)
                return (struct begin){ .reason = BEGIN_RECREATED, .at = w->low };
        return (struct begin){ .reason = BEGIN_REACHED, .at = w->reached };
}

/* ---- asking -------------------------------------------------------------------------------------------------------------------------- */

struct lookup {
        rd_kafka_t *rk;
        rd_kafka_topic_partition_list_t *committed, *low, *high; /* low and high: of those that are asked about, in another order perhaps */
        int what;
        rd_kafka_resp_err_t error;
        struct waker *waker;
        struct waker_slot *slot;
        pthread_t helper;
        bool started;
        _Atomic bool done;
};

/* The protocol's own marks for the first offset and the end stand for themselves where a time is asked about: one request a broker. */
static rd_kafka_resp_err_t ask_bound(struct lookup *l, rd_kafka_topic_partition_list_t *list, int64_t mark)
{
        for (int i = 0; i < list->cnt; i++) {
                list->elems[i].offset = mark;
                list->elems[i].err = RD_KAFKA_RESP_ERR_NO_ERROR;
        }
        return list->cnt ? rd_kafka_offsets_for_times(l->rk, list, PATIENCE_MS) : RD_KAFKA_RESP_ERR_NO_ERROR;
}

static bool wants_bounds(const struct lookup *l, const rd_kafka_topic_partition_t *p) { return l->what & LOOKUP_BOUNDS || (!p->err && p->offset < 0); }

static void ask(struct lookup *l)
{
        if (l->what & LOOKUP_COMMITTED)
                l->error = rd_kafka_committed(l->rk, l->committed, PATIENCE_MS);
        for (int i = 0; !l->error && i < l->committed->cnt; i++) {
                const rd_kafka_topic_partition_t *p = &l->committed->elems[i];

                if (!wants_bounds(l, p))
                        continue;
                (void)rd_kafka_topic_partition_list_add(l->low, p->topic, p->partition);
                (void)rd_kafka_topic_partition_list_add(l->high, p->topic, p->partition);
        }
        if (!l->error)
                l->error = ask_bound(l, l->low, RD_KAFKA_OFFSET_BEGINNING);
        if (!l->error)
                l->error = ask_bound(l, l->high, RD_KAFKA_OFFSET_END);
}

static void *help(void *argument)
{
        struct lookup *l = argument;

        ask(l);
        atomic_store(&l->done, true);
        waker_ring(l->waker, l->slot);
        return NULL;
}

int lookup_begin(struct lookup **out, rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *list, int what, struct waker *waker, struct waker_slot *slot, struct error *err)
{
        struct lookup *l = calloc(1, sizeof(*l));

        if (!l)
                return error_memory(err);
        *l = (struct lookup){ .rk = rk, .what = what, .waker = waker, .slot = slot };
        l->committed = rd_kafka_topic_partition_list_copy(list);
        l->low = rd_kafka_topic_partition_list_new(list->cnt);
        l->high = rd_kafka_topic_partition_list_new(list->cnt);
        for (int i = 0; i < l->committed->cnt; i++) {
                l->committed->elems[i].offset = RD_KAFKA_OFFSET_INVALID;
                l->committed->elems[i].err = RD_KAFKA_RESP_ERR_NO_ERROR;
        }
        if (pthread_create(&l->helper, NULL, help, l) != 0) {
                (void)lookup_free(l);
                return error_set(err, ERROR_SYSTEM, "no thread to ask the brokers about positions");
        }
        l->started = true;
        *out = l;
        return 0;
}

bool lookup_done(const struct lookup *l) { return atomic_load(&l->done); }
const char *lookup_error(const struct lookup *l) { return l->error ? rd_kafka_err2str(l->error) : NULL; }
size_t lookup_count(const struct lookup *l) { return (size_t)l->committed->cnt; }

static const char *bound_of(rd_kafka_topic_partition_list_t *list, const rd_kafka_topic_partition_t *p, int64_t *bound)
{
        const rd_kafka_topic_partition_t *found = rd_kafka_topic_partition_list_find(list, p->topic, p->partition);

        *bound = found && !found->err && found->offset >= 0 ? found->offset : -1;
        return !found || *bound >= 0 ? NULL : found->err ? rd_kafka_err2str(found->err) : "the broker does not say where the partition begins and ends";
}

const char *lookup_take(const struct lookup *l, size_t i, const char **topic, int32_t *partition, struct whereabouts *w)
{
        const rd_kafka_topic_partition_t *p = &l->committed->elems[i];
        const char *low, *high;

        *topic = p->topic;
        *partition = p->partition;
        w->reached = p->offset >= 0 ? p->offset : -1;
        low = bound_of(l->low, p, &w->low);
        high = bound_of(l->high, p, &w->high);
        return p->err ? rd_kafka_err2str(p->err) : low ? low : high;
}

struct lookup *lookup_free(struct lookup *l)
{
        if (!l)
                return NULL;
        if (l->started)
                (void)pthread_join(l->helper, NULL);
        rd_kafka_topic_partition_list_destroy(l->committed);
        rd_kafka_topic_partition_list_destroy(l->low);
        rd_kafka_topic_partition_list_destroy(l->high);
        free(l);
        return NULL;
}
