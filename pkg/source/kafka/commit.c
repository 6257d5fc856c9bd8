#include "log/log.h"
#include "source/kafka/inside.h"

static const usec COMMIT_PATIENCE = 2 * USEC_SEC;
/* After which the group's position is looked at before it is committed anew: a topic that was deleted has
 * taken it along, and another one of the same name would go on in its middle. */
static const usec TRUSTED = 500 * USEC_MSEC;
/* What is done behind a record that is not goes along with the commits that the engine asks for, and where it
 * asks for none, once so many are done, or after a time that is longer than the engine's own. */
static const usec DONE_WAITS = 1250 * USEC_MSEC;
enum { DONE_WAIT = 250 };
enum { METADATA_LEAST = 64 };

/* ---- committing --------------------------------------------------------- */

static bool done_due(const struct partition *p)
{
        return p->done_at && p->done.n &&
               (p->leaving || p->done_n >= DONE_WAIT || p->source->now >= p->done_at);
}

bool commit_wanted(const struct partition *p)
{
        return p->queue && !p->lost && !partition_set_aside(p) && p->wanted >= 0 &&
               (p->wanted != p->committed || done_due(p));
}

/* What is due and not sent waits for an answer, or for a time that others tell. */
usec commit_done_deadline(const struct partition *p)
{
        return p->queue && p->done.n && p->done_at > p->source->now ? p->done_at : USEC_NEVER;
}

void commit_done(struct kafka *s, struct partition *p, int64_t offset)
{
        if (p->lost || offset < p->wanted) /* of another log, or passed by already */
                return;
        done_add(&p->done, offset, offset + 1);
        if (!p->done_at)
                p->done_at = s->now + DONE_WAITS;
        if (++p->done_n == DONE_WAIT)
                loop_ready(s->services->loop, s->services->wake);
}

/* What was to go along with the offset goes with the next one. */
static void done_again(struct partition *p)
{
        p->committing = false;
        if (!p->done_at && p->done.n)
                p->done_at = p->source->now + KAFKA_AGAIN;
}

/* Of what is done behind it, as much as brokers take. */
static void add_offset(struct kafka *s, rd_kafka_topic_partition_list_t *list, struct partition *p)
{
        BUF_AT_END struct buf text = BUF_INIT(DONE_TEXT_MOST);
        rd_kafka_topic_partition_t *tp = rd_kafka_topic_partition_list_add(list, p->topic, p->number);

        tp->offset = p->wanted;
        done_write(&p->done, p->wanted, s->metadata_most, &text);
        s->metadata_sent = MAX_OF(s->metadata_sent, text.n);
        if (text.n && !text.failed) {
                tp->metadata_size = text.n;
                tp->metadata = buf_take(&text); /* librdkafka frees it */
        }
        p->done_n = 0;
        p->done_at = 0;
}

/* librdkafka waits for a minute. */
static void notice_late(struct kafka *s)
{
        if (!s->commit_late || s->now < s->commit_late)
                return;
        s->commit_late = 0;
        state_unanswered(s, "positions can't be committed", RD_KAFKA_RESP_ERR__TIMED_OUT);
}

/* All that is wanted goes in one request. Its answer is an event on the consumer's queue. */
void commit_send(struct kafka *s)
{
        rd_kafka_topic_partition_list_t *list = NULL;
        bool sent;

        notice_late(s);
        if (!s->queue || s->now < s->commit_at)
                return;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                struct partition *p = s->partitions[i];

                if (!commit_wanted(p) || p->committing || s->now < p->commit_at)
                        continue;
                p->doubted = !s->unassign && !s->stopping && p->committed >= 0 &&
                             (p->doubted || s->now - p->trusted_at > TRUSTED);
                if (p->doubted)
                        continue;
                if (!list)
                        list = rd_kafka_topic_partition_list_new(8);
                add_offset(s, list, p);
        }
        if (!list)
                return;
        sent = rd_kafka_commit_queue(s->rk, list, s->queue, NULL, NULL) == RD_KAFKA_RESP_ERR_NO_ERROR;
        for (int i = 0; i < list->cnt; i++) {
                struct partition *p = partition_get(s, list->elems[i].topic, list->elems[i].partition);

                if (p && !sent)
                        done_again(p);
                else if (p)
                        p->committing = true;
        }
        if (sent && !s->commits_under_way)
                s->commit_late = s->now + KAFKA_PATIENCE;
        s->commits_under_way += sent;
        s->commit_at = sent ? 0 : s->now + KAFKA_AGAIN;
        rd_kafka_topic_partition_list_destroy(list);
}

