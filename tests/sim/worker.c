#include "tests/sim/world.h"

void worker_start(struct worker *k)
{
        struct world *w = k->world;
        struct error err;

        k->seed = random_next(&w->random);
        if (delivery_new(&k->engine, &w->config, k->seed, &err) < 0)
                world_fail(w, err.text, 0, 0);
        k->started_at = k->bucket_at = w->now;
        k->held = k->held_bytes = 0;
        k->accepted = k->dropped = k->dead_lettered = k->filtered = k->released = k->offered = 0;
        k->blocked = k->failing = k->refused = k->must_settle = k->to_bury = 0;
        k->paused_until = k->refused_at = 0;
        k->bucket = 0;
        k->on_hold = k->crashing = k->stirred = false;
        k->hold_until = USEC_NEVER;
        k->state = DELIVERY_IDLE;
        memset(k->stale, 0xff, sizeof(k->stale));
        for (uint32_t i = 0; i < w->keys; i++) {
                char text[8];

                (void)snprintf(text, sizeof(text), "k%u", i);
                k->lane_of_key[i] = (uint32_t)(w->config.key_lanes > 1 ? hash_bytes(k->seed, str_of(text)) %
                                                                                 w->config.key_lanes
                                                                       : 0);
        }
        if (w->stored)
                store_open(k);
}

static void settle(struct worker *k, const struct action *a)
{
        struct item *i = CONTAINER_OF(a->record, struct item, record);

        check_settled(k, i, a->outcome);
        source_settle(k, i);
}

static void perform(struct worker *k, const struct action *a)
{
        struct holding *h = &k->holdings[a->track];

        switch (a->kind) {
        case ACTION_SEND:
        case ACTION_DEAD_LETTER: function_take(k, a); return;
        case ACTION_CANCEL: function_cancel(k, a); return;
        case ACTION_SETTLE: settle(k, a); return;
        case ACTION_DETACH: CONTAINER_OF(a->record, struct item, record)->detached = true; return;
        case ACTION_COMMIT:
                say(k->world, "worker %d: commit %u to %" PRIu64 "\n", k->number, a->track, a->position);
                check_committed(k, a->track, a->position);
                source_commit(k, a->track, a->position);
                return;
        case ACTION_CREDIT:
                if (!h->assigned || h->leaving)
                        world_fail(k->world, "credit for a track that is not ours", a->track, a->credit);
                h->credit += a->credit;
                h->bytes += (int64_t)a->bytes;
                source_lend(k, a->track);
                return;
        case ACTION_REVOKED:
                say(k->world, "worker %d: revoked %u\n", k->number, a->track);
                check_revoked(k, a->track);
                source_revoked(k, a->track);
                return;
        case ACTION_STATE: check_state(k, a); return;
        }
}

static bool next(struct worker *k, struct action *a)
{
        bool any;

        k->world->in_engine = true;
        any = delivery_next(k->engine, k->world->now, a);
        k->world->in_engine = false;
        return any;
}

void worker_drain(struct worker *k)
{
        struct world *w = k->world;
        struct action a;

        k->stirred = false;
        while (k->engine && next(k, &a)) {
                w->steps++;
                perform(k, &a);
                if (++w->same_moment > 1000000)
                        world_fail(w, "stuck: actions without end", a.track, 0);
                if (w->crash_every && faulty(w) && --w->crash_in == 0) {
                        w->crash_in = w->crash_every;
                        worker_crash(k);
                }
        }
        if (k->engine)
                check_quiet(k);
}

usec worker_deadline(const struct worker *k)
{
        usec at = k->engine ? delivery_deadline(k->engine) : k->up_at;

        return MIN_OF(at, k->hold_until);
}

/* ---- the end of an engine ----------------------------------------------- */

/* Nothing that a killed process still says counts, but it must not say that it commits. */
static void bury(struct worker *k)
{
        struct world *w = k->world;
        struct action a;

        k->crashing = true;
        for (uint32_t i = 0; i < w->partitions_n; i++)
                if (k->holdings[i].assigned) {
                        k->holdings[i].leaving = k->holdings[i].lost = true;
                        delivery_revoke(k->engine, i, 0);
                }
        while (delivery_next(k->engine, w->now, &a)) {
                if (a.kind == ACTION_SETTLE)
                        settle(k, &a);
                else if (a.kind != ACTION_CANCEL && a.kind != ACTION_REVOKED && a.kind != ACTION_STATE)
                        world_fail(w, "goes on with a track that is lost", a.track, (uint64_t)a.kind);
        }
        if (k->held)
                world_fail(w, "records leaked", 0, (uint64_t)k->held);
        k->engine = delivery_free(k->engine);
}

/* kill -9: what was under way may or may not have reached the function; nothing more is committed. */
void worker_crash(struct worker *k)
{
        struct world *w = k->world;

        say(w, "worker %d: crash\n", k->number);
        w->crashes++;
        function_crash(k);
        if (w->stored)
                store_crash(k);
        bury(k);
        for (uint32_t i = 0; i < w->partitions_n; i++)
                source_forget(k, i);
        k->hold_until = USEC_NEVER;
        k->up_at = w->now + within(w, chance(w, 50) ? USEC_MSEC : USEC_SEC);
}

void worker_stop(struct worker *k)
{
        struct world *w = k->world;

        if (!k->engine)
                return;
        for (uint32_t i = 0; i < w->partitions_n; i++)
                if (k->holdings[i].assigned && !k->holdings[i].leaving) {
                        k->holdings[i].leaving = true;
                        k->holdings[i].give_up_at = w->now + USEC_SEC;
                        delivery_revoke(k->engine, i, w->now + USEC_SEC);
                }
        worker_drain(k);
        if (!k->engine)
                return;
        function_crash(k); /* what a stuck record has under way */
        if (w->stored)
                store_crash(k);
        bury(k);
}
