#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <uv.h>

struct waker {
        uv_async_t async;
        _Atomic(struct waker_slot *) rung; /* a stack, pushed by any thread, taken whole by the loop */
};

struct signal_watch {
        uv_signal_t handle;
        struct signal_watch *next;
        void (*event)(void *cookie, int number);
        void *cookie;
};

struct loop {
        uv_loop_t uv;
        uv_prepare_t prepare; /* turns tasks before each poll */
        uv_idle_t idle;       /* active: the poll does not block, tasks are ready */
        uv_timer_t timer;
        usec armed; /* what the timer is set to; USEC_NEVER: not set */
        usec now;
        uint64_t passes;
        bool in_pass;
        bool held; /* the last pass was left to the descriptors */
        const struct clock *clock;
        struct task *first, **last;
        struct task *turning; /* those of this pass that are still to be turned */
        struct heap deadlines;
        struct heap alarms;       /* by wall clock */
        struct loop_io *alarm_io; /* of alarm_fd, which follows the wall clock; NULL: none */
        int alarm_fd;
        usec alarm_at;      /* what that is set to; USEC_NEVER: not set */
        bool no_alarm_fd;   /* there is none to be had */
        usec wall_is_ahead; /* of the other clock, when alarms were looked at last */
        struct waker waker;
        struct signal_watch *signals;
        void *places[LOOP_PLACES];
};

struct loop_io {
        void (*event)(void *cookie, int events);
        void *cookie;
        struct loop_crowd *crowd; /* NULL: it is the loop's own, and a struct polled */
        int fd;
        int want;
        bool closed;
};

struct polled {
        struct loop_io io;
        uv_poll_t poll;
};

struct loop_crowd {
        struct loop *loop;
        struct loop_io *io; /* the loop's, of fd */
        int fd;             /* an epoll of its own */
        int most;
        int n, at; /* of the events being told */
        struct epoll_event events[];
};

usec loop_now(const struct loop *l) { return l->now; }
uint64_t loop_pass(const struct loop *l) { return l->in_pass ? l->passes : 0; }
void *loop_uv(struct loop *l) { return &l->uv; }
struct waker *loop_waker(struct loop *l) { return &l->waker; }
void **loop_place(struct loop *l, enum loop_place place) { return &l->places[place]; }

static void refresh(struct loop *l) { l->now = clock_monotonic(l->clock); }

void loop_use_clock(struct loop *l, const struct clock *clock)
{
        l->clock = clock;
        refresh(l);
}

/* When the first alarm is, by the clock of deadlines; USEC_NEVER: there is none. */
static usec first_alarm(const struct loop *l)
{
        const struct heap_node *first = heap_first(&l->alarms);

        return first ? clock_monotonic(l->clock) + MAX_OF(first->at - clock_wall(l->clock), (usec)0)
                     : USEC_NEVER;
}

usec loop_next(const struct loop *l)
{
        const struct heap_node *first = heap_first(&l->deadlines);

        return l->first || l->turning
                       ? l->now
                       : MIN_OF(first ? MAX_OF(first->at, l->now) : USEC_NEVER, first_alarm(l));
}

void loop_ready(struct loop *l, struct task *t)
{
        if (t->ready)
                return;
        t->ready = true;
        t->next = NULL;
        *l->last = t;
        l->last = &t->next;
}

void loop_arm(struct loop *l, struct task *t, usec deadline)
{
        if (deadline == USEC_NEVER) {
                heap_remove(&l->deadlines, &t->timer);
                return;
        }
        if (heap_has(&t->timer) && t->timer.at == deadline)
                return;
        if (!heap_insert(&l->deadlines, &t->timer, deadline))
                loop_ready(l, t); /* out of memory: better turned too early than never */
}

void loop_forget(struct loop *l, struct task *t)
{
        heap_remove(&l->deadlines, &t->timer);
        if (!t->ready)
                return;
        t->ready = false;
        for (struct task **at = &l->turning; *at; at = &(*at)->next)
                if (*at == t) {
                        *at = t->next;
                        return;
                }
        for (struct task **at = &l->first; *at; at = &(*at)->next)
                if (*at == t) {
                        *at = t->next;
                        if (l->last == &t->next)
                                l->last = at;
                        return;
                }
}

/* So often the wall clock is looked at for alarms where no descriptor follows it. */
static const usec ALARM_LOOK = 500 * USEC_MSEC;

