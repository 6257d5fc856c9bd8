#include "transform/transform.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/backoff.h"
#include "transform/process.h"

enum {
        READ_SIZE = 65536,
        KEEP = 256 << 10,     /* a spare record's buffer that is larger is freed */
        KEEP_MOST = 4 * KEEP, /* of all spare records */
        BATCH = 64,           /* records of one write */
        RECORD_MAX = 1 << 30,
        STARTS = 3, /* in vain, until what waits fails */
};

enum state {
        STATE_IDLE,     /* no child */
        STATE_STARTING, /* it compiles */
        STATE_RUNNING,
        STATE_ENDING, /* killed, or seen to have closed; it is waited for */
        STATE_PAUSED, /* no child until the deadline */
};

/* One frame, which becomes its result. In the queue in the order of submission, then in done, then taken,
 * then spare. */
struct record {
        struct record *next;
        uint64_t tag, sequence;
        struct buf data; /* the frame to send; later the output */
        bool cancelled;  /* what the child answers is dropped */
        bool again;      /* sent a second time, after a death that was not known to be its fault */
        bool failed;
        struct error error;
};

struct transform {
        struct transform_config config;
        struct child_setup limits;
        struct task *wake, turn;
        struct random random;
        enum state state;
        struct process process;
        struct loop_io *io, *end;
        struct buf setup, in;
        struct record *first, **last; /* not answered */
        struct record *sending;       /* the first not wholly sent; NULL: all are */
        size_t sent;                  /* bytes of it; of the setup before the child is ready */
        bool ready;                   /* this child has compiled the program */
        struct record *done, **done_last, *taken, *spare;
        size_t spare_bytes; /* of the buffers of those that are spare */
        uint64_t sequence;
        uint64_t answered; /* by this child */
        uint64_t blamed;   /* the record for which it is killed; 0: for none */
        struct error why;  /* it is killed */
        usec deadline;     /* of the start, of the first record, of the pause */
        unsigned starts;   /* in vain, in a row */
        bool refused;      /* the program does not compile, for good; the error says why */
        struct error refusal;
};

/* ---- records ------------------------------------------------------------ */

static void recycle(struct transform *t, struct record *r)
{
        if (r->data.cap > KEEP || t->spare_bytes + r->data.cap > KEEP_MOST)
                buf_done(&r->data);
        t->spare_bytes += r->data.cap;
        r->next = t->spare;
        t->spare = r;
}

static struct record *fresh(struct transform *t)
{
        struct record *r = t->spare;
        struct buf data = BUF_INIT(RECORD_MAX);

        if (r) {
                t->spare = r->next;
                t->spare_bytes -= r->data.cap;
                data = r->data;
                buf_reset(&data);
        } else if (!(r = malloc(sizeof(*r))))
                return NULL;
        *r = (struct record){ .data = data, .sequence = ++t->sequence };
        return r;
}

static void finish(struct transform *t, struct record *r, const struct error *why)
{
        if (r->cancelled) {
                recycle(t, r);
                return;
        }
        if (why) {
                r->failed = true;
                r->error = *why;
                r->error.retry = false;
        }
        r->next = NULL;
        *t->done_last = r;
        t->done_last = &r->next;
        loop_ready(t->config.loop, t->wake);
}

static struct record *shift(struct transform *t)
{
        struct record *r = t->first;

        t->first = r->next;
        if (!t->first)
                t->last = &t->first;
        if (t->sending == r) {
                t->sending = r->next;
                t->sent = 0;
        }
        return r;
}

static void finish_all(struct transform *t, const struct error *why)
{
        while (t->first)
                finish(t, shift(t), why);
}

/* Before the next child: everything is sent anew, what nobody waits for is not. */
static void rewind_queue(struct transform *t)
{
        struct record **at = &t->first;

        for (struct record *r; (r = *at);) {
                if (r->cancelled) {
                        *at = r->next;
                        recycle(t, r);
                } else
                        at = &r->next;
        }
        t->last = at;
        t->sending = t->first;
        t->sent = 0;
        t->ready = false;
}

