#include "source/kafka/inside.h"

/* How far a partition is behind; -1: it is not known. */
static int64_t behind(const struct kafka *s, const struct partition *p)
{
        int64_t low, high;

        if (rd_kafka_get_watermark_offsets(s->rk, p->topic, p->number, &low, &high))
                high = -1;
        /* the first is as old as the last fetch, the second as the last question */
        high = MAX_OF(high, p->end);
        if (high < 0 || (p->committed < 0 && p->position < 0))
                return -1;
        return MAX_OF(high - (p->committed >= 0 ? p->committed : p->position - p->lent), (int64_t)0);
}

/* Of those that are lent, which are in the order of the log, the first. */
static usec oldest(const struct partition *p)
{
        const struct message *m = LIST_FIRST(&p->out, struct message, node);

        return !m ? 0 : m->record.time ? m->record.time : m->lent_at;
}

/* What is left in a partition that is set aside is no lag. */
static const struct partition *next_read(const struct kafka *s, uint32_t *at)
{
        while (s->queue && *at < s->partitions_n) {
                const struct partition *p = s->partitions[(*at)++];

                if (p->queue && !partition_set_aside(p))
                        return p;
        }
        return NULL;
}

bool kafka_track_lag(const struct source *source, uint32_t *at, struct track_lag *out)
{
        const struct kafka *s = kafka_of(source);
        const struct partition *p = next_read(s, at);

        if (p)
                *out = (struct track_lag){
                        .stream = p->topic, .number = p->number, .records = behind(s, p), .oldest = oldest(p)
                };
        return p != NULL;
}

int64_t kafka_lag(const struct source *source)
{
        const struct kafka *s = kafka_of(source);
        const struct partition *p;
        uint32_t at = 0;
        int64_t lag = -1;

        while ((p = next_read(s, &at))) {
                int64_t of_it = behind(s, p);

                if (of_it >= 0)
                        lag = MAX_OF(lag, (int64_t)0) + of_it;
        }
        return lag;
}
