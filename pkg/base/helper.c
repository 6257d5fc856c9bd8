#include "base/helper.h"

#include <pthread.h>

struct queue {
        struct helper_job *first, **last;
};

struct helper {
        struct waker *waker;
        struct waker_slot slot;
        pthread_t thread;
        bool started; /* it is to be joined */
        pthread_mutex_t lock;
        /* under the lock */
        struct queue waiting, done;
        bool working; /* the thread will look for another job */
        bool stopped;
        bool left; /* nobody waits for the job under way any more */
};

static void put(struct queue *q, struct helper_job *job)
{
        job->next = NULL;
        *q->last = job;
        q->last = &job->next;
}

static struct helper_job *get(struct queue *q)
{
        struct helper_job *job = q->first;

        if (!job)
                return NULL;
        q->first = job->next;
        if (!q->first)
                q->last = &q->first;
        return job;
}

/* The next job; NULL: there is none, and the thread ends. */
static struct helper_job *next_job(struct helper *h)
{
        struct helper_job *job;

        (void)pthread_mutex_lock(&h->lock);
        job = h->stopped ? NULL : get(&h->waiting);
        h->working = job != NULL;
        (void)pthread_mutex_unlock(&h->lock);
        return job;
}

static void discard(struct helper *h)
{
        (void)pthread_mutex_destroy(&h->lock);
        free(h);
}

static void *help(void *argument)
{
        struct helper *h = argument;
        struct helper_job *job;
        bool left;

        while ((job = next_job(h))) {
                job->work(job);
                (void)pthread_mutex_lock(&h->lock);
                job->done = true;
                left = h->left;
                if (!left)
                        put(&h->done, job);
                (void)pthread_mutex_unlock(&h->lock);
                if (left) {
                        free(job);
                        discard(h);
                        return NULL;
                }
                waker_ring(h->waker, &h->slot);
        }
        return NULL;
}

static void join(struct helper *h)
{
        if (h->started)
                (void)pthread_join(h->thread, NULL);
        h->started = false;
}

int helper_new(struct helper **out, struct waker *waker, struct task *wake, struct error *err)
{
        struct helper *h = calloc(1, sizeof(*h));

        if (!h)
                return error_memory(err);
        h->waker = waker;
        h->slot.task = wake;
        h->waiting.last = &h->waiting.first;
        h->done.last = &h->done.first;
        (void)pthread_mutex_init(&h->lock, NULL);
        *out = h;
        return 0;
}

int helper_submit(struct helper *h, struct helper_job *job, struct error *err)
{
        bool working;

        job->done = false;
        (void)pthread_mutex_lock(&h->lock);
        working = h->working;
        if (working)
                put(&h->waiting, job);
        (void)pthread_mutex_unlock(&h->lock);
        if (working)
                return 0;
        join(h); /* it found nothing to do and is at its end */
        put(&h->waiting, job);
        h->working = true;
        if (pthread_create(&h->thread, NULL, help, h) == 0) {
                h->started = true;
                return 0;
        }
        (void)get(&h->waiting);
        h->working = false;
        return error_set(err, ERROR_SYSTEM, "start a thread for a call that blocks: there are too many");
}

struct helper_job *helper_take(struct helper *h)
{
        struct helper_job *job;

        (void)pthread_mutex_lock(&h->lock);
        job = get(&h->done);
        if (!job && h->stopped)
                job = get(&h->waiting);
        (void)pthread_mutex_unlock(&h->lock);
        return job;
}

bool helper_stopping(struct helper *h)
{
        bool stopped;

        (void)pthread_mutex_lock(&h->lock);
        stopped = h->stopped;
        (void)pthread_mutex_unlock(&h->lock);
        return stopped;
}

void helper_stop(struct helper *h)
{
        (void)pthread_mutex_lock(&h->lock);
        h->stopped = true;
        (void)pthread_mutex_unlock(&h->lock);
        join(h);
}

bool helper_leave(struct helper *h, struct helper_job *job)
{
        bool left;

        (void)pthread_mutex_lock(&h->lock);
        left = h->left = !job->done;
        if (left) {
                waker_forget(h->waker, &h->slot); /* from here on it does not ring */
                (void)pthread_detach(h->thread);
        }
        (void)pthread_mutex_unlock(&h->lock); /* it may be gone afterwards */
        return left;
}

struct helper *helper_free(struct helper *h)
{
        if (!h)
                return NULL;
        helper_stop(h);
        waker_forget(h->waker, &h->slot);
        discard(h);
        return NULL;
}
