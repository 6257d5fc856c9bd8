#include "worker/sender.h"

#include <stdio.h>

#include "base/backoff.h"
#include "secret/secret.h"
#include "transform/transform.h"
#include "worker/target.h"

enum {
        MESSAGE_KEPT = 256 * 1024,
        MESSAGES_KEPT = 4 * MESSAGE_KEPT, /* of all that wait for use */
        MESSAGE_MOST = 64 << 20,
        ANSWER_KEPT = 4096,
        PARTIAL_ANSWER_KEPT = 64 * 1024,
        HEADERS_OF_CLIENT = 128, /* bytes: HTTP's own */
        HEADERS_OF_EVENT = 1024  /* what most events take at most */
};

enum sending_state { SENDING_TRANSFORMED, SENDING_MADE, SENDING_SENT, SENDING_LETTER, SENDING_FAILED };
struct sending {
        struct http_request request;
        struct list_node node;   /* in under_way or spare */
        struct list_node failed; /* in failed, until it is taken; or in made */
        enum sending_state state;
        void *owner;
        uint32_t number; /* its number, which is also its place among the letters */
        uint32_t n;
        uint32_t shown; /* the version of access that was sent */
        struct buf message, headers;
        size_t secrets_at;       /* where the lines of access begin in headers, at the end */
        struct record **records; /* what was sent; kept only if an answer may name them */
        char *failure;           /* why it could not be sent */
        enum answer_kind failed_as;
        bool starved;          /* it failed because memory ran out */
        struct record *letter; /* the record of a dead letter, until that is answered */
        struct dead_letter dead;
};

enum init_state { INIT_WAITS, INIT_SENT, INIT_DONE };

struct sender {
        struct sender_config config;
        const struct delivery_spec *delivery;
        struct request_maker maker;
        struct http http;
        struct http_target *target;
        struct access *access; /* NULL: nothing is needed */
        struct letters *letters;
        struct transform *transform;
        struct list under_way, spare, failed, made; /* of struct sending; how many there are: */
        uint32_t sendings;
        size_t spare_bytes;    /* of the messages of those that are spare */
        struct list answered;  /* requests */
        struct sending *taken; /* the one whose answer is in use */
        uint32_t *places;      /* the records that a partial answer names */
        struct buf words, init_message, payload, answer;
        char text[400];
        bool cut;     /* the body of the last answer was longer than what is kept */
        bool starved; /* the last outcome was a lack of memory */
        enum init_state init;
        struct http_request init_request;
        unsigned init_failures;
        uint32_t init_shown;
        usec init_at; /* the next attempt, or the end of the present one */
        char init_why[400];
        struct random random;
};

/* ---- sending ------------------------------------------------------------ */

static struct sending *sending_free(struct sending *o)
{
        if (!o)
                return NULL;
        buf_done(&o->message);
        buf_done(&o->headers);
        free(o->records);
        free(o->failure);
        free(o);
        return NULL;
}

static struct sending *sending_make(struct sender *s)
{
        struct sending *o = calloc(1, sizeof(*o));

        if (!o)
                return NULL;
        if (s->delivery->partial_failures &&
            !(o->records = calloc(s->config.batch_records, sizeof(struct record *))))
                return sending_free(o);
        o->message.max = MESSAGE_MOST;
        o->headers.max = 65536;
        o->number = s->sendings++;
        o->request.request.wake = s->config.wake;
        o->request.request.done = &s->answered;
        return o;
}

static struct sending *sending_new(struct sender *s, size_t n, void *owner)
{
        struct sending *o = LIST_TAKE(&s->spare, struct sending, node);

        if (!o && !(o = sending_make(s)))
                return NULL;
        s->spare_bytes -= o->message.cap;
        list_append(&s->under_way, &o->node);
        o->owner = owner;
        o->n = (uint32_t)n;
        return o;
}

/* Large buffers are freed: the next request may be small, or never come. */
static void sending_end(struct sender *s, struct sending *o)
{
        http_release(&s->http, &o->request);
        list_remove(&o->failed);
        list_remove(&o->node);
        list_prepend(&s->spare, &o->node);
        if (o->message.cap > MESSAGE_KEPT || s->spare_bytes + o->message.cap > MESSAGES_KEPT)
                buf_done(&o->message);
        s->spare_bytes += o->message.cap;
}

