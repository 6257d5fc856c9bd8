#include "kube/queue.h"

#include "base/heap.h"
#include "base/list.h"
#include "base/table.h"

static const usec FIRST = 5 * USEC_MSEC, MOST = 1000 * USEC_SEC;

struct item {
        UT_hash_handle hh;
        struct list_node node; /* of those that are ready */
        struct heap_node timer;
        bool dirty, processing;
        unsigned failures;
        char key[];
};

struct queue {
        struct item *items;
        struct list ready;
        struct heap timers;
};

int queue_new(struct queue **out, struct error *err)
{
        struct queue *q = calloc(1, sizeof(*q));

        if (!q)
                return error_memory(err);
        *out = q;
        return 0;
}

struct queue *queue_free(struct queue *q)
{
        struct item *i, *next;

        if (!q)
                return NULL;
        HASH_ITER(hh, q->items, i, next)
        {
                HASH_DEL(q->items, i);
                free(i);
        }
        heap_done(&q->timers);
        free(q);
        return NULL;
}

static struct item *item_get(struct queue *q, const char *key)
{
        size_t n = strlen(key);
        struct item *i;

        HASH_FIND(hh, q->items, key, n, i);
        if (i)
                return i;
        i = calloc(1, sizeof(*i) + n + 1);
        /* Room for its timer too, so that a delay can't fail later. */
        if (!i || !heap_reserve(&q->timers, HASH_COUNT(q->items) + 1))
                abort();
        memcpy(i->key, key, n);
        HASH_ADD(hh, q->items, key, n, i);
        return i;
}

/* What nobody needs any more is freed. */
static void item_drop_if_idle(struct queue *q, struct item *i)
{
        if (i->dirty || i->processing || i->failures || heap_has(&i->timer))
                return;
        HASH_DEL(q->items, i);
        free(i);
}

static void make_ready(struct queue *q, struct item *i)
{
        if (!list_has(&i->node) && !i->processing)
                list_append(&q->ready, &i->node);
}

void queue_add(struct queue *q, const char *key)
{
        struct item *i = item_get(q, key);

        heap_remove(&q->timers, &i->timer);
        i->dirty = true;
        make_ready(q, i);
}

void queue_add_after(struct queue *q, const char *key, usec at)
{
        struct item *i = item_get(q, key);

        if (list_has(&i->node) || (heap_has(&i->timer) && i->timer.at <= at))
                return;
        if (!heap_insert(&q->timers, &i->timer, at))
                abort();
}

void queue_retry(struct queue *q, const char *key, usec now)
{
        struct item *i = item_get(q, key);
        usec wait = i->failures < 18 ? FIRST << i->failures : MOST;

        i->failures = MIN_OF(i->failures + 1, 32u);
        queue_add_after(q, key, now + MIN_OF(wait, MOST));
}

void queue_forget(struct queue *q, const char *key)
{
        struct item *i = item_get(q, key);

        i->failures = 0;
        item_drop_if_idle(q, i);
}

const char *queue_get(struct queue *q, usec now)
{
        struct heap_node *n;
        struct item *i;

        while ((n = heap_first(&q->timers)) && n->at <= now) {
                i = CONTAINER_OF(n, struct item, timer);
                heap_remove(&q->timers, n);
                i->dirty = true;
                make_ready(q, i);
        }
        i = LIST_TAKE(&q->ready, struct item, node);
        if (!i)
                return NULL;
        i->dirty = false;
        i->processing = true;
        return i->key;
}

void queue_done(struct queue *q, const char *key)
{
        struct item *i = item_get(q, key);

        i->processing = false;
        if (i->dirty)
                make_ready(q, i);
        else
                item_drop_if_idle(q, i);
}

usec queue_deadline(const struct queue *q)
{
        const struct heap_node *n = heap_first(&q->timers);

        return q->ready.n ? 0 : n ? n->at : USEC_NEVER;
}

size_t queue_length(const struct queue *q) { return q->ready.n; }
