#include <assert.h>

#include "base/backoff.h"
#include "source/reader_inside.h"

static const usec RETRY_AFTER_MOST = USEC_HOUR;
/* Pauses of idle tracks are rounded up to a grid of a twentieth of them, at most this wide. */
static const usec IDLE_GRID = 50 * USEC_MSEC;
enum { IDLE_TURNS = 20 };

struct track *reader_track(const struct reader *r, uint32_t id)
{
        return id < r->slots_n ? r->slots[id] : NULL;
}

const char *reader_job_name(enum reader_job_kind kind)
{
        static const char *const names[] = { "claim", "load", "fetch", "save", "return", "cancel", "leave" };

        return (size_t)kind < COUNT_OF(names) ? names[kind] : "";
}

/* ---- life --------------------------------------------------------------- */

int reader_new(struct reader **out, const struct reader_config *config, uint64_t seed, struct error *err)
{
        struct reader *r;

        if (config->lease && config->remember)
                return error_set(err, ERROR_INTERNAL, "a reader with a lease remembers no ids");
        if (!(r = calloc(1, sizeof(*r))))
                return error_memory(err);
        r->config = *config;
        r->config.page_most = config->page_most ? config->page_most : 4 * config->page_bytes;
        r->config.unsaved_most = config->unsaved_most ? config->unsaved_most : 100000;
        r->config.poll_min = MAX_OF(config->poll_min, USEC_MSEC);
        r->config.poll_max = MAX_OF(config->poll_max, r->config.poll_min);
        r->config.backoff_min = MAX_OF(config->backoff_min, USEC_MSEC);
        r->config.backoff_max = MAX_OF(config->backoff_max, r->config.backoff_min);
        r->config.leave_timeout = config->leave_timeout ? config->leave_timeout : 5 * USEC_SEC;
        if (config->records_most) {
                r->records = MIN_OF(MAX_OF(config->records_together, 1u), config->records_most);
                r->config.records_together = r->records;
                r->careful = true;
        }
        random_init(&r->random, seed);
        r->told_state = SOURCE_STATE_MAX;
        *out = r;
        return 0;
}

static void pages_free(struct reader *r, struct track *t)
{
        for (struct page *p = t->pages, *next; p; p = next) {
                next = p->next;
                r->stats.out -= p->out;
                (void)page_free(p);
        }
        r->stats.unread -= t->unread_n;
        t->pages = t->pages_last = NULL;
        t->unread = t->walk = t->unsaved = NULL;
        t->unread_n = 0;
}

static void track_done(struct reader *r, struct track *t)
{
        if (t->filling)
                page_reject(t->filling);
        pages_free(r, t);
        remember_clear(&t->remember);
        buf_done(&t->save_mark);
        buf_done(&t->save_state);
        buf_done(&t->resume);
        buf_done(&t->kept);
        buf_done(&t->reached);
        free(t->marks);
        free(t->name);
        free(t);
}

struct reader *reader_free(struct reader *r)
{
        if (!r)
                return NULL;
        HASH_CLEAR(hh, r->names);
        for (uint32_t i = 0; i < r->slots_n; i++)
                if (r->slots[i])
                        track_done(r, r->slots[i]);
        heap_done(&r->timers);
        free(r->slots);
        free(r->free_slots);
        free(r->befallen);
        free(r);
        return NULL;
}

/* Reserves memory for one more track and its timer, so that removing or scheduling it can't fail later. */
static bool reserve_slot(struct reader *r)
{
        uint32_t cap = MAX_OF(r->slots_cap * 2, 8u);
        struct track **slots;
        uint32_t *free_slots;

        if (r->free_n)
                return true;
        if (!heap_reserve(&r->timers, (size_t)r->slots_n + 1))
                return false;
        if (r->slots_n < r->slots_cap)
                return true;
        if (!(free_slots = realloc(r->free_slots, cap * sizeof(*free_slots))))
                return false;
        r->free_slots = free_slots;
        if (!(slots = realloc(r->slots, cap * sizeof(struct track *))))
                return false;
        r->slots = slots;
        r->slots_cap = cap;
        return true;
}