static void sending_fail(struct sender *s, struct sending *o, enum answer_kind kind, const char *why)
{
        o->state = SENDING_FAILED;
        free(o->failure);
        o->failure = str_dup(str_of(why));
        o->failed_as = kind;
        o->starved = false;
        list_append(&s->failed, &o->failed);
        loop_ready(s->config.loop, s->config.wake);
}

/* What no request can hold fails for good, unlike what there is no memory for now. A batch is halved until
 * the record at fault is alone. */
static void fail_unwritten(struct sender *s, struct sending *o)
{
        bool full = o->message.full || o->headers.full;

        if (!full)
                sending_fail(s, o, ANSWER_RETRY, "out of memory");
        else
                sending_fail(s, o, o->n > 1 ? ANSWER_TOO_LARGE : ANSWER_FINAL,
                             o->message.full ? "the event would take more than 64 MiB as a request's body"
                                             : "the request's headers would take more than 64 KiB");
        o->starved = !full;
}

static void submit(struct sender *s, struct sending *o)
{
        struct error err;

        o->secrets_at = o->headers.n;
        if (s->access) {
                buf_str(&o->headers, access_headers(s->access));
                o->shown = access_version(s->access);
        }
        o->request.target = s->target;
        o->request.message = &o->message;
        o->request.headers = buf_view(&o->headers);
        if (o->message.failed || o->headers.failed)
                fail_unwritten(s, o);
        else if (http_submit(&s->http, &o->request, &err) < 0) {
                sending_fail(s, o, err.kind == ERROR_INVALID ? ANSWER_FINAL : ANSWER_RETRY, err.text);
                o->starved = err.kind == ERROR_MEMORY;
        } else
                o->state = SENDING_SENT;
}

static void begin_message(struct buf *message)
{
        if (message->cap > MESSAGE_KEPT)
                buf_done(message);
        buf_reset(message);
        if (buf_reserve(message, HTTP_HEADROOM))
                message->n = HTTP_HEADROOM;
}

static struct str body_of(const struct buf *message)
{
        return (struct str){ message->p + HTTP_HEADROOM, message->n - HTTP_HEADROOM };
}

/* Why a record can't be sent; NULL: all can. */
static const char *any_unfit(struct record *const *records, size_t n)
{
        for (size_t i = 0; i < n; i++)
                if (records[i]->unfit)
                        return records[i]->unfit;
        return NULL;
}

struct sending *sender_send(struct sender *s, struct record *const *records, size_t n, void *owner)
{
        struct sending *o = sending_new(s, n, owner);

        if (!o)
                return NULL;
        begin_message(&o->message);
        buf_reset(&o->headers);
        request_body(&s->maker, records, n, &o->message);
        request_headers(&s->maker, records, n, &o->headers);
        if (o->records)
                memcpy(o->records, records, n * sizeof(struct record *));
        if (any_unfit(records,
                      n)) /* the batch is halved until the record is alone; then the failure is final */
                sending_fail(s, o, n > 1 ? ANSWER_TOO_LARGE : ANSWER_FINAL, any_unfit(records, n));
        else if (!o->message.failed && n > 1 &&
                 body_of(&o->message).n > (size_t)s->delivery->batch->max_bytes)
                sending_fail(s, o, ANSWER_TOO_LARGE, "the batch is larger than batch.maxBytes");
        else if (s->transform && !o->message.failed) {
                o->state = SENDING_TRANSFORMED;
                transform_submit(s->transform, (uintptr_t)o, body_of(&o->message));
        } else
                submit(s, o);
        return o;
}

