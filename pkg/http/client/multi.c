#include "http/client/multi.h"

#include "log/log.h"

enum { UNWATCHED_MAX = 64 };

struct http_multi {
        struct loop *loop;
        CURLM *multi;
        struct task timer; /* for curl's timeouts */
        void (*done)(void *, CURL *, CURLcode);
        void *cookie;
        /* transfers whose socket can't be watched: failed at the end of the pass */
        CURL *unwatched[UNWATCHED_MAX];
        size_t unwatched_n;
};

struct watch {
        struct http_multi *owner;
        struct loop_io *io;
        curl_socket_t fd;
};

/* A multi handle that has failed once refuses all further work without an error message: only a new process
 * helps. */
static void check(CURLMcode r)
{
        if (r == CURLM_OK || r == CURLM_BAD_SOCKET)
                return;
        log_error("libcurl's multi handle failed: this process ends, so that another one takes its place",
                  LOG_S("error", curl_multi_strerror(r)));
        abort();
}

/* A transfer can't be removed from within curl's callback. */
static void fail_soon(struct http_multi *m, CURL *easy, const char *why)
{
        log_warn("a socket cannot be watched: the call fails", LOG_S("error", why));
        if (m->unwatched_n == UNWATCHED_MAX)
                check(CURLM_INTERNAL_ERROR);
        m->unwatched[m->unwatched_n++] = easy;
        loop_ready(m->loop, &m->timer);
}

static void forget_unwatched(struct http_multi *m, const CURL *easy)
{
        for (size_t i = m->unwatched_n; i-- > 0;)
                if (m->unwatched[i] == easy)
                        m->unwatched[i] = m->unwatched[--m->unwatched_n];
}

static void take_done(struct http_multi *m)
{
        CURLMsg *message;
        int left;

        while ((message = curl_multi_info_read(m->multi, &left)))
                if (message->msg == CURLMSG_DONE)
                        m->done(m->cookie, message->easy_handle, message->data.result);
        while (m->unwatched_n) {
                CURL *easy = m->unwatched[0];

                forget_unwatched(m, easy);
                m->done(m->cookie, easy, CURLE_OUT_OF_MEMORY);
        }
}

static void on_socket(void *cookie, int events)
{
        struct watch *w = cookie;
        struct http_multi *m = w->owner;
        int running;

        /* The watch may be freed afterwards. */
        check(curl_multi_socket_action(m->multi, w->fd,
                                       (events & LOOP_READABLE ? CURL_CSELECT_IN : 0) |
                                               (events & LOOP_WRITABLE ? CURL_CSELECT_OUT : 0),
                                       &running));
        take_done(m);
}

/* Always returns 0: anything else makes the whole multi handle fail, with all its transfers, for good. */
static int wants_socket(CURL *easy, curl_socket_t fd, int what, void *cookie, void *socket_cookie)
{
        struct http_multi *m = cookie;
        struct watch *w = socket_cookie;
        struct error err;

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
                if (!w) {
                        fail_soon(m, easy, "out of memory");
                        return 0;
                }
                w->owner = m;
                w->fd = fd;
                if (loop_io_open(m->loop, fd, on_socket, w, &w->io, &err) < 0) {
                        free(w);
                        fail_soon(m, easy, err.text);
                        return 0;
                }
                (void)curl_multi_assign(m->multi, fd, w);
        }
        loop_io_want(w->io,
                     (what & CURL_POLL_IN ? LOOP_READABLE : 0) | (what & CURL_POLL_OUT ? LOOP_WRITABLE : 0));
        return 0;
}

static int wants_timer(CURLM *multi UNUSED, long ms, void *cookie)
{
        struct http_multi *m = cookie;

        /* Do nothing within this callback: the task does it. */
        loop_arm(m->loop, &m->timer, ms < 0 ? USEC_NEVER : loop_now(m->loop) + (usec)ms * USEC_MSEC);
        return 0;
}

static void on_timer(struct task *t, usec now UNUSED)
{
        struct http_multi *m = CONTAINER_OF(t, struct http_multi, timer);
        int running;

        check(curl_multi_socket_action(m->multi, CURL_SOCKET_TIMEOUT, 0, &running));
        take_done(m);
}

int http_multi_new(struct http_multi **out, struct loop *loop, void (*done)(void *, CURL *, CURLcode),
                   void *cookie, struct error *err)
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

        if (r == CURLM_OUT_OF_MEMORY)
                return error_memory(err);
        check(r);
        return 0;
}

void http_multi_remove(struct http_multi *m, CURL *easy)
{
        forget_unwatched(m, easy);
        check(curl_multi_remove_handle(m->multi, easy));
}

CURLM *http_multi_handle(struct http_multi *m) { return m->multi; }
