#include "tests/sim/reader_world.h"

/* ---- logs --------------------------------------------------------------- */

static void grow_facts(struct shop *s, struct log *l)
{
        l->n = 1 + (uint32_t)random_below(&s->random, 150);
        l->facts = calloc(l->n, sizeof(*l->facts));
        if (!l->facts)
                abort();
        for (uint32_t i = 0; i < l->n; i++) {
                struct fact *f = &l->facts[i];

                f->hole = !s->queues && shop_chance(s, 10);
                f->skip = shop_chance(s, 10);
                f->poison = shop_chance(s, 2);
                f->size = 1 + (uint32_t)random_below(&s->random, shop_chance(s, 5) ? 3000 : 100);
                s->entries += !f->hole;
        }
}

void service_open(struct shop *s)
{
        for (uint32_t i = 0; i < s->logs_n; i++) {
                struct log *l = &s->logs[i];

                l->shop = s;
                l->number = i;
                grow_facts(s, l);
                l->overlap = s->config.remember ? (uint32_t)random_below(&s->random, s->config.remember + 1)
                                                : 0;
                l->end = (uint32_t)random_below(&s->random, l->n + 1);
                l->grow_at = shop_within(s, USEC_SEC);
                l->add_at = s->now + shop_within(s, 100 * USEC_MSEC);
        }
}

void service_shut(struct shop *s, struct log *l)
{
        struct hold *h = l->hold;

        if (!h)
                return;
        free(h->copies);
        free(h);
        l->hold = NULL;
        l->add_at = s->now + shop_within(s, USEC_SEC);
}

void service_done(struct shop *s)
{
        for (uint32_t i = 0; i < s->logs_n; i++) {
                service_shut(s, &s->logs[i]);
                free(s->logs[i].facts);
                free(s->logs[i].state);
        }
        free(s->handler_entry);
}

struct log *service_log(struct shop *s, uint32_t track)
{
        for (uint32_t i = 0; i < s->logs_n; i++)
                if (s->logs[i].hold && s->logs[i].hold->track == track)
                        return &s->logs[i];
        return NULL;
}

static bool log_finished(const struct shop *s, const struct log *l)
{
        if (l->end < l->n)
                return false;
        if (!s->queues) {
                uint32_t mark = l->mark;

                while (!s->config.idle_save_interval && mark < l->n && l->facts[mark].hole)
                        mark++; /* behind the last record the mark is not saved by itself */
                return mark == l->n;
        }
        for (uint32_t i = 0; i < l->n; i++)
                if (!l->facts[i].acked)
                        return false;
        return true;
}

bool service_finished(const struct shop *s)
{
        for (uint32_t i = 0; i < s->logs_n; i++)
                if (!log_finished(s, &s->logs[i]))
                        return false;
        return !shop_faulty(s);
}

/* ---- a job begins ------------------------------------------------------- */

static struct errand *errand_new(struct shop *s)
{
        for (size_t i = 0; i < COUNT_OF(s->errands); i++)
                if (!s->errands[i].used) {
                        memset(&s->errands[i], 0, sizeof(s->errands[i]));
                        s->errands[i].used = true;
                        return &s->errands[i];
                }
        shop_fail(s, "more jobs under way than tracks can have", 0, 0);
}

static void errand_free(struct errand *e)
{
        free(e->state);
        free(e->marks);
        *e = (struct errand){ 0 };
}

static void copy_text(char *out, size_t size, struct str s)
{
        (void)snprintf(out, size, STR_FMT, (int)MIN_OF(s.n, size - 1), s.p ? s.p : "");
}

/* What the job says is borrowed until it ends: the service has a copy of it nevertheless, as a process that
 * is gone may still be heard. */
static void errand_copy(struct errand *e, const struct reader_job *job)
{
        e->job = *job;
        copy_text(e->mark, sizeof(e->mark), job->mark);
        e->state_n = job->state.n;
        e->state = malloc(job->state.n + 1);
        e->marks = calloc(job->marks_n + 1, sizeof(*e->marks));
        if (!e->state || !e->marks)
                abort();
        if (job->state.n)
                memcpy(e->state, job->state.p, job->state.n);
        for (size_t i = 0; i < job->marks_n; i++)
                copy_text(e->marks[i], sizeof(e->marks[i]), job->marks[i]);
}

