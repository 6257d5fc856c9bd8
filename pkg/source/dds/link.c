#include "source/dds/link.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* How long a server waits for something to tell, in ms; and a READ for a first change. */
enum { AWAIT_MS = 1000, CONNECT_MS = 5000, CHANGES_MOST = 10000 };
static const usec IDLE_MOST = 30 * USEC_SEC;

/* What the thread says while it works. */
struct told {
        pthread_mutex_t lock;
        /* under the lock */
        struct dds_fault trouble;
        bool trouble_changed;
        struct buf reached;  /* a mark; n 0: it can't be told, or something was brought */
        bool finished, left; /* the job is at its end; nobody will take it */
        struct link_access access;
        bool renewed; /* access is another one than the client was made with */
};

struct link {
        struct helper_job job; /* the first member */
        struct link_config config;
        struct helper *helper;
        bool submitted, taken;
        int cut;
        atomic_bool hurried;
        struct waker_slot slot;
        struct told told;
        /* the job: */
        enum link_work work;
        size_t bytes;
        struct buf mark; /* in and out */
        struct dds_fault fault;
        struct error unread;
        struct link_change *changes, **changes_last;
        size_t changes_n, changes_bytes;
        /* the thread's: */
        struct dds_client *client;
        bool open;     /* it has a stream */
        struct buf at; /* where that stream is: a mark */
        bool advanced; /* by this job */
        struct dds_reading reading;
        struct dds_position position;
};

/* ---- access ------------------------------------------------------------- */

void link_access_done(struct link_access *a)
{
        free(a->user);
        if (a->password)
                explicit_bzero(a->password, strlen(a->password));
        free(a->password);
        free(a->ca);
        free(a->cert);
        if (a->key)
                explicit_bzero(a->key, strlen(a->key));
        free(a->key);
        *a = (struct link_access){ 0 };
}

void link_renew(struct link *l, struct link_access *access)
{
        (void)pthread_mutex_lock(&l->told.lock);
        link_access_done(&l->told.access);
        l->told.access = *access;
        l->told.renewed = true;
        (void)pthread_mutex_unlock(&l->told.lock);
        *access = (struct link_access){ 0 };
}

static bool is_renewed(struct link *l)
{
        bool renewed;

        (void)pthread_mutex_lock(&l->told.lock);
        renewed = l->told.renewed;
        (void)pthread_mutex_unlock(&l->told.lock);
        return renewed;
}

/* ---- what the thread says ----------------------------------------------- */

/* Called by the driver. */
static void trouble(void *cookie, const struct dds_fault *fault)
{
        struct link *l = cookie;
        bool rings;

        (void)pthread_mutex_lock(&l->told.lock);
        rings = !l->told.left && (fault || l->told.trouble.kind != DDS_FAULT_NONE);
        l->told.trouble = fault ? *fault : (struct dds_fault){ 0 };
        text_plain(l->told.trouble.text);
        l->told.trouble_changed = l->told.trouble_changed || rings;
        if (rings)
                waker_ring(l->config.waker, &l->slot);
        (void)pthread_mutex_unlock(&l->told.lock);
}

bool link_trouble(struct link *l, struct dds_fault *out, bool *changed)
{
        (void)pthread_mutex_lock(&l->told.lock);
        *out = l->told.trouble;
        *changed = l->told.trouble_changed;
        l->told.trouble_changed = false;
        (void)pthread_mutex_unlock(&l->told.lock);
        return out->kind != DDS_FAULT_NONE;
}

static void say_reached(struct link *l, struct str mark)
{
        (void)pthread_mutex_lock(&l->told.lock);
        buf_reset(&l->told.reached);
        buf_str(&l->told.reached, mark);
        (void)pthread_mutex_unlock(&l->told.lock);
}

bool link_reached(struct link *l, struct buf *mark)
{
        bool known;

        (void)pthread_mutex_lock(&l->told.lock);
        known = l->told.reached.n > 0 && !l->told.reached.failed;
        if (known)
                buf_str(mark, buf_view(&l->told.reached));
        (void)pthread_mutex_unlock(&l->told.lock);
        return known;
}

/* ---- the stream --------------------------------------------------------- */

static bool fails(struct link *l, enum dds_fault_kind kind, const char *text)
{
        l->fault = (struct dds_fault){ .kind = kind };
        (void)text_copy(l->fault.text, sizeof(l->fault.text), text);
        return false;
}

