#include "source/poller.h"

#include "base/backoff.h"
#include "source/cloud.h"
#include "source/page.h"

enum { PATH_MOST = 8 << 10, BODY_MOST = 1 << 20, MARK_MOST = READER_STATE_MOST + (64 << 10) };
enum { REFUSALS_MOST = 16 }; /* in one job, not necessarily in a row; more of them fail the job */
static const usec CALL_TIMEOUT = 10 * USEC_SEC; /* after that, a SAVE is retried */
static const usec LOST_PAUSE = USEC_MINUTE, BACKOFF_MIN = 200 * USEC_MSEC, BACKOFF_MAX = 10 * USEC_SEC;

/* A job in progress. */
struct errand {
        struct poller_call call; /* the first member */
        struct store_request stored;
        struct reader_job job;
        struct errand *next, *previous; /* in the list of busy ones; next: also in the free list */
        unsigned refusals;
};

/* ---- calls -------------------------------------------------------------- */

void poller_query(struct cloud_request *q, const char *name, struct str value)
{
        if (q->query.n)
                buf_char(&q->query, '&');
        buf_text(&q->query, name);
        buf_char(&q->query, '=');
        buf_percent(&q->query, value, "-_.~");
}

void poller_query_int(struct cloud_request *q, const char *name, int64_t value)
{
        if (q->query.n)
                buf_char(&q->query, '&');
        buf_text(&q->query, name);
        buf_char(&q->query, '=');
        buf_int(&q->query, value);
}

static void call_init(struct poller *p, struct poller_call *c)
{
        c->service = p->ops->service;
        c->poller = p;
        c->request.path.max = c->request.query.max = PATH_MOST;
        c->request.what.max = PATH_MOST;
        c->request.body.max = BODY_MOST;
}

static void call_done(struct poller_call *c)
{
        buf_done(&c->request.path);
        buf_done(&c->request.query);
        buf_done(&c->request.body);
        buf_done(&c->request.what);
        buf_done(&c->answer);
}

static void call_clear(struct poller_call *c)
{
        c->request.method = "GET";
        c->request.timeout = 0;
        buf_reset(&c->request.path);
        buf_reset(&c->request.query);
        buf_reset(&c->request.body);
        buf_reset(&c->request.what);
        buf_reset(&c->answer);
        c->status = 0;
        c->refusal = (struct cloud_error){ 0 };
        c->error.kind = ERROR_NONE;
}

static bool is_unwritten(const struct cloud_request *q)
{
        return q->path.failed || q->query.failed || q->body.failed || q->what.failed;
}

static void call_start(struct poller *p, struct poller_call *c)
{
        c->busy = true;
        p->config.port.start(p->config.port.cookie, c);
}

void poller_call_ended(struct poller_call *c)
{
        struct poller *p = c->poller;

        c->next = NULL;
        *p->ended_last = c;
        p->ended_last = &c->next;
        loop_ready(p->services->loop, p->services->wake);
}

static void call_cancel(struct poller *p, struct poller_call *c)
{
        if (!c->busy)
                return;
        c->busy = false;
        for (struct poller_call **at = &p->ended; *at; at = &(*at)->next)
                if (*at == c) { /* it has ended, and its result is not handled yet */
                        *at = c->next;
                        if (p->ended_last == &c->next)
                                p->ended_last = at;
                        return;
                }
        p->config.port.cancel(p->config.port.cookie, c);
}

static bool succeeded(const struct poller_call *c)
{
        return c->status >= 200 && c->status < 300 && c->error.kind == ERROR_NONE;
}

/* The call's failure as an error; the source may overrule it. */
static void why(const struct poller_call *c, struct error *err)
{
        const char *what = c->request.what.p ? c->request.what.p : c->service;

        if (c->error.kind != ERROR_NONE)
                *err = c->error;
        else
                (void)refusal_error(&c->refusal, what, err);
}

/* A response that can't be parsed may have been damaged on the way, so a retry may help. */
static enum poller_step judged(enum poller_step step, struct error *err)
{
        if (step == POLLER_FAILED && err->kind == ERROR_PROTOCOL)
                err->retry = true;
        return step;
}