static void draw_failure(struct shop *s, struct errand *e)
{
        e->effect = true;
        if (!shop_faulty(s) || !shop_chance(s, s->fail_percent))
                return;
        e->fails = true;
        e->effect = shop_chance(s, 50);
        (void)error_set(&e->error, shop_chance(s, 50) ? ERROR_UNREACHABLE : ERROR_TIMEOUT,
                        "the service fails");
        if (shop_chance(s, s->final_percent))
                (void)error_set(&e->error, ERROR_FORBIDDEN, "not allowed");
        if (shop_chance(s, s->throttle_percent))
                e->error.retry_after = 1 + shop_within(s, 2 * USEC_SEC);
}

static void cancel(struct shop *s, struct log *l)
{
        for (size_t i = 0; i < COUNT_OF(s->errands); i++) {
                struct errand *e = &s->errands[i];

                if (!e->used || e->log != l || e->job.kind == READER_SAVE || e->job.kind == READER_RETURN ||
                    e->job.kind == READER_LEAVE)
                        continue;
                e->due.at = MIN_OF(e->due.at, s->now + shop_within(s, 5 * USEC_MSEC));
                if (!e->fails && shop_chance(s, 50)) {
                        e->fails = true;
                        e->effect = shop_chance(s, 50);
                        (void)error_set(&e->error, ERROR_CANCELLED, "cancelled");
                }
                return;
        }
}

void service_begin(struct shop *s, const struct reader_job *job)
{
        struct log *l = service_log(s, job->track);
        struct errand *e;

        if (!l)
                shop_fail(s, "a job of a track that is not there", job->track, (uint64_t)job->kind);
        check_job(s, l, job);
        shop_say(s, "log %u: %s " STR_FMT "\n", l->number, reader_job_name(job->kind), STR_ARG(job->mark));
        s->jobs++;
        if (job->kind == READER_CANCEL) {
                cancel(s, l);
                return;
        }
        e = errand_new(s);
        e->log = l;
        e->began = s->now;
        e->due.at = s->now + shop_within(s, shop_chance(s, 10) ? 10 * s->slowest : s->slowest);
        errand_copy(e, job);
        draw_failure(s, e);
}

/* ---- a job ends --------------------------------------------------------- */

static struct fact *message(struct shop *s, struct log *l, const char *mark)
{
        uint32_t handler = (uint32_t)strtoul(mark + 1, NULL, 10);
        struct fact *f = &l->facts[s->handler_entry[handler]];

        return f->handler == handler ? f : NULL;
}

static int acknowledge(struct shop *s, struct log *l, const struct errand *e, struct error *err)
{
        for (size_t i = 0; i < e->job.marks_n; i++) {
                struct fact *f = message(s, l, e->marks[i]);

                if (!f || (!f->acked && f->hidden_until <= s->now))
                        return error_set(err, ERROR_REFUSED, "no such handler");
                if (!f->settled)
                        shop_fail(s, "acknowledged what was not settled", e->job.track, 0);
                f->acked = true;
        }
        return 0;
}

/* They are there again at once. */
static void take_back(struct shop *s, struct log *l, const struct errand *e)
{
        for (size_t i = 0; i < e->job.marks_n; i++) {
                struct fact *f = message(s, l, e->marks[i]);

                if (f && !f->acked && f->hidden_until > s->now)
                        f->hidden_until = s->now;
        }
}

static int store(struct shop *s, struct log *l, const struct errand *e, bool fenced, struct error *err)
{
        uint32_t mark = (uint32_t)strtoul(e->mark + 1, NULL, 10);

        if (fenced)
                return error_set(err, ERROR_CONFLICT, "somebody else saves");
        for (uint32_t i = 0; i < mark; i++)
                if (!l->facts[i].hole && !l->facts[i].settled)
                        shop_fail(s, "saved what was not settled", e->job.track, i);
        if (mark < l->mark)
                shop_fail(s, "what is saved goes back", e->job.track, mark);
        l->mark = mark;
        free(l->state);
        l->state_n = e->state_n;
        if (!(l->state = malloc(e->state_n + 1)))
                abort();
        memcpy(l->state, e->state, e->state_n);
        return 0;
}