static const char *mechanism_of(const struct dds_credentials *c)
{
        static const char *const names[] = { NULL, "SCRAM-SHA-256", "SCRAM-SHA-1", "MONGODB-X509" };

        return names[c->mechanism];
}

/* With the lock held: the access is not replaced meanwhile. */
static struct dds_client *new_client(struct link *l)
{
        const struct dds_spec *spec = l->config.spec;
        const struct link_access *a = &l->told.access;
        const struct dds_line line = { .cut = l->cut, .trouble = trouble, .cookie = l };
        const struct dds_target target = {
                .hosts = (const char *const *)spec->hosts.list,
                .hosts_n = spec->hosts.n,
                .replica_set = spec->replica_set,
                .direct = spec->direct,
                .user = a->user,
                .password = a->password,
                .auth_source = spec->credentials ? spec->credentials->auth_source : NULL,
                .mechanism = spec->credentials ? mechanism_of(spec->credentials) : NULL,
                .tls = spec->tls != NULL,
                .verify_hostname = spec->tls && spec->tls->verify_hostname,
                .ca = a->ca,
                .cert = a->cert,
                .key = a->key,
                .connect_ms = CONNECT_MS,
        };

        return l->config.driver->open(&target, &line, &l->fault);
}

static void close_client(struct link *l)
{
        l->config.driver->close(TAKE(l->client));
        l->open = false;
        dds_reading_reset(&l->reading);
}

static bool have_client(struct link *l)
{
        if (l->client)
                return true;
        (void)pthread_mutex_lock(&l->told.lock);
        if (!l->told.left)
                l->client = new_client(l);
        l->told.renewed = false;
        (void)pthread_mutex_unlock(&l->told.lock);
        return l->client != NULL;
}

static bool watch(struct link *l)
{
        static const char *const full[] = { "updateLookup", NULL, "whenAvailable", "required" };
        static const char *const before[] = { NULL, "whenAvailable", "required" };
        const struct dds_spec *spec = l->config.spec;
        struct dds_watch w = { .database = spec->database,
                               .collection = spec->collection,
                               .operations = (const char *const *)spec->operations.list,
                               .operations_n = spec->operations.n,
                               .pipeline = spec->pipeline,
                               .full_document = full[spec->full_document],
                               .before = before[spec->before],
                               .await_ms = AWAIT_MS };

        if (!dds_position_read(buf_view(&l->mark), &l->position))
                return fails(l, DDS_FAULT_CONFIG, "the position is none of a change stream");
        w.from = l->position.kind == DDS_POSITION_TIME    ? DDS_AT_TIME
                 : l->position.kind == DDS_POSITION_RENEW ? DDS_START_AFTER
                                                          : DDS_RESUME_AFTER;
        w.time = l->position.time;
        w.token = (struct dds_bytes){ l->position.token.p, l->position.token.n };
        return l->config.driver->watch(l->client, &w, &l->fault) == 0;
}

static bool stand_at(struct link *l, struct str mark)
{
        buf_reset(&l->at);
        buf_str(&l->at, mark);
        return !l->at.failed || fails(l, DDS_FAULT_MEMORY, "out of memory");
}

/* Another connection, as whom we are now; the old one goes once the new one is there. */
static bool renew(struct link *l)
{
        struct dds_client *old = TAKE(l->client);

        l->open = false;
        if (!have_client(l) || !watch(l)) {
                l->config.driver->close(old);
                return false;
        }
        l->config.driver->close(old);
        return true;
}

/* The stream is there, and stands at the mark. */
static bool have_stream(struct link *l)
{
        bool stands = l->open && str_equal(buf_view(&l->at), buf_view(&l->mark));
        bool opened;

        if (stands && !is_renewed(l))
                return true;
        dds_reading_reset(&l->reading);
        opened = is_renewed(l) && l->client ? renew(l) : have_client(l) && watch(l);
        l->open = opened && stand_at(l, buf_view(&l->mark));
        return l->open;
}

/* ---- reading ------------------------------------------------------------ */

static char *put(char *at, struct str text, struct str *kept)
{
        memcpy(at, text.p, text.n);
        *kept = (struct str){ at, text.n };
        return at + text.n;
}

