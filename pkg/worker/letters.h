/* Where dead letters go: an HTTP receiver or a Kafka topic. One of them a pipeline; its deliveries make the
 * pipeline's task ready. Loop's thread. */
#pragma once

#include "delivery/delivery.h"
#include "http/client/client.h"
#include "worker/request.h"

struct letters;

struct letters_config {
        const struct trigger *trigger; /* has a deadLetter; borrowed */
        const struct log_scope *log;   /* borrowed */
        const char *url;               /* the absolute URL; NULL with kafka */
        const char *secrets;           /* the folder; NULL: there is none */
        struct loop *loop;
        struct http_client *http;
        struct http_peers peers; /* for tokens of Kafka */
        struct task *wake;
        uint32_t most; /* letters under way at once */
};
int letters_new(struct letters **, const struct letters_config *, struct error *) MUST_CHECK;
struct sending;
/* Sends the dead letter of a record; number is below most and not in use. payload: as for request_dead_body.
 * -1: not sent, and no answer comes. A letter that is too large for the receiver is answered as
 * ANSWER_TOO_LARGE; sent again, it is cut to a size that fits. */
int letters_send(struct letters *, uint32_t number, struct sending *, struct request_maker *, struct record *,
                 struct dead_letter *, struct str payload, struct error *) MUST_CHECK;
void letters_cancel(struct letters *, uint32_t number, const struct sending *);
/* The next that has an outcome; NULL: none. text belongs to the letters until the next call. */
struct sending *letters_take(struct letters *, struct answer *);
/* Why letters do not reach their topic, for the status; NULL: no trouble is known. It can take half a minute
 * before such a letter has an outcome. */
const char *letters_trouble(struct letters *);
struct letters *letters_free(struct letters *); /* NULL is fine; returns NULL */