static bool underway(const struct transform *t) { return t->first && (t->first != t->sending || t->sent); }

/* ---- the child ---------------------------------------------------------- */

static void on_socket(void *cookie, int events);
static void on_end(void *cookie, int events);

static void set_deadline(struct transform *t, usec deadline)
{
        t->deadline = deadline;
        loop_arm(t->config.loop, &t->turn, deadline);
}

/* A start in vain: wait longer each time; in the end what waits is told. `final`: the program did it, and
 * would again. */
static void start_failed(struct transform *t, const struct error *why, bool final)
{
        t->starts++;
        if (final || t->starts >= STARTS)
                finish_all(t, why);
        t->state = STATE_PAUSED;
        set_deadline(t, loop_now(t->config.loop) + backoff_full_jitter(&t->random, 100 * USEC_MSEC,
                                                                       10 * USEC_SEC, t->starts - 1,
                                                                       10 * USEC_MSEC));
}

static void start(struct transform *t)
{
        struct error err;

        if (process_start(&t->process, t->config.executable, &err) < 0) {
                start_failed(t, &err, false);
                return;
        }
        if (loop_io_open(t->config.loop, t->process.fd, on_socket, t, &t->io, &err) < 0 ||
            loop_io_open(t->config.loop, t->process.pidfd, on_end, t, &t->end, &err) < 0) {
                struct error ignored;

                loop_io_close(t->io);
                t->io = NULL;
                process_kill(&t->process);
                (void)process_end(&t->process, 0, 0, &ignored);
                start_failed(t, &err, false);
                return;
        }
        rewind_queue(t);
        buf_reset(&t->in);
        t->answered = t->blamed = 0;
        t->state = STATE_STARTING;
        loop_io_want(t->end, LOOP_READABLE);
        loop_io_want(t->io, LOOP_READABLE | LOOP_WRITABLE);
        set_deadline(t, loop_now(t->config.loop) + t->config.start_timeout);
}

/* The end is told by the pidfd; what the child said before is read then. */
static void let_end(struct transform *t)
{
        t->state = STATE_ENDING;
        loop_io_want(t->io, 0);
        set_deadline(t, USEC_NEVER);
        process_kill(&t->process); /* of one that died by itself the status stands already */
}

static void kill_for(struct transform *t, const struct error *why)
{
        t->why = *why;
        t->blamed = t->first ? t->first->sequence : UINT64_MAX;
        let_end(t);
}

static void kill_late(struct transform *t, const char *what, usec most)
{
        BUF_AT_END struct buf time = BUF_INIT(64);
        struct error err;

        duration_format(&time, most);
        (void)error_set(&err, ERROR_TIMEOUT, "%s longer than %s", what, time.p ? time.p : "");
        kill_for(t, &err);
}

/* ---- in ----------------------------------------------------------------- */

static void mark_head(struct transform *t)
{
        set_deadline(t, underway(t) ? loop_now(t->config.loop) + t->config.timeout : USEC_NEVER);
}

static bool take_start(struct transform *t, const struct frame *head, struct str text)
{
        if (head->kind == FRAME_READY) {
                t->state = STATE_RUNNING;
                t->starts = 0;
                t->sent = 0;
                t->ready = true;
                mark_head(t);
                loop_io_want(t->io, LOOP_READABLE | (t->sending ? LOOP_WRITABLE : 0));
                return true;
        }
        if (head->kind == FRAME_REFUSED) {
                t->refused = true;
                (void)error_set(&t->refusal, ERROR_INVALID, "jq: " STR_FMT, STR_ARG(text));
                finish_all(t, &t->refusal);
                return true;
        }
        if (head->kind == FRAME_BROKEN) {
                (void)error_set(&t->why, ERROR_SYSTEM, STR_FMT, STR_ARG(text));
                t->blamed = UINT64_MAX;
                return true;
        }
        return false;
}

