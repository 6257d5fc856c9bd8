#include "worker/letters.h"

#include <assert.h>
#include <stdio.h>

#include "log/log.h"
#include "kafka/producer.h"
#include "worker/sender.h"
#include "worker/target.h"

/* A letter that was given to the Kafka producer, and can't be cancelled. */
enum sent_state {
        SENT_FREE,
        SENT_UNDER_WAY,
        SENT_ORPHAN /* nobody waits for it */,
        SENT_ARRIVED /* nobody waits for it, and it has arrived */
};
struct sent {
        enum sent_state state;
        struct sending *of;
        size_t n;
        char *id;
};

/* One over HTTP. */
struct letter {
        struct http_request request;
        struct sending *of;
        size_t size;
};

struct letters {
        const struct trigger *trigger;
        const struct log_scope *log;
        char *url;
        struct http http;
        struct http_target *target;
        struct letter *letters; /* by number, like the messages */
        struct list answered;
        struct http_request *in_use; /* the one whose answer is in use */
        struct buf *messages, headers;
        uint32_t most;
        /* bytes of the largest letter that was accepted, and of the smallest that was too large; 0: none was
         */
        size_t taken, refused;
        struct kafka_producer *producer;
        /* four times as many places as letters are sent at once, since abandoned ones keep theirs */
        struct sent *sent;
        uint32_t orphans, awaited;
        /* requests whose letter had already arrived when it was sent again */
        struct sending **arrived;
        uint32_t arrived_n;
        struct loop *loop;
        struct task *wake;
        char text[400], trouble[400];
};

enum { PLACES_PER_ONE = 4 };

static int open_kafka(struct letters *l, const struct letters_config *config, struct error *err)
{
        const struct dead_letter_kafka *k = config->trigger->delivery->dead_letter->kafka;
        const struct kafka_producer_config producer = { .cluster = &k->cluster,
                                                        .topic = k->topic,
                                                        .secrets = config->secrets,
                                                        .log = config->log,
                                                        .loop = config->loop,
                                                        .http = http_client_port(config->http),
                                                        .peers = config->peers,
                                                        .wake = config->wake };

        return kafka_producer_new(&l->producer, &producer, err);
}

static int open_http(struct letters *l, const struct letters_config *config, struct error *err)
{
        BUF_AT_END struct buf space = BUF_INIT(1 << 20);
        struct http_target_config target;

        if (!config->url)
                return error_set(err, ERROR_INVALID,
                                 "the dead letter's receiver is a reference: its URL must be given");
        if (!(l->url = str_dup(str_of(config->url))))
                return error_memory(err);
        if (target_config(&target, config->trigger, config->url, config->secrets, &space, err) < 0)
                return -1;
        target.http_version = HTTP_AUTO;
        target.compress = false;
        target.max_connections = MIN_OF(config->most, 16u);
        target.answer_max = 1024;
        l->letters = calloc(config->most, sizeof(*l->letters));
        if (!l->letters)
                return error_memory(err);
        l->http = http_client_port(config->http);
        return http_target_new(&l->target, config->http, &target, err);
}

int letters_new(struct letters **out, const struct letters_config *config, struct error *err)
{
        struct letters *l = calloc(1, sizeof(*l));

        if (!l)
                return error_memory(err);
        l->messages = calloc(config->most, sizeof(*l->messages));
        l->arrived = calloc(config->most, sizeof(*l->arrived));
        l->sent = calloc((size_t)config->most * PLACES_PER_ONE, sizeof(*l->sent));
        if (!l->messages || !l->arrived || !l->sent) {
                (void)letters_free(l);
                return error_memory(err);
        }
        l->trigger = config->trigger;
        l->log = config->log;
        l->loop = config->loop;
        l->wake = config->wake;
        l->most = config->most;
        l->headers.max = 16384;
        for (uint32_t i = 0; i < l->most; i++)
                l->messages[i].max = (size_t)96 << 20;
        if ((config->trigger->delivery->dead_letter->kafka ? open_kafka(l, config, err)
                                                           : open_http(l, config, err)) < 0) {
                (void)letters_free(l);
                return error_wrap(err, "deadLetter");
        }
        *out = l;
        return 0;
}

