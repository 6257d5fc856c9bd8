/* The delivery engine's simulator: the real engine on a virtual clock in a simulated world (world.h),
 * everything from one seed. A failing seed is printed and replays exactly: sim --seed=N --verbose. */
#include <signal.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/memory.h"
#include "tests/sim/reader_world.h"
#include "tests/sim/world.h"

void world_fail(const struct world *w, const char *what, uint32_t track, uint64_t position)
{
        (void)fflush(stdout);
        (void)fprintf(stderr,
                      "seed %" PRIu64 " step %" PRIu64 " at %" PRId64 " us: %s (track %u position %" PRIu64
                      ")\nreplay: sim --seed=%" PRIu64 "%s%s --verbose\n",
                      w->seed, w->steps, w->now, what, track, position, w->seed,
                      w->scenario ? " --scenario=" : "", w->scenario ? w->scenario->name : "");
        exit(1);
}

/* ---- a run -------------------------------------------------------------- */

static void stir(struct world *w)
{
        struct function *f = &w->function;
        struct worker *k = &w->workers[random_below(&w->random, w->workers_n)];
        static const int statuses[] = { 503, 429, 500, 404 };

        w->stir_at = w->now + within(w, 100 * USEC_MSEC);
        if (w->calm || !chance(w, w->stir_weight))
                return;
        switch (random_below(&w->random, 8)) {
        case 0:
                if (k->engine && chance(w, 30))
                        worker_crash(k);
                return;
        case 1:
                f->down = true;
                f->down_until = w->now + within(w, 3 * USEC_SEC);
                f->down_status = statuses[random_below(&w->random, COUNT_OF(statuses))];
                return;
        case 2:
                if (!k->engine)
                        return;
                k->on_hold = true;
                k->hold_until = w->now + 1 + within(w, USEC_SEC);
                delivery_hold(k->engine, true);
                return;
        default: source_stir(w);
        }
}

static void workers_turn(struct world *w)
{
        for (uint32_t n = 0; n < w->workers_n; n++) {
                struct worker *k = &w->workers[n];

                if (!k->engine && w->now >= k->up_at)
                        worker_start(k);
                if (k->engine && w->now >= k->hold_until) {
                        k->on_hold = false;
                        k->hold_until = USEC_NEVER;
                        delivery_hold(k->engine, false);
                        k->stirred = true;
                }
                /* Only when there is a reason, so that a wake-up which is lost shows. */
                if (k->engine && (k->stirred || delivery_deadline(k->engine) <= w->now))
                        worker_drain(k);
        }
}

static usec next_moment(const struct world *w)
{
        usec at = earlier(earlier(function_deadline(w), source_deadline(w)), store_deadline(w));

        for (uint32_t n = 0; n < w->workers_n; n++)
                at = MIN_OF(at, worker_deadline(&w->workers[n]));
        if (faulty(w))
                at = earlier(earlier(at, w->stir_at), w->faults_end);
        return at;
}

static void begin(struct world *w)
{
        random_init(&w->random, w->seed);
        world_configure(w);
        for (uint32_t n = 0; n < w->workers_n; n++) {
                w->workers[n].world = w;
                w->workers[n].number = (int)n;
                worker_start(&w->workers[n]);
        }
        for (uint32_t i = 0; i < w->partitions_n; i++) {
                w->partitions[i].owner = -1;
                for (uint32_t n = 0; n < w->workers_n; n++)
                        w->workers[n].holdings[i].lost_at = USEC_NEVER;
        }
}

static void run(struct world *w)
{
        begin(w);
        for (usec at;; w->now = at) {
                function_turn(w);
                store_turn(w);
                source_turn(w);
                workers_turn(w);
                if (w->scenario && w->scenario->turn)
                        w->scenario->turn(w);
                if (faulty(w) && w->now >= w->stir_at)
                        stir(w);
                if (source_finished(w))
                        break;
                at = next_moment(w);
                if (at == USEC_NEVER)
                        world_fail(w, "stuck: nothing will ever happen", 0, 0);
                if (at > w->now)
                        w->same_moment = 0;
                at = MAX_OF(at, w->now);
                if (at > w->faults_end + w->stuck_after)
                        world_fail(w, "stuck: not done long after the faults ended", 0, 0);
        }
        for (uint32_t n = 0; n < w->workers_n; n++)
                worker_stop(&w->workers[n]);
        check_end(w);
        if (w->scenario && w->scenario->end)
                w->scenario->end(w);
}

