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

static struct stored_op *begin(struct worker *k, uint32_t number)
{
        struct world *w = k->world;
        struct stored_op *op = &k->ops[number];

        if (op->used)
                world_fail(w, "two operations of a key at once", number, 0);
        *op = (struct stored_op){ .used = true,
                                  .generation = k->holdings[number].generation,
                                  .done_at = w->now + within(w, w->store_slowest),
                                  .fails = faulty(w) && chance(w, w->store_fail_percent) };
        return op;
}

static void get(void *cookie, uint64_t tag, struct str key)
{
        (void)tag;
        begin(cookie, key_number(key))->is_get = true;
}

static void put(void *cookie, uint64_t tag, struct str key, struct str value)
{
        (void)tag;
        memcpy(&begin(cookie, key_number(key))->value, value.p, sizeof(uint64_t));
}

static void apply(struct world *w, uint32_t number, struct stored_op *op)
{
        struct partition *p = &w->partitions[number];

        if (op->is_get) {
                if (op->fails) {
                        (void)error_set(&op->error, ERROR_UNREACHABLE, "the store is away");
                        return;
                }
                p->fence = MAX_OF(p->fence, op->generation);
                op->value = p->stored;
                return;
        }
        if (op->generation != p->fence) {
                op->fails = true;
                (void)error_set(&op->error, ERROR_CONFLICT, "someone else writes this key");
                return;
        }
        if (op->fails)
                (void)error_set(&op->error, ERROR_TIMEOUT, "the store did not answer");
        if (op->fails && chance(w, 50))
                return;
        if (op->value < p->stored)
                world_fail(w, "a stored position goes back", number, op->value);
        check_durable(w, number, p->stored, op->value);
        p->stored = op->value;
}

static bool take(void *cookie, struct store_result *r)
{
        struct worker *k = cookie;

        for (uint32_t i = 0; i < k->world->partitions_n; i++) {
                struct stored_op *op = &k->ops[i];

                if (!op->used || !op->done)
                        continue;
                *r = (struct store_result){ .tag = i,
                                            .is_get = op->is_get,
                                            .found = op->is_get && !op->fails,
                                            .failed = op->fails,
                                            .error = op->error };
                r->value = (struct str){ (const char *)&op->value, sizeof(op->value) };
                op->used = false;
                return true;
        }
        return false;
}

static const struct store_ops ops = { .get = get, .put = put, .take = take };

void store_open(struct worker *k)
{
        memset(k->ops, 0, sizeof(k->ops));
        k->store = (struct store){ &ops, k };
}

/* What is under way is written or not. */
void store_crash(struct worker *k)
{
        for (uint32_t i = 0; i < k->world->partitions_n; i++) {
                if (k->ops[i].used && !k->ops[i].done && !k->ops[i].is_get && chance(k->world, 50))
                        apply(k->world, i, &k->ops[i]);
                k->ops[i].used = false;
        }
}

static void take_all(struct worker *k)
{
        struct store_result r;
        uint64_t position;

        while (k->engine && store_take(&k->store, &r)) {
                uint32_t track = (uint32_t)r.tag;

                if (r.failed && r.error.kind == ERROR_CONFLICT && k->holdings[track].assigned) {
                        say(k->world, "worker %d: conflict on %u: it stops\n", k->number, track);
                        k->world->conflicts++;
                        worker_crash(k);
                        return;
                }
                memcpy(&position, r.value.p, sizeof(position));
                if (!r.is_get)
                        source_acknowledged(k, track, r.failed);
                else if (r.failed)
                        store_get(&k->store, track, (struct str){ (const char *)&track, sizeof(track) });
                else
                        source_loaded(k, track, position);
        }
}

void store_turn(struct world *w)
{
        if (!w->stored)
                return;
        for (uint32_t n = 0; n < w->workers_n; n++) {
                struct worker *k = &w->workers[n];
                bool any = false;

                for (uint32_t i = 0; i < w->partitions_n; i++) {
                        struct stored_op *op = &k->ops[i];

                        if (!op->used || op->done || op->done_at > w->now)
                                continue;
                        apply(w, i, op);
                        op->done = any = true;
                }
                if (any)
                        take_all(k);
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
