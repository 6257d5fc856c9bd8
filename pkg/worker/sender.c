#include "worker/sender.h"

#include <stdio.h>

#include "base/backoff.h"
#include "secret/secret.h"
#include "transform/transform.h"
#include "worker/target.h"

enum {
        MESSAGE_KEPT = 256 * 1024,
        MESSAGE_MOST = 64 << 20,
        ANSWER_KEPT = 4096,
        PARTIAL_ANSWER_KEPT = 64 * 1024
};

enum slot_state { SLOT_FREE, SLOT_TRANSFORMING, SLOT_SENT, SLOT_LETTER, SLOT_FAILED };
struct slot {
        struct http_request request; /* the first member */
        enum slot_state state;
        uint32_t ticket, n;
        uint32_t shown; /* of access: its version */
        struct buf message, headers;
        size_t secrets_at;       /* in headers: those of access, which stand at the end */
        struct record **records; /* those sent; kept only where an answer may name them */
        char *failure;           /* it could not be sent: the reason; waits to be taken */
        enum answer_kind failed_as;
        struct slot *next_failed;
        struct record *letter; /* of a dead letter: what it is made of, until it is answered */
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
        struct slot *slots;
        struct slot *failed, **failed_last;
        struct list answered;
        struct http_request *taken; /* its answer is in use */
        uint32_t *places;           /* of records that a partial answer names */
        struct buf words, init_message, payload, answer;
        char text[400];
        bool cut; /* of the last answer: its body was longer than what is kept */
        enum init_state init;
        struct http_request init_request;
        unsigned init_failures;
        uint32_t init_shown;
        usec init_at; /* the next attempt, or the end of the present one */
        char init_why[400];
        struct random random;
};

/* ---- sending ------------------------------------------------------------ */

static struct slot *slot_of(struct sender *s, uint32_t ticket) { return &s->slots[ticket & 0xffff]; }

static void fail_slot(struct sender *s, struct slot *slot, enum answer_kind kind, const char *why)
{
        slot->state = SLOT_FAILED;
        free(slot->failure);
        slot->failure = str_dup(str_of(why));
        slot->failed_as = kind;
        slot->next_failed = NULL;
        *s->failed_last = slot;
        s->failed_last = &slot->next_failed;
        loop_ready(s->config.loop, s->config.wake);
}