void commit_up_to(struct kafka *s, struct partition *p, int64_t next)
{
        if (!p->queue || p->lost || p->gone || next <= p->wanted)
                return;
        p->wanted = done_until(&p->done, next);
        done_forget(&p->done, p->wanted);
        loop_ready(s->services->loop, s->services->wake);
}

void kafka_commit(struct source *source, uint32_t track, uint64_t next)
{
        struct kafka *s = kafka_of(source);

        commit_up_to(s, s->partitions[track], (int64_t)next);
}

/* Of one partition, or of all: NULL. */
static void commit_failed(struct kafka *s, struct partition *p, rd_kafka_resp_err_t r)
{
        *(p ? &p->commit_at : &s->commit_at) = s->now + KAFKA_AGAIN;
        if (p && kafka_is_unknown(r))
                partition_put_aside(s, p, r);
        if (!s->commit_failed)
                log_warn_for(s->services->log,
                             "commit failed and is tried again; what it covers is delivered again if the "
                             "worker ends before",
                             LOG_S("topic", p ? p->topic : ""), LOG_S("error", rd_kafka_err2str(r)));
        s->commit_failed = true;
}

/* Nobody answered, which librdkafka says in its own words. */
static bool is_silence(rd_kafka_resp_err_t r)
{
        return r == RD_KAFKA_RESP_ERR__TIMED_OUT || r == RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE ||
               r == RD_KAFKA_RESP_ERR__TRANSPORT || r == RD_KAFKA_RESP_ERR__WAIT_COORD ||
               r == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN;
}

static bool refused_one_by_one(const rd_kafka_topic_partition_list_t *list)
{
        for (int i = 0; list && i < list->cnt; i++)
                if (!list->elems[i].err)
                        return false;
        return list && list->cnt > 0;
}

/* These brokers take less than others (offset.metadata.max.bytes). */
static void take_less(struct kafka *s)
{
        size_t refused = MIN_OF(s->metadata_most, s->metadata_sent);

        s->metadata_most = refused > METADATA_LEAST ? MAX_OF(refused / 2, (size_t)METADATA_LEAST) : 0;
        s->metadata_sent = 0;
}

void commit_answered(struct kafka *s, rd_kafka_event_t *event)
{
        bool too_much = false;
        const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
        rd_kafka_resp_err_t r = rd_kafka_event_error(event);

        if (s->commits_under_way)
                s->commits_under_way--;
        s->commit_late = s->commits_under_way ? s->now + KAFKA_PATIENCE : 0;
        s->commit_failed = s->commit_failed && r;
        if (r && !list) /* not known which: all that is not committed is sent again */
                for (uint32_t i = 0; i < s->partitions_n; i++)
                        done_again(s->partitions[i]);
        /* An error of the whole request may be what every partition in it was told, one by one. */
        if (r && !refused_one_by_one(list))
                commit_failed(s, NULL, r);
        if (is_silence(r))
                state_unanswered(s, "positions can't be committed", r);
        else if (!r)
                state_answered(s);
        for (int i = 0; list && i < list->cnt; i++) {
                struct partition *p = partition_get(s, list->elems[i].topic, list->elems[i].partition);
                rd_kafka_resp_err_t own = list->elems[i].err ? list->elems[i].err : r;

                if (!p)
                        continue;
                p->committing = false;
                if (own)
                        done_again(p);
                too_much = too_much || own == RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE;
                if (!own) {
                        p->committed = list->elems[i].offset;
                        p->trusted_at = s->now;
                } else if (list->elems[i].err)
                        commit_failed(s, p, own);
        }
        if (too_much)
                take_less(s);
}

/* With nothing in flight at the end of a partition the end is committed, so that control records and gaps
 * leave no lag. */
void commit_end(struct kafka *s, struct partition *p)
{
        if (p->at_end && p->lent == 0 && !p->released && p->position > p->lent_to)
                commit_up_to(s, p, p->position);
}

/* Gives the partitions back once nothing of them is out any more and what was settled is committed. The first
 * positions of a group are decided and committed by the member that was asked first: another one would take
 * it for no first start. */
void commit_finish_revoking(struct kafka *s)
{
        bool waits = false;

        if (!s->unassign)
                return;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                const struct partition *p = s->partitions[i];

                if (p->queue && p->leaving && !p->left)
                        return;
                waits = waits || commit_wanted(p) ||
                        (p->queue && !p->lost && p->unplaced && s->lookup && !s->looking && !s->established);
        }
        if (!s->commit_deadline)
                s->commit_deadline = s->now + COMMIT_PATIENCE;
        if ((waits || s->commits_under_way) && s->now < s->commit_deadline)
                return;
        s->unassign = false;
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                if (s->partitions[i]->leaving)
                        partition_drop(s->partitions[i]);
                s->partitions[i]->leaving = false;
        }
        (void)rd_kafka_assign(s->rk, NULL);
}
