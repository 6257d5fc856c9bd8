#include "tests/sim/world.h"

/* ---- what is under way -------------------------------------------------- */

static struct flight **bucket(struct worker *k, uint32_t ticket)
{
        return &k->buckets[(ticket * 2654435761u) >> 22];
}

static struct flight *flight_find(struct worker *k, uint32_t ticket)
{
        struct flight *f = *bucket(k, ticket);

        while (f && f->ticket != ticket)
                f = f->next;
        return f;
}

static struct flight *flight_new(struct worker *k, const struct action *a)
{
        struct world *w = k->world;
        struct flight *f = w->free_flights, **at = bucket(k, a->attempt);

        if (f)
                w->free_flights = f->next;
        else if (!(f = malloc(sizeof(*f))))
                abort();
        f->due.index = 0;
        f->worker = k;
        f->ticket = a->attempt;
        f->track = a->track;
        f->n = (uint32_t)a->n;
        f->number = a->number;
        f->dead = a->kind == ACTION_DEAD_LETTER;
        f->held = !f->dead;
        f->sent_at = w->now;
        f->answer = (struct answer){ .kind = ANSWER_ACCEPTED, .status = 200 };
        f->next = *at;
        *at = f;
        f->later = NULL;
        f->earlier = k->newest;
        *(k->newest ? &k->newest->later : &k->oldest) = f;
        k->newest = f;
        if (++w->attempts_n >= w->attempts_cap) {
                w->attempts_cap = MAX_OF(w->attempts_cap * 2, 1024u);
                if (!(w->attempts = realloc(w->attempts, w->attempts_cap * sizeof(*w->attempts))))
                        abort();
                w->attempts[0] = (struct attempt){ 0 }; /* of what waits for nothing */
        }
        f->serial = w->attempts_n;
        w->attempts[f->serial] = (struct attempt){ 0 };
        k->flights++;
        k->dead_flights += f->dead;
        w->function.load += f->held;
        return f;
}

static void flight_free(struct flight *f)
{
        struct worker *k = f->worker;
        struct world *w = k->world;
        struct flight **at = bucket(k, f->ticket);

        while (*at != f)
                at = &(*at)->next;
        *at = f->next;
        *(f->earlier ? &f->earlier->later : &k->oldest) = f->later;
        *(f->later ? &f->later->earlier : &k->newest) = f->earlier;
        heap_remove(&w->flights, &f->due);
        k->flights--;
        k->dead_flights -= f->dead;
        w->function.load -= f->held;
        k->stale[random_below(&w->random, STALE)] = f->ticket;
        f->next = w->free_flights;
        w->free_flights = f;
}

static void take_one(struct world *w, uint32_t track, struct entry *e, bool unheard)
{
        w->duplicates += e->accepted;
        e->accepted = true;
        e->times++;
        if (e->times > e->licences)
                world_fail(w, "the function got a record again without a reason", track, e->position);
        e->licences += unheard;
}

/* The function does its work whether or not anybody still listens. */
static void function_works(struct flight *f, bool unheard)
{
        struct world *w = f->worker->world;
        const struct answer *a = &f->answer;
        size_t next = 0;

        if (f->dead) {
                if (a->kind == ANSWER_ACCEPTED)
                        f->items[0]->entry->dead = true;
                return;
        }
        if (a->kind != ANSWER_ACCEPTED &&
            (a->kind != ANSWER_PARTIAL || a->failed_n == 0 || a->failed[a->failed_n - 1] >= f->n))
                return;
        for (uint32_t i = 0; i < f->n; i++) {
                if (next < a->failed_n && a->failed[next] == i) {
                        next++;
                        continue;
                }
                take_one(w, f->track, f->items[i]->entry,
                         unheard || (next > 0 && w->config.ordering != ORDERING_NONE));
        }
}

/* ---- answers ------------------------------------------------------------ */

