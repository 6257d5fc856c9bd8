#include "tests/sim/reader_world.h"

/* The promises, each held against the facts of the logs and the model of what the reader was told. */

static const usec SOON = USEC_MSEC;

static uint32_t index_of(const char *mark) { return mark[0] ? (uint32_t)strtoul(mark + 1, NULL, 10) : 0; }

static struct hold *hold_of(struct shop *s, uint32_t track)
{
        struct log *l = service_log(s, track);

        if (!l)
                shop_fail(s, "a track that is not there", track, 0);
        return l->hold;
}

/* With no memory some things come later than they should, or again. */
static bool starving(const struct shop *s)
{
        return s->no_memory_percent && s->now < s->faults_end + 100 * USEC_MSEC;
}

/* ---- what the reader should do ------------------------------------------ */

static bool letting_go(const struct hold *h) { return h->told || h->withdrawn; }

/* Below it everything is done, up to a mark. */
static uint32_t savable(const struct hold *h)
{
        uint32_t to = h->committed;

        if (to == h->n)
                return to;
        while (to > h->saved && to > h->reach && !h->copies[to - 1].mark[0])
                to--;
        return MAX_OF(to, h->reach);
}

static usec lease_over(const struct shop *s, const struct hold *h)
{
        return s->config.lease && h->saved < h->n ? h->copies[h->saved].since + s->config.lease : USEC_NEVER;
}

/* An attempt would end after the lease. */
static bool no_time(const struct shop *s, const struct hold *h)
{
        return s->now >= lease_over(s, h) - s->config.attempt;
}

static bool drained(const struct hold *h)
{
        return h->ended && h->lent == h->n && h->committed == h->n && !h->front;
}

/* The engine is told to let go, or is about to be. */
static bool closing(const struct shop *s, const struct hold *h)
{
        return letting_go(h) || no_time(s, h) || drained(h);
}

static bool is_last(const struct hold *h)
{
        return h->front && (h->front_kind == READER_RETURN || h->front_kind == READER_LEAVE);
}

static bool save_due(const struct shop *s, const struct hold *h)
{
        if (h->save || h->lost || !h->assigned || is_last(h))
                return false;
        return savable(h) > h->saved || (h->fresh && h->committed == h->n && s->config.idle_save_interval);
}

/* The track has left but for that. */
static bool gone(const struct hold *h) { return h->revoked || (h->withdrawn && !h->assigned); }

static bool save_in_time(const struct shop *s, const struct hold *h)
{
        return save_due(s, h) && s->now < lease_over(s, h) &&
               !(gone(h) && h->withdrawn && s->now >= h->leave_from + s->config.leave_timeout);
}

/* What is not done can still be given back. */
static bool return_in_time(const struct shop *s, const struct hold *h)
{
        return s->config.returns && !h->returned && !h->lost && h->saved < h->n &&
               s->now < lease_over(s, h) &&
               !(h->withdrawn && s->now >= h->leave_from + s->config.leave_timeout);
}

static usec save_pause(const struct shop *s, const struct hold *h)
{
        if (closing(s, h) || !h->save_began)
                return 0;
        return savable(h) > h->saved ? s->config.save_interval : s->config.idle_save_interval;
}

static bool fetch_due(const struct shop *s, const struct hold *h)
{
        return h->assigned && !letting_go(h) && !h->ended && !h->front && h->lent == h->n && h->credit > 0 &&
               h->bytes > 0 && h->n - h->saved < s->config.unsaved_most;
}

/* ---- jobs --------------------------------------------------------------- */

/* It let go of all it had when the lease came to its end, and goes on. */
static void begin_again(struct shop *s, struct hold *h)
{
        if (!h->revoked)
                return;
        if (h->withdrawn || !h->let_go)
                shop_fail(s, "a track that left begins again", h->track, 0);
        if (return_in_time(s, h) && !s->no_memory_percent)
                shop_fail(s, "begins again before it gave back what was not done", h->track, h->saved);
        h->assigned = h->told = h->revoked = h->let_go = h->ended = h->loaded = h->claimed = false;
        h->saved = h->committed = h->lent = h->reach = h->n;
        memcpy(h->resume, h->kept, sizeof(h->resume));
        if (!h->failures)
                h->front_from = h->front_until = 0;
        h->fresh = h->returned = false;
        h->took_n = 0;
}