static void on_timer(uv_timer_t *timer) { ((struct loop *)timer->data)->armed = USEC_NEVER; }
static void on_idle(uv_idle_t *idle UNUSED) {}

static void arm_timer(struct loop *l)
{
        struct heap_node *first = heap_first(&l->deadlines);
        usec at = first ? first->at : USEC_NEVER, wait;

        if (!l->alarm_io && l->alarms.n) {
                at = MIN_OF(at, first_alarm(l));
                at = MIN_OF(at, l->now + ALARM_LOOK);
        }
        /* A timer that fires too early costs one empty pass; moving it at each change would cost more. */
        if (at >= l->armed)
                return;
        wait = MAX_OF(at - l->now, 0);
        l->armed = at;
        (void)uv_timer_start(&l->timer, on_timer, (uint64_t)((wait + 999) / 1000), 0);
}

/* ---- alarms ------------------------------------------------------------- */

static void ring(struct loop *l, struct heap_node *n)
{
        struct alarm *a = CONTAINER_OF(n, struct alarm, node);

        heap_remove(&l->alarms, n);
        if (a->task)
                loop_ready(l, a->task);
}

static void ring_all(struct loop *l)
{
        for (struct heap_node *n; (n = heap_first(&l->alarms));)
                ring(l, n);
}

static usec wall_is_ahead(const struct loop *l) { return clock_wall(l->clock) - clock_monotonic(l->clock); }

/* By so much the clocks differ from before when one was set. */
static const usec SET = 100 * USEC_MSEC;

static void ring_due(struct loop *l)
{
        usec wall, ahead, step;

        if (!l->alarms.n)
                return;
        ahead = wall_is_ahead(l);
        step = ahead - l->wall_is_ahead;
        l->wall_is_ahead = ahead;
        if (step > SET || step < -SET) {
                ring_all(l);
                return;
        }
        wall = clock_wall(l->clock);
        for (struct heap_node *n; (n = heap_first(&l->alarms)) && n->at <= wall;)
                ring(l, n);
}

/* It has expired; or the clock was set, or the machine slept, which cancels it. */
static void on_alarm(void *cookie, int events UNUSED)
{
        struct loop *l = cookie;
        uint64_t times;
        ssize_t n = read(l->alarm_fd, &times, sizeof(times));

        if (n < 0 && errno != ECANCELED)
                return;
        l->alarm_at = USEC_NEVER;
        if (n < 0)
                ring_all(l);
}

/* A clock that a test gives is not the one that a descriptor follows; nor is there always one to be had: then
 * the wall clock is looked at so often. */
static void open_alarm(struct loop *l)
{
        struct error err;

        l->no_alarm_fd = l->clock != &system_clock;
        if (l->no_alarm_fd)
                return;
        l->alarm_fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
        if (l->alarm_fd >= 0 && loop_io_open(l, l->alarm_fd, on_alarm, l, &l->alarm_io, &err) == 0) {
                loop_io_want(l->alarm_io, LOOP_READABLE);
                return;
        }
        if (l->alarm_fd >= 0)
                (void)close(l->alarm_fd);
        l->no_alarm_fd = true;
}

/* The descriptor follows the first of the alarms. */
static void set_alarm(struct loop *l)
{
        struct heap_node *first = heap_first(&l->alarms);
        usec at = first ? MAX_OF(first->at, (usec)1) : USEC_NEVER;
        struct itimerspec spec = { 0 };

        if (!l->alarm_io || at == l->alarm_at)
                return;
        if (first) {
                spec.it_value.tv_sec = (time_t)(at / USEC_SEC);
                spec.it_value.tv_nsec = (long)(at % USEC_SEC) * 1000;
        }
        l->alarm_at = at;
        if (timerfd_settime(l->alarm_fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &spec, NULL) < 0 &&
            errno == ECANCELED) /* it follows the first, and the clock was set just now */
                ring_all(l);
}

void loop_alarm(struct loop *l, struct alarm *a, usec wall)
{
        if (wall == USEC_NEVER) {
                heap_remove(&l->alarms, &a->node);
                return;
        }
        if (heap_has(&a->node) && a->node.at == wall)
                return;
        if (!l->alarm_io && !l->no_alarm_fd)
                open_alarm(l);
        if (!l->alarms.n)
                l->wall_is_ahead = wall_is_ahead(l);
        if (!heap_insert(&l->alarms, &a->node, wall) && a->task)
                loop_ready(l, a->task); /* out of memory: better turned too early than never */
}