/* ---- jobs --------------------------------------------------------------- */

/* Index of the job's errand: each track has one that reads and one that saves. */
static uint64_t place_of(const struct reader_job *job)
{
        return (uint64_t)job->track << 1 | (job->kind != READER_SAVE);
}

static struct errand *errand_new(struct poller *p, const struct reader_job *job)
{
        struct errand *e = p->free_errands;

        if (e)
                p->free_errands = e->next;
        else if (!(e = calloc(1, sizeof(*e))))
                return NULL;
        call_init(p, &e->call);
        e->job = *job;
        e->refusals = 0;
        e->previous = NULL;
        e->next = p->busy;
        if (p->busy)
                p->busy->previous = e;
        p->busy = e;
        return e;
}

static void errand_end(struct poller *p, struct errand *e)
{
        if (place_of(&e->job) < p->places_n)
                p->places[place_of(&e->job)] = NULL;
        store_release(&p->services->store, &e->stored);
        if (e->previous)
                e->previous->next = e->next;
        else
                p->busy = e->next;
        if (e->next)
                e->next->previous = e->previous;
        e->next = p->free_errands;
        p->free_errands = e;
}

static void job_done(struct poller *p, struct errand *e, usec now)
{
        struct reader_job job = e->job;

        errand_end(p, e);
        reader_done(p->reader, &job, buf_view(&p->mark), now);
}

static void job_failed(struct poller *p, struct errand *e, const struct error *err, usec now)
{
        struct reader_job job = e->job;

        errand_end(p, e);
        reader_failed(p->reader, &job, err, now);
}

static void errand_ask(struct poller *p, struct errand *e, usec now)
{
        struct cloud_request *q = &e->call.request;
        struct error err;

        call_clear(&e->call);
        p->ops->ask(p, &e->job, q);
        if (is_unwritten(q)) {
                (void)error_memory(&err);
                job_failed(p, e, &err, now);
                return;
        }
        if ((e->job.kind == READER_SAVE || e->job.kind == READER_RETURN) && e->job.give_up_at != USEC_NEVER) {
                usec left = MAX_OF(e->job.give_up_at - now, USEC_MSEC);

                q->timeout = MIN_OF(q->timeout ? q->timeout : CALL_TIMEOUT, left);
        }
        call_start(p, &e->call);
}

static void errand_ended(struct poller *p, struct errand *e, usec now)
{
        enum poller_step step = POLLER_FAILED;
        struct error err = { 0 };

        buf_reset(&p->mark);
        if (succeeded(&e->call)) {
                step = judged(p->ops->answered(p, &e->job, buf_view(&e->call.answer), &err), &err);
        } else {
                why(&e->call, &err);
                if (e->call.refusal.verdict != CLOUD_DONE && p->ops->refused &&
                    ++e->refusals <= REFUSALS_MOST)
                        step = p->ops->refused(p, &e->job, &e->call.refusal, &err);
        }
        if (step == POLLER_AGAIN) {
                errand_ask(p, e, now);
                return;
        }
        if (step == POLLER_DONE && p->mark.failed) {
                step = POLLER_FAILED;
                (void)error_memory(&err);
        }
        if (step == POLLER_DONE)
                job_done(p, e, now);
        else
                job_failed(p, e, &err, now);
}

static bool errand_place(struct poller *p, struct errand *e)
{
        uint64_t place = place_of(&e->job), n = MAX_OF(p->places_n * 2, (place | 1) + 1);
        struct errand **grown;

        if (place >= p->places_n) {
                if (!(grown = realloc(p->places, n * sizeof(struct errand *))))
                        return false;
                memset(grown + p->places_n, 0, (n - p->places_n) * sizeof(struct errand *));
                p->places = grown;
                p->places_n = n;
        }
        p->places[place] = e;
        return true;
}

static struct errand *errand_at(const struct poller *p, uint64_t place)
{
        return place < p->places_n ? p->places[place] : NULL;
}