static void check_before(struct shop *s, const struct hold *h, const struct reader_job *job)
{
        if (h->front)
                shop_fail(s, "two jobs that read at once", h->track, (uint64_t)job->kind);
        if (s->now < h->front_from)
                shop_fail(s, "a job before its pause was over", h->track, (uint64_t)job->kind);
        if (letting_go(h))
                shop_fail(s, "goes on with a track that ends", h->track, (uint64_t)job->kind);
}

static void check_claim(struct shop *s, struct hold *h, const struct reader_job *job)
{
        begin_again(s, h);
        check_before(s, h, job);
        if (h->assigned || (h->claimed && !s->no_memory_percent) || !s->config.claims)
                shop_fail(s, "claims what it has", h->track, 0);
}

static void check_load(struct shop *s, struct hold *h, const struct reader_job *job)
{
        begin_again(s, h);
        check_before(s, h, job);
        if (h->assigned || (s->config.claims && !h->claimed) || !s->config.loads)
                shop_fail(s, "loads without a claim, or though it reads", h->track, 0);
        if (h->loaded && !s->no_memory_percent)
                shop_fail(s, "loads twice", h->track, 0);
}

/* After records were let go, no track may take any while one has some. */
static bool must_wait(const struct shop *s, bool surely)
{
        for (uint32_t i = 0; s->careful && i < s->logs_n; i++) {
                const struct hold *h = s->logs[i].hold;

                if (h && h->saved < h->n && !(surely && h->revoked))
                        return true;
        }
        return false;
}

/* Another track's FETCH is under way, where one at a time may be. */
static bool waits_for_another(const struct shop *s)
{
        for (uint32_t i = 0; i < s->logs_n; i++) {
                const struct hold *h = s->logs[i].hold;

                if (s->config.shared && h && h->front && h->front_kind == READER_FETCH)
                        return true;
        }
        return false;
}

static void check_fetch(struct shop *s, struct hold *h, const struct reader_job *job)
{
        check_before(s, h, job);
        if (waits_for_another(s))
                shop_fail(s, "two fetch at once what they share", h->track, 0);
        if (s->config.shared && s->now < s->fetch_from)
                shop_fail(s, "fetches before the pause that is shared was over", h->track, 0);
        if (!h->assigned || h->ended)
                shop_fail(s, "fetches from what it does not read", h->track, 0);
        if (h->lent < h->n)
                shop_fail(s, "a second page while one is not read", h->track, h->lent);
        if (h->credit <= 0 || h->bytes <= 0)
                shop_fail(s, "fetches without credit", h->track, 0);
        if (h->n - h->saved >= s->config.unsaved_most)
                shop_fail(s, "fetches though too much is not saved", h->track, h->n - h->saved);
        if (!str_is(job->mark, h->resume))
                shop_fail(s, "goes on from another mark", h->track, index_of(h->resume));
        if (must_wait(s, true))
                shop_fail(s, "takes more before it is known that there is time", h->track, 0);
        if ((int64_t)job->records != MIN_OF(h->credit, (int64_t)(s->records ? s->records : UINT32_MAX)) ||
            job->bytes != s->config.page_bytes || !job->page)
                shop_fail(s, "asks for more than is wanted", h->track, job->records);
        h->filling = 0;
}

/* "1:m2:ab": the parts behind the first; -1: not whole. */
static int64_t count_ids(struct str state)
{
        int64_t n = -1;

        for (size_t at = 0; at < state.n; n++) {
                size_t length = 0;

                for (; at < state.n && state.p[at] >= '0' && state.p[at] <= '9'; at++)
                        length = 10 * length + (size_t)(state.p[at] - '0');
                if (at == state.n || state.p[at] != ':' || length > state.n - at - 1)
                        return -1;
                at += 1 + length;
        }
        return n;
}

static void check_marks(struct shop *s, struct log *l, struct hold *h, const struct reader_job *job)
{
        if (!job->marks_n || job->marks_n > s->config.marks_most ||
            job->marks_n != MIN_OF(h->committed - h->saved, s->config.marks_most))
                shop_fail(s, "not as many marks as may be saved at once", h->track, job->marks_n);
        for (size_t i = 0; i < job->marks_n; i++) {
                const struct copy *c = &h->copies[h->saved + i];

                if (!str_is(job->marks[i], c->mark))
                        shop_fail(s, "marks out of order", h->track, h->saved + i + 1);
                if (!c->done || !l->facts[c->entry].settled)
                        shop_fail(s, "saves what was not settled", h->track, h->saved + i + 1);
        }
        h->saving_to = h->saved + (uint32_t)job->marks_n;
}

