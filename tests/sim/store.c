#include "tests/sim/world.h"

/* The checkpoint store, through its port. The key is the partition's number, the value a position. A put by a
 * generation that is not the key's any more is a conflict; who loads a key fences out all before. A put that
 * failed may have been written all the same. */

static uint32_t key_number(struct str key)
{
        uint32_t number;

        memcpy(&number, key.p, sizeof(number));
        return number;
}

static struct stored_op *begin(struct worker *k, struct store_request *r, struct str key)
{
        struct world *w = k->world;
        struct stored_op *op = CONTAINER_OF(r, struct stored_op, request);
        uint32_t number = key_number(key);

        if (op->used || op != &k->ops[number])
                world_fail(w, "two operations of a key at once", number, 0);
        op->used = true;
        op->is_get = false;
        op->generation = k->holdings[number].generation;
        op->done_at = w->now + within(w, w->store_slowest);
        op->fails = faulty(w) && chance(w, w->store_fail_percent);
        return op;
}

static void get(void *cookie, struct store_request *r, struct str key)
{
        begin(cookie, r, key)->is_get = true;
}

static void put(void *cookie, struct store_request *r, struct str key, struct str value)
{
        memcpy(&begin(cookie, r, key)->value, value.p, sizeof(uint64_t));
}

static void cancel(void *cookie, struct store_request *r)
{
        (void)cookie;
        CONTAINER_OF(r, struct stored_op, request)->used = false;
}

static void apply(struct world *w, uint32_t number, struct stored_op *op)
{
        struct partition *p = &w->partitions[number];

        if (op->is_get) {
                if (op->fails) {
                        (void)error_set(&op->request.request.error, ERROR_UNREACHABLE, "the store is away");
                        return;
                }
                p->fence = MAX_OF(p->fence, op->generation);
                op->value = p->stored;
                return;
        }
        if (op->generation != p->fence) {
                op->fails = true;
                (void)error_set(&op->request.request.error, ERROR_CONFLICT, "someone else writes this key");
                return;
        }
        if (op->fails)
                (void)error_set(&op->request.request.error, ERROR_TIMEOUT, "the store did not answer");
        if (op->fails && chance(w, 50))
                return;
        if (op->value < p->stored)
                world_fail(w, "a stored position goes back", number, op->value);
        check_durable(w, number, p->stored, op->value);
        p->stored = op->value;
}

static const struct store_ops ops = { get, put, cancel };

void store_open(struct worker *k)
{
        memset(k->ops, 0, sizeof(k->ops));
        k->store = (struct store){ .ops = &ops, .cookie = k };
}

/* What is under way is written or not. */
void store_crash(struct worker *k)
{
        for (uint32_t i = 0; i < k->world->partitions_n; i++) {
                struct stored_op *op = &k->ops[i];

                if (op->request.request.state == REQUEST_BUSY && !op->is_get && chance(k->world, 50))
                        apply(k->world, i, op);
                store_release(&k->store, &op->request);
                op->used = false;
        }
}

static void take(struct worker *k, uint32_t track)
{
        struct stored_op *op = &k->ops[track];
        bool failed = request_failed(&op->request.request);

        op->used = false;
        if (failed && op->request.request.error.kind == ERROR_CONFLICT && k->holdings[track].assigned) {
                say(k->world, "worker %d: conflict on %u: it stops\n", k->number, track);
                k->world->conflicts++;
                worker_crash(k);
                return;
        }
        if (!op->is_get)
                source_acknowledged(k, track, failed);
        else if (failed)
                store_get(&k->store, &op->request, (struct str){ (const char *)&track, sizeof(track) });
        else
                source_loaded(k, track, op->value);
}

void store_turn(struct world *w)
{
        if (!w->stored)
                return;
        for (uint32_t n = 0; n < w->workers_n; n++) {
                struct worker *k = &w->workers[n];

                for (uint32_t i = 0; i < w->partitions_n; i++) {
                        struct stored_op *op = &k->ops[i];

                        if (op->request.request.state != REQUEST_BUSY || op->done_at > w->now)
                                continue;
                        apply(w, i, op);
                        request_end(&op->request.request, NULL);
                }
                for (uint32_t i = 0; i < w->partitions_n && k->engine; i++)
                        if (request_take(&k->ops[i].request.request))
                                take(k, i);
        }
}

usec store_deadline(const struct world *w)
{
        usec at = USEC_NEVER;

        for (uint32_t n = 0; w->stored && n < w->workers_n; n++)
                for (uint32_t i = 0; i < w->partitions_n; i++)
                        if (w->workers[n].ops[i].used)
                                at = MIN_OF(at, w->workers[n].ops[i].done_at);
        return at;
}
