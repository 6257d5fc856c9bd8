#include "source/inbox.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#define HASH_NONFATAL_OOM 1 /* what finds no memory is not in its table: hh.tbl is NULL */
#include "base/list.h"
#include "base/table.h"

enum { EVENTS_MOST = 16 };
static const usec REMEMBERED = USEC_HOUR, TOLD_AGAIN = USEC_MINUTE;

struct inbox_place {
        struct list_node node; /* of the lane */
        struct lane *lane;
        struct inbox_item *item;
};
struct lane {
        UT_hash_handle hh;
        struct list places;
        char key[];
};
/* found by what */
struct leader {
        UT_hash_handle hh;
        struct inbox_item *item;
};
struct memory {
        UT_hash_handle hh;
        usec until;
        char id[];
};
struct answer {
        struct list_node node;
        uint64_t call;
        int status;
        const char *text;
        usec retry_after;
};

/* What is one for all inboxes of a Trigger: of the one that receives, and of those before it, which finish
 * what they have. */
struct ledger {
        unsigned inboxes;
        struct lane *lanes;
        struct leader *leaders;
        struct memory *memories;
};

struct inbox {
        struct inbox_config config;
        struct ledger *ledger;
        struct list items, ready;
        struct list answers;
        struct list spare; /* answers: one for each call that is put off and has none yet */
        struct push_reply replies[EVENTS_MOST];
        struct record **records[EVENTS_MOST]; /* PUSH_RECORDS_MOST each; made when needed */
        uint64_t refused[REFUSAL_MAX];
        struct {
                uint64_t n;
                usec at;         /* wall: the last */
        } since[REFUSAL_MAX];    /* one was accepted: they are told */
        enum source_state state; /* while it is not connected */
        char said[256], trouble[200], text[512];
        bool connected, say, counted, stopping, closed;
        usec told_at;
};

static const struct {
        const char *text;
        int status;
} refusals[REFUSAL_MAX] = {
        [REFUSED_MALFORMED] = { "malformed", 400 },
        [REFUSED_TOO_LARGE] = { "too large", 413 },
        [REFUSED_TOPIC] = { "of another topic", 403 },
        [REFUSED_STALE] = { "too old, or of the future", 403 },
        [REFUSED_SIGNATURE] = { "bad signature", 403 },
        [REFUSED_URL] = { "an address that may not be called", 403 },
        [REFUSED_TOKEN] = { "no or a wrong token", 401 },
        [REFUSED_BUCKET] = { "of another bucket", 403 },
};

static usec now_of(const struct inbox *b) { return clock_monotonic(b->config.services->clock); }
static void wake(struct inbox *b) { loop_ready(b->config.services->loop, b->config.services->wake); }

/* ---- what was delivered ------------------------------------------------- */

/* The table keeps the order in which they came. */
static void forget_oldest(struct ledger *l)
{
        struct memory *m = l->memories;

        if (!m)
                return;
        HASH_DEL(l->memories, m);
        free(m);
}

static void remember(struct inbox *b, const char *id)
{
        struct ledger *l = b->ledger;
        struct memory *m;

        HASH_FIND_STR(l->memories, id, m);
        if (m)
                return;
        while (HASH_COUNT(l->memories) >= b->config.remember_most)
                forget_oldest(l);
        m = calloc(1, sizeof(*m) + strlen(id) + 1);
        if (!m)
                return; /* it would be delivered again: that is allowed */
        memcpy(m->id, id, strlen(id) + 1);
        m->until = now_of(b) + REMEMBERED;
        HASH_ADD_STR(l->memories, id, m);
        if (!m->hh.tbl)
                free(m);
}

bool inbox_knows(struct inbox *b, struct str id)
{
        struct ledger *l = b->ledger;
        struct memory *m;
        usec now = now_of(b);

        while (l->memories && l->memories->until <= now)
                forget_oldest(l);
        HASH_FIND(hh, l->memories, id.p, id.n, m);
        return m != NULL;
}

/* ---- lines -------------------------------------------------------------- */