static void close_alarm(struct loop *l)
{
        if (!l->alarm_io)
                return;
        loop_io_close(l->alarm_io);
        (void)close(l->alarm_fd);
}

/* ---- passes ------------------------------------------------------------- */

/* However many tasks are ready, a pass takes little longer, so that descriptors get their turn; the clock is
 * looked at after each so many. */
static const usec PASS_MOST = 4 * USEC_MSEC;
enum { TURNS_UNSEEN = 16 };

static void turn_ready(struct loop *l)
{
        struct task *t, **end = &l->turning;

        while (*end) /* a loop run from within a turn */
                end = &(*end)->next;
        /* What becomes ready while turning waits for the next pass, so that descriptors get their turn. */
        *end = l->first;
        l->first = NULL;
        l->last = &l->first;
        for (unsigned n = 1; (t = l->turning); n++) {
                l->turning = t->next;
                t->ready = false;
                t->turn(t, l->now);
                if (n % TURNS_UNSEEN == 0 && clock_monotonic(l->clock) - l->now >= PASS_MOST)
                        return; /* the others come first in the next pass */
        }
}

/* A deadline that is so late tells that the process was held: stopped, or short of the processor, or its
 * machine slept. */
static const usec HELD = 250 * USEC_MSEC;

/* Was it held? Then what came meanwhile, such as an answer in time, is heard before anything is too late. */
static bool hears_first(struct loop *l)
{
        const struct heap_node *first = heap_first(&l->deadlines);

        l->held = !l->held && first && l->now - first->at > HELD;
        return l->held;
}

static void on_prepare(uv_prepare_t *prepare)
{
        struct loop *l = prepare->data;

        refresh(l);
        if (hears_first(l)) {
                (void)uv_idle_start(&l->idle, on_idle);
                uv_update_time(&l->uv);
                return;
        }
        for (struct heap_node *n; (n = heap_first(&l->deadlines)) && n->at <= l->now;) {
                heap_remove(&l->deadlines, n);
                loop_ready(l, CONTAINER_OF(n, struct task, timer));
        }
        ring_due(l);
        l->passes++;
        l->in_pass = true;
        turn_ready(l);
        l->in_pass = false;
        arm_timer(l);
        set_alarm(l);
        if (l->first || l->turning)
                (void)uv_idle_start(&l->idle, on_idle);
        else
                (void)uv_idle_stop(&l->idle);
        uv_update_time(&l->uv);
}

static void on_waker(uv_async_t *async)
{
        struct loop *l = async->data;
        struct waker_slot *slot = atomic_exchange_explicit(&l->waker.rung, NULL, memory_order_acquire);

        while (slot) {
                struct waker_slot *next = slot->next;

                /* From here on a new ring counts again; the turn comes after. */
                __atomic_store_n(&slot->rung, 0, __ATOMIC_SEQ_CST);
                loop_ready(l, slot->task);
                slot = next;
        }
}

void waker_ring(struct waker *w, struct waker_slot *slot)
{
        if (__atomic_exchange_n(&slot->rung, 1, __ATOMIC_SEQ_CST))
                return;
        slot->next = atomic_load_explicit(&w->rung, memory_order_relaxed);
        while (!atomic_compare_exchange_weak_explicit(&w->rung, &slot->next, slot, memory_order_release,
                                                      memory_order_relaxed))
                ;
        (void)uv_async_send(&w->async);
}

void waker_forget(struct waker *w, struct waker_slot *slot UNUSED) { on_waker(&w->async); }

int loop_new(struct loop **out, struct error *err)
{
        struct loop *l = calloc(1, sizeof(*l));
        int r;

        if (!l)
                return error_memory(err);
        r = uv_loop_init(&l->uv);
        if (r < 0) {
                free(l);
                return error_set(err, ERROR_SYSTEM, "start the event loop: %s", uv_strerror(r));
        }
        l->last = &l->first;
        l->armed = l->alarm_at = USEC_NEVER;
        l->clock = &system_clock;
        (void)uv_prepare_init(&l->uv, &l->prepare);
        (void)uv_idle_init(&l->uv, &l->idle);
        (void)uv_timer_init(&l->uv, &l->timer);
        l->prepare.data = l->timer.data = l->idle.data = l;
        (void)uv_prepare_start(&l->prepare, on_prepare);
        r = uv_async_init(&l->uv, &l->waker.async, on_waker);
        l->waker.async.data = l;
        if (r < 0) {
                (void)error_set(err, ERROR_SYSTEM, "start the event loop: %s", uv_strerror(r));
                (void)loop_free(l);
                return -1;
        }
        refresh(l);
        *out = l;
        return 0;
}