static void submit(struct sender *s, struct slot *slot)
{
        struct error err;

        slot->secrets_at = slot->headers.n;
        if (s->access) {
                buf_str(&slot->headers, access_headers(s->access));
                slot->shown = access_version(s->access);
        }
        if (s->taken == &slot->request)
                s->taken = NULL;
        slot->request.target = s->target;
        slot->request.message = &slot->message;
        slot->request.headers = buf_view(&slot->headers);
        if (slot->message.failed || slot->headers.failed)
                fail_slot(s, slot, ANSWER_RETRY, "out of memory, or an event above 64 MiB");
        else if (http_submit(&s->http, &slot->request, &err) < 0)
                fail_slot(s, slot, err.kind == ERROR_INVALID ? ANSWER_FINAL : ANSWER_RETRY, err.text);
        else
                slot->state = SLOT_SENT;
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

static bool any_unjudged(const struct action *a)
{
        for (size_t i = 0; i < a->n; i++)
                if (a->records[i]->unjudged)
                        return true;
        return false;
}

static void send_records(struct sender *s, struct slot *slot, const struct action *a)
{
        begin_message(&slot->message);
        buf_reset(&slot->headers);
        request_body(&s->maker, a->records, a->n, &slot->message);
        request_headers(&s->maker, a->records, a->n, &slot->headers);
        if (slot->records)
                memcpy(slot->records, a->records, a->n * sizeof(struct record *));
        if (any_unjudged(a)) /* halved until it is alone; then it is final */
                fail_slot(s, slot, a->n > 1 ? ANSWER_TOO_LARGE : ANSWER_FINAL,
                          "the filter can't say whether the record is wanted: it is nested too deep, or its "
                          "arrays hold too much");
        else if (!slot->message.failed && a->n > 1 &&
                 body_of(&slot->message).n > (size_t)s->delivery->batch->max_bytes)
                fail_slot(s, slot, ANSWER_TOO_LARGE, "the batch is larger than batch.maxBytes");
        else if (s->transform && !slot->message.failed) {
                slot->state = SLOT_TRANSFORMING;
                transform_submit(s->transform, slot->ticket, body_of(&slot->message));
        } else
                submit(s, slot);
}

static void send_letter(struct sender *s, struct slot *slot)
{
        struct dead_letter d = slot->dead;
        struct error err;

        buf_reset(&s->payload);
        if (s->config.trigger->event->format == FORMAT_FUNCTION_GRAPH)
                request_body(&s->maker, &slot->letter, 1, &s->payload);
        if (letters_send(s->letters, slot->ticket & 0xffff, slot->ticket, &s->maker, slot->letter, &d,
                         buf_view(&s->payload), &err) < 0)
                fail_slot(s, slot, ANSWER_RETRY, err.text);
        else
                slot->state = SLOT_LETTER;
        if (s->payload.cap > MESSAGE_KEPT)
                buf_done(&s->payload);
}

void sender_send(struct sender *s, const struct action *a)
{
        struct slot *slot = slot_of(s, a->attempt);

        slot->ticket = a->attempt;
        slot->n = (uint32_t)a->n;
        if (a->kind == ACTION_DEAD_LETTER) {
                slot->letter = a->records[0];
                slot->dead = (struct dead_letter){
                        .attempts = a->number, .status = a->status, .reason = a->reason, .answer = a->body
                };
                send_letter(s, slot);
        } else
                send_records(s, slot, a);
}

size_t sender_held(const struct sender *s, uint32_t ticket)
{
        const struct slot *slot = &s->slots[ticket & 0xffff];

        return slot->ticket == ticket ? slot->message.cap : 0;
}

/* What is large is not kept for the next request: that may never come. */
static void free_slot(struct slot *slot)
{
        slot->state = SLOT_FREE;
        if (slot->message.cap > MESSAGE_KEPT)
                buf_done(&slot->message);
}

static void forget_failure(struct sender *s, const struct slot *slot)
{
        struct slot **at = &s->failed;

        while (*at != slot)
                at = &(*at)->next_failed;
        *at = slot->next_failed;
        if (!*at)
                s->failed_last = at;
}

void sender_cancel(struct sender *s, uint32_t ticket)
{
        struct slot *slot = slot_of(s, ticket);

        if (slot->ticket != ticket)
                return;
        if (slot->state == SLOT_TRANSFORMING)
                transform_cancel(s->transform, ticket);
        else if (slot->state == SLOT_SENT)
                http_release(&s->http, &slot->request);
        else if (slot->state == SLOT_LETTER)
                letters_cancel(s->letters, ticket);
        else if (slot->state == SLOT_FAILED)
                forget_failure(s, slot);
        free_slot(slot);
}

/* ---- answers ------------------------------------------------------------ */

static struct str secrets_of(const struct slot *slot)
{
        return (struct str){ slot->headers.p + slot->secrets_at, slot->headers.n - slot->secrets_at };
}

static void partial(struct sender *s, const struct slot *slot, struct answer *a)
{
        const struct http_request *c = &slot->request;
        bool all;
        size_t n;

        buf_reset(&s->words);
        /* What is not kept whole is known by its list. */
        n = request_failures(c->body_cut && c->member.p ? c->member : c->body, c->body_cut && !c->member.p,
                             slot->records, slot->n, s->places, &all, &s->words);
        if (all) {
                a->kind = ANSWER_RETRY;
                (void)snprintf(s->text, sizeof(s->text), "%.120s: %s", s->config.sink,
                               s->words.p ? s->words.p : "");
        } else if (n) {
                a->kind = n == slot->n && slot->n == 1 ? ANSWER_RETRY : ANSWER_PARTIAL;
                a->failed = s->places;
                a->failed_n = n;
                (void)snprintf(s->text, sizeof(s->text),
                               "%.120s: %zu of %u records failed, the first is %.*s", s->config.sink, n,
                               slot->n, (int)MIN_OF(slot->records[s->places[0]]->id.n, (size_t)160),
                               slot->records[s->places[0]]->id.p);
        }
}

/* What the function said as a dead letter tells it: some answer with all that they were sent. */
static void clean(struct sender *s, const struct slot *slot, struct answer *a)
{
        if (!s->access || !s->letters || a->kind == ANSWER_ACCEPTED || !a->body.n)
                return;
        buf_reset(&s->answer);
        access_quote(s->access,
                     &(struct access_words){
                             .text = a->body, .most = SIZE_MAX, .cut = s->cut, .shown = secrets_of(slot) },
                     &s->answer);
        a->body = s->answer.failed ? (struct str){ 0 } : buf_view(&s->answer);
}

static void answered(struct sender *s, const struct slot *slot, struct answer *a)
{
        const struct http_request *c = &slot->request;
        const struct error *why = &c->request.error;
        struct str words = str_trim(c->body);

        *a = (struct answer){ .kind = ANSWER_RETRY, .text = s->text };
        s->cut = c->body_cut;
        if (request_failed(&c->request)) {
                /* Whatever went wrong here or between, the function has refused nothing. Only what the
                 * request itself makes impossible stays so. */
                a->kind = why->kind == ERROR_INVALID ? ANSWER_FINAL : ANSWER_RETRY;
                a->overload = why->kind == ERROR_UNREACHABLE || why->kind == ERROR_TIMEOUT;
                (void)snprintf(s->text, sizeof(s->text), "%.390s", why->text);
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
                                     .text = words, .most = 160, .cut = s->cut, .shown = secrets_of(slot) },
                             &quoted);
                (void)snprintf(s->text, sizeof(s->text),
                               quoted.n ? "%.160s answered %d: %.160s" : "%.160s answered %d", s->config.sink,
                               c->status, quoted.p ? quoted.p : "");
        }
        if (c->status == 401 && s->access && access_refused(s->access, slot->shown))
                a->kind = ANSWER_RETRY;
        if (a->kind == ANSWER_ACCEPTED && slot->records)
                partial(s, slot, a);
        clean(s, slot, a);
}