static struct track *track_new(struct reader *r, struct str name)
{
        struct track *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;
        t->name = str_dup(name);
        t->name_n = name.n;
        if (t->name)
                HASH_ADD_KEYPTR(hh, r->names, t->name, t->name_n, t);
        if (t->name && t->hh.tbl)
                return t;
        free(t->name);
        free(t);
        return NULL;
}

static enum track_state first_state(const struct reader *r)
{
        return r->config.claims ? TRACK_CLAIM : r->config.loads ? TRACK_LOAD : TRACK_OFFER;
}

int reader_add(struct reader *r, struct str name, void *own, uint32_t *track, struct error *err)
{
        struct track *t;

        if (r->stopping)
                return error_set(err, ERROR_CANCELLED, "the source is stopping");
        HASH_FIND(hh, r->names, name.p, name.n, t);
        if (t)
                return error_set(err, ERROR_EXISTS, "track " STR_FMT " is there already", STR_ARG(name));
        if (!reserve_slot(r) || !(t = track_new(r, name)))
                return error_memory(err);
        t->id = r->free_n ? r->free_slots[--r->free_n] : r->slots_n++;
        r->slots[t->id] = t;
        t->own = own;
        t->next = t->lent = t->committed = t->saved = 1;
        t->behind = -1;
        t->remember.most = r->config.remember;
        r->stats.tracks++;
        r->had_tracks = true;
        enter(r, t, first_state(r));
        *track = t->id;
        return 0;
}

/* Lets all waiting tracks try again. */
static void wake_waiting(struct reader *r)
{
        for (struct list_node *n; (n = r->waiting.first);) {
                list_remove(n);
                stir(r, CONTAINER_OF(n, struct track, waiting));
        }
}

/* ---- how much is asked for ---------------------------------------------- */

void track_hold(struct reader *r, struct track *t, bool holds)
{
        count(&r->holds, &t->holds, holds);
        if (r->careful && !r->holds)
                wake_waiting(r);
}

/* All records of the track are done. Adjusts how many are fetched at once to what takes half the lease. */
static void learn(struct reader *r, struct track *t, usec now)
{
        const struct reader_config *c = &r->config;
        usec took = MAX_OF(now - t->took_from, (usec)1), half = (c->lease - c->attempt) / 2;
        uint64_t fits = (uint64_t)t->took_n * (uint64_t)half / (uint64_t)took;

        list_remove(&t->timed);
        t->took_n = 0;
        fits = MIN_OF(fits, (uint64_t)r->records + c->records_together);
        fits = MIN_OF(fits, (uint64_t)c->records_most);
        r->records = MAX_OF((uint32_t)fits, c->records_together);
        if (!r->careful)
                return;
        r->careful = false;
        wake_waiting(r);
}

/* In the order in which the tracks finished. */
static void learn_all(struct reader *r, usec now)
{
        while (r->timed.first)
                learn(r, CONTAINER_OF(r->timed.first, struct track, timed), now);
}

/* Records were dropped before they were delivered. The queue may count how often a message is received and
 * move it to its dead letters, so from now on nothing is fetched that can't be tried at once. */
static void be_careful(struct reader *r)
{
        if (!r->records)
                return;
        r->records = 1;
        r->careful = true;
}

/* ---- letting go --------------------------------------------------------- */

static void front_unwanted(struct track *t)
{
        if (t->busy && !t->cancelled && !is_last(t))
                t->cancel_due = t->cancelled = true;
}

/* Stops lending records of the track, and tells the engine, if it knows the track. */
static void let_go(struct reader *r, struct track *t)
{
        if (t->state == TRACK_LEAVING) {
                stir(r, t);
                return;
        }
        count(&r->standby, &t->standby, false);
        front_unwanted(t);
        r->stats.unread -= t->unread_n;
        t->unread_n = 0;
        t->unread = NULL;
        if (t->state < TRACK_OPEN) {
                list_remove(&t->talking);
                enter(r, t, TRACK_LEAVING);
                return;
        }
        t->tell = true;
        talk(r, t);
        enter(r, t, TRACK_CLOSING);
}

void reader_end(struct reader *r, uint32_t track)
{
        struct track *t = reader_track(r, track);

        if (!t)
                return;
        t->ended = true;
        stir(r, t);
}

