#include "tests/support/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void note(char *out, size_t size, const char *text, size_t n)
{
        assert_in_range(n, 0, size - 1);
        if (n)
                memcpy(out, text, n);
        out[n] = 0;
}

static int on_submit(void *cookie, struct http_request *q, struct error *err)
{
        struct test_http *h = cookie;
        size_t headroom = q->headroom ? q->headroom : HTTP_HEADROOM;
        const struct test_peer *peer = (const struct test_peer *)(const void *)q->target;
        const char *method = q->method ? q->method : "";
        struct test_call *c;

        if (h->refuses)
                return error_set(err, ERROR_INVALID, "%s", h->refuses);
        if (q->message->failed)
                return error_memory(err);
        assert_non_null(peer);
        assert_true(q->message->n >= headroom);
        assert_true(h->n < h->most);
        c = &h->calls[h->n++];
        c->request = q;
        c->over = c->cancelled = false;
        note(c->url, sizeof(c->url), peer->url, strlen(peer->url));
        note(c->method, sizeof(c->method), method, strlen(method));
        note(c->path, sizeof(c->path), q->path.p, q->path.n);
        note(c->headers, sizeof(c->headers), q->headers.p, q->headers.n);
        note(c->body, sizeof(c->body), q->message->p + headroom, q->message->n - headroom);
        request_begin(&q->request);
        q->own = c;
        if (h->sent)
                h->sent(h, c);
        return 0;
}

static void on_release(void *cookie, struct http_request *q)
{
        struct test_http *h = cookie;
        struct test_call *c = q->own;

        if (c->request != q || c->over) /* its answer was held, perhaps longer than its place here */
                return;
        c->over = c->cancelled = true;
        h->cancelled++;
}

static int on_open(void *cookie, struct http_target **out, const struct http_peer *peer,
                   struct error *err UNUSED)
{
        struct test_http *h = cookie;
        struct test_peer *p = &h->peers[h->opened];

        assert_true(h->opened < TEST_HTTP_PEERS);
        note(p->url, sizeof(p->url), peer->url, strlen(peer->url));
        p->own_tls = peer->own_tls;
        p->answer_max = peer->answer_max;
        h->opened++;
        *out = (struct http_target *)(void *)p;
        return 0;
}

static void on_close(void *cookie, struct http_target *target)
{
        struct test_http *h = cookie;

        h->closed += target != NULL;
}

struct http test_http_port(struct test_http *h)
{
        static const struct http_ops ops = { on_submit, on_release };

        return (struct http){ &ops, h };
}

struct http_peers test_http_peers(struct test_http *h)
{
        static const struct http_peers_ops ops = { on_open, on_close };

        return (struct http_peers){ &ops, h };
}

struct test_call *test_http_last(struct test_http *h)
{
        assert_true(h->n > 0);
        return &h->calls[h->n - 1];
}

struct test_call *test_http_waiting(struct test_http *h)
{
        for (size_t i = 0; i < h->n; i++)
                if (!h->calls[i].over)
                        return &h->calls[i];
        return NULL;
}

void test_http_forget(struct test_http *h)
{
        assert_null(test_http_waiting(h));
        h->n = 0;
}

void test_http_end(struct test_http *h, struct test_call *c, struct test_answer a)
{
        struct http_request *q = c->request;

        assert_false(c->over);
        c->over = true;
        q->status = a.status;
        q->head = a.head;
        q->body = a.body;
        q->body_cut = a.body_cut;
        q->retry_after = 0;
        q->request.error = a.error;
        request_end(&q->request, h->loop);
}

void test_http_answer(struct test_http *h, struct test_call *c, int status, const char *body)
{
        test_http_end(h, c, (struct test_answer){ .status = status, .body = str_of(body) });
}