static void front_cancel(struct poller *p, uint32_t track, usec now)
{
        struct errand *e = errand_at(p, (uint64_t)track << 1 | 1);
        struct error err;

        if (!e || !e->call.busy) /* store requests can't be cancelled */
                return;
        call_cancel(p, &e->call);
        (void)error_set(&err, ERROR_CANCELLED, "it is not wanted any more");
        job_failed(p, e, &err, now);
}

static void track_left(struct poller *p, const struct reader_job *job, usec now)
{
        struct error err;

        bool elsewhere = share_left(&p->share, job->track);

        if (p->ops->left)
                p->ops->left(p, job->own);
        if ((job->lost || elsewhere) && p->ops->discover) {
                /* list again soon, to add the track again and stand by */
                p->discover_at = MIN_OF(p->discover_at, now + USEC_SEC);
        } else if (job->lost) {
                (void)error_set(&err, ERROR_CONFLICT,
                                "somebody else saves the position of this Trigger: is it running twice?");
                reader_trouble(p->reader, &err);
                p->discover_at = now + LOST_PAUSE;
        }
        reader_done(p->reader, job, STR(""), now);
}

static bool is_stored(const struct poller *p, const struct reader_job *job)
{
        return p->ops->stored && (job->kind == READER_LOAD || job->kind == READER_SAVE);
}

static void errand_store(struct poller *p, struct errand *e)
{
        e->stored.request.wake = p->services->wake;
        e->stored.request.done = &p->stored;
        if (e->job.kind == READER_LOAD)
                store_get(&p->services->store, &e->stored, e->job.name);
        else
                store_put(&p->services->store, &e->stored, e->job.name, e->job.state);
}

/* CLAIM is decided by the claims, without a call. */
static void track_claim(struct poller *p, const struct reader_job *job, usec now)
{
        struct error err;

        if (share_claim(&p->share, job, &err) < 0)
                reader_failed(p->reader, job, &err, now);
        else
                reader_done(p->reader, job, STR(""), now);
}

static void begin(struct poller *p, const struct reader_job *job, usec now)
{
        struct errand *e;
        struct error err;

        if (job->kind == READER_CLAIM) {
                track_claim(p, job, now);
                return;
        }
        if (job->kind == READER_CANCEL) {
                front_cancel(p, job->track, now);
                return;
        }
        if (job->kind == READER_LEAVE) {
                track_left(p, job, now);
                return;
        }
        if (!(e = errand_new(p, job)) || !errand_place(p, e)) {
                (void)error_memory(&err);
                if (e)
                        job_failed(p, e, &err, now);
                else
                        reader_failed(p->reader, job, &err, now);
                return;
        }
        if (is_stored(p, job))
                errand_store(p, e);
        else
                errand_ask(p, e, now);
}

/* ---- the store ---------------------------------------------------------- */

static void take_stored(struct poller *p, usec now)
{
        for (struct request *r; (r = request_next(&p->stored));) {
                struct store_request *stored = CONTAINER_OF(r, struct store_request, request);
                struct errand *e = CONTAINER_OF(stored, struct errand, stored);
                struct error err = r->error;

                buf_reset(&p->mark);
                if (e->job.kind == READER_LOAD && !request_failed(r) && stored->found)
                        poller_mark(p, buf_view(&stored->value));
                if (p->mark.failed)
                        (void)error_memory(&err);
                if (err.kind == ERROR_NONE)
                        job_done(p, e, now);
                else
                        job_failed(p, e, &err, now);
        }
}

/* ---- the list of tracks ------------------------------------------------- */

static void discover_failed(struct poller *p, const struct error *err, usec now)
{
        const struct reader_config *c = &p->config.reader;

        reader_trouble(p->reader, err);
        p->discover_at = now + (err->retry_after ? MIN_OF(err->retry_after, USEC_HOUR)
                                : err->retry ? backoff_full_jitter(&p->random, c->backoff_min, c->backoff_max,
                                                                   p->discover_failures, USEC_MSEC)
                                             : MAX_OF(c->backoff_max, USEC_MSEC));
        p->discover_by = 0; /* the back-off wins */
        p->discover_failures++;
        p->discover_asked = err->retry_after > 0;
}