static void withdraw(struct reader *r, struct track *t, usec give_up_at)
{
        bool known = t->withdrawn || t->again;

        t->again = false;
        t->withdrawn = true;
        t->lost = t->lost || give_up_at == 0;
        if (known && t->state == TRACK_CLOSING && give_up_at >= t->give_up_at)
                return;
        t->give_up_at = give_up_at;
        let_go(r, t);
}

void reader_withdraw(struct reader *r, uint32_t track, usec give_up_at)
{
        struct track *t = reader_track(r, track);

        if (t)
                withdraw(r, t, give_up_at);
}

void reader_stop(struct reader *r)
{
        r->stopping = true;
        for (uint32_t i = 0; i < r->slots_n; i++)
                if (r->slots[i] && !r->slots[i]->withdrawn)
                        withdraw(r, r->slots[i], USEC_NEVER);
}

void reader_hurry(struct reader *r, uint32_t track)
{
        struct track *t = reader_track(r, track);

        if (!t || t->asked)
                return;
        t->front_at = 0;
        t->pause = r->pause = 0;
        r->fetch_from = 0;
        stir(r, t);
        if (r->config.shared)
                wake_waiting(r);
}

void reader_retry(struct reader *r)
{
        for (uint32_t i = 0; i < r->slots_n; i++) {
                struct track *t = r->slots[i];

                if (!t)
                        continue;
                if (t->save_failures && !t->save_asked) {
                        t->save_at = 0;
                        stir(r, t);
                }
                if (t->front_failures)
                        reader_hurry(r, i);
        }
}

/* Removes a track from all structures, and frees it. */
static void track_remove(struct reader *r, struct track *t)
{
        heap_remove(&r->timers, &t->due);
        list_remove(&t->ready);
        list_remove(&t->talking);
        list_remove(&t->waiting);
        list_remove(&t->timed);
        t->front_failures = t->save_failures = 0;
        track_well(r, t);
        track_stand_by_over(r, t);
        count(&r->open, &t->open, false);
        track_hold(r, t, false);
        HASH_DEL(r->names, t);
        r->slots[t->id] = NULL;
        r->free_slots[r->free_n++] = t->id;
        r->stats.tracks--;
        track_done(r, t);
}

/* ---- jobs: reading ------------------------------------------------------ */

static bool fetch_wanted(const struct reader *r, const struct track *t)
{
        return t->state == TRACK_OPEN && !t->ended && !t->unread && t->credit > 0 && t->credit_bytes > 0 &&
               t->next - t->saved < r->config.unsaved_most;
}

static bool front_wanted(const struct reader *r, const struct track *t)
{
        return !t->busy && (t->state <= TRACK_LOAD || fetch_wanted(r, t));
}

/* With shared, another FETCH is in flight; or records that were fetched must be tried first. */
static bool fetch_waits(const struct reader *r, const struct track *t)
{
        return t->state == TRACK_OPEN && ((r->config.shared && r->fetching) || (r->careful && r->holds));
}

static uint32_t records_wanted(const struct reader *r, const struct track *t)
{
        return (uint32_t)MIN_OF(t->credit, (int64_t)(r->records ? r->records : UINT32_MAX));
}

static usec front_when(const struct reader *r, const struct track *t)
{
        return t->state == TRACK_OPEN && r->config.shared ? MAX_OF(t->front_at, r->fetch_from) : t->front_at;
}

static bool front_next(struct reader *r, struct track *t, usec now, struct reader_job *job)
{
        if (t->cancel_due) {
                t->cancel_due = false;
                *job = (struct reader_job){ .kind = READER_CANCEL };
                return true;
        }
        if (!front_wanted(r, t))
                return false;
        if (fetch_waits(r, t) || now < front_when(r, t)) {
                list_once(&r->waiting, &t->waiting);
                return false;
        }
        list_remove(&t->waiting);
        *job = (struct reader_job){ .kind = t->state == TRACK_CLAIM ? READER_CLAIM : READER_LOAD };
        if (t->state == TRACK_OPEN) {
                t->filling = page_new(&t->remember, &r->stats, r->config.page_most);
                if (!t->filling) {
                        t->front_at = now + STARVED;
                        return false;
                }
                *job = (struct reader_job){ .kind = READER_FETCH,
                                            .records = records_wanted(r, t),
                                            .bytes = r->config.page_bytes,
                                            .mark = text_of(&t->resume),
                                            .page = t->filling };
                r->fetching = true;
        }
        t->front = job->kind;
        t->busy = true;
        return true;
}