/* ---- how large a letter may be ------------------------------------------ */

/* A generous estimate of a record's overhead beside key and value; and a little less than the default limit
 * of topics. */
enum { OVERHEAD = 512, COMMON_MOST = 1000000 };

/* Letters as large as one that was refused are cut: to the largest size that was accepted, or to half of the
 * refused size. */
static size_t room(const struct letters *l)
{
        size_t next = l->refused / 2;

        if (!l->refused)
                return l->producer ? KAFKA_MESSAGE_MOST : 0;
        if (l->refused > COMMON_MOST && next > COMMON_MOST)
                next = COMMON_MOST;
        return MAX_OF(next, l->taken);
}

static void was_taken(struct letters *l, size_t n)
{
        if (!l->refused || n < l->refused)
                l->taken = MAX_OF(l->taken, n);
}

/* The letter was refused as too large. false: cutting it further is not possible, or a smaller one was
 * refused meanwhile; it must wait. */
static bool was_refused(struct letters *l, size_t n)
{
        if (l->refused && n >= l->refused)
                return false;
        l->refused = MAX_OF(n, (size_t)1);
        l->taken = MIN_OF(l->taken, l->refused - 1);
        log_warn_for(l->log,
                     "a dead letter is too large for its receiver: it is cut, as all that are as large",
                     LOG_I("bytes", (int64_t)n));
        return true;
}

/* ---- those that nobody waits for ---------------------------------------- */

static void sent_end(struct letters *l, struct sent *s)
{
        l->orphans -= s->state == SENT_ORPHAN || s->state == SENT_ARRIVED;
        l->awaited -= s->state == SENT_UNDER_WAY;
        free(s->id);
        *s = (struct sent){ 0 };
}

static struct sent *sent_place(struct letters *l)
{
        struct sent *arrived = NULL;

        for (uint32_t i = 0; i < l->most * PLACES_PER_ONE; i++)
                if (l->sent[i].state == SENT_FREE)
                        return &l->sent[i];
                else if (l->sent[i].state == SENT_ARRIVED)
                        arrived = &l->sent[i]; /* another worker may have the record by now */
        if (arrived)
                sent_end(l, arrived);
        return arrived;
}

/* The engine gave up waiting for this letter once and sends it again: it may still be under way, or have
 * arrived. */
static bool adopt(struct letters *l, struct sending *of, struct str id)
{
        for (uint32_t i = 0; l->orphans && i < l->most * PLACES_PER_ONE; i++) {
                struct sent *s = &l->sent[i];

                if ((s->state != SENT_ORPHAN && s->state != SENT_ARRIVED) || !str_equal(str_of(s->id), id))
                        continue;
                if (s->state == SENT_ORPHAN) {
                        s->state = SENT_UNDER_WAY;
                        s->of = of;
                        l->orphans--;
                        l->awaited++;
                        return true;
                }
                sent_end(l, s);
                l->arrived[l->arrived_n++] = of;
                loop_ready(l->loop, l->wake);
                return true;
        }
        return false;
}

/* ---- sending ------------------------------------------------------------ */