static bool take_answer(struct transform *t, const struct frame *head, struct str text)
{
        struct record *r = t->first;
        struct error err;

        if (!r || r == t->sending || r->sequence != head->sequence ||
            (head->kind != FRAME_RESULT && head->kind != FRAME_FAILED))
                return false;
        if (head->kind == FRAME_RESULT && text.n > t->limits.output_max)
                return false;
        t->answered++;
        r = shift(t);
        if (r->cancelled)
                recycle(t, r);
        else if (head->kind == FRAME_FAILED) {
                (void)error_set(&err, ERROR_INVALID, STR_FMT, STR_ARG(text));
                finish(t, r, &err);
        } else {
                buf_reset(&r->data);
                buf_str(&r->data, text);
                if (r->data.failed)
                        (void)error_memory(&err);
                finish(t, r, r->data.failed ? &err : NULL);
        }
        return true;
}

/* Takes whole frames; false: the child says what makes no sense. */
static bool take_frames(struct transform *t)
{
        struct str rest = buf_view(&t->in), text;
        struct frame head;
        bool sense = true;
        size_t n, most = MAX_OF((size_t)t->limits.output_max, (size_t)4096);
        uint64_t before = t->answered;

        while (sense && (n = frame_get(rest, &head, &text))) {
                sense = t->ready ? take_answer(t, &head, text) : take_start(t, &head, text);
                rest.p += n;
                rest.n -= n;
        }
        if (sense && rest.n >= sizeof(head)) {
                memcpy(&head, rest.p, sizeof(head));
                sense = head.size <= most;
        }
        buf_drop(&t->in, t->in.n - rest.n);
        if (t->answered != before && t->state == STATE_RUNNING)
                mark_head(t);
        return sense;
}

/* Reads until nothing is there, at most so often. Whether there may be more, or not: an end or an error. */
static bool receive(struct transform *t, unsigned times)
{
        struct error err;

        while (times--) {
                ssize_t n;

                if (!buf_reserve(&t->in, READ_SIZE)) {
                        (void)error_memory(&err);
                        kill_for(t, &err);
                        return false;
                }
                n = recv(t->process.fd, t->in.p + t->in.n, t->in.cap - 1 - t->in.n, 0);
                if (n < 0)
                        return errno == EAGAIN || errno == EINTR;
                if (n == 0)
                        return false;
                t->in.n += (size_t)n;
                if (!take_frames(t)) {
                        (void)error_set(&err, ERROR_PROTOCOL,
                                        "the transform's process answered something that makes no sense");
                        kill_for(t, &err);
                        return false;
                }
        }
        return true;
}

/* ---- out ---------------------------------------------------------------- */

static bool send_setup(struct transform *t)
{
        while (t->sent < t->setup.n) {
                ssize_t n = send(t->process.fd, t->setup.p + t->sent, t->setup.n - t->sent, MSG_NOSIGNAL);

                if (n < 0)
                        return errno == EAGAIN;
                t->sent += (size_t)n;
        }
        loop_io_want(t->io, LOOP_READABLE);
        return true;
}

static void count_sent(struct transform *t, size_t n)
{
        while (n && t->sending) {
                size_t left = t->sending->data.n - t->sent;

                if (n < left) {
                        t->sent += n;
                        return;
                }
                n -= left;
                t->sending = t->sending->next;
                t->sent = 0;
        }
}

/* What waits leaves with one write. */
static bool send_records(struct transform *t)
{
        bool idle = !underway(t);

        while (t->sending) {
                struct iovec parts[BATCH];
                struct msghdr message = { .msg_iov = parts };
                size_t skip = t->sent;
                ssize_t n;

                for (struct record *r = t->sending; r && message.msg_iovlen < BATCH; r = r->next, skip = 0)
                        parts[message.msg_iovlen++] = (struct iovec){ r->data.p + skip, r->data.n - skip };
                n = sendmsg(t->process.fd, &message, MSG_NOSIGNAL);
                if (n < 0 && errno == EAGAIN)
                        break;
                if (n < 0)
                        return false;
                count_sent(t, (size_t)n);
        }
        if (idle)
                mark_head(t);
        loop_io_want(t->io, LOOP_READABLE | (t->sending ? LOOP_WRITABLE : 0));
        return true;
}

