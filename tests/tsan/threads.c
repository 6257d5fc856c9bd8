/* For ThreadSanitizer alone: librdkafka uses C11 threads, which it does not intercept. These map them to
 * pthreads, which it does. Linked into the tests of a SANITIZE=thread build; the types of glibc's threads.h
 * hold those of pthreads (sizes are checked). */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

_Static_assert(sizeof(mtx_t) >= sizeof(pthread_mutex_t) && sizeof(cnd_t) >= sizeof(pthread_cond_t) &&
                       sizeof(thrd_t) == sizeof(pthread_t),
               "glibc's own layout");

struct start {
        thrd_start_t run;
        void *argument;
};

static void *run(void *cookie)
{
        struct start s = *(struct start *)cookie;

        free(cookie);
        return (void *)(intptr_t)s.run(s.argument);
}

static int result(int r)
{
        return r == 0           ? thrd_success
               : r == EBUSY     ? thrd_busy
               : r == ETIMEDOUT ? thrd_timedout
               : r == ENOMEM    ? thrd_nomem
                                : thrd_error;
}
static pthread_mutex_t *m(mtx_t *x) { return (pthread_mutex_t *)(void *)x; }
static pthread_cond_t *c(cnd_t *x) { return (pthread_cond_t *)(void *)x; }

int thrd_create(thrd_t *thread, thrd_start_t function, void *argument)
{
        struct start *s = malloc(sizeof(*s));

        if (!s)
                return thrd_nomem;
        *s = (struct start){ function, argument };
        return result(pthread_create(thread, NULL, run, s));
}

int thrd_join(thrd_t thread, int *code)
{
        void *value;
        int r = pthread_join(thread, &value);

        if (code && r == 0)
                *code = (int)(intptr_t)value;
        return result(r);
}

int thrd_detach(thrd_t thread) { return result(pthread_detach(thread)); }
thrd_t thrd_current(void) { return pthread_self(); }
int thrd_equal(thrd_t a, thrd_t b) { return pthread_equal(a, b); }

int mtx_init(mtx_t *x, int type)
{
        pthread_mutexattr_t attributes;
        int r;

        (void)pthread_mutexattr_init(&attributes);
        if (type & mtx_recursive)
                (void)pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
        r = pthread_mutex_init(m(x), &attributes);
        (void)pthread_mutexattr_destroy(&attributes);
        return result(r);
}

void mtx_destroy(mtx_t *x) { (void)pthread_mutex_destroy(m(x)); }
int mtx_lock(mtx_t *x) { return result(pthread_mutex_lock(m(x))); }
int mtx_trylock(mtx_t *x) { return result(pthread_mutex_trylock(m(x))); }
int mtx_unlock(mtx_t *x) { return result(pthread_mutex_unlock(m(x))); }
int cnd_init(cnd_t *x) { return result(pthread_cond_init(c(x), NULL)); }
void cnd_destroy(cnd_t *x) { (void)pthread_cond_destroy(c(x)); }
int cnd_signal(cnd_t *x) { return result(pthread_cond_signal(c(x))); }
int cnd_broadcast(cnd_t *x) { return result(pthread_cond_broadcast(c(x))); }
int cnd_wait(cnd_t *x, mtx_t *y) { return result(pthread_cond_wait(c(x), m(y))); }
int cnd_timedwait(cnd_t *restrict x, mtx_t *restrict y, const struct timespec *restrict until)
{
        return result(pthread_cond_timedwait(c(x), m(y), until));
}