static int send_kafka(struct letters *l, struct sending *of, const struct request_maker *m, struct record *r,
                      bool keyed, struct str body, struct error *err)
{
        bool cloud = m->trigger->event->format != FORMAT_FUNCTION_GRAPH;
        const struct kafka_pair headers[] = { ROW(STR("content-type"),
                                                  cloud ? STR("application/cloudevents+json; charset=UTF-8")
                                                        : STR("application/json")),
                                              ROW(STR("sluice-event-id"), r->id) };
        const struct kafka_message message = { .key = keyed ? r->key : (struct str){ 0 },
                                               .has_key = keyed,
                                               .value = body,
                                               .headers = headers,
                                               .headers_n = COUNT_OF(headers) };
        struct sent *s = sent_place(l);

        if (!s) {
                (void)error_set(err, ERROR_REFUSED, "dead letter: earlier letters are under way still");
                err->retry = true;
                return -1;
        }
        if (!(s->id = str_dup(r->id)))
                return error_memory(err);
        if (kafka_producer_send(l->producer, (uint64_t)(s - l->sent), &message, err) < 0) {
                free(TAKE(s->id));
                return error_wrap(err, "dead letter");
        }
        s->state = SENT_UNDER_WAY;
        l->awaited++;
        s->of = of;
        s->n = body.n + (keyed ? r->key.n : 0) + r->id.n + OVERHEAD;
        return 0;
}

static int send_http(struct letters *l, uint32_t number, struct sending *of, size_t size, struct error *err)
{
        struct letter *letter = &l->letters[number];

        if (l->in_use == &letter->request)
                http_release(&l->http, TAKE(l->in_use));
        letter->of = of;
        letter->size = size;
        letter->request.request.wake = l->wake;
        letter->request.request.done = &l->answered;
        letter->request.target = l->target;
        letter->request.message = &l->messages[number];
        letter->request.headers = buf_view(&l->headers);
        return http_submit(&l->http, &letter->request, err);
}

int letters_send(struct letters *l, uint32_t number, struct sending *of, struct request_maker *m,
                 struct record *r, struct dead_letter *d, struct str payload, struct error *err)
{
        struct buf *message = &l->messages[number];
        size_t most = room(l), beside = OVERHEAD + r->id.n;
        bool keyed = r->has_key && l->producer && r->key.n <= most / 2;
        int result;

        assert(number < l->most);
        if (l->producer && adopt(l, of, r->id))
                return 0;
        beside += keyed ? r->key.n : 0;
        buf_reset(message);
        if (buf_reserve(message, HTTP_HEADROOM))
                message->n = HTTP_HEADROOM;
        request_dead_body(m, r, d, payload, most ? MAX_OF(most, beside + 1) - beside : 0, message);
        buf_reset(&l->headers);
        request_dead_headers(m, r, &l->headers);
        if (message->failed || l->headers.failed)
                return error_memory(err);
        if (!l->producer)
                return send_http(l, number, of, message->n - HTTP_HEADROOM + beside, err);
        result = send_kafka(l, of, m, r, keyed,
                            (struct str){ message->p + HTTP_HEADROOM, message->n - HTTP_HEADROOM }, err);
        buf_done(message);
        return result;
}

/* Letters are rare, and as large as any event: nothing is kept for the next one. */
static void end_letter(struct letters *l, struct http_request *q)
{
        http_release(&l->http, q);
        buf_done(&l->messages[CONTAINER_OF(q, struct letter, request) - l->letters]);
}

void letters_cancel(struct letters *l, uint32_t number, const struct sending *of)
{
        if (!l->producer) {
                end_letter(l, &l->letters[number].request);
                return;
        }
        for (uint32_t i = 0; i < l->arrived_n; i++)
                if (l->arrived[i] == of) {
                        l->arrived[i] = l->arrived[--l->arrived_n];
                        return;
                }
        for (uint32_t i = 0; i < l->most * PLACES_PER_ONE; i++)
                if (l->sent[i].state == SENT_UNDER_WAY && l->sent[i].of == of) {
                        l->sent[i].state = SENT_ORPHAN;
                        l->orphans++;
                        l->awaited--;
                        return;
                }
}

/* ---- outcomes ----------------------------------------------------------- */

/* An error's text is plain. */
static void say_error(struct letters *l, const struct error *why)
{
        size_t n = text_copy(l->text, sizeof(l->text), "dead letter: ");

        (void)text_copy(l->text + n, sizeof(l->text) - n, why->text);
}

