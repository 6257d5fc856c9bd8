#include "tests/sim/reader_world.h"

void shop_fail(const struct shop *s, const char *what, uint32_t track, uint64_t position)
{
        (void)fflush(stdout);
        (void)fprintf(stderr,
                      "seed %" PRIu64 " step %" PRIu64 " at %" PRId64 " us: %s (track %u position %" PRIu64
                      ")\nreplay: sim --reader --seed=%" PRIu64 " --verbose\n",
                      s->seed, s->steps, s->now, what, track, position, s->seed);
        exit(1);
}

bool shop_out_of_memory(void *cookie)
{
        struct shop *s = cookie;

        return s->in_reader && s->no_memory_percent && shop_faulty(s) && shop_chance(s, s->no_memory_percent);
}

/* ---- the space of configurations ---------------------------------------- */

static usec some(struct shop *s, usec least, usec most)
{
        usec n = least + shop_within(s, most - least);

        return shop_chance(s, 30) ? least : n;
}

static void configure_reader(struct shop *s)
{
        struct reader_config *c = &s->config;

        c->claims = shop_chance(s, 50);
        c->loads = true;
        c->page_bytes = 4096;
        c->page_most = 256 << 10;
        c->poll_min = some(s, 5 * USEC_MSEC, 100 * USEC_MSEC);
        c->poll_max = c->poll_min + some(s, 0, 900 * USEC_MSEC);
        c->backoff_min = some(s, 2 * USEC_MSEC, 50 * USEC_MSEC);
        c->backoff_max = c->backoff_min + some(s, 0, USEC_SEC);
        c->save_interval = some(s, 0, 200 * USEC_MSEC);
        c->idle_save_interval = shop_chance(s, 50) ? 1 + some(s, 0, 500 * USEC_MSEC) : 0;
        c->unsaved_most = 1 + (uint32_t)random_below(&s->random, shop_chance(s, 50) ? 20 : 500);
        c->leave_timeout = 1 + some(s, 0, 300 * USEC_MSEC);
        c->shared = shop_chance(s, 30);
        c->remember = shop_chance(s, 50) ? 1 + (uint32_t)random_below(&s->random, 30) : 0;
        if (!s->queues)
                return;
        s->ack_wait = 500 * USEC_MSEC + some(s, 0, 2 * USEC_SEC);
        c->loads = false;
        c->remember = 0;
        c->marks_most = 1 + (uint32_t)random_below(&s->random, 20);
        c->lease = s->ack_wait - 100 * USEC_MSEC;
        c->attempt = shop_chance(s, 50) ? c->lease / 4 : 0;
        c->save_interval = some(s, 0, 50 * USEC_MSEC);
        c->idle_save_interval = 0;
        c->unsaved_most = 100;
        if (shop_chance(s, 50))
                return;
        c->shared = true;
        c->records_together = (uint32_t)random_below(&s->random, 4);
        c->records_most = 1 + (uint32_t)random_below(&s->random, 10);
}

static void configure(struct shop *s)
{
        s->queues = shop_chance(s, 30);
        configure_reader(s);
        s->logs_n = 1 + (uint32_t)random_below(&s->random, SHOP_LOGS);
        s->engine_config = (struct delivery_config){
                .ordering = (enum ordering)random_below(&s->random, 3),
                .max_in_flight = 1 + (uint32_t)random_below(&s->random, SHOP_CALLS),
                .max_records = 4 + (uint32_t)random_below(&s->random, 200),
                .max_bytes = 2000 + random_below(&s->random, 1 << 16),
                .key_lanes = 4,
                .batch_records = shop_chance(s, 50) ? 1 : 1 + (uint32_t)random_below(&s->random, SHOP_BATCH),
                .batch_wait = shop_within(s, 10 * USEC_MSEC),
                .timeout = 100 * USEC_MSEC,
                .max_attempts = 3,
                .initial_backoff = USEC_MSEC,
                .max_backoff = 50 * USEC_MSEC,
                .retry_after_max = USEC_SEC,
                .on_exhausted = shop_chance(s, 50) ? EXHAUSTED_DROP : EXHAUSTED_DEAD_LETTER,
                .commit_interval = some(s, 0, 50 * USEC_MSEC),
                .commit_count = 1 + (uint32_t)random_below(&s->random, 50),
        };
        s->faults_end = shop_within(s, 5 * USEC_SEC);
        s->stuck_after = 10 * USEC_MINUTE;
        s->fail_percent = shop_chance(s, 60) ? (unsigned)random_below(&s->random, 40) : 0;
        s->final_percent = (unsigned)random_below(&s->random, 20);
        s->throttle_percent = (unsigned)random_below(&s->random, 30);
        s->no_memory_percent = shop_chance(s, 25) ? 1 + (unsigned)random_below(&s->random, 5) : 0;
        s->crash_percent = shop_chance(s, 50) ? (unsigned)random_below(&s->random, 10) : 0;
        s->function_fails = shop_chance(s, 50) ? (unsigned)random_below(&s->random, 40) : 0;
        s->slowest = 1 + some(s, 0, 50 * USEC_MSEC);
        s->function_slowest = 1 + some(s, 0, 60 * USEC_MSEC);
        s->marks_rare = !s->queues && shop_chance(s, 30);
        s->greedy = !s->queues && shop_chance(s, 50);
}