static int save(struct shop *s, struct log *l, const struct errand *e, bool fenced, struct error *err)
{
        return s->queues ? acknowledge(s, l, e, err) : store(s, l, e, fenced, err);
}

static char pattern(uint32_t entry) { return (char)(' ' + entry % 90); }

static void fill(struct shop *s, struct log *l, struct page *p, uint32_t i, const char *mark)
{
        struct fact *f = &l->facts[i];
        char id[16];
        struct record *r;
        uint32_t *origin;
        char *value;

        (void)snprintf(id, sizeof(id), "%u-%u", l->number, i);
        s->in_reader = true;
        r = page_record(p, str_of(id), str_of(mark));
        s->in_reader = false;
        check_wanted(s, l, p, i, r != NULL);
        if (!r)
                return;
        s->in_reader = true;
        value = page_bytes(p, f->size);
        origin = page_keep(p, sizeof(*origin));
        s->in_reader = false;
        if (!value || !origin)
                return;
        memset(value, pattern(i), f->size);
        *origin = i;
        r->value = (struct str){ value, f->size };
        r->key = (struct str){ value, MIN_OF(f->size, 4u) };
        r->origin = origin;
        check_fetched(s, l, i, mark);
}

static void read_log(struct shop *s, struct log *l, const struct errand *e, char *mark, size_t size)
{
        uint32_t from = (uint32_t)strtoul(e->mark[0] ? e->mark + 1 : "0", NULL, 10);
        uint32_t most = s->greedy ? SHOP_PAGE : MIN_OF(e->job.records, (uint32_t)SHOP_PAGE);
        uint32_t to = MIN_OF(l->end, from + 1 + (uint32_t)random_below(&s->random, MAX_OF(most, 1u)));

        for (uint32_t i = from - MIN_OF(from, l->overlap); i < to; i++) {
                char own[16] = "";

                if (l->facts[i].hole)
                        continue;
                if (!s->marks_rare || shop_chance(s, 30))
                        (void)snprintf(own, sizeof(own), "m%u", i + 1);
                fill(s, l, e->job.page, i, own);
                if (s->config.remember && shop_chance(s, 5))
                        fill(s, l, e->job.page, i, own);
        }
        (void)snprintf(mark, size, "m%u", to);
        if (to == l->n && l->hold && !l->hold->ended && !l->hold->withdrawn && shop_chance(s, 50)) {
                l->hold->ended = true;
                reader_end(s->reader, e->job.track);
        }
}

static void read_queue(struct shop *s, struct log *l, const struct errand *e)
{
        uint32_t most = 1 + (uint32_t)random_below(&s->random, MIN_OF(e->job.records, 10u));

        for (uint32_t i = 0; i < l->end && most > 0; i++) {
                struct fact *f = &l->facts[i];
                char mark[16];

                if (f->acked || f->hidden_until > s->now)
                        continue;
                if (s->handlers + 1 >= s->handlers_cap) {
                        s->handlers_cap = MAX_OF(2 * s->handlers_cap, 256u);
                        s->handler_entry = realloc(s->handler_entry,
                                                   s->handlers_cap * sizeof(*s->handler_entry));
                        if (!s->handler_entry)
                                abort();
                }
                f->handler = ++s->handlers;
                s->handler_entry[f->handler] = i;
                f->hidden_until = s->now + s->ack_wait;
                (void)snprintf(mark, sizeof(mark), "h%u", f->handler);
                fill(s, l, e->job.page, i, mark);
                most--;
        }
}

static void fetch(struct shop *s, struct log *l, const struct errand *e, char *mark, size_t size)
{
        if (s->queues)
                read_queue(s, l, e);
        else
                read_log(s, l, e, mark, size);
        if (shop_faulty(s) && shop_chance(s, 1) && page_bytes(e->job.page, s->config.page_most + 1))
                shop_fail(s, "a page beyond the bound", e->job.track, 0);
        if (l->hold)
                l->hold->page_bad = page_failed(e->job.page);
}