static struct inbox_place *place_of(struct list_node *node)
{
        return LIST_ITEM(node, struct inbox_place, node);
}

static void make_ready(struct inbox_item *i)
{
        struct inbox *b = i->inbox;

        for (size_t k = 0; k < i->places_n; k++)
                if (i->places[k].node.previous)
                        return;
        i->state = INBOX_READY;
        list_append(&b->ready, &i->ready);
        wake(b);
}

static bool queue_up(struct inbox *b, struct inbox_item *i, struct str key)
{
        struct inbox_place *p = &i->places[i->places_n];
        struct lane *lane;

        HASH_FIND(hh, b->ledger->lanes, key.p, key.n, lane);
        if (lane && place_of(lane->places.last)->item == i)
                return true; /* the same key once more */
        if (!lane) {
                lane = calloc(1, sizeof(*lane) + key.n + 1);
                if (!lane)
                        return false;
                memcpy(lane->key, key.p, key.n);
                HASH_ADD(hh, b->ledger->lanes, key, key.n, lane);
                if (!lane->hh.tbl) {
                        free(lane);
                        return false;
                }
        }
        *p = (struct inbox_place){ .lane = lane, .item = i };
        list_append(&lane->places, &p->node);
        i->places_n++;
        return true;
}

static void leave_lane(struct inbox *b, struct inbox_place *p)
{
        struct lane *lane = p->lane;
        bool was_first = !p->node.previous;
        struct inbox_place *first;

        list_remove(&p->node);
        first = place_of(lane->places.first);
        if (!first) {
                assert(b->ledger->lanes);
                HASH_DEL(b->ledger->lanes, lane);
                free(lane);
        } else if (was_first && first->item->state == INBOX_WAITING)
                make_ready(first->item);
}

/* ---- messages ----------------------------------------------------------- */

static void unlead(struct inbox *b, const struct inbox_item *i)
{
        struct leader *l;

        HASH_FIND(hh, b->ledger->leaders, i->what, strlen(i->what), l);
        if (l && l->item == i) {
                HASH_DEL(b->ledger->leaders, l);
                free(l);
        }
}

static void drop(struct inbox_item *i)
{
        list_remove(&i->node);
        list_remove(&i->ready);
        list_remove(&i->joins);
        for (size_t k = 0; k < i->ids_n; k++)
                free(i->ids[k]);
        free(i->ids);
        free(i->what);
        free(i->places);
        i->inbox->config.drop(i->inbox->config.cookie, i);
}

/* Takes it out of everything. */
static void end(struct inbox *b, struct inbox_item *i)
{
        list_remove(&i->ready);
        if (i->what)
                unlead(b, i);
        i->state = INBOX_DELIVERING; /* nobody makes it ready any more */
        for (size_t k = 0; k < i->places_n; k++)
                leave_lane(b, &i->places[k]);
        drop(i);
}

static void answer_joined(struct inbox_item *leader, int status, const char *text, usec retry_after)
{
        for (struct inbox_item *j; (j = LIST_TAKE(&leader->joined, struct inbox_item, joins));) {
                inbox_answer(j->inbox, j->call, status, text, retry_after);
                drop(j);
        }
}

/* Its caller left: the first that joined it stands where it stood. */
static bool hand_over(struct inbox *b, struct inbox_item *i)
{
        struct inbox_item *heir = LIST_TAKE(&i->joined, struct inbox_item, joins);
        struct leader *l;

        if (!heir)
                return false;
        list_remove(&i->ready);
        HASH_FIND(hh, b->ledger->leaders, i->what, strlen(i->what), l);
        if (l) { /* always: others found it there */
                HASH_DEL(b->ledger->leaders, l);
                l->item = heir;
                HASH_ADD_KEYPTR(hh, b->ledger->leaders, heir->what, strlen(heir->what), l);
                if (!l->hh.tbl)
                        free(l); /* who comes next does not find it, and is delivered by himself */
        }
        heir->leader = NULL;
        for (struct inbox_item *j; (j = LIST_TAKE(&i->joined, struct inbox_item, joins));) {
                j->leader = heir;
                list_append(&heir->joined, &j->joins);
        }
        heir->places = TAKE(i->places);
        heir->places_n = i->places_n;
        i->places_n = 0;
        for (size_t k = 0; k < heir->places_n; k++)
                heir->places[k].item = heir;
        heir->state = INBOX_WAITING;
        heir->deadline = now_of(b) + heir->inbox->config.patience;
        drop(i);
        make_ready(heir);
        return true;
}

