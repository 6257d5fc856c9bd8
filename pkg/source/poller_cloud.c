#include "source/poller_cloud.h"

struct placed {
        struct cloud_call call;
        struct list_node node; /* while it is busy */
        struct poller_call *asked;
};

static void turn(void *cookie)
{
        struct poller_cloud *pc = cookie;

        for (struct list_node *n = pc->busy.first, *next; n; n = next) {
                struct placed *p = CONTAINER_OF(n, struct placed, node);
                struct poller_call *c = p->asked;
                struct buf answer = p->call.answer;

                next = n->next;
                if (!request_take(&p->call.request))
                        continue;
                list_remove(n);
                p->call.answer = c->answer;
                c->answer = answer;
                c->status = p->call.status;
                c->refusal = p->call.refusal;
                c->error = p->call.request.error;
                poller_call_ended(c);
        }
}

static void start(void *cookie, struct poller_call *c)
{
        struct poller_cloud *pc = cookie;
        const struct cloud_request *q = &c->request;
        struct placed *p = c->port ? c->port : calloc(1, sizeof(*p));

        c->port = p;
        if (!p) {
                (void)error_memory(&c->error);
                poller_call_ended(c);
                return;
        }
        p->asked = c;
        p->call.request.wake = pc->wake;
        p->call.account = pc->account;
        p->call.service = c->service;
        p->call.method = q->method;
        p->call.what = q->what.n ? q->what.p : c->service;
        p->call.path = buf_view(&q->path);
        p->call.query = buf_view(&q->query);
        p->call.body = buf_view(&q->body);
        p->call.timeout = q->timeout;
        list_append(&pc->busy, &p->node);
        cloud_start(&p->call);
}

static void cancel(void *cookie UNUSED, struct poller_call *c)
{
        struct placed *p = c->port;

        if (!p)
                return;
        list_remove(&p->node);
        cloud_cancel(&p->call);
}

static void forget(void *cookie UNUSED, struct poller_call *c)
{
        struct placed *p = TAKE(c->port);

        if (!p)
                return;
        list_remove(&p->node);
        cloud_call_done(&p->call);
        free(p);
}

struct poller_port poller_cloud(struct poller_cloud *pc, struct cloud_account *account, struct task *wake)
{
        *pc = (struct poller_cloud){ .account = account, .wake = wake };
        return (struct poller_port){ turn, start, cancel, forget, pc };
}
