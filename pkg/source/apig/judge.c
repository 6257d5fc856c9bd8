#include "source/apig/judge.h"

#include <stdio.h>

#include "log/log.h"
#define HASH_NONFATAL_OOM 1 /* what finds no memory is not in its table: hh.tbl is NULL */
#include "base/table.h"

enum { MESSAGE_MOST = 8 << 20, HEADERS_MOST = HTTP_HEADROOM };
static const usec TROUBLE_LASTS = 10 * USEC_SEC; /* so that one that fails now and then does not flap */

struct judge_question {
        struct http_request request;
        struct list_node node; /* by deadline: all have the same time */
        UT_hash_handle hh;     /* of those that are shared */
        unsigned char key[VERDICT_KEY];
        bool shared;
        usec deadline;
        struct buf message;
        struct list waiting;
};

struct judge {
        struct judge_config config;
        struct http_target *target;
        struct verdicts *verdicts; /* NULL: nothing is remembered */
        struct verdict *no_memory; /* what is said where there is none for a verdict */
        struct list unsent, sent;  /* questions */
        struct judge_question *shared;
        struct list answered; /* requests of questions */
        struct list decided;  /* those that waited */
        struct judge_counts counts;
        usec failed_at, said_at; /* the last failure, the last line about one */
        uint64_t unsaid;
        char trouble[256];
};

/* ---- who waits ---------------------------------------------------------- */

static void wait_for(struct judge_question *q, struct judge_wait *w)
{
        w->question = q;
        list_append(&q->waiting, &w->node);
}

static struct judge_wait *first_of(struct judge_question *q)
{
        return LIST_FIRST(&q->waiting, struct judge_wait, node);
}

static const struct http *port_of(const struct judge *j) { return &j->config.services->http; }

static void question_free(struct judge *j, struct judge_question *q)
{
        http_release(port_of(j), &q->request);
        list_remove(&q->node);
        if (q->shared && j->shared)
                HASH_DEL(j->shared, q);
        buf_done(&q->message);
        free(q);
}

/* Takes the verdict; NULL: there was no memory for one. */
static void decide(struct judge *j, struct judge_question *q, struct verdict *v)
{
        v = v ? v : verdict_hold(j->no_memory);
        for (struct judge_wait *w; (w = LIST_TAKE(&q->waiting, struct judge_wait, node));) {
                *w = (struct judge_wait){ .verdict = verdict_hold(v) };
                list_append(&j->decided, &w->node);
        }
        (void)verdict_release(v);
        question_free(j, q);
}

struct judge_wait *judge_take(struct judge *j) { return LIST_TAKE(&j->decided, struct judge_wait, node); }

void judge_forget(struct judge *j, struct judge_wait *w)
{
        struct judge_question *q = w->question;

        list_remove(&w->node);
        w->question = NULL;
        w->verdict = verdict_release(w->verdict);
        if (q && !q->waiting.n)
                question_free(j, q);
}

/* ---- what goes wrong ---------------------------------------------------- */

/* A line a second at most. */
static bool will_say(const struct judge *j, usec now) { return !j->said_at || now - j->said_at >= USEC_SEC; }

static void say(struct judge *j, const char *why)
{
        usec now = clock_monotonic(j->config.services->clock);

        j->counts.failed++;
        j->failed_at = now;
        (void)snprintf(j->trouble, sizeof(j->trouble), "%s: %s", j->config.kind->name, why);
        if (!will_say(j, now)) {
                j->unsaid++;
                return;
        }
        log_warn_for(j->config.services->log, j->config.kind->name, LOG_S("reason", why),
                     LOG_I("unsaid", j->unsaid));
        j->said_at = now;
        j->unsaid = 0;
}

static struct verdict *unreachable(void)
{
        return verdict_refuse(502, "APIG.0202", "Authorizer unavailable");
}
static struct verdict *too_late(void) { return verdict_refuse(504, "APIG.0203", "Authorizer timeout"); }

/* ---- questions ---------------------------------------------------------- */

struct verdict *judge_recall(struct judge *j, const unsigned char key[VERDICT_KEY])
{
        return j->verdicts ? verdicts_find(j->verdicts, key, clock_monotonic(j->config.services->clock))
                           : NULL;
}

static int submit(struct judge *j, struct judge_question *q, struct error *err)
{
        BUF_AT_END struct buf headers = BUF_INIT(HEADERS_MOST);
        if (buf_reserve(&q->message, HTTP_HEADROOM))
                q->message.n = HTTP_HEADROOM;
        j->config.kind->write(j->config.cookie, first_of(q), &headers, &q->message);
        if (headers.failed)
                return error_set(err, ERROR_INVALID, "the request to it would have too long headers");
        q->request.target = j->target;
        q->request.message = &q->message;
        q->request.headers = buf_view(&headers);
        return http_submit(port_of(j), &q->request, err);
}