static void tell_let_go(struct reader *r, const struct track *t)
{
        uint64_t n = t->next - t->committed;

        if (r->config.let_go_reason && n)
                reader_warn_of(
                        r, n, r->config.let_go_reason,
                        "records are no longer ours before the function, or a dead letter, took them, so "
                        "that "
                        "they come again: %llu",
                        (unsigned long long)n);
}

/* Starts the track over at its saved mark: the peer delivers again what was dropped. */
static void begin_again(struct reader *r, struct track *t, usec now)
{
        if (!put_text(&t->resume, text_of(&t->kept))) {
                t->again_at = now + STARVED;
                return;
        }
        r->stats.let_go += t->next - t->saved;
        tell_let_go(r, t);
        pages_free(r, t);
        t->saved = t->committed = t->reach = t->lent = t->next;
        t->again = t->ended = t->fresh = t->returned = false;
        t->leave_by = t->again_at = 0;
        t->took_n = 0;
        track_hold(r, t, false);
        if (!t->front_failures) /* a pause after an empty page need not go on; back-off must */
                t->front_at = 0;
        enter(r, t, first_state(r));
}

static bool leave_next(struct reader *r, struct track *t, usec now, struct reader_job *job)
{
        if (!track_may_leave(r, t, now) || t->again)
                return false;
        t->front = READER_LEAVE;
        t->busy = true;
        *job = (struct reader_job){ .kind = READER_LEAVE, .lost = t->lost };
        return true;
}

static bool is_drained(const struct track *t) { return t->ended && !t->busy && !t->unread && all_done(t); }

/* Handles what is due by time: the end of a lease, of a withdrawal. */
static void track_turn(struct reader *r, struct track *t, usec now)
{
        if (t->state == TRACK_OPEN && now >= track_lease_end(r, t) - r->config.attempt) {
                t->again = true;
                t->give_up_at = track_lease_end(r, t);
                let_go(r, t);
        } else if (t->state == TRACK_OPEN && is_drained(t)) {
                t->give_up_at = USEC_NEVER;
                let_go(r, t);
        }
        if (t->state == TRACK_LEAVING && t->withdrawn && !t->leave_by)
                t->leave_by = now + r->config.leave_timeout;
        if (t->again && track_may_leave(r, t, now) && !track_return_wanted(r, t, now) && now >= t->again_at)
                begin_again(r, t, now);
        if (t->refused)
                t->again_at = now + STARVED;
        t->refused = false;
        if (t->state == TRACK_OFFER && now >= t->again_at)
                talk(r, t);
}

static bool track_next(struct reader *r, struct track *t, usec now, struct reader_job *job)
{
        track_turn(r, t, now);
        if (!track_save_next(r, t, now, job) && !front_next(r, t, now, job) &&
            !track_return_next(r, t, now, job) && !leave_next(r, t, now, job))
                return false;
        job->track = t->id;
        job->own = t->own;
        job->name = (struct str){ t->name, t->name_n };
        r->stats.jobs[job->kind]++;
        return true;
}

static usec track_due(const struct reader *r, const struct track *t, usec now)
{
        usec at = USEC_NEVER;

        if (track_save_in_time(r, t, now)) {
                at = MIN_OF(track_save_when(r, t), track_lease_end(r, t));
                if (t->leave_by)
                        at = MIN_OF(at, t->leave_by);
        }
        if (front_wanted(r, t) && !fetch_waits(r, t))
                at = MIN_OF(at, front_when(r, t));
        if ((t->again && track_may_leave(r, t, now)) || (t->state == TRACK_OFFER && !list_has(&t->talking)))
                at = MIN_OF(at, t->again_at);
        if (t->state == TRACK_OPEN && t->unsaved && r->config.lease)
                at = MIN_OF(at, track_lease_end(r, t) - r->config.attempt);
        return at;
}

