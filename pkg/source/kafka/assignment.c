#include <stdatomic.h>
#include <stdio.h>

#include "log/log.h"
#include "source/kafka/inside.h"

/* How old the ends of partitions may be that are not fetched, since nothing of them is wanted: lag comes from
 * them. */
static const usec LOOK_INTERVAL = 10 * USEC_SEC;
/* A position that is no more is looked at again after this. */
static const usec STOPPED_AGAIN = 10 * USEC_SEC;
enum { LOOK_PATIENCE_MS = KAFKA_PATIENCE / USEC_MSEC };

/* ---- partitions --------------------------------------------------------- */

/* Any thread. */
static void on_partition(rd_kafka_t *rk UNUSED, void *opaque)
{
        struct partition *p = opaque;

        atomic_store_explicit(&p->readable, true, memory_order_release);
        waker_ring(p->source->services->waker, &p->source->slot);
}

void partition_free(struct partition *p)
{
        done_clear(&p->done);
        free(p->unreadable);
        free(p->topic);
        free(p->key);
        free(p);
}

static struct partition *partition_new(struct kafka *s, const char *topic, int32_t number, struct str key)
{
        struct partition *p = calloc(1, sizeof(*p));

        if (!p)
                return NULL;
        p->source = s;
        p->number = number;
        p->track = s->partitions_n;
        p->topic = str_dup(str_of(topic));
        p->key = malloc(key.n);
        if (p->topic && p->key) {
                memcpy(p->key, key.p, key.n);
                HASH_ADD_KEYPTR(hh, s->by_key, p->key, key.n, p);
                if (p->hh.tbl)
                        return p;
        }
        partition_free(p);
        return NULL;
}

struct partition *partition_get(struct kafka *s, const char *topic, int32_t number)
{
        BUF_AT_END struct buf key = BUF_INIT(BUF_DEFAULT_MAX);
        struct partition *p, **grown;

        buf_add(&key, &number, sizeof(number));
        buf_text(&key, topic);
        if (key.failed)
                return NULL;
        HASH_FIND(hh, s->by_key, key.p, key.n, p);
        if (p)
                return p;
        grown = realloc(s->partitions, (s->partitions_n + 1) * sizeof(struct partition *));
        if (!grown)
                return NULL;
        s->partitions = grown;
        p = partition_new(s, topic, number, buf_view(&key));
        if (p)
                s->partitions[s->partitions_n++] = p;
        return p;
}

static bool partition_take(struct kafka *s, const rd_kafka_topic_partition_t *tp)
{
        struct partition *p = partition_get(s, tp->topic, tp->partition);

        if (!p)
                return false;
        p->queue = rd_kafka_queue_get_partition(s->rk, tp->topic, tp->partition);
        if (!p->queue)
                return false;
        /* Before the assignment: from then on nothing of it reaches the consumer's queue. */
        rd_kafka_queue_forward(p->queue, NULL);
        rd_kafka_queue_cb_event_enable(p->queue, on_partition, p);
        p->credit = p->bytes = 0;
        p->lent = 0;
        p->position = p->committed = p->wanted = p->lent_to = p->end = -1;
        p->more = true;
        p->at_end = p->committing = p->released = p->gone = false;
        p->leaving = p->lost = p->left = p->tell_leaving = p->tell_assigned = p->told = p->again = p->ready =
                false;
        p->doubted = false;
        done_clear(&p->done);
        p->done_n = 0;
        p->done_at = 0;
        p->stopped_at = -1;
        p->ask_at = p->commit_at = 0;
        p->why = RD_KAFKA_RESP_ERR_NO_ERROR;
        p->away = p->fresh = false;
        p->unplaced = true;
        return true;
}

void partition_set_unreadable(struct partition *p, char *why)
{
        p->source->unreadable_n += why != NULL;
        p->source->unreadable_n -= p->unreadable != NULL;
        free(p->unreadable);
        p->unreadable = why;
}

void partition_drop(struct partition *p)
{
        if (!p->queue)
                return;
        rd_kafka_queue_cb_event_enable(p->queue, NULL, NULL);
        rd_kafka_queue_destroy(p->queue);
        p->queue = NULL;
        p->tell_assigned = p->unplaced = p->ready = p->told = p->away = false;
        partition_set_unreadable(p, NULL);
}