static void post_letter(struct sender *s, struct sending *o)
{
        struct dead_letter d = o->dead;
        struct error err;

        buf_reset(&s->payload);
        if (s->config.trigger->event->format == FORMAT_FUNCTION_GRAPH)
                request_body(&s->maker, &o->letter, 1, &s->payload);
        if (s->payload.failed) { /* the start of an event would pass for all of it */
                sending_fail(s, o, ANSWER_RETRY, "out of memory");
                o->starved = true;
        } else if (letters_send(s->letters, o->number, o, &s->maker, o->letter, &d, buf_view(&s->payload),
                                &err) < 0)
                sending_fail(s, o, ANSWER_RETRY, err.text);
        else
                o->state = SENDING_LETTER;
        if (s->payload.cap > MESSAGE_KEPT)
                buf_done(&s->payload);
}

struct sending *sender_send_letter(struct sender *s, struct record *record, const struct dead_letter *dead,
                                   void *owner)
{
        struct sending *o = sending_new(s, 1, owner);

        if (!o)
                return NULL;
        o->letter = record;
        o->dead = *dead;
        post_letter(s, o);
        return o;
}

/* A transform holds a second copy. */
size_t sender_held(const struct sending *o)
{
        return o->message.cap * (o->state == SENDING_TRANSFORMED ? 2 : 1);
}

void *sender_made(struct sender *s)
{
        struct sending *o = LIST_TAKE(&s->made, struct sending, failed);

        return o ? o->owner : NULL;
}

void sender_go_on(struct sender *s, struct sending *o) { submit(s, o); }

void sender_cancel(struct sender *s, struct sending *o)
{
        if (o->state == SENDING_TRANSFORMED)
                transform_cancel(s->transform, (uintptr_t)o);
        else if (o->state == SENDING_LETTER)
                letters_cancel(s->letters, o->number, o);
        sending_end(s, o);
}

/* ---- answers ------------------------------------------------------------ */

static struct str secrets_of(const struct sending *o)
{
        return (struct str){ o->headers.p + o->secrets_at, o->headers.n - o->secrets_at };
}

static void partial(struct sender *s, const struct sending *o, struct answer *a)
{
        const struct http_request *c = &o->request;
        bool all;
        size_t n;

        buf_reset(&s->words);
        /* Of an answer that is not kept completely, the list alone is. */
        n = request_failures(c->body_cut && c->member.p ? c->member : c->body, c->body_cut && !c->member.p,
                             o->records, o->n, s->places, &all, &s->words);
        if (all) {
                a->kind = ANSWER_RETRY;
                text_print(s->text, sizeof(s->text), "%.120s: %s", s->config.sink,
                           s->words.p ? s->words.p : "");
        } else if (n) {
                a->kind = n == o->n && o->n == 1 ? ANSWER_RETRY : ANSWER_PARTIAL;
                a->failed = s->places;
                a->failed_n = n;
                text_print(s->text, sizeof(s->text),
                           "%.120s: %zu of %u records failed, the first is " STR_FMT, s->config.sink, n, o->n,
                           STR_ARG(text_clip(o->records[s->places[0]]->id, 160)));
        }
}

/* The function's answer as a dead letter quotes it, without secrets: some functions echo their request. */
static void clean(struct sender *s, const struct sending *o, struct answer *a)
{
        if (!s->access || !s->letters || a->kind == ANSWER_ACCEPTED || !a->body.n)
                return;
        buf_reset(&s->answer);
        access_quote(s->access,
                     &(struct access_words){
                             .text = a->body, .most = SIZE_MAX, .cut = s->cut, .shown = secrets_of(o) },
                     &s->answer);
        a->body = s->answer.failed ? (struct str){ 0 } : buf_view(&s->answer);
}