static bool keep_ids(struct inbox_item *i, const struct str *ids, size_t n)
{
        BUF_AT_END struct buf what = BUF_INIT(BUF_DEFAULT_MAX);

        i->ids = calloc(n, sizeof(*i->ids));
        if (!i->ids)
                return false;
        for (size_t k = 0; k < n; k++) {
                i->ids[k] = str_dup(ids[k]);
                if (!i->ids[k])
                        return false;
                i->ids_n++;
                buf_printf(&what, "%zu:" STR_FMT, ids[k].n, STR_ARG(ids[k]));
        }
        i->what = buf_take(&what);
        return i->what != NULL;
}

/* PIECE: what a piece of memory takes besides what it is asked for, or a key in a table. */
enum { PIECES = 8, PIECE = 16 };
size_t inbox_takes(size_t n, size_t ids, size_t keys)
{
        return n * (sizeof(char *) + sizeof(struct inbox_place) + sizeof(struct lane) + PIECES * PIECE) +
               2 * ids + keys;
}

static void link_item(struct inbox *b, struct inbox_item *i, uint64_t call)
{
        i->inbox = b;
        i->call = call;
        i->deadline = now_of(b) + b->config.patience;
        list_append(&b->items, &i->node);
}

static bool lead(struct inbox *b, struct inbox_item *i, const struct str *keys, size_t n)
{
        struct leader *l = calloc(1, sizeof(*l));

        i->places = calloc(n, sizeof(*i->places));
        if (!l || !i->places) {
                free(l);
                return false;
        }
        l->item = i;
        HASH_ADD_KEYPTR(hh, b->ledger->leaders, i->what, strlen(i->what), l);
        if (!l->hh.tbl) {
                free(l);
                return false;
        }
        for (size_t k = 0; k < n; k++)
                if (!queue_up(b, i, keys[k]))
                        return false;
        return true;
}

void inbox_add(struct inbox *b, struct inbox_item *i, uint64_t call, const struct str *ids,
               const struct str *keys, size_t n)
{
        struct leader *l = NULL;

        inbox_accepted(b);
        link_item(b, i, call);
        if (!keep_ids(i, ids, n)) {
                inbox_answer(b, call, 503, "out of memory", USEC_SEC);
                end(b, i);
                return;
        }
        HASH_FIND(hh, b->ledger->leaders, i->what, strlen(i->what), l);
        if (l) {
                list_append(&l->item->joined, &i->joins);
                i->state = INBOX_JOINED;
                i->leader = l->item;
                return;
        }
        if (!lead(b, i, keys ? keys : ids, n)) {
                inbox_answer(b, call, 503, "out of memory", USEC_SEC);
                end(b, i);
                return;
        }
        make_ready(i);
}

bool inbox_gone(struct inbox *b, uint64_t call)
{
        LIST_EACH (struct answer, a, &b->answers, node)
                if (a->call == call) {
                        list_remove(&a->node);
                        free(a);
                        return true;
                }
        LIST_EACH (struct inbox_item, i, &b->items, node) {
                if (i->call != call)
                        continue;
                if (i->state == INBOX_JOINED)
                        drop(i);
                else if (!hand_over(b, i))
                        end(b, i);
                inbox_put_on(b);
                return true;
        }
        return false;
}

/* ---- outcomes ----------------------------------------------------------- */

void inbox_reply(struct push_reply *r, int status, const char *text, usec retry_after)
{
        r->status = status;
        buf_text(&r->headers, "Content-Type: text/plain\r\n");
        if (retry_after > 0)
                buf_printf(&r->headers, "Retry-After: %" PRId64 "\r\n",
                           (retry_after + USEC_SEC - 1) / USEC_SEC);
        buf_printf(&r->body, "%s\n", text);
}