static void init_failed(struct sender *s, usec retry_after, const char *why)
{
        usec now = loop_now(s->config.loop);

        s->init = INIT_WAITS;
        s->init_at = now + backoff_full_jitter(&s->random, s->delivery->retry->initial_backoff,
                                               s->delivery->retry->max_backoff, s->init_failures++,
                                               10 * USEC_MSEC);
        s->init_at = MAX_OF(s->init_at, now + MIN_OF(retry_after, s->delivery->retry->retry_after_max));
        (void)snprintf(s->init_why, sizeof(s->init_why), "initialization: %.380s", why);
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
                /* until there is something newer it is tried again as it is */
                (void)access_refused(s->access, s->init_shown);
        access_quote(s->access, &(struct access_words){ .text = c->body, .most = 160, .cut = c->body_cut },
                     &quoted);
        (void)snprintf(why, sizeof(why), "%.100s answered %d: %.160s", s->config.trigger->function->init_path,
                       c->status, quoted.p ? quoted.p : "");
        init_failed(s, c->retry_after, why);
}

static bool take_failure(struct sender *s, uint32_t *ticket, struct answer *a)
{
        struct slot *slot = s->failed;

        if (!slot)
                return false;
        if (!(s->failed = slot->next_failed))
                s->failed_last = &s->failed;
        *ticket = slot->ticket;
        free_slot(slot);
        *a = (struct answer){ .kind = slot->failed_as,
                              .text = slot->failure ? slot->failure : "out of memory" };
        return true;
}

static void take_transformed(struct sender *s)
{
        struct transform_result r;

        while (s->transform && transform_take(s->transform, &r)) {
                struct slot *slot = slot_of(s, (uint32_t)r.tag);

                if (slot->state != SLOT_TRANSFORMING || slot->ticket != (uint32_t)r.tag)
                        continue;
                if (r.failed) {
                        fail_slot(s, slot,
                                  r.error.kind == ERROR_SYSTEM || r.error.kind == ERROR_PROTOCOL
                                          ? ANSWER_RETRY
                                          : ANSWER_FINAL,
                                  r.error.text);
                        continue;
                }
                begin_message(&slot->message);
                buf_str(&slot->message, r.output);
                submit(s, slot);
        }
}

static struct slot *take_answered(struct sender *s)
{
        struct request *r;

        if (s->taken)
                http_release(&s->http, TAKE(s->taken));
        if (request_take(&s->init_request.request)) {
                init_answered(s);
                http_release(&s->http, &s->init_request);
        }
        if (!(r = request_next(&s->answered)))
                return NULL;
        s->taken = CONTAINER_OF(r, struct http_request, request);
        return CONTAINER_OF(s->taken, struct slot, request);
}

bool sender_cut(const struct sender *s) { return s->cut; }