/* Empties a world for the next run; what it allocated is kept where it can be. */
static void clear(struct world *w)
{
        struct heap flights = w->flights;
        struct flight *free_flights = w->free_flights;
        struct attempt *attempts = w->attempts;
        uint32_t attempts_cap = w->attempts_cap;
        struct {
                struct entry *log;
                uint32_t cap;
        } logs[MOST_PARTITIONS];

        for (int i = 0; i < MOST_PARTITIONS; i++) {
                logs[i].log = w->partitions[i].log;
                logs[i].cap = w->partitions[i].cap;
                for (int n = 0; n < MOST_WORKERS; n++) {
                        free(w->workers[n].holdings[i].done);
                        free(w->workers[n].holdings[i].lanes);
                }
        }
        memset(w, 0, sizeof(*w));
        for (int i = 0; i < MOST_PARTITIONS; i++) {
                w->partitions[i].log = logs[i].log;
                w->partitions[i].cap = logs[i].cap;
        }
        w->flights = flights;
        w->free_flights = free_flights;
        w->attempts = attempts;
        w->attempts_cap = attempts_cap;
}

static void release(struct world *w)
{
        clear(w);
        for (int i = 0; i < MOST_PARTITIONS; i++)
                free(w->partitions[i].log);
        for (struct flight *f = w->free_flights, *next; f; f = next) {
                next = f->next;
                free(f);
        }
        heap_done(&w->flights);
        free(w->attempts);
}

/* ---- a run that ends badly ---------------------------------------------- */

static uint64_t running;
static bool playing_reader;

/* The engine crashed or does not come back: the seed must be known all the same. */
static void on_signal(int number)
{
        char text[160];
        int n = snprintf(
                text, sizeof(text),
                "seed %" PRIu64 " step ? at ? us: %s ()\nreplay: sim%s --seed=%" PRIu64 " --verbose\n",
                running, number == SIGPROF ? "stuck: the engine does not come back" : "the engine crashed",
                playing_reader ? " --reader" : "", running);
        ssize_t written = write(STDERR_FILENO, text, (size_t)n);

        _exit(written == n ? 1 : 2);
}

/* AddressSanitizer has its own words for a crash, and calls this. */
void __asan_on_error(void);
void __asan_on_error(void) { (void)fprintf(stderr, "seed %" PRIu64 "\n", running); }

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(SANITIZED)
static const int numbers[] = { SIGPROF };
#else
static const int numbers[] = { SIGABRT, SIGSEGV, SIGFPE, SIGBUS, SIGPROF };
#endif

static void watch(void)
{
        for (size_t i = 0; i < COUNT_OF(numbers); i++)
                (void)signal(numbers[i], on_signal);
}

/* An engine that does not come back computes, so it is time of the processor that counts, however busy the
 * machine is. */
static void be_patient(uint64_t seconds)
{
        const struct itimerval left = { .it_value = { .tv_sec = (time_t)seconds } };

        (void)setitimer(ITIMER_PROF, &left, NULL);
}

static uint64_t patience = 60;
static void be_patient_with_each(void) { be_patient(patience); }

/* ---- many runs ---------------------------------------------------------- */

struct totals {
        uint64_t seeds, events, requests, steps, crashes, rebalances, losses, overlaps, conflicts, duplicates,
                dead_letters, cancels, filtered, partials, stales;
};

static void add(struct totals *t, const struct world *w)
{
        t->seeds++;
        t->events += w->events;
        t->requests += w->requests;
        t->steps += w->steps;
        t->crashes += w->crashes;
        t->rebalances += w->rebalances;
        t->losses += w->losses;
        t->overlaps += w->overlaps;
        t->conflicts += w->conflicts;
        t->duplicates += w->duplicates;
        t->dead_letters += w->dead_letters;
        t->cancels += w->cancels;
        t->filtered += w->filtered;
        t->partials += w->partials;
        t->stales += w->stales;
}