static void check_state(struct shop *s, struct hold *h, const struct reader_job *job)
{
        uint32_t ids = MIN_OF(h->ids + h->saving_to - h->saved, s->config.remember);

        if (!s->config.remember) {
                if (!str_equal(job->state, job->mark))
                        shop_fail(s, "a state that is not the mark", h->track, 0);
                return;
        }
        if (count_ids(job->state) != ids)
                shop_fail(s, "other ids saved than are remembered", h->track, ids);
}

static void check_save(struct shop *s, struct log *l, struct hold *h, const struct reader_job *job)
{
        const char *mark;

        if (h->save)
                shop_fail(s, "saves twice at once", h->track, 0);
        if (h->lost)
                shop_fail(s, "saves though the track is lost", h->track, 0);
        if (!save_due(s, h))
                shop_fail(s, "saves what is saved", h->track, h->saved);
        if (s->now < h->save_from)
                shop_fail(s, "saves before its pause was over", h->track, 0);
        if (s->now < h->save_began + save_pause(s, h))
                shop_fail(s, "saves more often than it may", h->track, 0);
        if (s->now >= lease_over(s, h))
                shop_fail(s, "saves though the lease is over", h->track, 0);
        h->saving_to = savable(h);
        if (s->config.marks_most)
                check_marks(s, l, h, job);
        mark = h->saving_to == h->n       ? h->resume
               : h->saving_to == h->reach ? h->reach_mark
                                          : h->copies[h->saving_to - 1].mark;
        if (!s->queues && !str_is(job->mark, mark))
                shop_fail(s, "saves another mark", h->track, index_of(mark));
        check_state(s, h, job);
        h->fresh = h->fresh && h->saving_to != h->n;
        h->save = true;
        h->save_began = s->now;
}

static void check_leave(struct shop *s, const struct hold *h, const struct reader_job *job)
{
        if (h->front || h->save)
                shop_fail(s, "leaves while a job is under way", h->track, 0);
        if (h->assigned && !h->revoked)
                shop_fail(s, "leaves before the engine let go", h->track, 0);
        if (h->out)
                shop_fail(s, "leaves while records are out", h->track, h->out);
        if (!h->withdrawn && !h->ended && !h->lost)
                shop_fail(s, "leaves without a reason", h->track, 0);
        if (job->lost != h->lost)
                shop_fail(s, "does not know whether it is lost", h->track, 0);
        if (save_in_time(s, h))
                shop_fail(s, "leaves before all is saved, though there is time", h->track, h->saved);
        if (return_in_time(s, h) && h->revoked && !s->no_memory_percent)
                shop_fail(s, "leaves before it gave back what was not done", h->track, h->saved);
}

static void check_return(struct shop *s, struct hold *h, const struct reader_job *job)
{
        if (!gone(h) || h->front || h->save || h->out || save_in_time(s, h))
                shop_fail(s, "gives back what may still be done", h->track, 0);
        if (!return_in_time(s, h))
                shop_fail(s, "gives back what is not its own, or twice", h->track, 0);
        if (job->marks_n != MIN_OF(h->n - h->saved, s->config.marks_most))
                shop_fail(s, "does not give back what was not done", h->track, job->marks_n);
        for (size_t i = 0; i < job->marks_n; i++)
                if (!str_is(job->marks[i], h->copies[h->saved + i].mark))
                        shop_fail(s, "gives back other records", h->track, h->saved + i + 1);
        h->returned = true;
}