static bool transmit(struct transform *t)
{
        return t->state == STATE_STARTING ? send_setup(t) : t->state != STATE_RUNNING || send_records(t);
}

/* ---- events ------------------------------------------------------------- */

static void on_socket(void *cookie, int events)
{
        struct transform *t = cookie;

        if (t->state == STATE_ENDING)
                return;
        if ((events & LOOP_READABLE && !receive(t, 1)) || (events & LOOP_WRITABLE && !transmit(t)))
                if (t->state != STATE_ENDING)
                        let_end(t);
}

/* Whose fault a death was, and what becomes of the record that was worked on. */
static void judge(struct transform *t, enum process_end end, const struct error *err)
{
        struct record *r = t->first;
        struct error why = *err;
        bool again;

        if (!r || !underway(t) || (t->blamed && t->blamed != r->sequence))
                return;
        /* libjq leaks here and there: in a child that has served others the memory may have been theirs. */
        again = !t->blamed && !r->again && (end == END_OUTSIDE || (end == END_MEMORY && t->answered));
        if (again) {
                r->again = true;
                return;
        }
        finish(t, shift(t), t->blamed ? &t->why : &why);
}

static void on_end(void *cookie, int events UNUSED)
{
        struct transform *t = cookie;
        enum process_end end;
        struct error err;

        if (t->state != STATE_ENDING || !t->blamed || t->why.kind == ERROR_TIMEOUT)
                (void)receive(t, UINT32_MAX); /* what it said before it died counts */
        loop_io_close(t->io);
        loop_io_close(t->end);
        t->io = t->end = NULL;
        set_deadline(t, USEC_NEVER);
        end = process_end(&t->process, t->config.memory,
                          t->ready ? t->config.timeout : t->config.start_timeout, &err);
        t->state = STATE_IDLE;
        if (t->refused)
                return;
        if (t->ready) {
                judge(t, end, &err);
                rewind_queue(t);
        } else
                start_failed(t, t->blamed ? &t->why : &err,
                             t->blamed ? t->why.kind == ERROR_TIMEOUT : end != END_OUTSIDE);
        if (t->first)
                loop_ready(t->config.loop, &t->turn);
}

static void on_late(struct transform *t)
{
        /* The loop may have been late itself: what has been said in time is taken first. */
        if (!receive(t, 16)) {
                if (t->state != STATE_ENDING)
                        let_end(t);
                return;
        }
        if (t->deadline > loop_now(t->config.loop))
                return;
        if (t->state == STATE_STARTING)
                kill_late(t, "compiling the transform took", t->config.start_timeout);
        else
                kill_late(t, "the transform took", t->config.timeout);
}

static void on_turn(struct task *task, usec now)
{
        struct transform *t = CONTAINER_OF(task, struct transform, turn);

        switch (t->state) {
        case STATE_PAUSED:
                if (now < t->deadline) {
                        loop_arm(t->config.loop, &t->turn, t->deadline);
                        return;
                }
                t->state = STATE_IDLE;
                __attribute__((fallthrough));
        case STATE_IDLE:
                if (t->first && !t->refused)
                        start(t);
                return;
        case STATE_STARTING:
        case STATE_RUNNING:
                if (now >= t->deadline)
                        on_late(t);
                if (t->state == STATE_RUNNING && !transmit(t))
                        let_end(t);
                return;
        case STATE_ENDING: return;
        }
}

/* ---- the interface ------------------------------------------------------ */

int transform_new(struct transform **out, const struct transform_config *config, struct task *wake,
                  struct error *err)
{
        struct transform *t = calloc(1, sizeof(*t));