static void discover_next(struct poller *p, usec now)
{
        struct error err;

        p->discover_at = USEC_NEVER;
        call_init(p, &p->discovery);
        call_clear(&p->discovery);
        p->ops->discover(p, &p->discovery.request);
        if (!is_unwritten(&p->discovery.request)) {
                call_start(p, &p->discovery);
                return;
        }
        (void)error_memory(&err);
        discover_failed(p, &err, now);
}

static void discovered(struct poller *p, usec now)
{
        struct error err = { 0 };
        enum poller_step step = POLLER_FAILED;

        if (succeeded(&p->discovery)) {
                p->discover_refusals = 0;
                step = judged(p->ops->discovered(p, buf_view(&p->discovery.answer), &err), &err);
        } else {
                why(&p->discovery, &err);
                if (p->discovery.refusal.verdict != CLOUD_DONE && p->ops->discover_refused &&
                    ++p->discover_refusals <= REFUSALS_MOST)
                        step = p->ops->discover_refused(p, &p->discovery.refusal, &err);
        }
        if (step == POLLER_AGAIN) {
                discover_next(p, now);
                return;
        }
        p->discover_refusals = 0;
        if (step == POLLER_FAILED) {
                discover_failed(p, &err, now);
                return;
        }
        p->discover_failures = 0;
        p->discover_at = now + MAX_OF(p->config.discover_interval, USEC_MSEC);
        reader_trouble(p->reader, NULL);
}

/* Without discovery there is only one track. */
static void add_track(struct poller *p, usec now)
{
        struct reader_stats stats;
        uint32_t track;
        struct error err;

        p->discover_at = USEC_NEVER;
        reader_trouble(p->reader, NULL);
        reader_stats(p->reader, &stats);
        if (!stats.tracks && reader_add(p->reader, str_of(p->ops->service), NULL, &track, &err) < 0 &&
            err.kind != ERROR_EXISTS)
                discover_failed(p, &err, now);
}

void poller_discover_by(struct poller *p, usec at)
{
        p->discover_by = p->discover_by ? MIN_OF(p->discover_by, at) : at;
}

static usec discover_due(const struct poller *p)
{
        return p->discover_by ? MIN_OF(p->discover_at, p->discover_by) : p->discover_at;
}

/* Whoever has mended the keys does not wait for the end of a pause. */
static void look_at_keys(struct poller *p)
{
        if (!p->account || !source_account_keys_changed(p->account))
                return;
        if (p->discover_failures && !p->discover_asked)
                p->discover_at = 0;
        reader_retry(p->reader);
}

static void discover(struct poller *p, usec now)
{
        if (p->stopping || p->discovery.busy || now < discover_due(p))
                return;
        p->discover_by = 0;
        if (p->ops->discover)
                discover_next(p, now);
        else
                add_track(p, now);
}

/* ---- a turn ------------------------------------------------------------- */

static struct poller *poller_of(struct source *s) { return CONTAINER_OF(s, struct poller, source); }
static const struct poller *const_of(const struct source *s)
{
        return CONTAINER_OF((struct source *)(uintptr_t)s, struct poller, source);
}

static void take_calls(struct poller *p, usec now)
{
        struct poller_call *c;

        while ((c = p->ended)) {
                if (!(p->ended = c->next))
                        p->ended_last = &p->ended;
                c->busy = false;
                if (c == &p->discovery)
                        discovered(p, now);
                else
                        errand_ended(p, CONTAINER_OF(c, struct errand, call), now);
        }
}

static void say_warnings(struct poller *p)
{
        struct notice notice;

        while (reader_warned(p->reader, &notice))
                source_tell(p->services, &notice);
}

/* Delays PULL_CLOSED until all claims are released, so that a successor can take them at once. */
static size_t hold_back(struct poller *p, struct pull_event *events, size_t max, size_t n)
{
        if (n && events[n - 1].kind == PULL_CLOSED) {
                p->closed = true;
                n--;
        }
        if (n == max || !p->closed || !share_stopped(&p->share))
                return n;
        p->closed = false;
        events[n++] = (struct pull_event){ .kind = PULL_CLOSED };
        return n;
}