bool reader_next(struct reader *r, usec now, struct reader_job *job)
{
        struct heap_node *first;

        learn_all(r, now);
        while ((first = heap_first(&r->timers)) && first->at <= now) {
                heap_remove(&r->timers, first);
                stir(r, CONTAINER_OF(first, struct track, due));
        }
        while (r->ready.first) {
                struct track *t = CONTAINER_OF(r->ready.first, struct track, ready);
                usec due;

                if (track_next(r, t, now, job))
                        return true;
                list_remove(&t->ready);
                due = track_due(r, t, now);
                heap_remove(&r->timers, &t->due);
                if (due != USEC_NEVER) {
                        bool inserted = heap_insert(&r->timers, &t->due, due);

                        assert(inserted); /* reserve_slot made room */
                        (void)inserted;
                }
        }
        return false;
}

/* ---- how jobs end ------------------------------------------------------- */

static usec pause_after(struct reader *r, const struct error *err, unsigned failures)
{
        const struct reader_config *c = &r->config;

        if (err->retry_after > 0)
                return MIN_OF(err->retry_after, RETRY_AFTER_MOST);
        if (!err->retry)
                return c->backoff_max / 2 +
                       backoff_full_jitter(&r->random, c->backoff_max / 2, c->backoff_max / 2, 0, USEC_MSEC);
        return backoff_full_jitter(&r->random, c->backoff_min, c->backoff_max, failures - 1, USEC_MSEC);
}

static void save_failed(struct reader *r, struct track *t, const struct error *err, usec now)
{
        t->fresh = t->fresh || t->saving_fresh;
        if (err->kind == ERROR_CONFLICT) {
                withdraw(r, t, 0);
                return;
        }
        t->save_failures++;
        t->save_at = now + pause_after(r, err, t->save_failures);
        t->save_asked = err->retry_after > 0;
        track_failing(r, t, err);
}

static void front_failed(struct reader *r, struct track *t, const struct error *err, usec now)
{
        bool held_elsewhere = t->front == READER_CLAIM && err->kind == ERROR_CONFLICT;

        if (t->cancelled)
                return;
        t->front_failures++;
        t->front_at = now + pause_after(r, err, t->front_failures);
        t->asked = err->retry_after > 0;
        if (held_elsewhere) {
                track_stand_by(r, t, err->text);
                track_answered(r, t);
                r->reached = true;
                return;
        }
        track_failing(r, t, err);
}

static void front_well(struct reader *r, struct track *t)
{
        t->front_failures = 0;
        t->front_at = 0;
        t->asked = false;
        r->reached = true;
        track_stand_by_over(r, t);
        track_well(r, t);
}

static void page_pause(struct reader *r, struct track *t, bool empty, usec now)
{
        usec *pause = r->config.shared ? &r->pause : &t->pause, grid;

        if (!empty) {
                *pause = 0;
                return;
        }
        *pause = *pause ? MIN_OF(*pause * 2, r->config.poll_max) : r->config.poll_min;
        /* Rounded, so that many idle tracks are due in the same turn. */
        grid = MIN_OF(*pause / IDLE_TURNS, IDLE_GRID);
        t->front_at = (now + *pause + grid - 1) / grid * grid;
}

static void page_append(struct reader *r, struct track *t, struct page *p, usec now)
{
        struct lent *before = t->pages_last ? t->pages_last->last : NULL;

        page_number(p, t->id, t->next, now);
        if (before)
                before->next = p->first;
        *(t->pages_last ? &t->pages_last->next : &t->pages) = p;
        t->pages_last = p;
        t->unread = p->first;
        t->unread_n = p->n;
        if (!t->walk)
                t->walk = p->first;
        if (!t->unsaved)
                t->unsaved = p->first;
        learn_all(r, now);
        if (all_done(t)) {
                t->took_n = 0;
                t->took_from = now;
        }
        t->took_n += p->n;
        t->next += p->n;
        track_hold(r, t, true);
        r->stats.unread += p->n;
        r->stats.records += p->n;
        talk(r, t);
}

/* Stores the mark after the page; false: out of memory. */
static bool take_mark(struct track *t, struct page *p, struct str mark)
{
        if (p->n && all_done(t)) { /* all before this page is done: its mark can still be saved later */
                if (!put_text(&t->reached, text_of(&t->resume)))
                        return false;
                t->reach = t->next;
                t->reach_mark = text_of(&t->reached);
        }
        if (!mark.n && p->last)
                mark = p->last->mark;
        if (!mark.n || str_equal(mark, text_of(&t->resume)))
                return true;
        p->too_large = mark.n > MARK_MOST;
        if (p->too_large || !buf_reserve(&t->resume, MAX_OF(mark.n, t->resume.n) - t->resume.n))
                return false;
        t->fresh = t->fresh || p->n == 0;
        return put_text(&t->resume, mark);
}