static void assigned(struct kafka *s, rd_kafka_topic_partition_list_t *list)
{
        rd_kafka_resp_err_t r;

        s->assignment++;
        s->silence[0] = 0; /* the group's coordinator has answered */
        for (int i = 0; i < list->cnt; i++)
                if (!partition_take(s, &list->elems[i])) {
                        kafka_set_state(s, SOURCE_FAILED, "out of memory");
                        return;
                }
        if (list->cnt) {
                s->lookup_at = 0;
                return;
        }
        s->established = true; /* what comes later came after the group's first start */
        r = rd_kafka_assign(s->rk, list);
        if (r)
                kafka_set_state(s, SOURCE_FAILED, rd_kafka_err2str(r));
        else
                kafka_set_state(s, SOURCE_STANDBY,
                                "no partition is assigned: the group has more members than the topics have "
                                "partitions");
}

void assignment_revoking(struct kafka *s, bool lost)
{
        s->unassign = true;
        s->commit_deadline = 0;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                struct partition *p = s->partitions[i];

                if (!p->queue)
                        continue;
                if (!p->told) {
                        p->left = true; /* the pipeline never heard of it */
                        p->tell_assigned = false;
                } else if (!p->leaving || lost || p->gone)
                        p->tell_leaving = true;
                p->leaving = true;
                p->again = false;
                p->lost = lost || p->gone;
        }
}

/* A broker does not know it, or its topic: deleted, most likely. It is set aside until a broker says
 * otherwise: nothing of it is committed, for that would count for another topic of the same name, and what is
 * left in it is no lag. */
bool kafka_is_unknown(rd_kafka_resp_err_t r)
{
        return r == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || r == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION ||
               r == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC;
}

bool partition_set_aside(const struct partition *p) { return p->gone || kafka_is_unknown(p->why); }

static bool is_read(const struct partition *p) { return p->queue && !p->why && !p->unplaced && !p->ready; }

bool kafka_reads_any(const struct kafka *s)
{
        for (uint32_t i = 0; i < s->partitions_n; i++)
                if (is_read(s->partitions[i]))
                        return true;
        return false;
}

/* The first, by name, whose positions are not known; NULL: none. */
const struct partition *kafka_troubled(const struct kafka *s)
{
        const struct partition *first = NULL;

        for (uint32_t i = 0; i < s->partitions_n; i++) {
                const struct partition *p = s->partitions[i];
                int order = !p->queue || !p->why ? 1 : first ? strcmp(p->topic, first->topic) : -1;

                if (order < 0 || (order == 0 && p->number < first->number))
                        first = p;
        }
        return first;
}

static const struct partition *first_unreadable(const struct kafka *s)
{
        for (uint32_t i = 0; s->unreadable_n && i < s->partitions_n; i++)
                if (s->partitions[i]->unreadable)
                        return s->partitions[i];
        return NULL;
}

/* One partition's trouble is told, and keeps nothing else from being read. */
void kafka_set_reading(struct kafka *s)
{
        const struct partition *p = kafka_troubled(s), *unreadable = first_unreadable(s);
        char text[sizeof(s->text)];
        bool reading = kafka_reads_any(s);

        if (unreadable) {
                kafka_set_state(s, SOURCE_FAILED, unreadable->unreadable);
                return;
        }
        if (s->silence[0]) {
                kafka_set_state(s, SOURCE_CONNECTING, s->silence);
                return;
        }
        if (!p && !reading)
                return;
        text[0] = 0;
        if (p)
                (void)snprintf(text, sizeof(text), "topic %s, partition %d: positions are not known: %s%s",
                               p->topic, p->number, rd_kafka_err2str(p->why),
                               partition_set_aside(p) ? "; it is set aside: was the topic deleted?" : "");
        else if (s->refused[0])
                (void)snprintf(text, sizeof(text), "new certificates are of no use yet: %s", s->refused);
        else if (kafka_access_trouble(&s->access))
                (void)snprintf(text, sizeof(text), "%s; the last one serves until it expires",
                               kafka_access_trouble(&s->access));
        kafka_set_state(s, reading ? SOURCE_CONNECTED : SOURCE_CONNECTING, text);
}