bool inbox_put_off(struct inbox *b)
{
        struct answer *a = calloc(1, sizeof(*a));

        if (!a)
                return false;
        list_append(&b->spare, &a->node);
        return true;
}

static struct answer *take_spare(struct inbox *b)
{
        struct answer *a = LIST_TAKE(&b->spare, struct answer, node);

        assert(a);
        return a;
}

void inbox_put_on(struct inbox *b) { free(take_spare(b)); }

void inbox_answer(struct inbox *b, uint64_t call, int status, const char *text, usec retry_after)
{
        struct answer *a = take_spare(b);

        *a = (struct answer){ .call = call, .status = status, .text = text, .retry_after = retry_after };
        list_append(&b->answers, &a->node);
        wake(b);
}

static int status_of(const struct push_outcome *o, const char **text, usec *retry_after)
{
        *retry_after = 0;
        switch (o->result) {
        case PUSH_ACCEPTED: *text = "delivered"; return 200;
        case PUSH_FILTERED: *text = "filtered"; return 200;
        case PUSH_FAILED: *text = "the function failed"; return 500;
        case PUSH_UNREACHABLE: *text = "the function can't be reached"; return 502;
        case PUSH_TIMEOUT: *text = "the function did not answer in time"; return 504;
        case PUSH_BUSY:
        case PUSH_LIMITED:
        case PUSH_NOT_READY:
                *text = o->result == PUSH_BUSY      ? "too many messages are under way"
                        : o->result == PUSH_LIMITED ? "too many messages a second"
                                                    : "not ready";
                *retry_after = MAX_OF(o->retry_after, USEC_SEC);
                return 503;
        case PUSH_GONE:
        case PUSH_REFUSED: break;
        }
        *text = "";
        return 499;
}

void inbox_finish(struct inbox *b, struct inbox_item *i, const struct push_outcome *o,
                  struct push_reply *reply)
{
        const char *text;
        usec retry_after;
        int status = status_of(o, &text, &retry_after);

        inbox_put_on(b);
        if (o->result == PUSH_GONE && hand_over(b, i))
                return;
        if (status == 200)
                for (size_t k = 0; k < i->ids_n; k++)
                        remember(b, i->ids[k]);
        inbox_reply(reply, status, text, retry_after);
        answer_joined(i, status, text, retry_after);
        end(b, i);
}

/* ---- refusals and states ------------------------------------------------ */

static void count(struct inbox *b, enum refusal kind)
{
        b->say = b->say || !b->refused[kind];
        b->counted = true;
        b->refused[kind]++;
        b->since[kind].n++;
        b->since[kind].at = clock_wall(b->config.services->clock);
}

void inbox_accepted(struct inbox *b)
{
        for (size_t k = 0; k < REFUSAL_MAX; k++)
                if (b->since[k].n) {
                        b->since[k].n = 0;
                        b->say = true;
                        wake(b);
                }
}

enum push_verdict inbox_refuse(struct inbox *b, enum refusal kind, struct push_reply *reply)
{
        count(b, kind);
        inbox_reply(reply, refusals[kind].status, refusals[kind].text, 0);
        wake(b);
        return PUSH_REPLY;
}

void inbox_refuse_later(struct inbox *b, enum refusal kind, uint64_t call)
{
        count(b, kind);
        inbox_answer(b, call, refusals[kind].status, refusals[kind].text, 0);
}

uint64_t inbox_refused(const struct inbox *b, enum refusal kind) { return b->refused[kind]; }

void inbox_connected(struct inbox *b)
{
        b->say = b->say || !b->connected;
        b->connected = true;
}

void inbox_disconnected(struct inbox *b)
{
        b->say = b->say || b->connected;
        b->connected = !b->config.waiting_for;
        wake(b);
}

void inbox_say(struct inbox *b, enum source_state state, const char *text)
{
        if (state == b->state && strncmp(text, b->said, sizeof(b->said) - 1) == 0)
                return;
        b->state = state;
        (void)snprintf(b->said, sizeof(b->said), "%s", text);
        for (size_t n = strlen(b->said); n && !str_is_utf8((struct str){ b->said, n });)
                b->said[--n] = 0;
        b->say = true;
        wake(b);
}