void check_job(struct shop *s, struct log *l, const struct reader_job *job)
{
        struct hold *h = l->hold;

        if (job->own != l)
                shop_fail(s, "a job with somebody else's data", job->track, (uint64_t)job->kind);
        if (h->front && h->front_kind == READER_LEAVE)
                shop_fail(s, "a job after the last", job->track, (uint64_t)job->kind);
        switch (job->kind) {
        case READER_CLAIM: check_claim(s, h, job); break;
        case READER_LOAD: check_load(s, h, job); break;
        case READER_FETCH: check_fetch(s, h, job); break;
        case READER_SAVE: check_save(s, l, h, job); return;
        case READER_RETURN: check_return(s, h, job); break;
        case READER_CANCEL:
                if (!h->front || h->cancel_told || !closing(s, h))
                        shop_fail(s, "cancels what is wanted, or nothing", job->track, 0);
                h->cancel_told = true;
                return;
        case READER_LEAVE: check_leave(s, h, job); break;
        case READER_JOB_MAX: shop_fail(s, "no job", job->track, 0);
        }
        h->front = true;
        h->cancel_told = false;
        h->front_kind = job->kind;
}

/* ---- what was fetched --------------------------------------------------- */

void check_wanted(struct shop *s, struct log *l, const struct page *p, uint32_t entry, bool taken)
{
        struct hold *h = l->hold;
        bool again = !s->queues && entry < index_of(h->resume);

        for (uint32_t i = h->n; i < h->n + h->filling; i++)
                again = again || (s->config.remember && h->copies[i].entry == entry);
        if (taken && again)
                shop_fail(s, "an id twice within what is remembered", h->track, entry);
        if (!taken && !again && !page_failed(p))
                shop_fail(s, "a new record is left out", h->track, entry);
        s->duplicates += again;
}

void check_fetched(struct shop *s, struct log *l, uint32_t entry, const char *mark)
{
        struct hold *h = l->hold;
        struct copy *c;

        if (h->n + h->filling == h->cap) {
                h->cap = MAX_OF(2 * h->cap, 64u);
                h->copies = realloc(h->copies, h->cap * sizeof(*h->copies));
                if (!h->copies)
                        abort();
        }
        c = &h->copies[h->n + h->filling++];
        *c = (struct copy){ .entry = entry, .since = s->now };
        (void)snprintf(c->mark, sizeof(c->mark), "%s", mark);
}

static void pause_for(struct shop *s, const struct error *err, unsigned failures, usec *from, usec *until)
{
        const struct reader_config *c = &s->config;
        /* how often it failed for want of memory is not known here */
        usec most = failures < 30 && !s->no_memory_percent
                            ? MIN_OF(c->backoff_min << (failures - 1), c->backoff_max)
                            : c->backoff_max;

        if (err->retry_after) {
                *from = *until = s->now + err->retry_after;
                return;
        }
        *from = s->now + (err->retry ? SOON : c->backoff_max / 2);
        *until = s->now + MAX_OF(err->retry ? most : c->backoff_max, SOON) + SOON;
}

static void fetch_ended(struct shop *s, struct hold *h, const struct errand *e, const char *mark)
{
        struct error bad = { .retry = true };
        usec *pause = s->config.shared ? &s->fetch_pause : &h->pause;

        if (letting_go(h)) {
                h->filling = 0;
                return;
        }
        if (e->fails || h->page_bad) {
                h->filling = 0;
                h->failures++;
                h->asked = e->fails && e->error.retry_after > 0;
                pause_for(s, e->fails ? &e->error : &bad, h->failures, &h->front_from, &h->front_until);
                if (!e->fails) { /* too large, or out of memory: each pauses in its own way */
                        h->front_from = s->now + SOON;
                        h->front_until = s->now + s->config.backoff_max + SOON;
                }
                return;
        }
        h->failures = 0;
        h->asked = false;
        h->front_from = h->front_until = 0;
        if (h->filling && h->committed == h->n) {
                h->reach = h->n;
                memcpy(h->reach_mark, h->resume, sizeof(h->resume));
        }
        if (h->committed == h->n) {
                h->took_n = 0;
                h->took_from = s->now;
        }
        h->took_n += h->filling;
        h->n += h->filling;
        if (h->filling) {
                *pause = 0;
        } else {
                *pause = *pause ? MIN_OF(2 * *pause, s->config.poll_max) : s->config.poll_min;
                h->front_from = s->now + *pause;
                h->front_until = h->front_from + *pause / 20; /* to end with others */
        }
        if (!mark[0] && h->filling)
                mark = h->copies[h->n - 1].mark;
        if (mark[0] && strcmp(mark, h->resume) != 0) {
                h->fresh = h->fresh || !h->filling;
                (void)snprintf(h->resume, sizeof(h->resume), "%s", mark);
        }
        h->filling = 0;
}

