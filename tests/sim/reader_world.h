/* The simulated world round the real reader (pkg/source/reader.h), with the real delivery engine on top of
 * it: services whose logs grow, whose jobs are slow, fail before or after their effect, are throttled, bring
 * things twice and are taken over by others; a function that answers as it likes; a process that is killed
 * and started again. One virtual clock, one seed. What became of an entry is a fact of its log, whatever
 * crashes; what the reader was told is a model of its own (struct hold), and each job, event and record is
 * held against both (reader_checks.c).
 *
 *   reader_run.c      options, a run, the engine's actions, the function
 *   reader_service.c  logs, queues, jobs and their ends
 *   reader_checks.c   the promises */
#pragma once

#include <inttypes.h>
#include <stdio.h>

#include "base/heap.h"
#include "base/random.h"
#include "delivery/delivery.h"
#include "source/reader.h"
#include "tests/sim/memory.h"

enum { SHOP_LOGS = 6, SHOP_BATCH = 16, SHOP_CALLS = 16, SHOP_PAGE = 40 };

/* An entry of a log, and what became of it. */
struct fact {
        bool hole;    /* no record stands there */
        bool settled; /* the engine was done with it, in whatever life */
        bool skip, poison;
        uint32_t size;
        /* of a queue: */
        bool acked;
        uint32_t handler;
        usec hidden_until;
};

/* A record that the reader has, by its position. */
struct copy {
        uint32_t entry;
        char mark[16];
        usec since;
        bool lent, back, done;
};

/* What the reader was told about a track, and what it must do. */
struct hold {
        uint32_t track;
        bool claimed, loaded, assigned, told, lost_told, revoked;
        bool ended, withdrawn, lost, fenced, let_go, page_bad, standby, asked;
        usec give_up_at, lost_at, end_at, leave_from, offer_until;
        bool front, save, cancel_told; /* jobs under way */
        enum reader_job_kind front_kind;
        struct copy *copies;
        uint32_t n, filling, cap, reach, lent, out, committed, saved, saving_to;
        int64_t credit, bytes;
        char resume[16], kept[16], reach_mark[16];
        bool fresh;
        usec pause, front_from, front_until; /* the next job that reads: not before, not after */
        usec save_from, save_until, save_began;
        unsigned failures, save_failures;
        uint32_t took_n; /* records since all were done, and when the first came */
        usec took_from;
        uint32_t ids; /* settled below the saved mark, as far as they are remembered */
};

struct log {
        struct shop *shop;
        uint32_t number;
        struct fact *facts;
        uint32_t n, end, cap;
        usec grow_at, add_at;
        uint32_t overlap;
        /* what is stored: entries below the mark are done */
        uint32_t mark;
        char *state;
        size_t state_n;
        usec taken_until;  /* somebody else has it */
        struct hold *hold; /* NULL: not added */
};

struct errand {
        struct heap_node due; /* the first member */
        bool used, fails, effect, cancelled;
        struct error error;
        struct reader_job job;
        struct log *log;
        usec began;
        char mark[16]; /* copies, since the job's own end with the reader */
        char *state;
        size_t state_n;
        char (*marks)[16];
};

struct call {
        bool used, dead;
        uint32_t ticket, n;
        struct record *records[SHOP_BATCH];
        struct answer answer;
        usec due;
};

struct shop {
        uint64_t seed, steps, same_moment;
        struct random random;
        bool verbose;
        usec now, faults_end, stuck_after, stir_at, up_at;
        struct reader_config config;
        struct delivery_config engine_config;
        struct reader *reader; /* NULL: down */
        struct delivery *engine;
        struct log logs[SHOP_LOGS];
        uint32_t logs_n;
        bool queues; /* logs are queues whose messages are acknowledged */
        usec ack_wait;
        uint32_t handlers, handlers_cap, *handler_entry;
        struct errand errands[2 * SHOP_LOGS];
        struct call calls[SHOP_CALLS];
        bool stirred, stopping, closed, in_reader;
        usec fetch_pause, fetch_from, fetch_until; /* shared: of all tracks */
        usec stop_by;
        uint32_t records; /* what one FETCH may ask for; one track at a time */
        bool careful;
        unsigned fail_percent, final_percent, no_memory_percent, crash_percent, function_fails,
                throttle_percent;
        usec slowest, function_slowest;
        bool marks_rare, greedy; /* records without marks; more records than were wanted */
        enum source_state told;
        uint64_t entries, deliveries, jobs, failed_jobs, crashes, stops, lost, let_go, duplicates;
};

void shop_fail(const struct shop *, const char *what, uint32_t track, uint64_t position)
        __attribute__((noreturn));
#define shop_say(s, ...)                                                                                     \
        do {                                                                                                 \
                if ((s)->verbose) {                                                                          \
                        (void)printf("%11" PRId64 " ", (s)->now);                                            \
                        (void)printf(__VA_ARGS__);                                                           \
                }                                                                                            \
        } while (0)
static inline bool shop_chance(struct shop *s, unsigned percent)
{
        return random_below(&s->random, 100) < percent;
}
static inline usec shop_within(struct shop *s, usec most)
{
        return (usec)random_below(&s->random, (uint64_t)most + 1);
}
static inline bool shop_faulty(const struct shop *s) { return s->now < s->faults_end; }

/* reader_run.c */
int reader_main(uint64_t first, uint64_t seeds, usec until, bool verbose, uint64_t *running,
                void (*begin)(void), usec (*clock)(void));
bool shop_out_of_memory(void *shop);

/* reader_service.c */
void service_open(struct shop *);
void service_begin(struct shop *, const struct reader_job *);
void service_turn(struct shop *);
void service_stir(struct shop *);
usec service_deadline(const struct shop *);
void service_crash(struct shop *);
bool service_finished(const struct shop *);
struct log *service_log(struct shop *, uint32_t track);
void service_shut(struct shop *, struct log *); /* frees what it was told */
void service_done(struct shop *);

/* reader_checks.c */
void check_job(struct shop *, struct log *, const struct reader_job *);
void check_fetched(struct shop *, struct log *, uint32_t entry, const char *mark);
/* r: was it taken, or left out as delivered before? */
void check_wanted(struct shop *, struct log *, const struct page *, uint32_t entry, bool taken);
void check_ended(struct shop *, struct log *, const struct errand *, const char *mark);
void check_commit(struct shop *, uint32_t track, uint64_t next);
void check_track_revoked(struct shop *, uint32_t track);
void check_event(struct shop *, const struct pull_event *); /* all but records */
void check_lent(struct shop *, const struct record *);
void check_record(const struct shop *, const struct record *);
void check_back(struct shop *, const struct record *, enum outcome);
void check_shop_quiet(struct shop *);
void check_shop_end(struct shop *);