static usec retry_after(struct world *w)
{
        static const usec lies[] = { INT64_MAX, INT64_MIN, -USEC_DAY, 400 * USEC_DAY, 1, -1 };

        if (w->function.lies && chance(w, 50))
                return lies[random_below(&w->random, COUNT_OF(lies))];
        return chance(w, 60) ? 0 : within(w, 3 * USEC_SEC);
}

static struct answer refusal(struct world *w, int status)
{
        struct answer a = { .kind = answer_kind_of(status),
                            .status = status,
                            .overload = answer_is_overload(status),
                            .retry_after = retry_after(w) };

        a.text = status == 429   ? "429"
                 : status == 503 ? "503"
                 : status == 404 ? "404"
                 : status == 400 ? "400"
                 : status == 413 ? "413"
                                 : "500";
        return a;
}

static enum poison worst(const struct flight *f)
{
        enum poison kind = POISON_NONE;

        for (uint32_t i = 0; i < f->n; i++)
                kind = MAX_OF(kind, (enum poison)f->items[i]->entry->poison);
        return kind;
}

static void answer_partly(struct world *w, struct flight *f, bool poisoned)
{
        size_t n = 0;

        for (uint32_t i = 0; i < f->n; i++)
                if (poisoned ? f->items[i]->entry->poison : chance(w, 30))
                        f->failed[n++] = i;
        if (n == 0)
                f->failed[n++] = (uint32_t)random_below(&w->random, f->n);
        f->answer = (struct answer){ .kind = ANSWER_PARTIAL,
                                     .status = 200,
                                     .text = "some failed",
                                     .failed = f->failed,
                                     .failed_n = n,
                                     .retry_after = retry_after(w) };
        w->partials++;
        if (!poisoned && faulty(w) && chance(w, w->function.malformed_percent)) {
                if (chance(w, 50))
                        f->answer.failed_n = 0;
                else
                        f->failed[n - 1] = f->n + (uint32_t)random_below(&w->random, 3);
        }
}

static int refuses(struct world *w, const struct flight *f)
{
        const struct function *fn = &w->function;

        if (fn->capacity && fn->load > fn->capacity)
                return chance(w, 50) ? 429 : 503;
        if (!faulty(w))
                return 0;
        if (fn->down)
                return fn->down_status;
        if (chance(w, fn->overload_percent))
                return chance(w, 50) ? 429 : 503;
        if (chance(w, fn->fail_percent))
                return chance(w, 80) ? 500 : 404;
        if (chance(w, fn->final_percent))
                return 400;
        (void)f;
        return 0;
}

/* What the function will say, and when; USEC_NEVER: it hangs. */
static usec decide(struct world *w, struct flight *f)
{
        struct function *fn = &w->function;
        usec at = w->now + fn->fastest + within(w, fn->slowest - fn->fastest);
        enum poison kind = worst(f);
        size_t bytes = 0;
        int status;

        for (uint32_t i = 0; i < f->n; i++)
                bytes += f->items[i]->record.pinned;
        if (fn->size && bytes > fn->size) {
                f->answer = refusal(w, 413);
                return at;
        }
        if ((status = refuses(w, f))) {
                f->answer = refusal(w, status);
                return faulty(w) && chance(w, fn->hang_percent) ? USEC_NEVER : at;
        }
        if (kind == POISON_HANGS) {
                f->answer = refusal(w, 500);
                return USEC_NEVER;
        }
        if (kind && f->n > 1 && fn->partial && kind == POISON_FAILS)
                answer_partly(w, f, true);
        else if (kind)
                f->answer = refusal(w, kind == POISON_FINAL ? 400 : 500);
        else if (fn->partial && faulty(w) && chance(w, fn->partial_percent))
                answer_partly(w, f, false);
        if (faulty(w) && chance(w, fn->hang_percent))
                return chance(w, 70) ? USEC_NEVER : w->now + w->config.timeout + within(w, USEC_SEC);
        return at;
}