static void front_ended(struct shop *s, struct log *l, const struct errand *e)
{
        struct hold *h = l->hold;

        if (letting_go(h))
                return;
        h->standby = e->fails && e->job.kind == READER_CLAIM && e->error.kind == ERROR_CONFLICT;
        if (e->fails) {
                h->failures++;
                h->asked = e->error.retry_after > 0;
                pause_for(s, &e->error, h->failures, &h->front_from, &h->front_until);
                return;
        }
        h->failures = 0;
        h->asked = false;
        h->front_from = h->front_until = 0;
        if (e->job.kind == READER_CLAIM) {
                h->claimed = true;
                return;
        }
        if (starving(s))
                h->front_until = s->now + s->config.backoff_max + SOON;
        h->loaded = true;
        h->ids = s->config.remember && l->state_n ? (uint32_t)count_ids((struct str){ l->state, l->state_n })
                                                  : 0;
        h->resume[0] = 0;
        if (l->state_n)
                (void)snprintf(h->resume, sizeof(h->resume), "m%u", l->mark);
        memcpy(h->kept, h->resume, sizeof(h->kept));
}

static void save_ended(struct shop *s, struct hold *h, const struct errand *e)
{
        h->save = false;
        if (!e->fails) {
                h->ids = MIN_OF(h->ids + h->saving_to - h->saved, s->config.remember);
                h->saved = h->saving_to;
                memcpy(h->kept, e->mark, sizeof(h->kept));
                h->save_failures = 0;
                return;
        }
        h->fresh = h->fresh || h->saving_to == h->n;
        if (e->error.kind == ERROR_CONFLICT) {
                h->lost = h->withdrawn = true;
                return;
        }
        h->save_failures++;
        pause_for(s, &e->error, h->save_failures, &h->save_from, &h->save_until);
}

void check_ended(struct shop *s, struct log *l, const struct errand *e, const char *mark)
{
        struct hold *h = l->hold;

        if (e->job.kind == READER_SAVE) {
                save_ended(s, h, e);
                return;
        }
        h->front = false;
        if (e->job.kind != READER_FETCH) {
                front_ended(s, l, e);
                return;
        }
        fetch_ended(s, h, e, mark);
        if (letting_go(h))
                return;
        s->fetch_from = h->front_from;
        s->fetch_until = h->front_until;
}

/* ---- events and records ------------------------------------------------- */

static void check_told(struct shop *s, struct hold *h, const struct pull_event *e)
{
        bool lease = no_time(s, h);

        if (!h->assigned || h->revoked)
                shop_fail(s, "lets go of what the engine does not have", h->track, 0);
        if ((e->kind == PULL_LOST) != h->lost)
                shop_fail(s, "lost or not is told wrongly", h->track, 0);
        if (!h->withdrawn && !lease && !drained(h))
                shop_fail(s, "lets go without a reason", h->track, 0);
        if (h->withdrawn && !h->lost && !h->let_go && e->give_up_at != h->give_up_at)
                shop_fail(s, "lets go at another time", h->track, 0);
        h->let_go = !h->withdrawn && !drained(h);
        if (h->let_go && s->records && h->committed < h->n) {
                s->records = 1;
                s->careful = true;
        }
        if (h->let_go && e->give_up_at != lease_over(s, h))
                shop_fail(s, "lets go at another time than the lease", h->track, 0);
        if (!h->withdrawn)
                h->give_up_at = e->give_up_at;
        s->let_go += h->let_go;
        s->lost += h->lost && !h->lost_told;
        h->lost_told = h->lost;
        h->told = true;
}

void check_event(struct shop *s, const struct pull_event *e)
{
        struct hold *h;

        if (e->kind == PULL_STATE) {
                s->told = e->state;
                return;
        }
        if (e->kind == PULL_CLOSED) {
                if (!s->stopping || s->closed)
                        shop_fail(s, "closed without a reason", 0, 0);
                for (uint32_t i = 0; i < s->logs_n; i++)
                        if (s->logs[i].hold)
                                shop_fail(s, "closed before its tracks left", s->logs[i].hold->track, 0);
                s->closed = true;
                return;
        }
        h = hold_of(s, e->track);
        if (e->kind != PULL_ASSIGNED) {
                check_told(s, h, e);
                return;
        }
        begin_again(s, h);
        if (h->assigned || h->withdrawn || (s->config.claims && !h->claimed) ||
            (s->config.loads && !h->loaded))
                shop_fail(s, "assigned too early, or twice", e->track, 0);
        h->assigned = true;
        h->credit = h->bytes = 0;
}