static bool keep_change(struct link *l)
{
        const struct dds_reading *g = &l->reading;
        size_t bytes = g->document.n + g->token.n + g->id.n + g->position.n;
        struct link_change *c = malloc(sizeof(*c) + bytes);
        char *at;

        if (!c)
                return fails(l, DDS_FAULT_MEMORY, "out of memory");
        c->next = NULL;
        c->invalidate = g->invalidate;
        c->told.change = g->change;
        at = put(c->bytes, buf_view(&g->document), &c->told.document);
        at = put(at, buf_view(&g->token), &c->told.token);
        at = put(at, buf_view(&g->id), &c->told.id);
        (void)put(at, buf_view(&g->position), &c->told.mark);
        *l->changes_last = c;
        l->changes_last = &c->next;
        l->changes_n++;
        l->changes_bytes += sizeof(*c) + bytes;
        if (l->changes_n == 1)
                say_reached(l, (struct str){ 0 });
        l->advanced = true;
        return stand_at(l, c->told.mark);
}

/* A change, or a part of one. */
static bool take(struct link *l, struct dds_bytes bson)
{
        int whole = dds_reading_take(&l->reading, (struct str){ bson.p, bson.n }, &l->unread);

        if (whole < 0)
                return fails(l, DDS_FAULT_OTHER, l->unread.text);
        return whole == 0 || keep_change(l);
}

/* Nothing is left: what the server has looked through counts as read. */
static bool take_reached(struct link *l)
{
        struct dds_bytes token = l->config.driver->reached(l->client);
        struct dds_time now = l->config.driver->clock(l->client);

        if (!token.n || l->reading.fragments)
                return true;
        buf_reset(&l->at);
        dds_position_write(l->position.kind == DDS_POSITION_RENEW && !l->changes_n ? DDS_POSITION_RENEW
                                                                                   : DDS_POSITION_AFTER,
                           now, (struct str){ token.p, token.n }, &l->at);
        if (l->at.failed)
                return fails(l, DDS_FAULT_MEMORY, "out of memory");
        l->advanced = true;
        if (!l->changes_n)
                say_reached(l, buf_view(&l->at));
        return true;
}

static bool is_enough(const struct link *l)
{
        return l->changes_n >= CHANGES_MOST || l->changes_bytes >= l->bytes ||
               (l->changes_n && !l->config.driver->left(l->client) && !l->reading.fragments);
}

/* The server has closed the stream behind an invalidate event: another one is opened there. */
static bool reopen(struct link *l)
{
        if (!l->reading.invalidate)
                return fails(
                        l, DDS_FAULT_CONFIG,
                        "the server has closed the stream, since what is watched was dropped or renamed, "
                        "and its last event, invalidate, is left out by the pipeline: let it pass");
        buf_reset(&l->mark);
        buf_str(&l->mark, buf_view(&l->at));
        l->open = false;
        return have_stream(l);
}

static void read_changes(struct link *l)
{
        const struct dds_driver *d = l->config.driver;
        usec until = clock_monotonic(l->config.clock) + MIN_OF(IDLE_MOST, l->config.spec->token_interval);
        bool well = have_stream(l);

        while (well && !atomic_load(&l->hurried) && !is_enough(l)) {
                struct dds_bytes bson;
                enum dds_next next = d->next(l->client, &bson, &l->fault);

                well = next == DDS_NEXT_DOCUMENT  ? take(l, bson)
                       : next == DDS_NEXT_NOTHING ? take_reached(l)
                                                  : false;
                if (well && d->over(l->client) && !d->left(l->client))
                        well = reopen(l);
                else if (next == DDS_NEXT_NOTHING &&
                         (clock_monotonic(l->config.clock) >= until || is_renewed(l)))
                        break;
        }
        if (!well)
                close_client(l);
        else if (!d->left(l->client) && l->changes_n)
                (void)take_reached(l);
}

/* ---- jobs --------------------------------------------------------------- */

static void ask_time(struct link *l)
{
        const struct dds_driver *d = l->config.driver;
        struct dds_time time;

        if (!have_client(l) || (l->work == LINK_NOW ? d->now : d->oldest)(l->client, &time, &l->fault) < 0) {
                close_client(l);
                return;
        }
        buf_reset(&l->mark);
        dds_position_write(DDS_POSITION_TIME, time, (struct str){ 0 }, &l->mark);
        if (l->mark.failed)
                (void)fails(l, DDS_FAULT_MEMORY, "out of memory");
}

static void free_changes(struct link *l)
{
        for (struct link_change *c = l->changes, *next; c; c = next) {
                next = c->next;
                free(c);
        }
        l->changes = NULL;
        l->changes_last = &l->changes;
        l->changes_n = l->changes_bytes = 0;
}

