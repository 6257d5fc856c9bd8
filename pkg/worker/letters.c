#include "worker/letters.h"

#include <stdio.h>

#include "source/kafka/producer.h"
#include "worker/sender.h"

struct letters {
        const struct trigger *trigger;
        char *url;
        struct http_end *end;
        struct http http;
        struct http_target *target;
        struct buf *messages, headers;
        uint32_t most;
        struct kafka_producer *producer;
        char text[400];
};

static int open_kafka(struct letters *l, const struct letters_config *config, struct error *err)
{
        const struct dead_letter_kafka *k = config->trigger->delivery->dead_letter->kafka;
        BUF_AT_END struct buf servers = BUF_INIT(65536);

        strings_join(&k->bootstrap_servers, &servers);
        if (servers.failed)
                return error_memory(err);
        return kafka_producer_new(&l->producer, servers.p, k->topic, config->loop, config->wake, err);
}

static int open_http(struct letters *l, const struct letters_config *config, struct error *err)
{
        BUF_AT_END struct buf space = BUF_INIT(1 << 20);
        struct http_target_config target;

        if (!config->url)
                return error_set(err, ERROR_INVALID, "the dead letter's receiver is a reference: its URL must be given");
        if (!(l->url = str_dup(str_of(config->url))))
                return error_memory(err);
        if (sender_target(&target, config->trigger, config->url, config->secrets, &space, err) < 0)
                return -1;
        target.http_version = HTTP_AUTO;
        target.compress = false;
        target.max_connections = MIN_OF(config->most, 16u);
        target.answer_max = 1024;
        if (http_end_new(&l->end, config->http, config->wake, err) < 0)
                return -1;
        l->http = http_end_port(l->end);
        return http_target_new(&l->target, config->http, &target, err);
}

int letters_new(struct letters **out, const struct letters_config *config, struct error *err)
{
        struct letters *l = calloc(1, sizeof(*l));

        if (!l || !(l->messages = calloc(config->most, sizeof(*l->messages)))) {
                free(l);
                return error_memory(err);
        }
        l->trigger = config->trigger;
        l->most = config->most;
        l->headers.max = 16384;
        for (uint32_t i = 0; i < l->most; i++)
                l->messages[i].max = (size_t)96 << 20;
        if ((config->trigger->delivery->dead_letter->kafka ? open_kafka(l, config, err) : open_http(l, config, err)) < 0) {
                (void)letters_free(l);
                return error_wrap(err, "deadLetter");
        }
        *out = l;
        return 0;
}

static int send_kafka(struct letters *l, uint64_t tag, const struct request_maker *m, struct record *r, struct str body, struct error *err)
{
        bool cloud = m->trigger->event->format != FORMAT_FUNCTION_GRAPH;
        const struct kafka_pair headers[] = { { STR("content-type"), cloud ? STR("application/cloudevents+json; charset=UTF-8") : STR("application/json") },
                                              { STR("sluice-event-id"), r->id } };
        const struct kafka_message message = { .key = r->key, .has_key = r->has_key, .value = body, .headers = headers, .headers_n = COUNT_OF(headers) };

        return kafka_producer_send(l->producer, tag, &message, err);
}

int letters_send(struct letters *l, uint32_t slot, uint64_t tag, struct request_maker *m, struct record *r, struct dead_letter *d, struct str payload, struct error *err)
{
        struct buf *message = &l->messages[slot];
        struct http_request request = { .target = l->target, .message = message };
        int result;

        buf_reset(message);
        if (buf_reserve(message, HTTP_HEADROOM))
                message->n = HTTP_HEADROOM;
        request_dead_body(m, r, d, payload, message);
        buf_reset(&l->headers);
        request_dead_headers(m, r, &l->headers);
        request.headers = buf_view(&l->headers);
        if (message->failed || l->headers.failed)
                return error_memory(err);
        if (!l->producer)
                return l->http.ops->submit(l->http.cookie, tag, &request, err);
        result = send_kafka(l, tag, m, r, (struct str){ message->p + HTTP_HEADROOM, message->n - HTTP_HEADROOM }, err);
        buf_done(message);
        return result;
}

void letters_cancel(struct letters *l, uint64_t tag)
{
        if (!l->producer)
                l->http.ops->cancel(l->http.cookie, tag);
}

static void http_outcome(struct letters *l, const struct http_completion *c, struct answer *a)
{
        bool fine = !c->failed && c->status >= 200 && c->status <= 299;

        *a = (struct answer){ .kind = fine ? ANSWER_ACCEPTED : ANSWER_RETRY, .status = c->failed ? 0 : c->status, .retry_after = c->retry_after, .text = l->text };
        if (c->failed)
                (void)snprintf(l->text, sizeof(l->text), "dead letter: %.300s", c->error.text);
        else
                (void)snprintf(l->text, sizeof(l->text), "dead letter: %.200s answered %d: %.*s", l->url, c->status, (int)MIN_OF(c->body.n, (size_t)120), c->body.p ? c->body.p : "");
}

bool letters_take(struct letters *l, uint64_t *tag, struct answer *a)
{
        struct kafka_delivery delivery;
        struct http_completion c;

        if (l->producer) {
                if (!kafka_producer_take(l->producer, &delivery))
                        return false;
                *tag = delivery.tag;
                *a = (struct answer){ .kind = delivery.failed ? ANSWER_RETRY : ANSWER_ACCEPTED, .text = l->text };
                (void)snprintf(l->text, sizeof(l->text), "dead letter: %.380s", delivery.failed ? delivery.error.text : "");
                return true;
        }
        if (!l->http.ops->take(l->http.cookie, &c))
                return false;
        *tag = c.tag;
        http_outcome(l, &c, a);
        return true;
}

struct letters *letters_free(struct letters *l)
{
        if (!l)
                return NULL;
        (void)kafka_producer_free(l->producer);
        if (l->end)
                (void)http_end_free(l->end);
        (void)http_target_free(l->target);
        for (uint32_t i = 0; i < l->most; i++)
                buf_done(&l->messages[i]);
        free(l->messages);
        buf_done(&l->headers);
        free(l->url);
        free(l);
        return NULL;
}
