#include "kafka/producer.h"

#include <stdio.h>

#include "kafka/access.h"

struct kafka_producer {
        struct kafka_access access;
        const struct log_scope *log;
        rd_kafka_t *rk; /* NULL: it lacks something */
        bool stale;     /* another one is needed, which reads the certificates of now */
        rd_kafka_queue_t *queue;
        char *topic_name;
        struct loop *loop;
        struct waker_slot slot;
        rd_kafka_event_t *event; /* whose messages are being taken */
        /* the last trouble with the brokers, which says more than a time-out */
        char why[400];
};

/* Any thread. */
static void on_queue(rd_kafka_t *rk UNUSED, void *opaque)
{
        struct kafka_producer *p = opaque;

        waker_ring(loop_waker(p->loop), &p->slot);
}

static int open_client(struct kafka_producer *p, struct error *err)
{
        static const struct kafka_option options[] = {
                { "enable.idempotence", "true" },
                { "message.timeout.ms", "30000" },
                /* how long a topic that nobody knows may be a new one: it is sent again anyway */
                { "topic.metadata.propagation.max.ms", "5000" },
                { "linger.ms", "5" },
                { "queue.buffering.max.kbytes", "65536" },
                { "message.max.bytes", "34603008" },
                /* A batch that is too large for the topic takes all that is in it along. */
                { "batch.num.messages", "1" },
        };
        const struct kafka_client_config config = { .access = &p->access, .log = p->log };
        rd_kafka_conf_t *conf = NULL;

        if (kafka_configure(&conf, &config, options, COUNT_OF(options), err) < 0)
                return -1;
        rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
        if (kafka_start(&p->rk, RD_KAFKA_PRODUCER, &p->access, conf, err) < 0)
                return -1;
        p->queue = rd_kafka_queue_get_main(p->rk);
        rd_kafka_queue_cb_event_enable(p->queue, on_queue, p);
        loop_ready(p->loop, p->slot.task); /* nobody rings for what is in it already */
        p->stale = false;
        return 0;
}

/* Nobody waits for its end. */
static void close_client(struct kafka_producer *p)
{
        if (p->event)
                rd_kafka_event_destroy(TAKE(p->event));
        if (p->queue) {
                rd_kafka_queue_cb_event_enable(p->queue, NULL, NULL);
                rd_kafka_queue_destroy(TAKE(p->queue));
        }
        if (p->rk) {
                (void)rd_kafka_purge(p->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT |
                                                    RD_KAFKA_PURGE_F_NON_BLOCKING);
                kafka_end(TAKE(p->rk), p->loop, p->slot.task);
        }
}

/* Another client once the old one has nothing under way. */
static int renew(struct kafka_producer *p, struct error *err)
{
        BUF_AT_END struct buf lacks = BUF_INIT(1024);

        if (p->rk && (!p->stale || p->event || rd_kafka_outq_len(p->rk) > 0))
                return 0;
        if (kafka_access_lacks(&p->access, &lacks))
                return p->rk ? 0 : error_set(err, ERROR_INVALID, "%s", lacks.p ? lacks.p : "out of memory");
        close_client(p);
        return open_client(p, err);
}

static int follow_secrets(struct kafka_producer *p, struct error *err)
{
        enum kafka_access_change change = kafka_access_changed(&p->access);

        if (change != KAFKA_ACCESS_SAME && p->rk)
                kafka_access_renew(&p->access, p->rk);
        p->stale = p->stale || change == KAFKA_ACCESS_CERTIFICATES;
        return renew(p, err);
}

int kafka_producer_new(struct kafka_producer **out, const struct kafka_producer_config *config,
                       struct error *err)
{
        struct kafka_producer *p = calloc(1, sizeof(*p));
        const struct kafka_cluster *cluster = config->cluster;
        const struct kafka_access_config access = { .cluster = cluster,
                                                    .loop = config->loop,
                                                    .secrets = config->secrets,
                                                    .wake = config->wake,
                                                    .http = config->http,
                                                    .peers = config->peers };

        if (!p || !(p->topic_name = str_dup(str_of(config->topic)))) {
                free(p);
                return error_memory(err);
        }
        p->loop = config->loop;
        p->log = config->log;
        p->slot.task = config->wake;
        if (kafka_access_open(&p->access, &access, err) < 0 ||
            /* a Secret may be mended while we run */
            (renew(p, err) < 0 && !(cluster->sasl || cluster->tls))) {
                (void)kafka_producer_free(p);
                return -1;
        }
        *out = p;
        return 0;
}