/* What a record says is what stands in the log. */
void check_record(const struct shop *s, const struct record *r)
{
        const struct log *l = service_log((struct shop *)(uintptr_t)s, r->track);
        const struct copy *c = &l->hold->copies[r->position - 1];
        const struct fact *f = &l->facts[c->entry];
        char id[16];

        (void)snprintf(id, sizeof(id), "%u-%u", l->number, c->entry);
        if (!str_is(r->id, id) || *(const uint32_t *)r->origin != c->entry || r->value.n != f->size ||
            r->key.n != MIN_OF(f->size, 4u))
                shop_fail(s, "a record is not what was fetched", r->track, r->position);
        for (size_t i = 0; i < r->value.n; i++)
                if (r->value.p[i] != (char)(' ' + c->entry % 90))
                        shop_fail(s, "a record's bytes are gone", r->track, r->position);
        if (memcmp(r->key.p, r->value.p, r->key.n) != 0)
                shop_fail(s, "a record's key is gone", r->track, r->position);
}

void check_lent(struct shop *s, const struct record *r)
{
        struct hold *h = hold_of(s, r->track);

        if (!h->assigned || letting_go(h))
                shop_fail(s, "lends what it lets go of", r->track, r->position);
        if (r->position != (uint64_t)h->lent + 1 || h->lent >= h->n)
                shop_fail(s, "records out of order", r->track, r->position);
        if (h->credit <= 0 || h->bytes <= 0)
                shop_fail(s, "lends without credit", r->track, r->position);
        if (no_time(s, h))
                shop_fail(s, "lends what there is no time for", r->track, r->position);
        check_record(s, r);
        h->copies[h->lent++].lent = true;
        h->out++;
        h->credit--;
        h->bytes -= r->pinned;
}

void check_back(struct shop *s, const struct record *r, enum outcome outcome)
{
        struct hold *h = hold_of(s, r->track);
        struct copy *c = &h->copies[r->position - 1];

        check_record(s, r);
        if (!c->lent || c->back)
                shop_fail(s, "a record comes back twice", r->track, r->position);
        c->back = true;
        h->out--;
        if (outcome == OUTCOME_RELEASED)
                return;
        c->done = true;
        service_log(s, r->track)->facts[c->entry].settled = true;
}

/* All that it had is done, in time: more may be asked for, as far as half of the time allows. */
static void check_took(struct shop *s, struct hold *h)
{
        const struct reader_config *c = &s->config;
        uint64_t step = MIN_OF(MAX_OF(c->records_together, 1u), c->records_most);
        uint64_t may = s->records + step, most = c->records_most;
        usec took = MAX_OF(s->now - h->took_from, (usec)1);

        if (!s->records)
                return;
        while (may > step && (may > most || (usec)may * took > h->took_n * ((c->lease - c->attempt) / 2)))
                may--;
        s->records = (uint32_t)may;
        s->careful = false;
        h->took_n = 0;
}

void check_commit(struct shop *s, uint32_t track, uint64_t next)
{
        struct hold *h = hold_of(s, track);

        for (; h->committed + 1 < next; h->committed++)
                if (!h->copies[h->committed].done)
                        shop_fail(s, "the engine commits what is not done", track, next);
        if (h->committed == h->n && h->took_n && !letting_go(h))
                check_took(s, h);
}

void check_track_revoked(struct shop *s, uint32_t track)
{
        struct hold *h = hold_of(s, track);

        if (!h->told)
                shop_fail(s, "the engine let go by itself", track, 0);
        h->revoked = true;
        h->leave_from = s->now;
}

/* ---- after each round --------------------------------------------------- */

static void by(const struct shop *s, const struct hold *h, usec until, const char *what)
{
        usec at = reader_deadline(s->reader), late = starving(s) ? 20 * USEC_MSEC : 0;

        if (at > MAX_OF(until, s->now) + late)
                shop_fail(s, what, h->track, (uint64_t)MAX_OF(until, (usec)0));
}