void inbox_trouble(struct inbox *b, const char *text)
{
        text = text ? text : "";
        if (strncmp(text, b->trouble, sizeof(b->trouble) - 1) == 0)
                return;
        (void)snprintf(b->trouble, sizeof(b->trouble), "%s", text);
        b->say = true;
        wake(b);
}

static void write_text(struct inbox *b)
{
        BUF_AT_END struct buf text = BUF_INIT(sizeof(b->text) - 1);
        const char *between = "";

        if (b->said[0] || !b->connected) {
                buf_text(&text, b->said[0] ? b->said : b->config.waiting_for);
                between = "; ";
        }
        if (b->trouble[0]) {
                buf_printf(&text, "%s%s", between, b->trouble);
                between = "; ";
        }
        for (size_t k = 0; k < REFUSAL_MAX; k++)
                if (b->since[k].n) {
                        buf_printf(&text, "%s%" PRIu64 " message%s refused: %s%s", between, b->since[k].n,
                                   b->since[k].n == 1 ? "" : "s", refusals[k].text,
                                   b->since[k].n == 1 ? ", at " : ", the last at ");
                        time_format(&text, b->since[k].at / USEC_SEC * USEC_SEC);
                        between = "; ";
                }
        (void)snprintf(b->text, sizeof(b->text), "%s", text.p ? text.p : "");
}

void inbox_stop(struct inbox *b) { b->stopping = true; }

/* ---- the source's turn -------------------------------------------------- */

static const char IN_LINE[] = "another message of the same key is under way";

static void give_up_waiting(struct inbox *b, usec now)
{
        for (struct inbox_item *i = LIST_FIRST(&b->items, struct inbox_item, node), *next; i; i = next) {
                bool late = i->state == INBOX_WAITING && i->deadline <= now;

                if (late) {
                        inbox_answer(b, i->call, 503, IN_LINE, USEC_SEC);
                        answer_joined(i, 503, IN_LINE, USEC_SEC);
                }
                next = LIST_ITEM(i->node.next, struct inbox_item, node); /* none of those that joined it */
                if (late)
                        end(b, i);
        }
}

static struct push_reply *reply_at(struct inbox *b, size_t k)
{
        struct push_reply *r = &b->replies[k];

        buf_reset(&r->headers);
        buf_reset(&r->body);
        r->headers.max = r->body.max = 4096;
        return r;
}

static bool next_answer(struct inbox *b, size_t k, struct push_event *e)
{
        struct answer *a = LIST_TAKE(&b->answers, struct answer, node);
        struct push_reply *r;

        if (!a)
                return false;
        r = reply_at(b, k);
        inbox_reply(r, a->status, a->text, a->retry_after);
        *e = (struct push_event){
                .kind = PUSH_EVENT_CALL, .call = a->call, .verdict = PUSH_REPLY, .reply = r
        };
        free(a);
        return true;
}

static void no_memory(struct inbox *b, struct inbox_item *i)
{
        inbox_answer(b, i->call, 503, "out of memory", USEC_SEC);
        answer_joined(i, 503, "out of memory", USEC_SEC);
        end(b, i);
}

static bool next_message(struct inbox *b, size_t k, struct push_event *e)
{
        struct inbox_item *i = LIST_TAKE(&b->ready, struct inbox_item, ready);
        size_t n;

        if (!i)
                return false;
        i->state = INBOX_DELIVERING;
        if (!b->records[k])
                b->records[k] = calloc(PUSH_RECORDS_MOST, sizeof(struct record *));
        n = b->records[k] ? b->config.records(b->config.cookie, i, b->records[k], PUSH_RECORDS_MOST)
                          : INBOX_NO_MEMORY;
        if (n == INBOX_NO_MEMORY) {
                no_memory(b, i);
                return next_answer(b, k, e);
        }
        *e = (struct push_event){ .kind = PUSH_EVENT_CALL,
                                  .call = i->call,
                                  .verdict = PUSH_DELIVER,
                                  .records = b->records[k],
                                  .n = n };
        if (n)
                return true;
        e->verdict = PUSH_REPLY;
        e->reply = reply_at(b, k);
        inbox_reply(e->reply, 200, "delivered before", 0);
        answer_joined(i, 200, "delivered before", 0);
        end(b, i);
        inbox_put_on(b);
        return true;
}