bool judge_ask(struct judge *j, const unsigned char key[VERDICT_KEY], bool shared, struct judge_wait *w)
{
        struct judge_question *q = NULL;

        shared = shared && j->verdicts;
        if (shared)
                HASH_FIND(hh, j->shared, key, VERDICT_KEY, q);
        if (q) {
                wait_for(q, w);
                return true;
        }
        q = calloc(1, sizeof(*q));
        if (!q)
                return false;
        q->request.request.wake = j->config.services->wake;
        q->request.request.done = &j->answered;
        memcpy(q->key, key, VERDICT_KEY);
        q->deadline = clock_monotonic(j->config.services->clock) + j->config.timeout;
        q->message.max = MESSAGE_MOST;
        list_append(&j->unsent, &q->node);
        if (shared)
                HASH_ADD(hh, j->shared, key, VERDICT_KEY, q);
        q->shared = q->hh.tbl != NULL;
        wait_for(q, w);
        return true;
}

static void send_questions(struct judge *j)
{
        struct error err;

        for (struct judge_question *q; (q = LIST_TAKE(&j->unsent, struct judge_question, node));) {
                list_append(&j->sent, &q->node);
                j->counts.asked++;
                if (submit(j, q, &err) == 0)
                        continue;
                say(j, err.text);
                decide(j, q,
                       err.kind == ERROR_INVALID
                               ? verdict_refuse(401, j->config.kind->code,
                                                "Incorrect authentication information: it is too long")
                       : err.kind == ERROR_MEMORY ? NULL
                                                  : unreachable());
        }
}

static void answered(struct judge *j, struct judge_question *q, usec now)
{
        const struct http_request *c = &q->request;
        BUF_AT_END struct buf why = BUF_INIT(1024);
        struct verdict *v;

        if (request_failed(&c->request)) {
                say(j, c->request.error.text);
                decide(j, q, c->request.error.kind == ERROR_MEMORY ? NULL : unreachable());
                return;
        }
        v = j->config.kind->read(j->config.cookie, c, now, &why);
        if (!v && !why.n)
                say(j, "out of memory");
        else if (!v) {
                if ((c->status < 200 || c->status > 299) && c->body.n && q->waiting.n &&
                    j->config.kind->quote && will_say(j, now)) {
                        buf_text(&why, ": ");
                        j->config.kind->quote(first_of(q), c->body, &why);
                }
                say(j, why.p);
                v = c->status >= 200 && c->status <= 299
                            ? verdict_refuse(500, "APIG.0201",
                                             "Authorizer unavailable: its answer is malformed")
                            : unreachable();
        }
        if (v && v->lasting && now - j->failed_at >= TROUBLE_LASTS)
                j->trouble[0] = 0;
        if (v && v->lasting && q->shared) {
                usec until = j->config.remember < v->until - now ? now + j->config.remember : v->until;

                if (until > now)
                        verdicts_keep(j->verdicts, q->key, v, until);
        }
        decide(j, q, v);
}

static struct judge_question *first_sent(const struct judge *j)
{
        return LIST_FIRST(&j->sent, struct judge_question, node);
}

void judge_turn(struct judge *j, usec now)
{
        send_questions(j);
        for (struct request *r; (r = request_next(&j->answered));) {
                struct http_request *q = CONTAINER_OF(r, struct http_request, request);

                answered(j, CONTAINER_OF(q, struct judge_question, request), now);
        }
        for (struct judge_question *q; (q = first_sent(j)) && now >= q->deadline;) {
                say(j, "no answer in time");
                decide(j, q, too_late());
        }
}

usec judge_deadline(const struct judge *j)
{
        const struct judge_question *q = first_sent(j);

        return j->decided.n || j->unsent.n ? 0 : q ? q->deadline : USEC_NEVER;
}
const char *judge_trouble(const struct judge *j) { return j->trouble[0] ? j->trouble : NULL; }
void judge_counts(const struct judge *j, struct judge_counts *out) { *out = j->counts; }

/* ---- life --------------------------------------------------------------- */

int judge_new(struct judge **out, const struct judge_config *config, struct error *err)
{
        const struct http_peers *peers = &config->services->peers;
        struct judge *j = calloc(1, sizeof(*j));

        if (!j)
                return error_memory(err);
        j->config = *config;
        j->no_memory = verdict_refuse(503, "APIG.0202", "Authorizer unavailable: out of memory");
        if (!j->no_memory) {
                free(j);
                return error_memory(err);
        }
        if ((config->remember > 0 && verdicts_new(&j->verdicts, config->most, config->bytes_most, err) < 0) ||
            peers->ops->open(peers->cookie, &j->target, &config->peer, err) < 0) {
                (void)verdicts_free(j->verdicts);
                (void)verdict_release(j->no_memory);
                free(j);
                return error_wrap(err, "%s %s", config->kind->name, config->peer.url);
        }
        *out = j;
        return 0;
}

struct judge *judge_free(struct judge *j)
{
        if (!j)
                return NULL;
        for (struct judge_question *q; (q = LIST_FIRST(&j->unsent, struct judge_question, node));)
                question_free(j, q);
        for (struct judge_question *q; (q = first_sent(j));)
                question_free(j, q);
        j->config.services->peers.ops->close(j->config.services->peers.cookie, j->target);
        (void)verdicts_free(j->verdicts);
        (void)verdict_release(j->no_memory);
        free(j);
        return NULL;
}