static usec decide_dead(struct world *w, struct flight *f)
{
        usec at = w->now + 100 + within(w, 20 * USEC_MSEC);
        bool hangs = (faulty(w) && chance(w, w->dead_hang_percent)) ||
                     (w->dead_broken && (w->dead_hangs || chance(w, 70)));

        if (w->dead_broken || (faulty(w) && chance(w, w->dead_fail_percent)))
                f->answer = refusal(w, chance(w, 50) ? 503 : 400);
        w->dead_letters++;
        return hangs ? USEC_NEVER : at;
}

void function_take(struct worker *k, const struct action *a)
{
        struct world *w = k->world;
        struct flight *f;
        usec at;

        if (a->n == 0 || a->n > MOST_BATCH)
                world_fail(w, "a request without records, or with too many", a->track, a->n);
        f = flight_new(k, a);
        for (uint32_t i = 0; i < f->n; i++)
                f->items[i] = CONTAINER_OF(a->records[i], struct item, record);
        say(w, "worker %d: %s %u/%" PRIu64 "+%u attempt %u ticket %x\n", k->number,
            f->dead ? "dead letter" : "send", f->track, f->items[0]->record.position, f->n, f->number,
            f->ticket);
        check_sent(k, f, a);
        if (w->scenario && w->scenario->sent)
                w->scenario->sent(w, k, f);
        at = f->dead ? decide_dead(w, f) : decide(w, f);
        if (at != USEC_NEVER && !heap_insert(&w->flights, &f->due, at))
                abort();
        w->requests++;
        w->events += f->n;
}

/* ---- ends of a flight --------------------------------------------------- */

void function_cancel(struct worker *k, const struct action *a)
{
        struct world *w = k->world;
        struct flight *f = flight_find(k, a->attempt);

        if (!f)
                world_fail(w, "cancels what is not under way", a->track, a->attempt);
        say(w, "worker %d: cancel %x\n", k->number, a->attempt);
        w->cancels++;
        check_cancelled(k, f);
        if (chance(w, 50)) /* it had reached the function all the same */
                function_works(f, true);
        flight_free(f);
}

void function_crash(struct worker *k)
{
        while (k->oldest) {
                if (chance(k->world, 50))
                        function_works(k->oldest, false);
                flight_free(k->oldest);
        }
}

/* An answer for an attempt that is over means nothing. */
static void answer_stale(struct worker *k)
{
        static const struct answer lies[] = { { .kind = ANSWER_ACCEPTED, .status = 200 },
                                              { .kind = ANSWER_FINAL, .status = 400, .text = "stale" } };
        struct delivery_stats before, after;
        uint32_t ticket = k->stale[random_below(&k->world->random, STALE)];

        if (flight_find(k, ticket))
                return;
        k->world->stales++;
        delivery_stats(k->engine, &before);
        delivery_answer(k->engine, ticket, &lies[random_below(&k->world->random, 2)], k->world->now);
        delivery_stats(k->engine, &after);
        if (memcmp(&before, &after, sizeof(before)) != 0)
                world_fail(k->world, "a stale answer had an effect", 0, ticket);
}

static void answered(struct flight *f)
{
        struct worker *k = f->worker;
        struct world *w = k->world;
        struct answer a = f->answer;
        uint32_t failed[MOST_BATCH], ticket = f->ticket;

        say(w, "worker %d: answer %x: %d kind %d\n", k->number, ticket, a.status, (int)a.kind);
        memcpy(failed, f->failed, a.failed_n * sizeof(*failed));
        a.failed = failed;
        function_works(f, false);
        check_answer(k, f, &a);
        flight_free(f);
        delivery_answer(k->engine, ticket, &a, w->now);
        if (chance(w, 3))
                answer_stale(k);
        worker_drain(k);
}

void function_turn(struct world *w)
{
        struct heap_node *first;

        if (w->function.down && w->now >= w->function.down_until)
                w->function.down = false;
        while ((first = heap_first(&w->flights)) && first->at <= w->now) {
                heap_remove(&w->flights, first);
                answered(CONTAINER_OF(first, struct flight, due));
        }
}

usec function_deadline(const struct world *w)
{
        const struct heap_node *first = heap_first(&w->flights);

        return first ? first->at : USEC_NEVER;
}