static void http_outcome(struct letters *l, const struct letter *letter, struct answer *a)
{
        const struct http_request *c = &letter->request;
        bool failed = request_failed(&c->request), fine = !failed && c->status >= 200 && c->status <= 299;
        size_t n = letter->size;

        *a = (struct answer){ .kind = fine ? ANSWER_ACCEPTED : ANSWER_RETRY,
                              .status = c->status,
                              .retry_after = c->retry_after,
                              .text = l->text };
        if (fine)
                was_taken(l, n);
        else if (c->status == 413 && was_refused(l, n))
                a->kind = ANSWER_TOO_LARGE;
        if (failed)
                say_error(l, &c->request.error);
        else
                text_print(l->text, sizeof(l->text), "dead letter: %.200s answered %d: " STR_FMT, l->url,
                           c->status, STR_ARG(text_clip(c->body, 120)));
}

/* false: nobody waits for it. */
static bool kafka_outcome(struct letters *l, const struct kafka_delivery *delivery, struct sending **of,
                          struct answer *a)
{
        struct sent *s = &l->sent[delivery->tag];
        bool awaited = s->state == SENT_UNDER_WAY, cut = delivery->too_large && was_refused(l, s->n);

        if (!delivery->failed)
                was_taken(l, s->n);
        *of = s->of;
        *a = (struct answer){ .kind = !delivery->failed ? ANSWER_ACCEPTED
                                      : cut             ? ANSWER_TOO_LARGE
                                                        : ANSWER_RETRY,
                              .text = l->text };
        if (delivery->failed)
                say_error(l, &delivery->error);
        else
                l->text[0] = 0;
        if (!awaited && !delivery->failed)
                s->state = SENT_ARRIVED;
        else
                sent_end(l, s);
        return awaited;
}

struct sending *letters_take(struct letters *l, struct answer *a)
{
        struct kafka_delivery delivery;
        struct sending *of;
        struct letter *letter;
        struct request *r;

        if (l->in_use)
                end_letter(l, TAKE(l->in_use));
        if (l->arrived_n) {
                *a = (struct answer){ .kind = ANSWER_ACCEPTED, .text = "" };
                return l->arrived[--l->arrived_n];
        }
        while (l->producer && kafka_producer_take(l->producer, &delivery))
                if (kafka_outcome(l, &delivery, &of, a))
                        return of;
        if (!(r = request_next(&l->answered)))
                return NULL;
        l->in_use = CONTAINER_OF(r, struct http_request, request);
        letter = CONTAINER_OF(l->in_use, struct letter, request);
        http_outcome(l, letter, a);
        return letter->of;
}

const char *letters_trouble(struct letters *l)
{
        const char *why = l->awaited ? kafka_producer_trouble(l->producer) : NULL;
        int n;

        if (!why)
                return NULL;
        n = snprintf(l->trouble, sizeof(l->trouble),
                     "dead letter: topic %.250s: ", l->trigger->delivery->dead_letter->kafka->topic);
        (void)text_copy(l->trouble + n, sizeof(l->trouble) - (size_t)n, why);
        return l->trouble;
}

struct letters *letters_free(struct letters *l)
{
        if (!l)
                return NULL;
        (void)kafka_producer_free(l->producer);
        for (uint32_t i = 0; l->sent && i < l->most * PLACES_PER_ONE; i++)
                free(l->sent[i].id);
        free(l->sent);
        free(l->arrived);
        for (uint32_t i = 0; l->letters && i < l->most; i++)
                http_release(&l->http, &l->letters[i].request);
        free(l->letters);
        (void)http_target_free(l->target);
        for (uint32_t i = 0; l->messages && i < l->most; i++)
                buf_done(&l->messages[i]);
        free(l->messages);
        buf_done(&l->headers);
        free(l->url);
        free(l);
        return NULL;
}