static void fetched(struct reader *r, struct track *t, struct page *p, struct str mark, usec now)
{
        struct error err;

        if (t->state != TRACK_OPEN) {
                page_reject(p);
                return;
        }
        t->resume.max = MARK_MOST;
        if (page_failed(p) || !take_mark(t, p, mark)) {
                if (p->too_large)
                        (void)error_set(&err, ERROR_PROTOCOL,
                                        "a response takes more than %zu bytes: ask for fewer at once",
                                        r->config.page_most);
                else
                        (void)error_memory(&err);
                page_reject(p);
                front_failed(r, t, &err, now);
                return;
        }
        front_well(r, t);
        page_pause(r, t, p->n == 0, now);
        if (p->n)
                page_append(r, t, p, now);
        else
                (void)page_free(p);
}

static void loaded(struct reader *r, struct track *t, struct str state, usec now)
{
        struct error err;
        struct str mark;

        remember_clear(&t->remember);
        if (remember_read(&t->remember, state, &mark, &err) < 0) {
                (void)error_wrap(&err, "%s", t->name);
                front_failed(r, t, &err, now);
                return;
        }
        if (!put_text(&t->resume, mark) || !put_text(&t->kept, mark)) {
                (void)error_memory(&err);
                front_failed(r, t, &err, now);
                return;
        }
        front_well(r, t);
        if (t->state == TRACK_LOAD)
                enter(r, t, TRACK_OFFER);
}

static void claimed(struct reader *r, struct track *t)
{
        front_well(r, t);
        if (t->state == TRACK_CLAIM)
                enter(r, t, r->config.loads ? TRACK_LOAD : TRACK_OFFER);
}

static struct page *front_over(struct track *t)
{
        t->busy = t->cancel_due = false;
        return TAKE(t->filling);
}

/* With shared, another track may fetch now, after the pause that follows this FETCH. */
static void fetch_over(struct reader *r, const struct track *t)
{
        r->fetching = false;
        if (!t->cancelled)
                r->fetch_from = t->front_at;
        if (r->config.shared)
                wake_waiting(r);
}

void reader_done(struct reader *r, const struct reader_job *job, struct str mark, usec now)
{
        struct track *t = reader_track(r, job->track);
        struct page *p;

        if (!t || job->kind == READER_CANCEL)
                return;
        stir(r, t);
        if (job->kind == READER_SAVE) {
                t->saving = false;
                track_save_done(r, t);
                return;
        }
        p = front_over(t);
        switch (t->front) {
        case READER_CLAIM: claimed(r, t); break;
        case READER_LOAD: loaded(r, t, mark, now); break;
        case READER_FETCH:
                fetched(r, t, p, mark, now);
                fetch_over(r, t);
                break;
        case READER_LEAVE: track_remove(r, t); return;
        case READER_RETURN:
        case READER_SAVE:
        case READER_CANCEL:
        case READER_JOB_MAX: break;
        }
        t->cancelled = false;
}

void reader_failed(struct reader *r, const struct reader_job *job, const struct error *err, usec now)
{
        struct track *t = reader_track(r, job->track);
        struct page *p;

        if (!t || job->kind == READER_CANCEL)
                return;
        r->stats.failed[job->kind]++;
        stir(r, t);
        if (job->kind == READER_SAVE) {
                t->saving = false;
                save_failed(r, t, err, now);
                return;
        }
        p = front_over(t);
        if (p)
                page_reject(p);
        if (t->front == READER_RETURN)
                return;
        if (t->front == READER_LEAVE) {
                track_remove(r, t);
                return;
        }
        front_failed(r, t, err, now);
        if (t->front == READER_FETCH)
                fetch_over(r, t);
        t->cancelled = false;
}

/* ---- what the pipeline asks --------------------------------------------- */

static void lend(struct reader *r, struct track *t, struct pull_event *e)
{
        struct lent *l = t->unread;

        t->unread = l->next;
        t->unread_n--;
        t->lent = l->record.position + 1;
        l->out = true;
        l->page->out++;
        t->credit--;
        t->credit_bytes -= l->record.pinned;
        r->stats.unread--;
        r->stats.out++;
        *e = (struct pull_event){ .kind = PULL_RECORD, .track = t->id, .record = &l->record };
}