static void answered(struct sender *s, const struct sending *o, struct answer *a)
{
        const struct http_request *c = &o->request;
        const struct error *why = &c->request.error;
        struct str words = str_trim(c->body);

        *a = (struct answer){ .kind = ANSWER_RETRY, .text = s->text };
        s->cut = c->body_cut;
        if (request_failed(&c->request)) {
                /* The request failed on the way: the function refused nothing, and a retry may succeed. Only
                 * an invalid request never will. */
                a->kind = why->kind == ERROR_INVALID ? ANSWER_FINAL : ANSWER_RETRY;
                a->overload = why->kind == ERROR_UNREACHABLE || why->kind == ERROR_TIMEOUT;
                (void)text_copy(s->text, sizeof(s->text), why->text);
                return;
        }
        a->kind = answer_kind_of(c->status);
        a->overload = a->kind == ANSWER_RETRY && answer_is_overload(c->status);
        a->status = c->status;
        a->retry_after = c->retry_after;
        a->body = c->body;
        s->text[0] = 0;
        if (a->kind != ANSWER_ACCEPTED) {
                BUF_AT_END struct buf quoted = BUF_INIT(1024);

                access_quote(s->access,
                             &(struct access_words){
                                     .text = words, .most = 160, .cut = s->cut, .shown = secrets_of(o) },
                             &quoted);
                text_print(s->text, sizeof(s->text),
                           quoted.n ? "%.160s answered %d: %.160s" : "%.160s answered %d", s->config.sink,
                           c->status, quoted.p ? quoted.p : "");
        }
        if (c->status == 401 && s->access && access_refused(s->access, o->shown))
                a->kind = ANSWER_RETRY;
        if (a->kind == ANSWER_ACCEPTED && o->records)
                partial(s, o, a);
        clean(s, o, a);
}

static void init_failed(struct sender *s, usec retry_after, const char *why)
{
        usec now = loop_now(s->config.loop);
        size_t n;

        s->init = INIT_WAITS;
        s->init_at = now + backoff_full_jitter(&s->random, s->delivery->retry->initial_backoff,
                                               s->delivery->retry->max_backoff, s->init_failures++,
                                               10 * USEC_MSEC);
        s->init_at = MAX_OF(s->init_at, now + MIN_OF(retry_after, s->delivery->retry->retry_after_max));
        n = text_copy(s->init_why, sizeof(s->init_why), "initialization: ");
        (void)text_copy(s->init_why + n, sizeof(s->init_why) - n, why);
}

static void init_answered(struct sender *s)
{
        const struct http_request *c = &s->init_request;
        BUF_AT_END struct buf quoted = BUF_INIT(1024);
        char why[380];

        if (c->status >= 200 && c->status <= 299) {
                s->init = INIT_DONE;
                s->init_why[0] = 0;
                return;
        }
        if (request_failed(&c->request)) {
                init_failed(s, 0, c->request.error.text);
                return;
        }
        if (c->status == 401 && s->access)
                /* a retry uses the same secrets until there are newer ones */
                (void)access_refused(s->access, s->init_shown);
        access_quote(s->access, &(struct access_words){ .text = c->body, .most = 160, .cut = c->body_cut },
                     &quoted);
        text_print(why, sizeof(why), "%.100s answered %d: %.160s", s->config.trigger->function->init_path,
                   c->status, quoted.p ? quoted.p : "");
        init_failed(s, c->retry_after, why);
}

static void take_transformed(struct sender *s)
{
        struct transform_result r;

        while (s->transform && transform_take(s->transform, &r)) {
                struct sending *o = (struct sending *)(uintptr_t)r.tag;

                if (r.failed) {
                        sending_fail(s, o,
                                     r.error.kind == ERROR_SYSTEM || r.error.kind == ERROR_PROTOCOL
                                             ? ANSWER_RETRY
                                             : ANSWER_FINAL,
                                     r.error.text);
                        continue;
                }
                begin_message(&o->message);
                buf_str(&o->message, r.output);
                if (!s->config.shows_made) {
                        submit(s, o);
                        continue;
                }
                o->state = SENDING_MADE;
                list_append(&s->made, &o->failed);
        }
}

static struct sending *take_failed(struct sender *s, struct answer *a)
{
        struct sending *o = LIST_TAKE(&s->failed, struct sending, failed);

        s->starved = o && o->starved;
        if (o)
                *a = (struct answer){ .kind = o->failed_as,
                                      .text = o->failure ? o->failure : "out of memory" };
        return o;
}

static struct sending *take_answered(struct sender *s, struct answer *a)
{
        struct sending *o;
        struct request *r;

