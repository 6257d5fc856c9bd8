#include "source/calls.h"

struct one { /* a call under way, or one that waits to be used again */
        struct cloud_call call;
        struct poller_call *poller;
        struct one *next, *previous;
};

struct calls {
        struct loop *loop;
        struct task task;
        struct source_account *account;
        struct one *busy, *spare;
};

static void unlink_busy(struct calls *c, struct one *o)
{
        *(o->previous ? &o->previous->next : &c->busy) = o->next;
        if (o->next)
                o->next->previous = o->previous;
}

static void put_aside(struct calls *c, struct one *o)
{
        unlink_busy(c, o);
        o->poller->port = NULL;
        o->poller = NULL;
        o->next = c->spare;
        c->spare = o;
}

static struct one *one_take(struct calls *c)
{
        struct one *o = c->spare;

        if (o)
                c->spare = o->next;
        else if (!(o = calloc(1, sizeof(*o))))
                return NULL;
        o->previous = NULL;
        o->next = c->busy;
        if (c->busy)
                c->busy->previous = o;
        c->busy = o;
        return o;
}

static void start(void *cookie, struct poller_call *p)
{
        struct calls *c = cookie;
        const struct cloud_request *q = &p->request;
        struct one *o = one_take(c);

        if (!o) {
                (void)error_memory(&p->error);
                poller_call_ended(p);
                return;
        }
        o->poller = p;
        p->port = o;
        o->call.request.wake = &c->task;
        o->call.account = source_account(c->account);
        o->call.service = p->service;
        o->call.method = q->method;
        o->call.what = q->what.n ? q->what.p : p->service;
        o->call.path = buf_view(&q->path);
        o->call.query = buf_view(&q->query);
        o->call.body = buf_view(&q->body);
        o->call.timeout = q->timeout;
        cloud_start(&o->call);
}

static void cancel(void *cookie, struct poller_call *p)
{
        struct one *o = p->port;

        if (!o)
                return;
        cloud_cancel(&o->call);
        put_aside(cookie, o);
}

static void finish(struct calls *c, struct one *o)
{
        struct poller_call *p = o->poller;
        struct buf before = p->answer;

        p->status = o->call.status;
        p->refusal = o->call.refusal;
        p->error = o->call.request.error;
        p->answer = o->call.answer;
        o->call.answer = before;
        put_aside(c, o);
        poller_call_ended(p);
}

static void turn(struct task *t, usec now UNUSED)
{
        struct calls *c = CONTAINER_OF(t, struct calls, task);

        for (struct one *o = c->busy, *next; o; o = next) {
                next = o->next;
                if (request_take(&o->call.request))
                        finish(c, o);
        }
}

struct poller_port calls_port(struct calls *c)
{
        return (struct poller_port){ .start = start, .cancel = cancel, .cookie = c };
}

int calls_new(struct calls **out, const struct source_account_config *config, struct error *err)
{
        struct calls *c = calloc(1, sizeof(*c));

        if (!c)
                return error_memory(err);
        c->loop = config->services->loop;
        c->task.turn = turn;
        if (source_account_new(&c->account, config, err) < 0) {
                free(c);
                return -1;
        }
        *out = c;
        return 0;
}

struct calls *calls_free(struct calls *c)
{
        if (!c)
                return NULL;
        while (c->busy) {
                cloud_cancel(&c->busy->call);
                put_aside(c, c->busy);
        }
        for (struct one *o = c->spare, *next; o; o = next) {
                next = o->next;
                cloud_call_done(&o->call);
                free(o);
        }
        (void)source_account_free(c->account);
        loop_forget(c->loop, &c->task);
        free(c);
        return NULL;
}
