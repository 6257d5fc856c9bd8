/* The delivery engine's simulator: the real engine on a virtual clock against simulated sources (partitions, rebalances, losses, duplicates
 * after a crash), functions (slow, failing, hanging, final answers) and crashes, all from one seed. After each step the promises are checked:
 *   - nothing is committed that the function did not accept (or the user wanted dropped)
 *   - in an ordered lane a record is sent only when all before it were accepted, and one batch at a time
 *   - each record is handed back exactly once; requests, records and bytes stay inside their bounds; no more is lent than was credited
 *   - once the faults end everything arrives, everything is committed and nothing is held
 * A failing seed is printed and replays exactly: sim --seed=N --verbose. */
#include <inttypes.h>
#include <stdio.h>

#include "base/random.h"
#include "delivery/delivery.h"

#define MAX_RECORDS 400u
enum { MAX_PARTITIONS = 6, KEYS = 12, MAX_SENT = 64 };

struct entry { bool accepted, dropped; unsigned sends; uint32_t key; uint32_t size; };
struct partition {
        struct entry log[MAX_RECORDS];
        uint32_t n;              /* records in it */
        uint32_t end;            /* how far the log has grown */
        uint32_t committed;      /* the broker's offset */
        uint32_t next;           /* to be lent */
        bool assigned, leaving;
        usec back_at;            /* assigned again then */
        int64_t credit, bytes;   /* left */
        uint32_t lent;
};
struct flight { bool used, answered; uint32_t ticket, track, n; uint32_t offsets[MAX_SENT]; usec answer_at; struct answer answer; };

struct sim {
        uint64_t seed;
        struct random random;
        usec now, faults_end;
        struct delivery *engine;
        struct delivery_config config;
        struct partition partitions[MAX_PARTITIONS];
        uint32_t partitions_n;
        struct flight flights[128];
        unsigned fail_percent, hang_percent, final_percent;
        int64_t held, held_bytes;
        uint64_t steps, events, crashes, rebalances, losses, duplicates;
        bool down;               /* the function answers 503 to all */
        usec down_until;
        bool verbose;
};

static void fail(const struct sim *s, const char *what, uint32_t track, uint32_t offset)
{
        (void)fflush(stdout);
        (void)fprintf(stderr, "seed %" PRIu64 " step %" PRIu64 " at %" PRId64 " us: %s (track %u offset %u)\nreplay: sim --seed=%" PRIu64 " --verbose\n", s->seed,
                      s->steps, s->now, what, track, offset, s->seed);
        exit(1);
}

#define say(s, ...)                                                         \
        do {                                                                \
                if ((s)->verbose) {                                         \
                        (void)printf("%10" PRId64 " ", (s)->now);           \
                        (void)printf(__VA_ARGS__);                          \
                }                                                           \
        } while (0)

static bool chance(struct sim *s, unsigned percent) { return random_below(&s->random, 100) < percent; }
static bool faulty(const struct sim *s) { return s->now < s->faults_end; }

/* ---- the source ---------------------------------------------------------------------------------------------------------------------- */

static const char *const key_names[KEYS] = { "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l" };

static void lend(struct sim *s, uint32_t track)
{
        struct partition *p = &s->partitions[track];

        while (p->assigned && !p->leaving && p->next < p->end && p->credit > 0 && p->bytes > 0) {
                struct entry *e = &p->log[p->next];
                struct record *r = calloc(1, sizeof(*r));

                if (!r)
                        abort();
                r->track = track;
                r->position = p->next;
                r->pinned = e->size;
                r->key = str_of(key_names[e->key]);
                p->credit--;
                p->bytes -= e->size;
                p->lent++;
                p->next++;
                s->held++;
                s->held_bytes += e->size;
                delivery_offer(s->engine, r, s->now);
        }
}

static void assign(struct sim *s, uint32_t track)
{
        struct partition *p = &s->partitions[track];
        struct error err;

        if (delivery_assign(s->engine, track, s->now, &err) < 0)
                fail(s, err.text, track, 0);
        p->assigned = true;
        p->leaving = false;
        p->next = p->committed;
        p->credit = p->bytes = 0;
        p->lent = 0;
        say(s, "assign %u from %u\n", track, p->committed);
}

/* ---- the function -------------------------------------------------------------------------------------------------------------------- */