/* ---- the function ------------------------------------------------------- */

static void take(struct shop *s, const struct action *a)
{
        bool poison = false;
        struct call *c = NULL;

        for (size_t i = 0; i < COUNT_OF(s->calls) && !c; i++)
                c = s->calls[i].used ? NULL : &s->calls[i];
        if (!c)
                shop_fail(s, "more requests than may be in flight", a->track, a->attempt);
        *c = (struct call){ .used = true,
                            .ticket = a->attempt,
                            .n = (uint32_t)a->n,
                            .dead = a->kind == ACTION_DEAD_LETTER,
                            .due = s->now + shop_within(s, s->function_slowest) };
        for (size_t i = 0; i < a->n; i++) {
                const struct log *l = service_log(s, a->track);

                c->records[i] = a->records[i];
                check_record(s, a->records[i]);
                poison = poison || l->facts[l->hold->copies[a->records[i]->position - 1].entry].poison;
        }
        c->answer = (struct answer){ .kind = ANSWER_ACCEPTED, .status = 200 };
        if (!c->dead && (poison || (shop_faulty(s) && shop_chance(s, s->function_fails))))
                c->answer = (struct answer){ .kind = ANSWER_RETRY, .status = 500, .text = "it fails" };
}

static void function_turn_calls(struct shop *s)
{
        for (size_t i = 0; i < COUNT_OF(s->calls) && s->engine; i++) {
                struct call *c = &s->calls[i];

                if (!c->used || c->due > s->now)
                        continue;
                for (uint32_t n = 0; n < c->n; n++)
                        check_record(s, c->records[n]);
                c->used = false;
                s->deliveries++;
                s->stirred = true;
                delivery_answer(s->engine, c->ticket, &c->answer, s->now);
        }
}

static void cancel_call(struct shop *s, uint32_t ticket)
{
        for (size_t i = 0; i < COUNT_OF(s->calls); i++)
                if (s->calls[i].used && s->calls[i].ticket == ticket)
                        s->calls[i].used = false;
}

/* ---- a pipeline --------------------------------------------------------- */

static void assigned(struct shop *s, uint32_t track)
{
        struct error err;
        int rc;

        s->in_reader = true;
        rc = delivery_assign(s->engine, track, s->now, &err);
        s->in_reader = false;
        if (rc == 0)
                return;
        if (!s->no_memory_percent)
                shop_fail(s, err.text, track, 0);
        service_log(s, track)->hold->assigned = false;
        service_log(s, track)->hold->offer_until = s->now + 20 * USEC_MSEC;
        reader_revoked(s->reader, track);
}

static void heard(struct shop *s, const struct pull_event *e)
{
        if (e->kind == PULL_RECORD) {
                const struct log *l = service_log(s, e->record->track);

                check_lent(s, e->record);
                if (l->facts[l->hold->copies[e->record->position - 1].entry].skip)
                        delivery_skip(s->engine, e->record, s->now);
                else
                        delivery_offer(s->engine, e->record, s->now);
                return;
        }
        check_event(s, e);
        shop_say(s, "event %d of track %u\n", (int)e->kind, e->track);
        if (e->kind == PULL_ASSIGNED)
                assigned(s, e->track);
        else if (e->kind == PULL_REVOKING)
                delivery_revoke(s->engine, e->track,
                                s->stopping ? MIN_OF(e->give_up_at, s->stop_by) : e->give_up_at);
        else if (e->kind == PULL_LOST)
                delivery_revoke(s->engine, e->track, 0);
}