        if (!t)
                return error_memory(err);
        t->config = *config;
        t->config.timeout = config->timeout ? config->timeout : TRANSFORM_TIMEOUT;
        t->config.start_timeout = config->start_timeout ? config->start_timeout : CHILD_START_TIMEOUT;
        t->config.memory = config->memory ? config->memory : TRANSFORM_MEMORY;
        t->config.output_max = config->output_max ? config->output_max : TRANSFORM_OUTPUT_MAX;
        t->limits = (struct child_setup){ t->config.memory, t->config.output_max, t->config.timeout };
        t->wake = wake;
        t->turn.turn = on_turn;
        t->last = &t->first;
        t->done_last = &t->done;
        t->deadline = USEC_NEVER;
        t->process = (struct process){ .fd = -1, .pidfd = -1 };
        t->in.max = t->config.output_max + 4096 + 4 * READ_SIZE;
        t->setup.max = RECORD_MAX;
        random_init(&t->random, random_seed());
        frame_setup(&t->setup, config->program, &t->limits);
        if (t->setup.failed) {
                (void)transform_free(t);
                return error_memory(err);
        }
        *out = t;
        return 0;
}

void transform_submit(struct transform *t, uint64_t tag, struct str input)
{
        struct record *r = fresh(t);
        struct error err;

        /* there is nothing to carry the failure either: the record stays unanswered, as the engine's own
         * memory is out */
        if (!r)
                return;
        r->tag = tag;
        frame_start(&r->data, FRAME_RECORD, r->sequence);
        buf_str(&r->data, input);
        if (!frame_finish(&r->data)) {
                (void)error_set(&err, ERROR_MEMORY, "no memory for a transform's input of %zu bytes",
                                input.n);
                finish(t, r, &err);
                return;
        }
        if (t->refused) {
                finish(t, r, &t->refusal);
                return;
        }
        *t->last = r;
        t->last = &r->next;
        if (!t->sending)
                t->sending = r;
        loop_ready(t->config.loop, &t->turn);
}

static void drop_unsent(struct transform *t, struct record **at)
{
        struct record *r = *at;

        *at = r->next;
        if (!r->next)
                t->last = at;
        if (t->sending == r)
                t->sending = r->next;
        recycle(t, r);
}

/* What the child has not begun to read is not sent to it: who cancels as fast as he submits keeps neither it
 * busy nor memory full. Of what it has read whole the answer alone is waited for. */
static void cancel_waiting(struct transform *t, uint64_t tag)
{
        bool sent = true;

        for (struct record **at = &t->first, *r; (r = *at); at = &r->next) {
                sent = sent && r != t->sending;
                if (r->tag != tag || r->cancelled)
                        continue;
                r->cancelled = true;
                if (sent)
                        buf_done(&r->data);
                else if (r != t->sending || t->state != STATE_RUNNING || !t->sent)
                        drop_unsent(t, at);
                return;
        }
}

void transform_cancel(struct transform *t, uint64_t tag)
{
        struct record *r;

        for (struct record **at = &t->done; (r = *at); at = &r->next)
                if (r->tag == tag) {
                        *at = r->next;
                        if (!r->next)
                                t->done_last = at;
                        recycle(t, r);
                        return;
                }
        cancel_waiting(t, tag);
}

size_t transform_held(const struct transform *t)
{
        size_t n = 0;

        for (const struct record *r = t->first; r; r = r->next)
                n += r->data.cap;
        for (const struct record *r = t->done; r; r = r->next)
                n += r->data.cap;
        return n;
}

bool transform_take(struct transform *t, struct transform_result *out)
{
        struct record *r = t->done;

        if (t->taken)
                recycle(t, t->taken);
        t->taken = r;
        if (!r)
                return false;
        t->done = r->next;
        if (!t->done)
                t->done_last = &t->done;
        *out = (struct transform_result){ .tag = r->tag, .failed = r->failed };
        if (r->failed)
                out->error = r->error;
        else
                out->output = buf_view(&r->data);
        return true;
}