static struct flight *flight_find(struct sim *s, uint32_t ticket)
{
        for (size_t i = 0; i < COUNT_OF(s->flights); i++)
                if (s->flights[i].used && s->flights[i].ticket == ticket)
                        return &s->flights[i];
        return NULL;
}

static bool same_lane(const struct sim *s, const struct partition *p, uint32_t a, uint32_t b)
{
        return s->config.ordering == ORDERING_PARTITION || (s->config.ordering == ORDERING_KEY && p->log[a].key == p->log[b].key);
}

static void check_order(struct sim *s, uint32_t track, uint32_t offset)
{
        struct partition *p = &s->partitions[track];

        for (uint32_t o = 0; o < offset; o++)
                if (same_lane(s, p, o, offset) && !p->log[o].accepted && !p->log[o].dropped) {
                        bool together = false;

                        /* Part of the same batch is fine. */
                        for (size_t i = 0; i < COUNT_OF(s->flights); i++)
                                for (uint32_t j = 0; s->flights[i].used && s->flights[i].track == track && j < s->flights[i].n; j++)
                                        together = together || s->flights[i].offsets[j] == o;
                        if (!together)
                                fail(s, "sent before an earlier record of its lane was accepted", track, offset);
                }
}

static void check_alone(struct sim *s, const struct flight *f)
{
        struct partition *p = &s->partitions[f->track];

        for (size_t i = 0; i < COUNT_OF(s->flights); i++) {
                const struct flight *other = &s->flights[i];

                if (!other->used || other == f || other->track != f->track)
                        continue;
                for (uint32_t j = 0; j < other->n; j++)
                        if (same_lane(s, p, other->offsets[j], f->offsets[0]))
                                fail(s, "two batches of a lane in flight", f->track, f->offsets[0]);
        }
}

static void on_send(struct sim *s, const struct action *a)
{
        struct flight *f = NULL;

        for (size_t i = 0; i < COUNT_OF(s->flights) && !f; i++)
                f = s->flights[i].used ? NULL : &s->flights[i];
        if (!f || a->n > MAX_SENT || a->n == 0)
                fail(s, "more requests than allowed", a->track, 0);
        *f = (struct flight){ .used = true, .ticket = a->attempt, .track = a->track, .n = (uint32_t)a->n };
        for (size_t i = 0; i < a->n; i++) {
                f->offsets[i] = (uint32_t)a->records[i]->position;
                if (i && f->offsets[i] <= f->offsets[i - 1])
                        fail(s, "a batch out of order", a->track, f->offsets[i]);
        }
        if (s->config.ordering != ORDERING_NONE) {
                for (size_t i = 0; i < a->n; i++)
                        check_order(s, a->track, f->offsets[i]);
                check_alone(s, f);
        }
        f->answer_at = s->now + 100 + (usec)random_below(&s->random, 20 * USEC_MSEC);
        f->answer = (struct answer){ .kind = ANSWER_ACCEPTED, .status = 200 };
        if (faulty(s)) {
                if (s->down || chance(s, s->fail_percent))
                        f->answer = (struct answer){ .kind = ANSWER_RETRY, .status = 503, .text = "503", .retry_after = chance(s, 20) ? USEC_SEC : 0 };
                else if (chance(s, s->final_percent))
                        f->answer = (struct answer){ .kind = ANSWER_FINAL, .status = 400, .text = "400" };
                if (chance(s, s->hang_percent))
                        f->answer_at = s->now + 10 * s->config.timeout;
        }
        say(s, "send %u/%u+%zu attempt %u ticket %x\n", a->track, f->offsets[0], a->n, a->number, a->attempt);
        s->events += a->n;
}

/* The function does its work when it answers, whether or not anybody still listens. */
static void function_works(struct sim *s, struct flight *f)
{
        if (f->answer.kind != ANSWER_ACCEPTED)
                return;
        for (uint32_t i = 0; i < f->n; i++) {
                struct entry *e = &s->partitions[f->track].log[f->offsets[i]];

                if (e->accepted)
                        s->duplicates++;
                e->accepted = true;
                e->sends++;
        }
}

/* ---- actions ------------------------------------------------------------------------------------------------------------------------- */