/* A claim is somebody else's for a time. */
static int claim(struct shop *s, struct log *l, struct error *err)
{
        if (s->now >= l->taken_until) {
                l->hold->fenced = false;
                l->hold->lost_at = USEC_NEVER;
                return 0;
        }
        (void)error_set(err, ERROR_CONFLICT, "somebody else has it");
        err->retry_after = shop_chance(s, 50) ? l->taken_until - s->now : 0;
        return -1;
}

static void errand_end(struct shop *s, struct errand *e)
{
        struct log *l = e->log;
        struct reader_job job = e->job;
        char mark[16] = "";
        int rc = 0;

        if (e->effect && job.kind == READER_SAVE)
                rc = save(s, l, e, l->hold->fenced, e->fails ? NULL : &e->error);
        else if (e->effect && job.kind == READER_RETURN)
                take_back(s, l, e);
        else if (!e->fails && job.kind == READER_CLAIM)
                rc = claim(s, l, &e->error);
        else if (job.kind == READER_FETCH && e->effect)
                fetch(s, l, e, mark, sizeof(mark));
        e->fails = e->fails || rc < 0;
        s->failed_jobs += e->fails;
        s->stirred = true;
        shop_say(s, "log %u: %s ends: %s%s\n", l->number, reader_job_name(job.kind),
                 e->fails ? e->error.text : "done ", mark);
        if (job.kind == READER_LEAVE) {
                reader_done(s->reader, &job, STR(""), s->now);
                service_shut(s, l);
                errand_free(e);
                return;
        }
        s->in_reader = job.kind != READER_FETCH;
        if (e->fails)
                reader_failed(s->reader, &job, &e->error, s->now);
        else
                reader_done(s->reader, &job,
                            job.kind == READER_LOAD    ? (struct str){ l->state, l->state_n }
                            : job.kind == READER_FETCH ? str_of(mark)
                                                       : STR(""),
                            s->now);
        s->in_reader = false;
        check_ended(s, l, e, mark);
        errand_free(e);
}

/* ---- time --------------------------------------------------------------- */

static void log_add(struct shop *s, struct log *l)
{
        struct hold *h;
        char name[16];
        struct error err;
        int rc;

        if (l->hold || s->stopping || s->now < l->add_at || log_finished(s, l))
                return;
        if (!(h = calloc(1, sizeof(*h))))
                abort();
        (void)snprintf(name, sizeof(name), "log-%u", l->number);
        s->in_reader = true;
        rc = reader_add(s->reader, str_of(name), l, &h->track, &err);
        s->in_reader = false;
        if (rc < 0) {
                if (!s->no_memory_percent)
                        shop_fail(s, err.text, l->number, 0);
                free(h);
                l->add_at = s->now + USEC_MSEC;
                return;
        }
        h->lost_at = h->end_at = USEC_NEVER;
        l->hold = h;
        s->stirred = true;
        shop_say(s, "log %u: added as track %u\n", l->number, h->track);
}

/* Its last entry was read. */
static bool may_end(const struct shop *s, const struct log *l)
{
        return l->hold && !l->hold->ended && l->hold->assigned && !s->queues && l->end == l->n;
}

static void log_turn(struct shop *s, struct log *l)
{
        struct hold *h = l->hold;

        if (l->end < l->n && s->now >= l->grow_at) {
                l->end = MIN_OF(l->n, l->end + 1 + (uint32_t)random_below(&s->random, 30));
                l->grow_at = s->now + shop_within(s, 500 * USEC_MSEC);
        }
        if (!s->reader)
                return;
        log_add(s, l);
        if (!h)
                return;
        if (h->fenced && s->now >= h->lost_at) {
                h->lost_at = USEC_NEVER;
                h->withdrawn = h->lost = true;
                shop_say(s, "log %u: withdrawn as lost\n", l->number);
                reader_withdraw(s->reader, h->track, 0);
                s->stirred = true;
        }
        if (may_end(s, l) && h->end_at == USEC_NEVER && h->resume[0] &&
            (uint32_t)strtoul(h->resume + 1, NULL, 10) == l->n)
                h->end_at = s->now + shop_within(s, 100 * USEC_MSEC);
        if (may_end(s, l) ? s->now >= h->end_at : s->queues && !h->ended && log_finished(s, l)) {
                h->ended = true;
                reader_end(s->reader, h->track);
                s->stirred = true;
        }
}