bool sender_take(struct sender *s, uint32_t *ticket, struct answer *a)
{
        struct slot *done;
        uint64_t tag;

        take_transformed(s);
        if (take_failure(s, ticket, a))
                return true;
        if ((done = take_answered(s))) {
                *ticket = done->ticket;
                free_slot(done);
                answered(s, done, a);
                return true;
        }
        while (s->letters && letters_take(s->letters, &tag, a)) {
                struct slot *slot = slot_of(s, (uint32_t)tag);

                *ticket = (uint32_t)tag;
                if (slot->ticket != *ticket || slot->state != SLOT_LETTER)
                        continue;
                if (a->kind != ANSWER_TOO_LARGE) {
                        slot->state = SLOT_FREE;
                        return true;
                }
                send_letter(s, slot); /* cut */
                if (take_failure(s, ticket, a))
                        return true;
        }
        return false;
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

static int open_target(struct sender *s, struct error *err)
{
        const struct trigger *t = s->config.trigger;
        BUF_AT_END struct buf space = BUF_INIT(1 << 20), headers = BUF_INIT(65536);
        struct http_target_config c;

        if (target_config(&c, t, s->config.sink, s->config.secrets, &space, err) < 0)
                return -1;
        request_constant_headers(&s->maker, &headers);
        if (headers.failed)
                return error_memory(err);
        c.headers = buf_view(&headers);
        c.method = delivery_methods[s->delivery->method];
        c.max_connections = s->config.slots;
        c.answer_member = s->delivery->partial_failures ? "batchItemFailures" : NULL;
        c.answer_max = s->config.answer_max            ? s->config.answer_max
                       : s->delivery->partial_failures ? PARTIAL_ANSWER_KEPT
                                                       : ANSWER_KEPT;
        return http_target_new(&s->target, s->config.http, &c, err);
}

static int make_slots(struct sender *s, struct error *err)
{
        s->slots = calloc(s->config.slots, sizeof(*s->slots));
        s->places = calloc(s->config.batch_records, sizeof(*s->places));
        if (!s->slots || !s->places)
                return error_memory(err);
        for (uint32_t i = 0; i < s->config.slots; i++) {
                struct slot *slot = &s->slots[i];

                slot->message.max = MESSAGE_MOST;
                slot->headers.max = 65536;
                slot->ticket = UINT32_MAX;
                slot->request.request.wake = s->config.wake;
                slot->request.request.done = &s->answered;
                if (s->delivery->partial_failures &&
                    !(slot->records = calloc(s->config.batch_records, sizeof(struct record *))))
                        return error_memory(err);
        }
        return 0;
}

static int open_all(struct sender *s, struct error *err)
{
        const struct sender_config *c = &s->config;
        const struct access_config access = { .trigger = c->trigger,
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
                                                .wake = c->wake,
                                                .most = c->slots };
        const struct transform_spec *t = c->trigger->transform;

        s->http = http_client_port(c->http);
        if (make_slots(s, err) < 0)
                return -1;
        if (open_target(s, err) < 0 ||
            (needs_access(s->delivery) && access_new(&s->access, &access, err) < 0) ||
            (s->delivery->dead_letter && letters_new(&s->letters, &letters, err) < 0))
                return -1;
        if (t) {
                const struct transform_config transform = { .loop = c->loop,
                                                            .program = t->jq,
                                                            .timeout = t->timeout,
                                                            .memory = (size_t)64 << 20,
                                                            .output_max = MESSAGE_MOST / 2 };

                return transform_new(&s->transform, &transform, c->wake, err);
        }
        return 0;
}

int sender_new(struct sender **out, const struct sender_config *config, struct error *err)
{
        struct sender *s = calloc(1, sizeof(*s));

        if (!s)
                return error_memory(err);
        s->config = *config;
        s->delivery = config->trigger->delivery;
        s->failed_last = &s->failed;
        s->words.max = 4096;
        s->payload.max = MESSAGE_MOST;
        /* what hides a secret is no longer than it */
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
        (void)transform_free(s->transform);
        (void)letters_free(s->letters);
        (void)access_free(s->access);
        http_release(&s->http, &s->init_request);
        for (uint32_t i = 0; s->slots && i < s->config.slots; i++) {
                http_release(&s->http, &s->slots[i].request);
                buf_done(&s->slots[i].message);
                buf_done(&s->slots[i].headers);
                free(s->slots[i].records);
                free(s->slots[i].failure);
        }
        (void)http_target_free(s->target);
        free(s->slots);
        free(s->places);
        buf_done(&s->words);
        buf_done(&s->payload);
        buf_done(&s->answer);
        buf_done(&s->init_message);
        request_maker_done(&s->maker);
        free(s);
        return NULL;
}