static void close_signal(uv_handle_t *h) { free(CONTAINER_OF(h, struct signal_watch, handle)); }

struct loop *loop_free(struct loop *l)
{
        if (!l)
                return NULL;
        for (struct signal_watch *s = l->signals, *next; s; s = next) {
                next = s->next;
                uv_close((uv_handle_t *)&s->handle, close_signal);
        }
        close_alarm(l);
        uv_close((uv_handle_t *)&l->prepare, NULL);
        uv_close((uv_handle_t *)&l->idle, NULL);
        uv_close((uv_handle_t *)&l->timer, NULL);
        if (l->waker.async.type == UV_ASYNC)
                uv_close((uv_handle_t *)&l->waker.async, NULL);
        (void)uv_run(&l->uv, UV_RUN_DEFAULT);
        if (uv_loop_close(&l->uv) != 0) {
                uv_print_all_handles(&l->uv, stderr);
                abort();
        }
        heap_done(&l->deadlines);
        heap_done(&l->alarms);
        free(l);
        return NULL;
}

void loop_run(struct loop *l)
{
        refresh(l);
        (void)uv_run(&l->uv, UV_RUN_DEFAULT);
}

void loop_stop(struct loop *l) { uv_stop(&l->uv); }

static void on_poll(uv_poll_t *poll, int status, int events)
{
        struct loop_io *io = &((struct polled *)poll->data)->io;
        int seen = (events & UV_READABLE ? LOOP_READABLE : 0) | (events & UV_WRITABLE ? LOOP_WRITABLE : 0);

        /* An error is found by the owner's next read or write. */
        if (status < 0)
                seen = LOOP_READABLE | LOOP_WRITABLE | LOOP_FAILED;
        refresh(poll->loop->data);
        io->event(io->cookie, seen);
}

static struct loop_io set_io(struct loop_crowd *crowd, int fd, void (*event)(void *, int), void *cookie)
{
        return (struct loop_io){ .event = event, .cookie = cookie, .crowd = crowd, .fd = fd };
}

int loop_io_open(struct loop *l, int fd, void (*event)(void *, int), void *cookie, struct loop_io **out,
                 struct error *err)
{
        struct polled *p = calloc(1, sizeof(*p));
        int r = UV_ENOMEM;

        l->uv.data = l;
        if (!p || (r = uv_poll_init(&l->uv, &p->poll, fd)) < 0) {
                free(p);
                (void)error_set(err, ERROR_SYSTEM, "watch descriptor %d: %s", fd, uv_strerror(r));
                return -1;
        }
        p->poll.data = p;
        p->io = set_io(NULL, fd, event, cookie);
        *out = &p->io;
        return 0;
}

static void want_of_uv(struct polled *p, int events)
{
        if (events)
                (void)uv_poll_start(&p->poll,
                                    (events & LOOP_READABLE ? UV_READABLE : 0) |
                                            (events & LOOP_WRITABLE ? UV_WRITABLE : 0),
                                    on_poll);
        else
                (void)uv_poll_stop(&p->poll);
}

/* Without any event it would still be told of errors, again and again: it leaves. */
static void want_of_crowd(struct loop_io *io, int events)
{
        struct epoll_event e = { .events = (events & LOOP_READABLE ? EPOLLIN : 0u) |
                                           (events & LOOP_WRITABLE ? EPOLLOUT : 0u),
                                 .data.ptr = io };

        (void)epoll_ctl(io->crowd->fd,
                        !events    ? EPOLL_CTL_DEL
                        : io->want ? EPOLL_CTL_MOD
                                   : EPOLL_CTL_ADD,
                        io->fd, &e);
}