void service_turn(struct shop *s)
{
        for (size_t i = 0; i < COUNT_OF(s->errands) && s->reader; i++)
                if (s->errands[i].used && s->errands[i].due.at <= s->now)
                        errand_end(s, &s->errands[i]);
        for (uint32_t i = 0; i < s->logs_n; i++)
                log_turn(s, &s->logs[i]);
}

usec service_deadline(const struct shop *s)
{
        usec at = USEC_NEVER;

        for (size_t i = 0; i < COUNT_OF(s->errands); i++)
                if (s->errands[i].used)
                        at = MIN_OF(at, s->errands[i].due.at);
        for (uint32_t i = 0; i < s->logs_n; i++) {
                const struct log *l = &s->logs[i];

                if (l->end < l->n)
                        at = MIN_OF(at, l->grow_at);
                if (!l->hold && s->reader && !s->stopping && !log_finished(s, l))
                        at = MIN_OF(at, MAX_OF(l->add_at, s->now + 1));
                if (l->hold && l->hold->fenced)
                        at = MIN_OF(at, l->hold->lost_at);
                if (may_end(s, l))
                        at = MIN_OF(at, l->hold->end_at);
        }
        return at;
}

/* Somebody else takes it over, and moves on a little. */
static void take_over(struct shop *s, struct log *l)
{
        struct hold *h = l->hold;
        uint32_t more;

        if (!s->config.claims || s->queues || s->now < l->taken_until)
                return;
        l->taken_until = s->now + 1 + shop_within(s, USEC_SEC);
        if (h) {
                h->fenced = true;
                h->lost_at = s->now + shop_within(s, 2 * USEC_SEC);
        }
        shop_say(s, "log %u: taken over\n", l->number);
        if (s->config.remember || !shop_chance(s, 50))
                return;
        more = l->mark + (uint32_t)random_below(&s->random, l->end - l->mark + 1);
        for (; l->mark < more; l->mark++)
                l->facts[l->mark].settled = true;
        free(l->state);
        if (!(l->state = malloc(16)))
                abort();
        l->state_n = (size_t)snprintf(l->state, 16, "m%u", l->mark);
}

void service_stir(struct shop *s)
{
        struct log *l = &s->logs[random_below(&s->random, s->logs_n)];
        struct hold *h = l->hold;
        usec give_up_at = s->now + 1 + shop_within(s, 200 * USEC_MSEC);

        switch (random_below(&s->random, 4)) {
        case 0: take_over(s, l); return;
        case 1:
                if (!h)
                        return;
                reader_hurry(s->reader, h->track);
                if (!h->asked) {
                        h->pause = 0;
                        h->front_from = h->front_until = 0;
                        s->fetch_pause = s->fetch_from = s->fetch_until = 0;
                }
                s->stirred = true;
                return;
        case 2:
                if (!h || h->lost)
                        return;
                shop_say(s, "log %u: withdrawn until %" PRId64 "\n", l->number, give_up_at);
                if (!(h->told && (h->withdrawn || h->let_go) && give_up_at >= h->give_up_at))
                        h->give_up_at = give_up_at;
                if (!h->withdrawn)
                        h->leave_from = s->now;
                h->withdrawn = true;
                reader_withdraw(s->reader, h->track, give_up_at);
                s->stirred = true;
                return;
        default: return;
        }
}

/* kill -9: what was under way may or may not have its effect. */
void service_crash(struct shop *s)
{
        for (size_t i = 0; i < COUNT_OF(s->errands); i++) {
                struct errand *e = &s->errands[i];

                if (!e->used)
                        continue;
                if (e->job.kind == READER_SAVE && shop_chance(s, 50))
                        (void)save(s, e->log, e, e->log->hold->fenced, NULL);
                errand_free(e);
        }
        for (uint32_t i = 0; i < s->logs_n; i++)
                service_shut(s, &s->logs[i]);
}