static bool next_state(struct inbox *b, usec now, struct push_event *e)
{
        if (!b->say && (!b->counted || now < b->told_at + TOLD_AGAIN))
                return false;
        b->say = b->counted = false;
        b->told_at = now;
        write_text(b);
        *e = (struct push_event){ .kind = PUSH_EVENT_STATE,
                                  .state = b->connected && b->state != SOURCE_REMOVED ? SOURCE_CONNECTED
                                                                                      : b->state,
                                  .text = b->text };
        return true;
}

size_t inbox_poll(struct inbox *b, struct push_event *events, size_t max, usec now)
{
        size_t n = 0;

        max = MIN_OF(max, (size_t)EVENTS_MOST);
        give_up_waiting(b, now);
        if (n < max && next_state(b, now, &events[n]))
                n++;
        while (n < max && (next_answer(b, n, &events[n]) || next_message(b, n, &events[n])))
                n++;
        if (b->stopping && !b->closed && !b->items.n && !b->answers.n && n < max) {
                b->closed = true;
                events[n++] = (struct push_event){ .kind = PUSH_EVENT_CLOSED };
        }
        return n;
}

usec inbox_deadline(const struct inbox *b)
{
        usec at = b->counted ? b->told_at + TOLD_AGAIN : USEC_NEVER;

        LIST_EACH (struct inbox_item, i, &b->items, node)
                if (i->state == INBOX_WAITING)
                        at = MIN_OF(at, i->deadline);
        return at;
}

/* ---- life --------------------------------------------------------------- */

static void leave_ledger(struct inbox *b)
{
        struct ledger *l = TAKE(b->ledger);

        if (!l || --l->inboxes)
                return;
        while (l->memories)
                forget_oldest(l);
        free(l);
}

int inbox_new(struct inbox **out, const struct inbox_config *config, struct error *err)
{
        struct inbox *b = calloc(1, sizeof(*b));

        if (b)
                b->ledger = calloc(1, sizeof(*b->ledger));
        if (!b || !b->ledger) {
                free(b);
                return error_memory(err);
        }
        b->ledger->inboxes = 1;
        b->config = *config;
        b->connected = !config->waiting_for;
        b->state = SOURCE_CONNECTING;
        b->say = true;
        *out = b;
        return 0;
}

void inbox_inherit(struct inbox *b, struct inbox *before)
{
        assert(!b->items.n);
        leave_ledger(b);
        b->ledger = before->ledger;
        b->ledger->inboxes++;
}

/* Whoever joined it gets no outcome: in this inbox its call is gone with it; in another it is tried again. */
static void abandon(struct inbox *b, struct inbox_item *i)
{
        for (struct inbox_item *j; (j = LIST_TAKE(&i->joined, struct inbox_item, joins));) {
                if (j->inbox != b)
                        inbox_answer(j->inbox, j->call, 503, "not ready", USEC_SEC);
                drop(j);
        }
        if (i->state == INBOX_JOINED)
                drop(i);
        else
                end(b, i);
}

struct inbox *inbox_free(struct inbox *b)
{
        if (!b)
                return NULL;
        for (struct inbox_item *i; (i = LIST_FIRST(&b->items, struct inbox_item, node));)
                abandon(b, i);
        leave_ledger(b);
        for (struct answer *a; (a = LIST_TAKE(&b->answers, struct answer, node));)
                free(a);
        while (b->spare.n)
                inbox_put_on(b);
        for (size_t k = 0; k < EVENTS_MOST; k++) {
                buf_done(&b->replies[k].headers);
                buf_done(&b->replies[k].body);
                free(b->records[k]);
        }
        free(b);
        return NULL;
}