        if (request_take(&s->init_request.request)) {
                init_answered(s);
                http_release(&s->http, &s->init_request);
        }
        if (!(r = request_next(&s->answered)))
                return NULL;
        o = CONTAINER_OF(CONTAINER_OF(r, struct http_request, request), struct sending, request);
        s->starved = r->error.kind == ERROR_MEMORY;
        answered(s, o, a);
        return o;
}

static struct sending *take_letter(struct sender *s, struct answer *a)
{
        struct sending *o;

        while (s->letters && (o = letters_take(s->letters, a))) {
                if (a->kind != ANSWER_TOO_LARGE)
                        return o;
                post_letter(s, o); /* cut */
                if (o->state == SENDING_FAILED)
                        return take_failed(s, a);
        }
        return NULL;
}

bool sender_cut(const struct sender *s) { return s->cut; }
bool sender_starved(const struct sender *s) { return s->starved; }

bool sender_take(struct sender *s, void **owner, struct answer *a)
{
        if (s->taken)
                sending_end(s, TAKE(s->taken));
        take_transformed(s);
        s->taken = take_failed(s, a);
        if (!s->taken)
                s->taken = take_answered(s, a);
        if (!s->taken)
                s->taken = take_letter(s, a);
        if (s->taken)
                *owner = s->taken->owner;
        return s->taken != NULL;
}

/* ---- what must be there first ------------------------------------------- */

bool sender_ready(const struct sender *s, const char **why)
{
        *why = s->access ? access_lacks(s->access) : NULL;
        if (*why)
                return false;
        *why = s->init_why[0] ? s->init_why : NULL;
        return s->init == INIT_DONE;
}

const char *sender_trouble(const struct sender *s) { return s->letters ? letters_trouble(s->letters) : NULL; }

const char *sender_notes(const struct sender *s) { return s->access ? access_notes(s->access) : NULL; }

static void send_init(struct sender *s, usec now)
{
        BUF_AT_END struct buf headers = BUF_INIT(65536);
        struct http_request *q = &s->init_request;
        struct error err;

        begin_message(&s->init_message);
        buf_text(&headers, "Content-Type: application/json\r\n");
        if (s->access) {
                buf_str(&headers, access_headers(s->access));
                s->init_shown = access_version(s->access);
        }
        q->request.wake = s->config.wake;
        q->target = s->target;
        q->message = &s->init_message;
        q->method = "POST";
        q->path = str_of(s->config.trigger->function->init_path);
        q->headers = buf_view(&headers);
        if (http_submit(&s->http, q, &err) < 0) {
                init_failed(s, 0, err.text);
                return;
        }
        s->init = INIT_SENT;
        s->init_at = now + s->delivery->timeout;
}

void sender_turn(struct sender *s, usec now)
{
        if (s->init == INIT_DONE || now < s->init_at || (s->access && access_lacks(s->access)))
                return;
        if (s->init == INIT_WAITS)
                send_init(s, now);
        else {
                http_release(&s->http, &s->init_request);
                init_failed(s, 0, "no answer in time");
        }
}

usec sender_deadline(const struct sender *s)
{
        return s->init == INIT_DONE || (s->access && access_lacks(s->access)) ? USEC_NEVER : s->init_at;
}

/* ---- life --------------------------------------------------------------- */

static bool needs_access(const struct delivery_spec *d)
{
        bool any = d->authentication != NULL;

        for (size_t i = 0; i < d->headers.n; i++)
                any = any || ((const struct header_spec *)d->headers.list[i])->secret;
        return any;
}

/* headers_n: what each request's headers take beside the event's own and those with Secrets, or a little
 * less.
 */
static int open_target(struct sender *s, size_t *headers_n, struct error *err)
{
        const struct trigger *t = s->config.trigger;
        BUF_AT_END struct buf space = BUF_INIT(1 << 20), headers = BUF_INIT(65536);
        struct http_target_config c;

        if (target_config(&c, t, s->config.sink, s->config.secrets, &space, err) < 0)
                return -1;
        request_constant_headers(&s->maker, &headers);
        if (headers.failed)
                return error_memory(err);
        *headers_n = HEADERS_OF_CLIENT + strlen(s->config.sink) + headers.n;
        c.headers = buf_view(&headers);
        c.method = delivery_methods[s->delivery->method];
        c.max_connections = s->config.most;
        c.answer_member = s->delivery->partial_failures ? "batchItemFailures" : NULL;
        c.answer_max = s->config.answer_max            ? s->config.answer_max
                       : s->delivery->partial_failures ? PARTIAL_ANSWER_KEPT
                                                       : ANSWER_KEPT;
        c.answer_read_max = s->config.answer_max; /* one that is cut is of no use to who needs it whole */
        return http_target_new(&s->target, s->config.http, &c, err);
}