static rd_kafka_headers_t *headers_of(const struct kafka_message *m)
{
        rd_kafka_headers_t *headers = m->headers_n ? rd_kafka_headers_new(m->headers_n) : NULL;

        for (size_t i = 0; headers && i < m->headers_n; i++)
                (void)rd_kafka_header_add(headers, m->headers[i].name.p, (ssize_t)m->headers[i].name.n,
                                          m->headers[i].value.p, (ssize_t)m->headers[i].value.n);
        return headers;
}

int kafka_producer_send(struct kafka_producer *p, uint64_t tag, const struct kafka_message *m,
                        struct error *err)
{
        BUF_AT_END struct buf text = BUF_INIT(1024);
        rd_kafka_headers_t *headers;
        rd_kafka_resp_err_t r;

        if (follow_secrets(p, err) < 0) {
                err->retry = true;
                return error_wrap(err, "topic %s", p->topic_name);
        }
        headers = headers_of(m);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual"
        r = rd_kafka_producev(
                p->rk, RD_KAFKA_V_TOPIC(p->topic_name), RD_KAFKA_V_VALUE((void *)m->value.p, m->value.n),
                RD_KAFKA_V_KEY(m->has_key ? (const void *)m->key.p : NULL, m->has_key ? m->key.n : 0),
                RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_HEADERS(headers),
                RD_KAFKA_V_OPAQUE((void *)(uintptr_t)tag), RD_KAFKA_V_END);
#pragma GCC diagnostic pop
        if (r == RD_KAFKA_RESP_ERR_NO_ERROR)
                return 0;
        if (headers)
                rd_kafka_headers_destroy(headers);
        kafka_explain(&text, r, NULL);
        (void)error_set(err, ERROR_REFUSED, "topic %s: %s", p->topic_name, text.p ? text.p : "");
        err->retry = true;
        return -1;
}

static void delivered(struct kafka_producer *p, const rd_kafka_message_t *m, struct kafka_delivery *out)
{
        BUF_AT_END struct buf text = BUF_INIT(1024);

        *out = (struct kafka_delivery){ .tag = (uint64_t)(uintptr_t)m->_private,
                                        .failed = m->err != RD_KAFKA_RESP_ERR_NO_ERROR,
                                        .too_large = m->err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
                                        .partition = m->partition,
                                        .offset = m->offset };
        if (!out->failed) {
                p->why[0] = 0;
                return;
        }
        kafka_explain(&text, m->err, NULL);
        (void)error_set(&out->error, ERROR_REFUSED, "topic %s: %s%s%s", p->topic_name, text.p ? text.p : "",
                        p->why[0] ? ": " : "", p->why);
        out->error.retry = true;
}

static void note_trouble(struct kafka_producer *p, rd_kafka_event_t *event)
{
        rd_kafka_resp_err_t code = rd_kafka_event_error(event);
        BUF_AT_END struct buf words = BUF_INIT(4096), text = BUF_INIT(sizeof(p->why));

        if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
                return;
        if (code == RD_KAFKA_RESP_ERR__AUTHENTICATION)
                kafka_access_refused(&p->access);
        kafka_access_quote(&p->access, rd_kafka_event_error_string(event), &words);
        kafka_explain(&text, code, words.failed || !words.p ? NULL : words.p);
        text_print(p->why, sizeof(p->why), "%s", text.failed || !text.p ? rd_kafka_err2str(code) : text.p);
}

bool kafka_producer_take(struct kafka_producer *p, struct kafka_delivery *out)
{
        for (;;) {
                const rd_kafka_message_t *m = p->event ? rd_kafka_event_message_next(p->event) : NULL;

                if (m) {
                        delivered(p, m, out);
                        return true;
                }
                if (p->event)
                        rd_kafka_event_destroy(p->event);
                p->event = p->queue ? rd_kafka_queue_poll(p->queue, 0) : NULL;
                if (!p->event)
                        return false;
                if (rd_kafka_event_type(p->event) == RD_KAFKA_EVENT_ERROR)
                        note_trouble(p, p->event);
        }
}

const char *kafka_producer_trouble(const struct kafka_producer *p) { return p->why[0] ? p->why : NULL; }

struct kafka_producer *kafka_producer_free(struct kafka_producer *p)
{
        if (!p)
                return NULL;
        close_client(p);
        waker_forget(loop_waker(p->loop), &p->slot);
        kafka_access_done(&p->access);
        free(p->topic_name);
        free(p);
        return NULL;
}