static void perform(struct shop *s, const struct action *a)
{
        switch (a->kind) {
        case ACTION_SEND:
        case ACTION_DEAD_LETTER: take(s, a); return;
        case ACTION_CANCEL: cancel_call(s, a->attempt); return;
        case ACTION_DETACH: (void)reader_detach(s->reader, a->record); return;
        case ACTION_SETTLE:
                check_back(s, a->record, a->outcome);
                reader_release(s->reader, a->record);
                return;
        case ACTION_CREDIT: {
                struct hold *h = service_log(s, a->track)->hold;

                h->credit += a->credit;
                h->bytes += (int64_t)a->bytes;
                reader_credit(s->reader, a->track, a->credit, a->bytes);
                return;
        }
        case ACTION_COMMIT:
                check_commit(s, a->track, a->position);
                reader_commit(s->reader, a->track, a->position);
                return;
        case ACTION_REVOKED:
                check_track_revoked(s, a->track);
                reader_revoked(s->reader, a->track);
                return;
        case ACTION_STATE: return;
        }
}

static bool round_of(struct shop *s)
{
        struct pull_event events[8];
        struct reader_job job;
        struct action a;
        bool any = false;
        size_t n;

        s->in_reader = true;
        n = reader_poll(s->reader, events, 1 + random_below(&s->random, COUNT_OF(events)), s->now);
        s->in_reader = false;
        for (size_t i = 0; i < n; i++)
                heard(s, &events[i]);
        while (delivery_next(s->engine, s->now, &a)) {
                any = true;
                s->in_reader = a.kind == ACTION_DETACH;
                perform(s, &a);
                s->in_reader = false;
        }
        for (;;) {
                bool more;

                s->in_reader = true;
                more = reader_next(s->reader, s->now, &job);
                s->in_reader = false;
                if (!more)
                        break;
                any = true;
                service_begin(s, &job);
        }
        return any || n > 0 || reader_deadline(s->reader) <= s->now;
}

static void drain(struct shop *s)
{
        unsigned rounds = 0;

        s->stirred = false;
        while (round_of(s)) {
                s->steps++;
                if (++rounds > 10000)
                        shop_fail(s, "goes round and round", 0, 0);
        }
        check_shop_quiet(s);
}

static void start(struct shop *s)
{
        struct error err;

        if (reader_new(&s->reader, &s->config, random_next(&s->random), &err) < 0 ||
            delivery_new(&s->engine, &s->engine_config, random_next(&s->random), &err) < 0)
                shop_fail(s, err.text, 0, 0);
        s->stirred = true;
        s->stopping = s->closed = false;
        s->fetch_pause = s->fetch_from = s->fetch_until = 0;
        s->told = SOURCE_STATE_MAX;
        s->records = MIN_OF(MAX_OF(s->config.records_together, 1u), s->config.records_most);
        s->careful = s->records > 0;
}

/* Everything that is out comes back; nothing more is said. */
static void bury(struct shop *s)
{
        struct action a;

        for (uint32_t i = 0; i < s->logs_n; i++)
                if (s->logs[i].hold)
                        delivery_revoke(s->engine, s->logs[i].hold->track, 0);
        while (delivery_next(s->engine, s->now, &a)) {
                if (a.kind != ACTION_SETTLE)
                        continue;
                check_back(s, a.record, a.outcome);
                reader_release(s->reader, a.record);
        }
        for (size_t i = 0; i < COUNT_OF(s->calls); i++)
                s->calls[i].used = false;
        s->engine = delivery_free(s->engine);
        service_crash(s);
        s->reader = reader_free(s->reader);
        s->up_at = s->now + shop_within(s, USEC_SEC);
}

static void stop(struct shop *s)
{
        shop_say(s, "stop\n");
        s->stopping = true;
        s->stop_by = s->now + shop_within(s, 300 * USEC_MSEC);
        for (uint32_t i = 0; i < s->logs_n; i++) {
                struct hold *h = s->logs[i].hold;

                if (!h || h->withdrawn)
                        continue;
                if (!(h->told && h->let_go))
                        h->give_up_at = USEC_NEVER;
                h->withdrawn = true;
                h->leave_from = s->now;
        }
        reader_stop(s->reader);
        s->stirred = true;
}

/* ---- a run -------------------------------------------------------------- */