static void on_settle(struct sim *s, const struct action *a)
{
        struct record *r = a->record;
        struct partition *p = &s->partitions[r->track];
        struct entry *e = &p->log[r->position];

        if (a->outcome == OUTCOME_ACCEPTED && !e->accepted)
                fail(s, "settled as accepted, but the function did not accept", r->track, (uint32_t)r->position);
        if (a->outcome == OUTCOME_DROPPED)
                e->dropped = true;
        if (r->position == UINT64_MAX)
                fail(s, "settled twice", r->track, 0);
        r->position = UINT64_MAX;
        if (p->lent == 0)
                fail(s, "handed back more than was lent", r->track, 0);
        p->lent--;
        s->held--;
        s->held_bytes -= r->pinned;
        free(r);
}

static void on_commit(struct sim *s, const struct action *a)
{
        struct partition *p = &s->partitions[a->track];

        if (!p->assigned)
                fail(s, "commit for a partition that is not ours", a->track, (uint32_t)a->position);
        if (a->position < p->committed)
                fail(s, "commit goes back", a->track, (uint32_t)a->position);
        for (uint32_t o = p->committed; o < a->position; o++)
                if (!p->log[o].accepted && !p->log[o].dropped)
                        fail(s, "committed early: not accepted", a->track, o);
        p->committed = (uint32_t)a->position;
        say(s, "commit %u to %u\n", a->track, p->committed);
}

static void on_revoked(struct sim *s, const struct action *a)
{
        struct partition *p = &s->partitions[a->track];

        if (p->lent)
                fail(s, "revoked while records are out", a->track, 0);
        p->assigned = p->leaving = false;
        p->back_at = s->now + (usec)random_below(&s->random, USEC_SEC);
        say(s, "revoked %u\n", a->track);
}

static void on_cancel(struct sim *s, const struct action *a)
{
        struct flight *f = flight_find(s, a->attempt);

        if (!f)
                fail(s, "cancels what was not sent", a->track, 0);
        /* Half of the cancelled requests had reached the function all the same. */
        if (chance(s, 50))
                function_works(s, f);
        f->used = false;
}

static void check_bounds(struct sim *s)
{
        struct delivery_stats stats;
        int64_t credit = 0;

        delivery_stats(s->engine, &stats);
        for (uint32_t i = 0; i < s->partitions_n; i++)
                credit += s->partitions[i].assigned && !s->partitions[i].leaving ? s->partitions[i].credit : 0;
        if (stats.in_flight > s->config.max_in_flight)
                fail(s, "more requests in flight than maxInFlight", 0, stats.in_flight);
        if (s->held + credit > (int64_t)s->config.max_records + s->partitions_n)
                fail(s, "more records lent and credited than the window", 0, (uint32_t)(s->held + credit));
        if (s->held_bytes > (int64_t)s->config.max_bytes + (int64_t)s->partitions_n * 4096)
                fail(s, "more bytes lent than the budget", 0, (uint32_t)s->held_bytes);
}

static void drain(struct sim *s)
{
        struct action a;

        while (delivery_next(s->engine, s->now, &a)) {
                s->steps++;
                switch (a.kind) {
                case ACTION_SEND: on_send(s, &a); break;
                case ACTION_CANCEL: on_cancel(s, &a); break;
                case ACTION_SETTLE: on_settle(s, &a); break;
                case ACTION_COMMIT: on_commit(s, &a); break;
                case ACTION_REVOKED: on_revoked(s, &a); break;
                case ACTION_CREDIT:
                        s->partitions[a.track].credit += a.credit;
                        s->partitions[a.track].bytes += (int64_t)a.bytes;
                        lend(s, a.track);
                        break;
                case ACTION_DEAD_LETTER: fail(s, "a dead letter nobody asked for", a.track, 0); break;
                case ACTION_DETACH:
                case ACTION_STATE: break;
                }
                check_bounds(s);
        }
}

/* ---- faults -------------------------------------------------------------------------------------------------------------------------- */

static void revoke(struct sim *s, uint32_t track, bool lost)
{
        struct partition *p = &s->partitions[track];

        if (!p->assigned || (p->leaving && !lost))
                return;
        say(s, "%s %u\n", lost ? "lost" : "revoking", track);
        p->leaving = true;
        *(lost ? &s->losses : &s->rebalances) += 1;
        delivery_revoke(s->engine, track, lost ? 0 : s->now + 1 + (usec)random_below(&s->random, 50 * USEC_MSEC));
}

static void start_engine(struct sim *s)
{
        struct error err;

        if (delivery_new(&s->engine, &s->config, random_next(&s->random), &err) < 0)
                fail(s, err.text, 0, 0);
        for (uint32_t i = 0; i < s->partitions_n; i++)
                assign(s, i);
}