static void check_leaving(const struct shop *s, const struct hold *h)
{
        bool saves = save_in_time(s, h);

        if (h->front || h->save || starving(s))
                return;
        if (!saves && (!h->let_go || h->withdrawn))
                shop_fail(s, "does not leave", h->track, 0);
        if (!saves && !(h->failures && s->now < h->front_until))
                shop_fail(s, "does not begin again", h->track, 0);
}

static void check_hold(const struct shop *s, const struct hold *h)
{
        if (!gone(h) && h->assigned && !letting_go(h) && h->lent < h->n && h->credit > 0 && h->bytes > 0)
                shop_fail(s, "does not lend what it has", h->track, h->lent);
        if (!gone(h) && h->assigned && h->withdrawn && !h->told)
                shop_fail(s, "does not let go", h->track, 0);
        if (h->lost && h->assigned && !h->lost_told && !h->revoked)
                shop_fail(s, "does not say that it is lost", h->track, 0);
        if (h->front && letting_go(h) && !h->cancel_told && !is_last(h))
                shop_fail(s, "does not cancel what is not wanted", h->track, 0);
        if (h->assigned && !h->told && drained(h))
                shop_fail(s, "does not end", h->track, 0);
        if (h->assigned && !h->told && no_time(s, h))
                shop_fail(s, "keeps what there is no time for", h->track, 0);
        if (!h->assigned && !h->withdrawn && !h->front)
                by(s, h, MAX_OF(h->front_until, h->offer_until), "a wake-up is lost: it does not begin");
        if (fetch_due(s, h) && !waits_for_another(s) && !must_wait(s, false))
                by(s, h, s->config.shared ? MAX_OF(h->front_until, s->fetch_until) : h->front_until,
                   "a wake-up is lost: it does not fetch");
        if (save_in_time(s, h))
                by(s, h, MIN_OF(MAX_OF(h->save_until, h->save_began + save_pause(s, h)), lease_over(s, h)),
                   "a wake-up is lost: it does not save");
        if (s->config.lease && h->assigned && !h->told && h->saved < h->n)
                by(s, h, lease_over(s, h) - s->config.attempt, "a wake-up is lost: the lease");
        if (gone(h))
                check_leaving(s, h);
}

void check_shop_quiet(struct shop *s)
{
        struct reader_stats stats;
        uint32_t out = 0, unread = 0, holds = 0;
        bool failing = false, well = true, pages = false;

        reader_stats(s->reader, &stats);
        for (uint32_t i = 0; i < s->logs_n; i++) {
                const struct hold *h = s->logs[i].hold;

                if (!h)
                        continue;
                holds++;
                check_hold(s, h);
                out += h->out;
                unread += h->assigned && !letting_go(h) ? h->n - h->lent : 0;
                pages = pages || h->n > h->saved || h->front;
                failing = failing || h->save_failures || (h->failures && !h->standby && !letting_go(h));
                well = well && !h->save_failures && (!h->failures || h->standby);
        }
        if (stats.tracks != holds || stats.out != out || stats.unread != unread)
                shop_fail(s, "tracks, records out or records not read are counted wrongly", stats.tracks,
                          stats.out);
        if (!pages && stats.page_bytes)
                shop_fail(s, "pages are kept though all is saved", 0, stats.page_bytes);
        if (failing && !starving(s) && s->told != SOURCE_DISCONNECTED && s->told != SOURCE_FAILED)
                shop_fail(s, "does not say that it fails", 0, (uint64_t)s->told);
        /* what failed for want of memory is not known here */
        if (well && !s->no_memory_percent && (s->told == SOURCE_DISCONNECTED || s->told == SOURCE_FAILED))
                shop_fail(s, "says that it fails, though nothing does", 0, (uint64_t)s->told);
        if (reader_deadline(s->reader) <= s->now)
                shop_fail(s, "has something to do, and does not do it", 0, 0);
        if (s->stopping && !holds && !s->closed)
                shop_fail(s, "does not close", 0, 0);
}

void check_shop_end(struct shop *s)
{
        for (uint32_t i = 0; i < s->logs_n; i++)
                for (uint32_t e = 0; e < s->logs[i].n; e++)
                        if (!s->logs[i].facts[e].hole && !s->logs[i].facts[e].settled)
                                shop_fail(s, "an entry was lost", i, e);
}