static void stir(struct shop *s)
{
        s->stir_at = s->now + 1 + shop_within(s, 200 * USEC_MSEC);
        if (!s->reader)
                return;
        if (shop_chance(s, s->crash_percent)) {
                shop_say(s, "crash\n");
                s->crashes++;
                bury(s);
        } else if (!s->stopping && shop_chance(s, s->crash_percent)) {
                s->stops++;
                stop(s);
        } else if (!s->stopping && shop_chance(s, 50)) {
                service_stir(s);
        }
}

static usec next_moment(const struct shop *s)
{
        usec at = service_deadline(s);

        if (!s->reader)
                return MIN_OF(at, s->up_at);
        at = MIN_OF(at, reader_deadline(s->reader));
        at = MIN_OF(at, delivery_deadline(s->engine));
        for (size_t i = 0; i < COUNT_OF(s->calls); i++)
                if (s->calls[i].used)
                        at = MIN_OF(at, s->calls[i].due);
        if (shop_faulty(s))
                at = at < s->stir_at ? MIN_OF(at, s->faults_end) : MIN_OF(s->stir_at, s->faults_end);
        return at;
}

static void turn(struct shop *s)
{
        if (!s->reader && s->now >= s->up_at)
                start(s);
        service_turn(s);
        function_turn_calls(s);
        if (s->reader && shop_faulty(s) && s->now >= s->stir_at)
                stir(s);
        if (!s->reader)
                return;
        if (s->stirred || reader_deadline(s->reader) <= s->now || delivery_deadline(s->engine) <= s->now)
                drain(s);
        if (!s->closed)
                return;
        if (reader_deadline(s->reader) != USEC_NEVER)
                shop_fail(s, "closed, and goes on", 0, 0);
        bury(s);
}

static void run(struct shop *s)
{
        random_init(&s->random, s->seed);
        configure(s);
        service_open(s);
        start(s);
        for (usec at;; s->now = at) {
                turn(s);
                if (service_finished(s))
                        break;
                at = next_moment(s);
                at = MAX_OF(at, s->now);
                s->same_moment = at > s->now ? 0 : s->same_moment + 1;
                if (at == USEC_NEVER || s->same_moment > 10000)
                        shop_fail(s, "stuck: nothing will ever happen", 0, 0);
                if (at > s->faults_end + s->stuck_after)
                        shop_fail(s, "stuck: not done long after the faults ended", 0, 0);
        }
        if (s->reader && !s->stopping)
                stop(s);
        while (s->reader) {
                turn(s);
                if (!s->reader)
                        break;
                s->now = MAX_OF(next_moment(s), s->now);
                if (s->now > s->faults_end + 2 * s->stuck_after)
                        shop_fail(s, "stuck: does not stop", 0, 0);
        }
        check_shop_end(s);
        service_done(s);
}

int reader_main(uint64_t first, uint64_t seeds, usec until, bool verbose, uint64_t *running,
                void (*begin)(void), usec (*clock)(void))
{
        static struct shop s;
        uint64_t entries = 0, deliveries = 0, jobs = 0, failed = 0, crashes = 0, stops = 0, lost = 0,
                 let_go = 0, duplicates = 0, n = 0;
        usec began = clock();

        for (; n < seeds && clock() < until; n++) {
                memset(&s, 0, sizeof(s));
                s.seed = *running = first + n;
                s.verbose = verbose;
                memory_of(shop_out_of_memory, &s);
                begin();
                run(&s);
                entries += s.entries;
                deliveries += s.deliveries;
                jobs += s.jobs;
                failed += s.failed_jobs;
                crashes += s.crashes;
                stops += s.stops;
                lost += s.lost;
                let_go += s.let_go;
                duplicates += s.duplicates;
        }
        (void)printf("reader: seeds %" PRIu64 "..%" PRIu64 ": %" PRIu64 " entries in %" PRIu64
                     " deliveries, %" PRIu64 " jobs (%" PRIu64 " failed); %.0f jobs a second\n  %" PRIu64
                     " crashes, %" PRIu64 " stops, %" PRIu64 " tracks lost, %" PRIu64 " leases over, %" PRIu64
                     " ids left out\n%" PRIu64 " passed, 0 failed\n",
                     first, first + n - 1, entries, deliveries, jobs, failed,
                     (double)jobs * 1e6 / (double)MAX_OF(clock() - began, (usec)1), crashes, stops, lost,
                     let_go, duplicates, n);
        return 0;
}