static int open_all(struct sender *s, struct error *err)
{
        const struct sender_config *c = &s->config;
        struct access_config access = { .trigger = c->trigger,
                                        .log = c->log,
                                        .secrets = c->secrets,
                                        .loop = c->loop,
                                        .http = c->http,
                                        .observer = c->wake };
        const struct letters_config letters = { .trigger = c->trigger,
                                                .log = c->log,
                                                .url = c->dead_letter,
                                                .secrets = c->secrets,
                                                .loop = c->loop,
                                                .http = c->http,
                                                .peers = c->peers,
                                                .wake = c->wake,
                                                /* and one more: the last taken keeps its answer */
                                                .most = c->most + 1 };
        const struct transform_spec *t = c->trigger->transform;
        size_t headers_n = 0;

        s->http = http_client_port(c->http);
        s->places = calloc(c->batch_records, sizeof(*s->places));
        if (!s->places)
                return error_memory(err);
        if (open_target(s, &headers_n, err) < 0)
                return -1;
        access.most = HTTP_HEADROOM - HEADERS_OF_EVENT - headers_n;
        if ((needs_access(s->delivery) && access_new(&s->access, &access, err) < 0) ||
            (s->delivery->dead_letter && !(c->tried && s->delivery->dead_letter->kafka) &&
             letters_new(&s->letters, &letters, err) < 0))
                return -1;
        if (t && !c->tried) {
                const struct transform_config transform = { .loop = c->loop,
                                                            .program = t->jq,
                                                            .timeout = t->timeout,
                                                            .memory = (size_t)64 << 20,
                                                            .output_max = MESSAGE_MOST / 2 };

                return transform_new(&s->transform, &transform, c->wake, err);
        }
        return 0;
}

void sender_within(struct sender *s, usec attempt)
{
        http_target_connect_within(s->target, target_connect_timeout(s->delivery, attempt));
}

int sender_new(struct sender **out, const struct sender_config *config, struct error *err)
{
        struct sender *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->config = *config;
        s->delivery = config->trigger->delivery;
        s->words.max = 4096;
        s->payload.max = SIZE_MAX / 2; /* a letter is cut, whatever its event takes */
        /* *** is no longer than a secret */
        s->answer.max = MAX_OF(config->answer_max, (size_t)PARTIAL_ANSWER_KEPT) + 1;
        s->init = config->trigger->function->init_path ? INIT_WAITS : INIT_DONE;
        s->init_message.max = HTTP_HEADROOM + 1024;
        random_init(&s->random, random_seed());
        request_maker_init(&s->maker, config->trigger, config->shape, config->clock, config->sink);
        if (open_all(s, err) < 0) {
                (void)sender_free(s);
                return -1;
        }
        *out = s;
        return 0;
}

struct sender *sender_free(struct sender *s)
{
        if (!s)
                return NULL;
        if (s->taken)
                sending_end(s, s->taken);
        for (struct list_node *first; (first = s->under_way.first);)
                sender_cancel(s, LIST_ITEM(first, struct sending, node));
        for (struct sending *o; (o = LIST_TAKE(&s->spare, struct sending, node));)
                (void)sending_free(o);
        http_release(&s->http, &s->init_request);
        (void)transform_free(s->transform);
        (void)letters_free(s->letters);
        (void)access_free(s->access);
        (void)http_target_free(s->target);
        free(s->places);
        buf_done(&s->words);
        buf_done(&s->payload);
        buf_done(&s->answer);
        buf_done(&s->init_message);
        request_maker_done(&s->maker);
        free(s);
        return NULL;
}