void loop_io_want(struct loop_io *io, int events)
{
        if (io->want == events || io->closed)
                return;
        if (io->crowd)
                want_of_crowd(io, events);
        else
                want_of_uv(CONTAINER_OF(io, struct polled, io), events);
        io->want = events;
}

static void free_io(uv_handle_t *h) { free(h->data); }

void loop_io_close(struct loop_io *io)
{
        struct polled *p;

        if (!io || io->closed)
                return;
        if (io->crowd) {
                loop_io_want(io, 0);
                for (int i = io->crowd->at; i < io->crowd->n; i++)
                        if (io->crowd->events[i].data.ptr == io)
                                io->crowd->events[i].data.ptr = NULL;
                free(io);
                return;
        }
        p = CONTAINER_OF(io, struct polled, io);
        io->closed = true;
        (void)uv_poll_stop(&p->poll);
        uv_close((uv_handle_t *)&p->poll, free_io);
}

/* ---- crowds ------------------------------------------------------------- */

static void on_crowd(void *cookie, int events UNUSED)
{
        struct loop_crowd *c = cookie;

        c->n = epoll_wait(c->fd, c->events, c->most, 0);
        for (c->at = 0; c->at < c->n; c->at++) {
                const struct epoll_event *e = &c->events[c->at];
                struct loop_io *io = e->data.ptr;
                int seen;

                if (!io)
                        continue;
                seen = (e->events & EPOLLIN ? LOOP_READABLE : 0) | (e->events & EPOLLOUT ? LOOP_WRITABLE : 0);
                /* An error is found by the owner's next read or write. What it wanted may have changed
                 * meanwhile. */
                seen = e->events & (EPOLLERR | EPOLLHUP) ? io->want : seen & io->want;
                refresh(c->loop);
                if (seen)
                        io->event(io->cookie, seen);
        }
        c->n = 0;
}

int loop_crowd_new(struct loop_crowd **out, struct loop *l, uint32_t in_a_pass, struct error *err)
{
        struct loop_crowd *c = calloc(1, sizeof(*c) + in_a_pass * sizeof(c->events[0]));

        if (!c)
                return error_memory(err);
        c->loop = l;
        c->most = (int)in_a_pass;
        c->fd = epoll_create1(EPOLL_CLOEXEC);
        if (c->fd < 0) {
                free(c);
                return error_errno(err, errno, "watch connections");
        }
        if (loop_io_open(l, c->fd, on_crowd, c, &c->io, err) < 0) {
                (void)close(c->fd);
                free(c);
                return -1;
        }
        loop_io_want(c->io, LOOP_READABLE);
        *out = c;
        return 0;
}

struct loop_crowd *loop_crowd_free(struct loop_crowd *c)
{
        if (!c)
                return NULL;
        loop_io_close(c->io);
        (void)close(c->fd);
        free(c);
        return NULL;
}

int loop_crowd_open(struct loop_crowd *c, int fd, void (*event)(void *, int), void *cookie,
                    struct loop_io **out, struct error *err)
{
        struct loop_io *io = malloc(sizeof(*io));

        if (!io)
                return error_memory(err);
        *io = set_io(c, fd, event, cookie);
        *out = io;
        return 0;
}

/* ---- signals ------------------------------------------------------------ */

void signals_block(void)
{
        sigset_t set;

        (void)signal(SIGPIPE, SIG_IGN);
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGTERM);
        (void)sigaddset(&set, SIGINT);
        (void)sigaddset(&set, SIGHUP);
        (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void on_signal(uv_signal_t *handle, int number)
{
        struct signal_watch *s = handle->data;

        refresh(CONTAINER_OF(handle->loop, struct loop, uv));
        s->event(s->cookie, number);
}

int loop_signal(struct loop *l, int number, void (*event)(void *, int), void *cookie, struct error *err)
{
        struct signal_watch *s = calloc(1, sizeof(*s));
        sigset_t set;
        int r;

        if (!s)
                return error_memory(err);
        (void)uv_signal_init(&l->uv, &s->handle);
        s->handle.data = s;
        s->event = event;
        s->cookie = cookie;
        s->next = l->signals;
        l->signals = s;
        r = uv_signal_start(&s->handle, on_signal, number);
        if (r < 0)
                return error_set(err, ERROR_SYSTEM, "watch signal %d: %s", number, uv_strerror(r));
        (void)sigemptyset(&set);
        (void)sigaddset(&set, number);
        (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
        return 0;
}