pid_t transform_process(const struct transform *t) { return t->process.pid; }

static void free_list(struct record *list)
{
        for (struct record *next; list; list = next) {
                next = list->next;
                buf_done(&list->data);
                free(list);
        }
}

struct transform *transform_free(struct transform *t)
{
        struct error ignored;

        if (!t)
                return NULL;
        loop_forget(t->config.loop, &t->turn);
        loop_io_close(t->io);
        loop_io_close(t->end);
        if (t->process.pid) {
                process_kill(&t->process);
                (void)process_end(&t->process, 0, 0, &ignored);
        }
        if (t->taken)
                recycle(t, t->taken);
        free_list(t->first);
        free_list(t->done);
        free_list(t->spare);
        buf_done(&t->setup);
        buf_done(&t->in);
        free(t);
        return NULL;
}

/* ---- check -------------------------------------------------------------- */

/* Waits for the descriptor; false: it is too late. */
static bool wait_for(int fd, short events, usec deadline)
{
        usec left = deadline - clock_monotonic(&system_clock);
        struct pollfd p = { .fd = fd, .events = events };

        return left > 0 && (poll(&p, 1, (int)(left / 1000) + 1) > 0 || errno == EINTR);
}

enum verdict { VERDICT_FINE, VERDICT_REFUSED, VERDICT_DIED, VERDICT_LATE };

static enum verdict converse(const struct process *p, struct str setup, struct buf *in, usec deadline,
                             struct error *err)
{
        struct frame head;
        struct str text;

        while (setup.n) {
                ssize_t n = send(p->fd, setup.p, setup.n, MSG_NOSIGNAL);

                if (n < 0 && errno != EAGAIN && errno != EINTR)
                        return VERDICT_DIED;
                if (n > 0) {
                        setup.p += n;
                        setup.n -= (size_t)n;
                } else if (!wait_for(p->fd, POLLOUT, deadline))
                        return VERDICT_LATE;
        }
        while (!frame_get(buf_view(in), &head, &text)) {
                ssize_t n;

                if (!wait_for(p->fd, POLLIN, deadline))
                        return VERDICT_LATE;
                if (in->n > READ_SIZE || !buf_reserve(in, READ_SIZE))
                        return VERDICT_DIED;
                n = recv(p->fd, in->p + in->n, in->cap - 1 - in->n, 0);
                if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                        return VERDICT_DIED;
                in->n += n > 0 ? (size_t)n : 0;
        }
        if (head.kind == FRAME_READY)
                return VERDICT_FINE;
        (void)error_set(err, head.kind == FRAME_REFUSED ? ERROR_INVALID : ERROR_SYSTEM, "%s" STR_FMT,
                        head.kind == FRAME_REFUSED ? "jq: " : "", STR_ARG(text));
        return VERDICT_REFUSED;
}

int transform_check(const char *program, struct error *err)
{
        BUF_AT_END struct buf setup = BUF_INIT(RECORD_MAX), in = BUF_INIT(4 * READ_SIZE);
        const struct child_setup limits = { TRANSFORM_MEMORY, TRANSFORM_OUTPUT_MAX, TRANSFORM_TIMEOUT };
        struct process p;
        struct error death;
        enum verdict verdict;

        frame_setup(&setup, program, &limits);
        if (setup.failed)
                return error_memory(err);
        if (process_start(&p, NULL, err) < 0)
                return -1;
        verdict = converse(&p, buf_view(&setup), &in, clock_monotonic(&system_clock) + CHILD_START_TIMEOUT,
                           err);
        process_kill(&p);
        (void)process_end(&p, TRANSFORM_MEMORY, CHILD_START_TIMEOUT, &death);
        switch (verdict) {
        case VERDICT_FINE: return 0;
        case VERDICT_REFUSED: return -1;
        case VERDICT_LATE:
                return error_set(err, ERROR_INVALID, "compiling the transform took longer than 10s");
        case VERDICT_DIED: break;
        }
        *err = death;
        return -1;
}