/* kill -9: all that was in flight may or may not have reached the function; nothing more is committed. */
static void crash(struct sim *s)
{
        say(s, "crash\n");
        s->crashes++;
        for (size_t i = 0; i < COUNT_OF(s->flights); i++) {
                if (s->flights[i].used && chance(s, 50))
                        function_works(s, &s->flights[i]);
        }
        for (uint32_t i = 0; i < s->partitions_n; i++)
                delivery_revoke(s->engine, i, 0);
        drain(s);
        memset(s->flights, 0, sizeof(s->flights));
        s->engine = delivery_free(s->engine);
        if (s->held)
                fail(s, "records leaked by a crash", 0, (uint32_t)s->held);
        start_engine(s);
}

static void stir(struct sim *s)
{
        uint32_t track = (uint32_t)random_below(&s->random, s->partitions_n);

        switch (random_below(&s->random, 40)) {
        case 0: crash(s); break;
        case 1: revoke(s, track, true); break;
        case 2:
        case 3: revoke(s, track, false); break;
        case 4: s->down = true; s->down_until = s->now + (usec)random_below(&s->random, 2 * USEC_SEC); break;
        default: break;
        }
}

/* ---- a run --------------------------------------------------------------------------------------------------------------------------- */

static void configure(struct sim *s)
{
        struct delivery_config *c = &s->config;
        static const uint32_t windows[] = { 1, 2, 3, 8, 32, 64 };

        c->ordering = (enum ordering)random_below(&s->random, 3);
        c->max_in_flight = windows[random_below(&s->random, COUNT_OF(windows))];
        c->batch_records = chance(s, 60) ? 1 : 1 + (uint32_t)random_below(&s->random, 16);
        c->batch_wait = chance(s, 50) ? 0 : (usec)random_below(&s->random, 20 * USEC_MSEC);
        c->batch_bytes = chance(s, 50) ? 0 : 1024 + (size_t)random_below(&s->random, 8192);
        c->max_records = c->max_in_flight * c->batch_records * (1 + (uint32_t)random_below(&s->random, 3));
        c->max_bytes = 2048 + (size_t)random_below(&s->random, 65536);
        c->key_lanes = 1 + (uint32_t)random_below(&s->random, 16);
        c->timeout = 30 * USEC_MSEC + (usec)random_below(&s->random, USEC_SEC);
        c->initial_backoff = USEC_MSEC + (usec)random_below(&s->random, 50 * USEC_MSEC);
        c->max_backoff = c->initial_backoff + (usec)random_below(&s->random, USEC_SEC);
        c->retry_after_max = USEC_SEC;
        c->on_exhausted = chance(s, 20) ? EXHAUSTED_DROP : EXHAUSTED_BLOCK;
        c->max_attempts = chance(s, 30) ? 1 + (uint32_t)random_below(&s->random, 5) : 0;
        c->commit_interval = chance(s, 20) ? 0 : (usec)random_below(&s->random, USEC_SEC);
        c->commit_count = 1 + (uint32_t)random_below(&s->random, 100);
        s->partitions_n = 1 + (uint32_t)random_below(&s->random, MAX_PARTITIONS);
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                struct partition *p = &s->partitions[i];

                p->n = (uint32_t)random_below(&s->random, MAX_RECORDS);
                for (uint32_t o = 0; o < p->n; o++)
                        p->log[o] = (struct entry){ .key = (uint32_t)random_below(&s->random, KEYS), .size = 1 + (uint32_t)random_below(&s->random, 4096) };
        }
        s->fail_percent = (unsigned)random_below(&s->random, 40);
        s->final_percent = chance(s, 50) ? 0 : (unsigned)random_below(&s->random, 5);
        s->hang_percent = (unsigned)random_below(&s->random, 5);
        s->faults_end = (usec)random_below(&s->random, 20 * USEC_SEC);
}

static bool finished(struct sim *s)
{
        for (uint32_t i = 0; i < s->partitions_n; i++)
                if (s->partitions[i].committed < s->partitions[i].n || s->partitions[i].lent)
                        return false;
        return true;
}