/* A broker says that it does not know the partition. Asked about again until one does, or its topic is given
 * up. */
void partition_put_aside(struct kafka *s, struct partition *p, rd_kafka_resp_err_t why)
{
        p->why = why;
        p->ask_at = s->now + KAFKA_AGAIN;
        p->doubted = p->committed >= 0;
        if (p->committed < 0 && !p->told) { /* where to begin is decided anew */
                p->unplaced = true;
                p->ready = p->tell_assigned = false;
                p->position = p->wanted = -1;
        }
        if (s->state == SOURCE_CONNECTED)
                kafka_set_reading(s);
}

/* ---- where to go on ----------------------------------------------------- */

static bool topic_missing(const struct kafka *s, const char *topic)
{
        for (size_t i = 0; i < s->spec->topics.n; i++)
                if (strcmp(s->spec->topics.list[i], topic) == 0)
                        return s->missing[i];
        return false;
}

static void say_expired(const struct kafka *s, const struct partition *p, int64_t from, const struct begin *b)
{
        source_warn(
                s->services, KAFKA_EXPIRED, b->lost,
                "topic %s, partition %d: %llu records are gone before they were delivered, offsets %lld to "
                "%lld: retention or a deletion took them",
                p->topic, p->number, (unsigned long long)b->lost, (long long)from, (long long)b->at - 1);
}

static void say_left_out(const struct kafka *s, const struct partition *p, int64_t from, int64_t first,
                         const struct begin *b)
{
        source_warn(
                s->services, KAFKA_EXPIRED, b->lost,
                "topic %s, partition %d: %llu records are left out, offsets %lld to %lld: those before %lld "
                "are gone by retention or a deletion, and offsetOutOfRange is Latest",
                p->topic, p->number, (unsigned long long)b->lost, (long long)from, (long long)b->at - 1,
                (long long)first);
}

/* Nothing is read until someone has decided. Retention goes on meanwhile: told once for each position. */
static void stop_reading(struct kafka *s, struct partition *p, const struct whereabouts *w)
{
        char text[256];
        char *copy;

        (void)snprintf(
                text, sizeof(text),
                "topic %.100s, partition %d: the position %lld is no more, there are %lld to %lld: set "
                "offsetOutOfRange to Earliest or Latest to go on",
                p->topic, p->number, (long long)w->reached, (long long)w->low, (long long)w->high - 1);
        p->ask_at = s->now + STOPPED_AGAIN;
        copy = str_dup(str_of(text));
        if (!copy)
                return; /* it is asked again */
        if (p->stopped_at != w->reached)
                source_warn(s->services, KAFKA_STOPPED, 0, "%s", text);
        p->stopped_at = w->reached;
        partition_set_unreadable(p, copy);
        kafka_set_reading(s);
}

static void say_reset(const struct kafka *s, const struct partition *p, int64_t from, int64_t to,
                      int64_t gone)
{
        uint64_t n = (uint64_t)MAX_OF(gone, (int64_t)0);

        source_warn(s->services, KAFKA_RESET, n,
                    "topic %s, partition %d: the position %lld is no more: the topic was made again, or a "
                    "broker lost records; reading begins anew at %lld, the first record there is, and %llu "
                    "records that were there are gone",
                    p->topic, p->number, (long long)from, (long long)to, (unsigned long long)n);
}

static void say_added(const struct kafka *s, const struct partition *p, int64_t at)
{
        source_warn(s->services, KAFKA_ADDED, 0,
                    "topic %s, partition %d: the group has no position in it, so that it is new, and is read "
                    "from its first record on, offset %lld, whatever startPosition says",
                    p->topic, p->number, (long long)at);
}

static void place_at(struct kafka *s, struct partition *p, int64_t at)
{
        if (p->stopped_at >= 0) {
                p->stopped_at = -1;
                partition_set_unreadable(p, NULL);
                kafka_set_reading(s);
        }
        at = done_until(&p->done, at);
        p->unplaced = false;
        p->ready = true;
        p->position = at;
        p->at_end = false;
        if (p->committed != at)
                commit_up_to(s, p, at);
}