static size_t poll(struct source *s, struct pull_event *events, size_t max, usec now)
{
        struct poller *p = poller_of(s);
        struct reader_job job;

        take_calls(p, now);
        take_stored(p, now);
        look_at_keys(p);
        discover(p, now);
        share_turn(&p->share, p->reader);
        while (reader_next(p->reader, now, &job))
                begin(p, &job, now);
        say_warnings(p);
        return hold_back(p, events, max, reader_poll(p->reader, events, max, now));
}

static usec deadline(const struct source *s)
{
        const struct poller *p = const_of(s);
        usec at = reader_deadline(p->reader);

        if (p->ended || (p->closed && share_stopped(&p->share)))
                return 0;
        return p->stopping || p->discovery.busy ? at : MIN_OF(at, discover_due(p));
}

static void credit(struct source *s, uint32_t track, uint32_t records, size_t bytes)
{
        reader_credit(poller_of(s)->reader, track, records, bytes);
}

static void release(struct source *s, struct record *r, enum outcome outcome UNUSED)
{
        reader_release(poller_of(s)->reader, r);
}

static bool detach(struct source *s, struct record *r) { return reader_detach(poller_of(s)->reader, r); }
static void commit(struct source *s, uint32_t track, uint64_t next)
{
        reader_commit(poller_of(s)->reader, track, next);
}
static void revoked(struct source *s, uint32_t track) { reader_revoked(poller_of(s)->reader, track); }
static int64_t lag(const struct source *s) { return reader_lag(const_of(s)->reader); }
static int64_t unsaved(const struct source *s) { return reader_unsaved(const_of(s)->reader); }

static void stop(struct source *s)
{
        struct poller *p = poller_of(s);

        p->stopping = true;
        call_cancel(p, &p->discovery);
        reader_stop(p->reader);
        share_stop(&p->share);
}

static struct source *close_source(struct source *s) { return s ? poller_close(poller_of(s)) : NULL; }

#define PULL_OPS                                                                                             \
        .poll = poll, .deadline = deadline, .credit = credit, .release = release, .detach = detach,          \
        .commit = commit, .revoked = revoked, .lag = lag, .unsaved = unsaved, .stop = stop,                  \
        .free = close_source
const struct pull_ops poller_pull = { PULL_OPS };
const struct pull_ops poller_pull_at_once = { .commit_at_once = true, PULL_OPS };

/* ---- life --------------------------------------------------------------- */

static void errands_free(struct errand *e)
{
        for (struct errand *next; e; e = next) {
                next = e->next;
                call_done(&e->call);
                free(e);
        }
}

/* Uses the Trigger's cloud settings unless a port was given. */
static int open_port(struct poller *p, struct error *err)
{
        const struct source_account_config account = { .services = p->services,
                                                       .cloud = p->config.cloud,
                                                       .service = p->ops->service };

        if (p->config.port.start)
                return 0;
        if (source_account_new(&p->account, &account, err) < 0)
                return -1;
        p->config.port = source_account_port(p->account);
        return 0;
}

static int open_parts(struct poller *p, struct error *err)
{
        struct reader_config *c = &p->config.reader;

        c->backoff_min = c->backoff_min ? c->backoff_min : BACKOFF_MIN;
        c->backoff_max = c->backoff_max ? c->backoff_max : BACKOFF_MAX;
        if (open_port(p, err) < 0)
                return -1;
        if (p->ops->claimed && share_init(&p->share, &p->services->claims, err) < 0)
                return -1;
        c->claims = p->share.port.ops != NULL;
        return reader_new(&p->reader, c, p->config.seed, err);
}

int poller_open(struct poller *p, const struct poller_ops *ops, const struct poller_config *config,
                const struct services *services, struct error *err)
{
        p->ops = ops;
        p->config = *config;
        p->config.seed = config->seed ? config->seed : random_seed();
        p->services = services;
        p->ended_last = &p->ended;
        p->mark.max = MARK_MOST;
        random_init(&p->random, p->config.seed);
        if (open_parts(p, err) == 0)
                return 0;
        (void)poller_close(p);
        return -1;
}

static void say_nothing(void *cookie UNUSED, const struct notice *notice UNUSED) {}

