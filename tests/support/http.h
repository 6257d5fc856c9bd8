/* For tests: the ports http and peers, where the test itself is the server. Each request is written down in
 * the order in which it was sent, and waits until the test answers it. It owns no memory besides the calls
 * that the test gives it, and allocates none, so that what is tested can run out of it alone. */
#pragma once

#include "port/http.h"

enum { TEST_HTTP_PEERS = 16 };

struct test_call {
        struct http_request *request;
        char url[128], method[8], path[512], headers[4096], body[1024]; /* url: of the peer */
        bool over;                                                      /* it was answered, or cancelled */
        bool cancelled;                                                 /* before it was answered */
};
struct test_http {
        struct loop *loop; /* NULL: no task is made ready */
        struct test_call *calls;
        size_t most, n;
        size_t cancelled;    /* in all */
        const char *refuses; /* no call is taken for this reason; NULL: all are */
        void (*sent)(struct test_http *, struct test_call *); /* hears of each; NULL: nobody does */
        struct test_peer {
                char url[128];
                bool own_tls;
                size_t answer_max;
        } peers[TEST_HTTP_PEERS];
        size_t opened, closed; /* peers */
};
#define TEST_HTTP(array) ((struct test_http){ .calls = (array), .most = COUNT_OF(array) })

struct http test_http_port(struct test_http *);
struct http_peers test_http_peers(struct test_http *);

/* What was sent last; there is one. */
struct test_call *test_http_last(struct test_http *);
/* What was sent first of all that waits for an answer; NULL: nothing does. */
struct test_call *test_http_waiting(struct test_http *);
/* Room for as many calls again: nothing waits for an answer. */
void test_http_forget(struct test_http *);

/* What a call is answered; an error's kind: it fails. Texts are borrowed as long as the answer is held. */
struct test_answer {
        int status;
        struct str head; /* "name\0value\0" pairs */
        struct str body;
        bool body_cut;
        struct error error;
};
void test_http_end(struct test_http *, struct test_call *, struct test_answer);
void test_http_answer(struct test_http *, struct test_call *, int status, const char *body);