/* Offsets that went back are another log: what the pipeline has of the old one means nothing for it. */
static void begin_anew(struct kafka *s, struct partition *p, int64_t at)
{
        p->committed = p->wanted = p->lent_to = p->end = -1;
        p->released = false;
        done_clear(&p->done);
        p->done_at = 0;
        if (p->told) {
                p->again = p->lost = p->tell_leaving = true;
                p->unplaced = false;
                p->ready = true;
                p->position = at;
                return;
        }
        place_at(s, p, at);
}

/* What the group had committed is asked for again. Gone with its topic: this is another one. */
static void settle_doubt(struct kafka *s, struct partition *p, const struct whereabouts *w)
{
        p->doubted = false;
        p->trusted_at = s->now;
        if (w->reached >= 0)
                return;
        say_reset(s, p, p->committed, w->low, p->end - p->position);
        begin_anew(s, p, w->low);
}

static void place(struct kafka *s, struct partition *p, const struct whereabouts *found)
{
        struct whereabouts w = *found;
        struct begin b;
        int64_t known = p->end;

        if (p->position >= 0 && p->committed >= 0 && w.reached < 0) {
                settle_doubt(s, p, &w);
                return;
        }
        if (p->committed < 0 && w.reached >= 0)
                p->committed = p->wanted = w.reached, p->trusted_at = s->now;
        if (p->position >= 0)
                w.reached = p->position;
        b = begin_of(&w, !s->established && !topic_missing(s, p->topic),
                     (enum kafka_start)s->spec->start_position);
        p->end = w.high >= 0 ? w.high : -1;
        if ((b.reason == BEGIN_RETENTION || b.reason == BEGIN_RECREATED) &&
            s->spec->out_of_range == KAFKA_STOP) {
                stop_reading(s, p, &w);
                return;
        }
        switch (b.reason) {
        case BEGIN_RETENTION:
                if (s->spec->out_of_range == KAFKA_GO_EARLIEST) {
                        say_expired(s, p, w.reached, &b);
                        break;
                }
                b.at = w.high;
                b.lost = (uint64_t)(w.high - w.reached);
                say_left_out(s, p, w.reached, w.low, &b);
                break;
        case BEGIN_RECREATED:
                say_reset(s, p, w.reached, b.at, known - w.reached);
                begin_anew(s, p, b.at);
                return;
        case BEGIN_NEW: say_added(s, p, b.at); break;
        case BEGIN_REACHED:
        case BEGIN_FIRST: break;
        }
        place_at(s, p, b.at);
}

static bool to_be_asked(const struct kafka *s, const struct partition *p)
{
        return (p->unplaced || p->doubted) && s->now >= p->ask_at;
}

static void look_for_places(struct kafka *s, int what)
{
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
        usec since = s->established || s->looking ? 0 : s->spec->start_timestamp;
        struct error err;

        for (uint32_t i = 0; i < s->partitions_n; i++) {
                const struct partition *p = s->partitions[i];

                if (p->queue && !p->lost && (to_be_asked(s, p) || s->looking))
                        (void)rd_kafka_topic_partition_list_add(list, p->topic, p->number);
        }
        s->lookup_assignment = s->assignment;
        if (lookup_begin(&s->lookup, s->rk, list, what, since, LOOK_PATIENCE_MS, s->helper, &err) < 0) {
                s->lookup_at = s->now + KAFKA_AGAIN;
                kafka_set_state(s, SOURCE_DISCONNECTED, err.text);
        }
        rd_kafka_topic_partition_list_destroy(list);
}

static void take_place(struct kafka *s, struct partition *p, const struct whereabouts *w,
                       rd_kafka_resp_err_t why)
{
        if (s->looking) {
                p->end = why ? p->end : w->high;
                if (!kafka_is_unknown(why) || p->unplaced || p->committed < 0)
                        return;
                p->doubted = true;
        }
        p->why = why;
        if (why || p->unplaced)
                p->ask_at = s->now + KAFKA_AGAIN;
        if (why)
                return;
        if (p->unplaced)
                place(s, p, w);
        else if (p->doubted)
                settle_doubt(s, p, w);
}