int poller_check(const struct cloud_spec *cloud, const char *service, const struct services *services,
                 struct error *err)
{
        struct services silent = *services;
        const struct source_account_config config = { .services = &silent,
                                                      .cloud = cloud,
                                                      .service = service };
        struct source_account *account;

        silent.notices = (struct notices){ say_nothing, NULL };
        if (source_account_new(&account, &config, err) < 0)
                return -1;
        (void)source_account_free(account);
        return 0;
}

struct source *poller_close(struct poller *p)
{
        for (struct errand *e = p->busy; e; e = e->next) {
                call_cancel(p, &e->call);
                store_release(&p->services->store, &e->stored);
        }
        if (p->discovery.poller)
                call_cancel(p, &p->discovery);
        errands_free(TAKE(p->busy));
        errands_free(TAKE(p->free_errands));
        call_done(&p->discovery);
        (void)source_account_free(p->account);
        buf_done(&p->mark);
        free(p->places);
        share_done(&p->share);
        (void)reader_free(p->reader);
        if (p->ops->done)
                p->ops->done(p);
        free(p);
        return NULL;
}

void poller_mark(struct poller *p, struct str mark)
{
        buf_reset(&p->mark);
        p->mark.max = MARK_MOST;
        buf_str(&p->mark, mark);
}

usec poller_time(int64_t msec) { return msec > 0 && msec < INT64_MAX / USEC_MSEC ? msec * USEC_MSEC : 0; }

usec poller_wall(const struct poller *p) { return p->services ? clock_wall(p->services->clock) : 0; }

/* ---- one answer --------------------------------------------------------- */

static uint64_t touch(struct str s)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < s.n; i++)
                sum += (unsigned char)s.p[i];
        return sum;
}

/* A reader with one track, so that answered can call the reader's functions. */
static int stand_in(struct poller *p, void *own, uint32_t *track, struct error *err)
{
        const struct reader_config config = { .page_bytes = 1 << 20 };

        if (reader_new(&p->reader, &config, 1, err) < 0)
                return -1;
        if (reader_add(p->reader, STR("0"), own, track, err) == 0)
                return 0;
        p->reader = reader_free(p->reader);
        return -1;
}

static int64_t one_answer(struct poller *p, const struct poller_ops *ops, enum reader_job_kind kind,
                          void *own, struct str body, void (*each)(const struct record *), struct error *err)
{
        struct remember remember = { 0 };
        struct reader_stats stats = { 0 };
        struct reader_job job = {
                .kind = kind, .own = own, .name = STR("0"), .records = 100, .bytes = 1 << 20
        };
        volatile uint64_t sum = 0;
        enum poller_step step;
        int64_t n;

        if (stand_in(p, own, &job.track, err) < 0)
                return -1;
        job.page = page_new(&remember, &stats, (size_t)64 << 20);
        if (!job.page) {
                p->reader = reader_free(p->reader);
                return error_memory(err);
        }
        p->ops = ops;
        step = ops->answered(p, &job, body, err);
        for (const struct lent *l = job.page->first; l; l = l->next)
                sum += touch(l->record.id) + touch(l->record.key) + touch(l->record.value) + touch(l->mark);
        (void)sum;
        if (step != POLLER_FAILED && page_failed(job.page))
                step = (enum poller_step)error_set(err, ERROR_PROTOCOL, "the page has failed");
        for (const struct lent *l = each && step != POLLER_FAILED ? job.page->first : NULL; l; l = l->next)
                each(&l->record);
        n = step == POLLER_FAILED ? -1 : (int64_t)job.page->n;
        page_reject(job.page);
        buf_done(&p->mark);
        p->reader = reader_free(p->reader);
        return n;
}

int64_t poller_answer(struct poller *p, const struct poller_ops *ops, enum reader_job_kind kind, void *own,
                      struct str body, struct error *err)
{
        return one_answer(p, ops, kind, own, body, NULL, err);
}

int64_t poller_records(struct poller *p, const struct poller_ops *ops, void *own, struct str body,
                       void (*each)(const struct record *), struct error *err)
{
        return one_answer(p, ops, READER_FETCH, own, body, each, err);
}
