#include "http/multi.h"

struct http_multi {
        struct loop *loop;
        CURLM *multi;
        struct task timer;               /* curl's time-outs */
        void (*done)(void *, CURL *, CURLcode);
        void *cookie;
};

struct watch { struct http_multi *owner; struct loop_io *io; curl_socket_t fd; };

static void take_done(struct http_multi *m)
{
        CURLMsg *message;
        int left;

        while ((message = curl_multi_info_read(m->multi, &left)))
                if (message->msg == CURLMSG_DONE)
                        m->done(m->cookie, message->easy_handle, message->data.result);
}

static void on_socket(void *cookie, int events)
{
        struct watch *w = cookie;
        struct http_multi *m = w->owner;
        int running;

        /* The watch may be gone afterwards. */
        (void)curl_multi_socket_action(m->multi, w->fd, (events & LOOP_READABLE ? CURL_CSELECT_IN : 0) | (events & LOOP_WRITABLE ? CURL_CSELECT_OUT : 0), &running);
        take_done(m);
}

static int wants_socket(CURL *easy UNUSED, curl_socket_t fd, int what, void *cookie, void *socket_cookie)
{
        struct http_multi *m = cookie;
        struct watch *w = socket_cookie;

        if (what == CURL_POLL_REMOVE) {
                if (w) {
                        loop_io_close(w->io);
                        free(w);
                        (void)curl_multi_assign(m->multi, fd, NULL);
                }
                return 0;
        }
        if (!w) {
                w = calloc(1, sizeof(*w));
                if (!w)
                        return -1;
                w->owner = m;
                w->fd = fd;
                if (loop_io_open(m->loop, fd, on_socket, w, &w->io, NULL) < 0) {
                        free(w);
                        return -1;
                }
                (void)curl_multi_assign(m->multi, fd, w);
        }
        loop_io_want(w->io, (what & CURL_POLL_IN ? LOOP_READABLE : 0) | (what & CURL_POLL_OUT ? LOOP_WRITABLE : 0));
        return 0;
}

static int wants_timer(CURLM *multi UNUSED, long ms, void *cookie)
{
        struct http_multi *m = cookie;

        /* Never act from within this callback: the task does. */
        loop_arm(m->loop, &m->timer, ms < 0 ? USEC_NEVER : loop_now(m->loop) + (usec)ms * USEC_MSEC);
        return 0;
}

static void on_timer(struct task *t, usec now UNUSED)
{
        struct http_multi *m = CONTAINER_OF(t, struct http_multi, timer);
        int running;

        (void)curl_multi_socket_action(m->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        take_done(m);
}

int http_multi_new(struct http_multi **out, struct loop *loop, void (*done)(void *, CURL *, CURLcode), void *cookie, struct error *err)
{
        struct http_multi *m = calloc(1, sizeof(*m));

        if (!m)
                return error_memory(err);
        (void)curl_global_init(CURL_GLOBAL_DEFAULT);
        m->loop = loop;
        m->timer.turn = on_timer;
        m->done = done;
        m->cookie = cookie;
        m->multi = curl_multi_init();
        if (!m->multi) {
                free(m);
                return error_memory(err);
        }
        (void)curl_multi_setopt(m->multi, CURLMOPT_SOCKETFUNCTION, wants_socket);
        (void)curl_multi_setopt(m->multi, CURLMOPT_SOCKETDATA, m);
        (void)curl_multi_setopt(m->multi, CURLMOPT_TIMERFUNCTION, wants_timer);
        (void)curl_multi_setopt(m->multi, CURLMOPT_TIMERDATA, m);
        *out = m;
        return 0;
}

struct http_multi *http_multi_free(struct http_multi *m)
{
        if (!m)
                return NULL;
        (void)curl_multi_cleanup(m->multi);
        loop_forget(m->loop, &m->timer);
        free(m);
        return NULL;
}

int http_multi_add(struct http_multi *m, CURL *easy, struct error *err)
{
        CURLMcode r = curl_multi_add_handle(m->multi, easy);

        return r == CURLM_OK ? 0 : error_set(err, ERROR_INTERNAL, "curl: %s", curl_multi_strerror(r));
}

void http_multi_remove(struct http_multi *m, CURL *easy) { (void)curl_multi_remove_handle(m->multi, easy); }
CURLM *http_multi_handle(struct http_multi *m) { return m->multi; }