/* Of what is behind the committed offset, what was done by this worker before, or by another one. */
static void take_done(struct kafka *s, struct partition *p, int64_t committed, struct str text)
{
        if (p->committed >= 0 || p->position >= 0 || committed < 0 || !text.n)
                return;
        if (!done_read(&p->done, committed, text))
                log_debug_for(s->services->log, "what goes with the committed offset is not ours",
                              LOG_S("topic", p->topic), LOG_I("partition", p->number));
}

static void take_places(struct kafka *s)
{
        struct lookup *l = s->lookup;
        rd_kafka_resp_err_t why = lookup_error(l);
        bool troubled = false;

        for (size_t i = 0; !why && i < lookup_count(l) && s->lookup_assignment == s->assignment; i++) {
                struct whereabouts w;
                const char *topic;
                int32_t number;
                rd_kafka_resp_err_t own = lookup_take(l, i, &topic, &number, &w);
                struct partition *p = partition_get(s, topic, number);

                if (!p || !p->queue)
                        continue;
                troubled = troubled || p->why;
                if (!own)
                        take_done(s, p, w.reached, lookup_metadata(l, i));
                take_place(s, p, &w, own);
                troubled = troubled || p->why;
        }
        s->lookup = lookup_free(l);
        s->look_at = s->now + LOOK_INTERVAL;
        if (why)
                s->lookup_at = s->now + KAFKA_AGAIN;
        if (!s->looking && why)
                state_unanswered(s, "positions are not known", why);
        else if (!s->looking)
                state_answered(s);
        if (!why && troubled && s->state != SOURCE_DISCONNECTED && s->state != SOURCE_FAILED)
                kafka_set_reading(s);
}

/* Reading begins, anew for all: librdkafka takes no less than the whole assignment. */
static void begin_reading(struct kafka *s)
{
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
        rd_kafka_resp_err_t r;
        bool all = true;

        for (uint32_t i = 0; i < s->partitions_n; i++) {
                struct partition *p = s->partitions[i];

                all = all && !p->unplaced;
                if (!p->queue || p->unplaced)
                        continue;
                rd_kafka_topic_partition_list_add(list, p->topic, p->number)->offset = p->position;
                p->ready = false;
                p->more = true;
                if (!p->told)
                        p->tell_assigned = true;
        }
        r = rd_kafka_assign(s->rk, list);
        rd_kafka_topic_partition_list_destroy(list);
        s->established = s->established || all;
        if (r)
                kafka_set_state(s, SOURCE_FAILED, rd_kafka_err2str(r));
        else if (s->state != SOURCE_DISCONNECTED)
                kafka_set_reading(s);
}

void assignment_advance(struct kafka *s)
{
        bool due = false, ready = false, waits = false, behind = false, known = true;

        if (s->lookup && lookup_done(s->lookup))
                take_places(s);
        if (s->unassign || s->stopping)
                return;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                const struct partition *p = s->partitions[i];

                if (!p->queue)
                        continue;
                due = due || to_be_asked(s, p);
                known = known && (!p->unplaced || p->position < 0);
                ready = ready || p->ready;
                waits = waits || (p->ready && ((p->again && p->told) || commit_wanted(p)));
                behind = behind || (!p->at_end && (p->credit <= 0 || p->bytes <= 0));
        }
        if (ready && !waits && (!s->lookup || s->looking))
                begin_reading(s);
        if (s->lookup)
                return;
        s->looking = !due;
        if (due && s->now >= s->lookup_at)
                look_for_places(s, known ? LOOKUP_COMMITTED : LOOKUP_COMMITTED | LOOKUP_BOUNDS);
        else if (s->looking && behind && s->now >= s->look_at)
                look_for_places(s, LOOKUP_BOUNDS);
}

void assignment_rebalance(struct kafka *s, rd_kafka_event_t *event)
{
        if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS && !s->stopping)
                assigned(s, rd_kafka_event_topic_partition_list(event));
        else
                assignment_revoking(s, rd_kafka_assignment_lost(s->rk) != 0);
}