/* What hangs on the link, but not the link itself. */
static void let_go(struct link *l)
{
        close_client(l);
        free_changes(l);
        link_access_done(&l->told.access);
        buf_done(&l->told.reached);
        buf_done(&l->mark);
        buf_done(&l->at);
        buf_done(&l->position.token);
        dds_reading_done(&l->reading);
        (void)close(l->cut);
        (void)pthread_mutex_destroy(&l->told.lock);
}

static void work(struct helper_job *job)
{
        struct link *l = CONTAINER_OF(job, struct link, job);
        bool left;

        switch (l->work) {
        case LINK_OPEN:
                if (!have_stream(l))
                        close_client(l);
                break;
        case LINK_READ:
                read_changes(l);
                buf_reset(&l->mark);
                if (l->advanced)
                        buf_str(&l->mark, buf_view(&l->at));
                break;
        case LINK_NOW:
        case LINK_OLDEST: ask_time(l); break;
        case LINK_CLOSE: close_client(l); break;
        }
        text_plain(l->fault.text);
        (void)pthread_mutex_lock(&l->told.lock);
        l->told.finished = true;
        left = l->told.left;
        (void)pthread_mutex_unlock(&l->told.lock);
        if (left)
                let_go(l);
}

int link_submit(struct link *l, enum link_work what, struct str mark, size_t bytes, struct error *err)
{
        free_changes(l);
        l->work = what;
        l->bytes = bytes;
        l->fault = (struct dds_fault){ 0 };
        l->unread.kind = ERROR_NONE;
        l->advanced = false;
        l->told.finished = false;
        buf_reset(&l->told.reached);
        buf_reset(&l->mark);
        buf_str(&l->mark, mark);
        if (l->mark.failed)
                return error_memory(err);
        atomic_store(&l->hurried, false);
        if (helper_submit(l->helper, &l->job, err) < 0)
                return -1;
        l->submitted = true;
        return 0;
}

bool link_busy(const struct link *l) { return l->submitted; }

bool link_take(struct link *l)
{
        if (!l->submitted || !helper_take(l->helper))
                return false;
        l->submitted = false;
        return true;
}

const struct dds_fault *link_fault(const struct link *l) { return &l->fault; }
const struct error *link_unread(const struct link *l) { return &l->unread; }
const struct link_change *link_changes(const struct link *l) { return l->changes; }
struct str link_mark(const struct link *l) { return buf_view(&l->mark); }

void link_hurry(struct link *l) { atomic_store(&l->hurried, true); }

void link_cut(struct link *l)
{
        const uint64_t one = 1;
        ssize_t n = write(l->cut, &one, sizeof(one));

        (void)n; /* it is full only when it was cut already */
        atomic_store(&l->hurried, true);
}

/* ---- life --------------------------------------------------------------- */

enum { MARK_MOST = 512 << 10 };

int link_new(struct link **out, const struct link_config *config, struct error *err)
{
        struct link *l = calloc(1, sizeof(*l));

        if (!l)
                return error_memory(err);
        l->config = *config;
        l->job.work = work;
        l->slot.task = config->wake;
        l->changes_last = &l->changes;
        l->mark.max = l->at.max = l->told.reached.max = MARK_MOST;
        dds_reading_init(&l->reading);
        (void)pthread_mutex_init(&l->told.lock, NULL);
        l->cut = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (l->cut < 0)
                (void)error_errno(err, errno, "make a descriptor");
        if (l->cut >= 0 && helper_new(&l->helper, config->waker, config->wake, err) == 0) {
                *out = l;
                return 0;
        }
        if (l->cut >= 0)
                let_go(l);
        free(l);
        return -1;
}

struct link *link_free(struct link *l)
{
        if (!l)
                return NULL;
        if (l->submitted)
                link_cut(l);
        (void)helper_free(l->helper);
        waker_forget(l->config.waker, &l->slot);
        let_go(l);
        free(l);
        return NULL;
}

struct link *link_leave(struct link *l)
{
        struct helper *helper = l->helper;
        bool finished;

        (void)pthread_mutex_lock(&l->told.lock);
        finished = l->told.finished;
        l->told.left = !finished;
        if (!finished)
                waker_forget(l->config.waker, &l->slot); /* from here on it does not ring */
        (void)pthread_mutex_unlock(&l->told.lock);
        if (finished)
                return link_free(l);
        if (helper_leave(helper, &l->job))
                return NULL; /* the thread frees it */
        (void)helper_free(helper);
        free(l); /* what hung on it went with the job */
        return NULL;
}