static void report(const struct totals *t, uint64_t first, usec took)
{
        (void)printf("simulator: seeds %" PRIu64 "..%" PRIu64 ": %" PRIu64 " deliveries in %" PRIu64
                     " requests, %" PRIu64 " actions; %.0f deliveries a second\n",
                     first, first + t->seeds - 1, t->events, t->requests, t->steps,
                     (double)t->events * 1e6 / (double)MAX_OF(took, (usec)1));
        (void)printf("  %" PRIu64 " crashes, %" PRIu64 " rebalances, %" PRIu64 " losses, %" PRIu64
                     " overlaps, %" PRIu64 " conflicts, %" PRIu64 " time-outs and cancels, %" PRIu64
                     " partial answers, %" PRIu64 " stale ones, %" PRIu64 " dead letters, %" PRIu64
                     " filtered, %" PRIu64 " duplicates\n%" PRIu64 " passed, 0 failed\n",
                     t->crashes, t->rebalances, t->losses, t->overlaps, t->conflicts, t->cancels, t->partials,
                     t->stales, t->dead_letters, t->filtered, t->duplicates, t->seeds);
}

static bool out_of_memory(void *cookie)
{
        struct world *w = cookie;

        return w->in_engine && w->no_memory_percent && faulty(w) && chance(w, w->no_memory_percent);
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

static int usage(void)
{
        (void)fprintf(
                stderr,
                "usage: sim [--reader] [--seed=N | --first=N] [--seeds=N] [--seconds=N] [--scenario=NAME] "
                "[--patience=SECONDS] [--verbose]\n"
                "  --reader plays the world round the reader instead of the engine's; "
                "--seconds goes on from a random seed, unless --first is given; --patience "
                "is for one seed, in seconds of the processor\n");
        return 2;
}

/* The one place where real time counts: how long to go on, and how fast it was. */
static usec real_time(void)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * USEC_SEC + t.tv_nsec / 1000;
}

int main(int argc, char **argv)
{
        static struct world w;
        uint64_t seed = 0, first = 0, seeds = 0, seconds = 0;
        const struct scenario *scenario = NULL;
        bool verbose = false;
        struct totals totals = { 0 };
        usec began = real_time();

        for (int i = 1; i < argc; i++) {
                if (strcmp(argv[i], "--verbose") == 0)
                        verbose = true;
                else if (strcmp(argv[i], "--reader") == 0)
                        playing_reader = true;
                else if (strncmp(argv[i], "--scenario=", 11) == 0
                                 ? !(scenario = scenario_find(argv[i] + 11))
                                 : !option(argv[i], "--seed=", &seed) &&
                                           !option(argv[i], "--seeds=", &seeds) &&
                                           !option(argv[i], "--first=", &first) &&
                                           !option(argv[i], "--seconds=", &seconds) &&
                                           !option(argv[i], "--patience=", &patience))
                        return usage();
        }
        watch();
        memory_of(out_of_memory, &w);
        if (seed) {
                first = seed;
                seeds = 1;
        }
        if (!first)
                first = seconds ? random_seed() >> 24 : 1;
        if (!seeds)
                seeds = seconds ? UINT64_MAX : 300;
        if (seconds)
                (void)printf("simulator: from seed %" PRIu64 "\n", first);
        if (playing_reader)
                return reader_main(first, seeds, seconds ? began + (usec)seconds * USEC_SEC : USEC_NEVER,
                                   verbose, &running, be_patient_with_each, real_time);
        for (uint64_t i = first;
             i - first < seeds && (!seconds || real_time() - began < (usec)seconds * USEC_SEC); i++) {
                clear(&w);
                w.seed = running = i;
                be_patient_with_each();
                w.verbose = verbose;
                w.scenario = scenario ? scenario : scenario_of(i);
                run(&w);
                add(&totals, &w);
        }
        report(&totals, first, real_time() - began);
        release(&w);
        return 0;
}