static void answers(struct sim *s)
{
        for (size_t i = 0; i < COUNT_OF(s->flights); i++) {
                struct flight *f = &s->flights[i];

                if (!f->used || f->answer_at > s->now)
                        continue;
                function_works(s, f);
                f->used = false;
                delivery_answer(s->engine, f->ticket, &f->answer, s->now);
                if (chance(s, 2)) /* an answer that comes twice means nothing */
                        delivery_answer(s->engine, f->ticket, &f->answer, s->now);
                drain(s);
        }
}

static usec next_moment(struct sim *s)
{
        usec at = delivery_deadline(s->engine);

        for (size_t i = 0; i < COUNT_OF(s->flights); i++)
                if (s->flights[i].used)
                        at = MIN_OF(at, s->flights[i].answer_at);
        for (uint32_t i = 0; i < s->partitions_n; i++) {
                if (!s->partitions[i].assigned)
                        at = MIN_OF(at, s->partitions[i].back_at);
                if (s->partitions[i].end < s->partitions[i].n)
                        at = MIN_OF(at, s->now + 10 * USEC_MSEC);
        }
        if (faulty(s))
                at = MIN_OF(at, s->now + (usec)random_below(&s->random, 100 * USEC_MSEC));
        return at;
}

static void run(struct sim *s)
{
        random_init(&s->random, s->seed);
        configure(s);
        start_engine(s);
        while (!finished(s)) {
                usec at;

                drain(s);
                at = next_moment(s);
                if (at == USEC_NEVER)
                        fail(s, "stuck: nothing will ever happen", 0, 0);
                s->now = MAX_OF(at, s->now);
                if (s->now > s->faults_end + 4000 * USEC_SEC)
                        fail(s, "stuck: not done long after the faults ended", 0, 0);
                if (s->down && s->now >= s->down_until)
                        s->down = false;
                answers(s);
                for (uint32_t i = 0; i < s->partitions_n; i++) {
                        struct partition *p = &s->partitions[i];

                        if (!p->assigned && s->now >= p->back_at)
                                assign(s, i);
                        p->end = MIN_OF(p->n, p->end + (uint32_t)random_below(&s->random, 20));
                        drain(s);
                        lend(s, i);
                }
                drain(s);
                if (faulty(s))
                        stir(s);
        }
        for (uint32_t i = 0; i < s->partitions_n; i++)
                delivery_revoke(s->engine, i, s->now + USEC_SEC);
        drain(s);
        for (uint32_t i = 0; i < s->partitions_n; i++)
                for (uint32_t o = 0; o < s->partitions[i].n; o++)
                        if (!s->partitions[i].log[o].accepted && !s->partitions[i].log[o].dropped)
                                fail(s, "lost", i, o);
        if (s->held)
                fail(s, "records leaked", 0, (uint32_t)s->held);
        s->engine = delivery_free(s->engine);
}

static bool option(const char *arg, const char *name, uint64_t *value)
{
        size_t n = strlen(name);
        int64_t number;

        if (strncmp(arg, name, n) != 0 || !str_to_int64(str_of(arg + n), &number))
                return false;
        *value = (uint64_t)number;
        return true;
}

int main(int argc, char **argv)
{
        static struct sim s;
        uint64_t seed = 0, first = 1, seeds = 300, events = 0, crashes = 0, duplicates = 0, steps = 0;
        bool verbose = false;

        for (int i = 1; i < argc; i++) {
                if (strcmp(argv[i], "--verbose") == 0)
                        verbose = true;
                else if (!option(argv[i], "--seed=", &seed) && !option(argv[i], "--seeds=", &seeds) && !option(argv[i], "--first=", &first)) {
                        (void)fprintf(stderr, "usage: sim [--seed=N | --first=N --seeds=N] [--verbose]\n");
                        return 2;
                }
        }
        if (seed) {
                first = seed;
                seeds = 1;
        }
        for (uint64_t i = first; i < first + seeds; i++) {
                memset(&s, 0, sizeof(s));
                s.seed = i;
                s.verbose = verbose;
                run(&s);
                events += s.events;
                crashes += s.crashes;
                duplicates += s.duplicates;
                steps += s.steps;
        }
        (void)printf("simulator: seeds %" PRIu64 "..%" PRIu64 ": %" PRIu64 " deliveries, %" PRIu64 " steps, %" PRIu64 " crashes, %" PRIu64 " duplicates\n%" PRIu64 " passed, 0 failed\n",
                     first, first + seeds - 1, events, steps, crashes, duplicates, seeds);
        return 0;
}