static size_t track_events(struct reader *r, struct track *t, struct pull_event *events, size_t max, usec now)
{
        size_t n = 0;

        track_turn(r, t, now); /* first, so that nothing is lent after the end of its lease */
        if (t->state == TRACK_OFFER) {
                enter(r, t, TRACK_OPEN);
                t->credit = t->credit_bytes = 0;
                events[n++] = (struct pull_event){ .kind = PULL_ASSIGNED, .track = t->id };
                return n;
        }
        if (t->tell) {
                t->tell = false;
                if (t->again && !all_done(t))
                        be_careful(r);
                events[n++] = (struct pull_event){ .kind = t->lost ? PULL_LOST : PULL_REVOKING,
                                                   .track = t->id,
                                                   .give_up_at = t->give_up_at,
                                                   .again = t->again };
                return n;
        }
        while (n < max && t->unread && t->credit > 0 && t->credit_bytes > 0)
                lend(r, t, &events[n++]);
        if (!t->unread && n)
                stir(r, t);
        return n;
}

static bool can_lend(const struct track *t) { return t->unread && t->credit > 0 && t->credit_bytes > 0; }

size_t reader_poll(struct reader *r, struct pull_event *events, size_t max, usec now)
{
        size_t n = 0;

        learn_all(r, now);
        if (n < max && reader_state_changed(r) && !r->closed)
                reader_say_state(r, &events[n++]);
        while (n < max && r->talking.first) {
                struct track *t = CONTAINER_OF(r->talking.first, struct track, talking);

                n += track_events(r, t, events + n, max - n, now);
                list_remove(&t->talking);
                if (can_lend(t) || t->tell)
                        talk(r, t);
        }
        if (n < max && r->stopping && !r->closed && !r->stats.tracks) {
                r->closed = true;
                events[n++] = (struct pull_event){ .kind = PULL_CLOSED };
        }
        return n;
}

usec reader_deadline(const struct reader *r)
{
        const struct heap_node *first = heap_first(&r->timers);

        if (!r->closed && (r->ready.first || r->talking.first || r->befallen_n || reader_state_changed(r) ||
                           (r->stopping && !r->stats.tracks)))
                return 0;
        return first ? first->at : USEC_NEVER;
}

void reader_credit(struct reader *r, uint32_t track, uint32_t records, size_t bytes)
{
        struct track *t = reader_track(r, track);

        if (!t || t->state != TRACK_OPEN)
                return;
        t->credit += records;
        t->credit_bytes += (int64_t)bytes;
        if (can_lend(t))
                talk(r, t);
        stir(r, t);
}

void reader_release(struct reader *r, struct record *record)
{
        struct lent *l = CONTAINER_OF(record, struct lent, record);
        struct track *t = reader_track(r, record->track);

        r->stats.out--;
        page_released(l->page, l);
        track_free_pages(t);
}

bool reader_detach(struct reader *r UNUSED, struct record *record)
{
        struct lent *l = CONTAINER_OF(record, struct lent, record);

        return page_detach(l->page, l);
}

void reader_commit(struct reader *r, uint32_t track, uint64_t next)
{
        struct track *t = reader_track(r, track);

        if (!t || t->lost || next <= t->committed)
                return;
        assert(next <= t->next);
        t->committed = next;
        for (struct lent *l; (l = t->walk) && l->record.position < next; t->walk = l->next) {
                if (l->mark.n) {
                        t->reach = l->record.position + 1;
                        t->reach_mark = l->mark;
                }
        }
        if (r->records && t->took_n && all_done(t) && !t->withdrawn && (t->state == TRACK_OPEN || t->tell))
                list_once(&r->timed, &t->timed);
        stir(r, t);
}

void reader_revoked(struct reader *r, uint32_t track)
{
        struct track *t = reader_track(r, track);

        if (!t || (t->state != TRACK_CLOSING && t->state != TRACK_OPEN))
                return;
        if (t->state == TRACK_OPEN) { /* the engine was out of memory: offer it again */
                t->refused = true;
                enter(r, t, TRACK_OFFER);
                return;
        }
        t->tell = false;
        enter(r, t, TRACK_LEAVING);
}
