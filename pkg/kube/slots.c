#include "kube/slots.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/random.h"

/* How long records in flight may take after a slot is given up; and, when it could not be renewed, until how
 * long after its last renewal. */
static const usec HANDING_OVER = 10 * USEC_SEC, LOST_AT = 14 * USEC_SEC;
static const usec MARK_LIFE = 15 * USEC_SEC; /* then a holder that did not react is asked again */

struct slot {
        enum claim_state state;
        usec give_up_at;
        bool theirs;   /* LEAVING: another worker holds it already */
        bool released; /* LEAVING: it may be freed */
        bool known,
                fresh;  /* it was read once; the version we know is the last, so that a write may succeed */
        bool just_read; /* in this very call: a write is decided upon now */
        bool busy;
        enum slots_job_kind doing;
        usec asked_at, renewed_at; /* when the job began; when the last confirmed renewal began */
        usec seen_at;              /* when holder or renewed was last seen to change */
        usec next_at;
        usec avoid_until; /* until then it is left to the worker that waited for it */
        usec marked_at;   /* when we wrote here that we wait; 0: we did not */
        char *holder, *renewed, *waits, *version;
        int64_t slots, generation, transitions;
        usec duration;
};

struct slots {
        char *me;
        uint32_t n;
        int64_t generation;
        bool outdated; /* by the Leases there is another number of slots, of a later generation */
        struct random random;
        uint64_t changes;
        bool stopping;
        char why[480]; /* what the last look failed with; empty: it did not */
        char outdated_by[240];
        char mark[300];
        struct slot slots[];
};

/* ---- life --------------------------------------------------------------- */

int slots_new(struct slots **out, const struct slots_config *config, struct error *err)
{
        struct slots *s = calloc(1, sizeof(*s) + config->n * sizeof(s->slots[0]));

        if (!s || !(s->me = str_dup(str_of(config->me)))) {
                free(s);
                return error_memory(err);
        }
        s->n = config->n;
        s->generation = config->generation;
        random_init(&s->random, config->seed);
        *out = s;
        return 0;
}

struct slots *slots_free(struct slots *s)
{
        if (!s)
                return NULL;
        for (uint32_t i = 0; i < s->n; i++) {
                free(s->slots[i].holder);
                free(s->slots[i].renewed);
                free(s->slots[i].waits);
                free(s->slots[i].version);
        }
        free(s->me);
        free(s);
        return NULL;
}

/* ---- what is known ------------------------------------------------------ */

static const char *text(const char *s) { return s ? s : ""; }
static bool is_me(const struct slots *s, const struct slot *t)
{
        return string_equal(text(t->holder), s->me);
}
static bool is_ours(const struct slot *t) { return t->state != CLAIM_WAITING; }

static uint32_t count_ours(const struct slots *s)
{
        uint32_t n = 0;

        for (uint32_t i = 0; i < s->n; i++)
                n += s->slots[i].state == CLAIM_HELD;
        return n;
}

static void enter(struct slots *s, struct slot *t, enum claim_state state)
{
        if (t->state != state)
                s->changes++;
        t->state = state;
}

static void leave(struct slots *s, struct slot *t, usec give_up_at)
{
        if (t->state == CLAIM_LEAVING && give_up_at >= t->give_up_at)
                return;
        t->give_up_at = give_up_at;
        s->changes++;
        t->state = CLAIM_LEAVING;
}

/* Nobody holds it any more, as far as we have seen ourselves. */
static bool is_free(const struct slots *s, const struct slot *t, usec now)
{
        if (!t->known)
                return false;
        return !*text(t->holder) || is_me(s, t) || now - t->seen_at >= MAX_OF(t->duration, SLOTS_LEASE);
}

static usec soon(struct slots *s, usec now)
{
        return now + SLOTS_RETRY - (usec)random_below(&s->random, (uint64_t)SLOTS_RETRY / 4);
}

static bool replace(char **to, const char *from)
{
        char *copy = string_equal(text(*to), from) && *to ? *to : str_dup(str_of(from));

        if (!copy)
                return false;
        if (copy != *to)
                free(*to);
        *to = copy;
        return true;
}

/* Of "NAME 2" the 2; -1: no worker waits, or the text can't be read. mine: NAME is ours. */
static int64_t waits_with(const struct slots *s, const struct slot *t, bool *mine)
{
        const char *space = t->waits ? strrchr(t->waits, ' ') : NULL;
        int64_t n;

        *mine = false;
        if (!space || !str_to_int64(str_of(space + 1), &n) || n < 0)
                return -1;
        *mine = str_equal((struct str){ t->waits, (size_t)(space - t->waits) }, str_of(s->me));
        return n;
}

/* A slot whose Lease names another number of slots, of a later generation than ours; NULL: none. */
static const struct slot *later_number(const struct slots *s)
{
        for (uint32_t i = 0; i < s->n; i++) {
                const struct slot *t = &s->slots[i];

                if (t->slots && t->slots != s->n && t->generation > s->generation)
                        return t;
        }
        return NULL;
}

/* ---- what changes by time, and by what is seen -------------------------- */

static void look_for_another_number(struct slots *s, usec now)
{
        const struct slot *by = later_number(s);
        bool before = s->outdated;

        s->outdated = by != NULL;
        s->changes += s->outdated != before;
        if (!by)
                return;
        (void)snprintf(
                s->outdated_by, sizeof(s->outdated_by),
                "the number of slots is %lld since generation %lld, and this worker has %u, of generation "
                "%lld: it reads nothing more, and its pod can be deleted",
                (long long)by->slots, (long long)by->generation, s->n, (long long)s->generation);
        for (uint32_t i = 0; i < s->n; i++)
                if (s->slots[i].state == CLAIM_HELD)
                        leave(s, &s->slots[i], now + HANDING_OVER);
}

/* Gives it up if a worker waits for it that holds at least two fewer. */
static void even_out(struct slots *s, struct slot *t, usec now)
{
        bool mine;
        int64_t his = waits_with(s, t, &mine);

        if (t->state == CLAIM_HELD && his >= 0 && !mine && count_ours(s) >= his + 2)
                leave(s, t, now + HANDING_OVER);
}

static void freed(struct slots *s, struct slot *t)
{
        t->theirs = t->released = false;
        enter(s, t, CLAIM_WAITING);
}

static void slot_turn(struct slots *s, struct slot *t, usec now)
{
        bool late = now >= t->renewed_at + SLOTS_DEADLINE;

        if (is_ours(t) && !t->theirs && late)
                leave(s, t, t->renewed_at + LOST_AT);
        if (t->state == CLAIM_LEAVING && t->released && (t->theirs || late) && !t->busy) {
                freed(s, t);
                t->next_at = now;
        }
}

static void held(struct slots *s, struct slot *t)
{
        t->renewed_at = t->asked_at;
        if (is_ours(t))
                return;
        t->theirs = t->released = false;
        t->marked_at = 0;
        enter(s, t, CLAIM_HELD);
        if (!s->stopping)
                return;
        leave(s, t, USEC_NEVER);
        slots_release(s, (uint32_t)(t - s->slots)); /* nobody has read it yet */
}

void slots_done(struct slots *s, uint32_t slot, const struct slots_lease *l, usec now)
{
        struct slot *t = &s->slots[slot];
        bool changed = !t->known || !string_equal(text(t->holder), l->holder) ||
                       !string_equal(text(t->renewed), l->renewed);

        t->busy = false;
        *s->why = 0;
        t->fresh = replace(&t->holder, l->holder) && replace(&t->renewed, l->renewed) &&
                   replace(&t->waits, l->waits) && replace(&t->version, l->version);
        if (!t->fresh) {
                t->known = false;
                t->next_at = soon(s, now);
                return;
        }
        t->known = true;
        t->slots = l->slots;
        t->generation = l->generation;
        t->transitions = l->transitions;
        t->duration = MIN_OF(MAX_OF(l->duration, (int64_t)0), (int64_t)3600) * USEC_SEC;
        if (changed)
                t->seen_at = now;
        switch (t->doing) {
        case SLOTS_HOLD: held(s, t); break;
        case SLOTS_FREE: freed(s, t); break;
        case SLOTS_READ:
        case SLOTS_WAIT: break;
        }
        if (is_ours(t) && !is_me(s, t)) { /* another worker has seen no renewal, and took it */
                t->theirs = true;
                leave(s, t, 0);
        }
        even_out(s, t, now);
        look_for_another_number(s, now);
        t->just_read = t->doing == SLOTS_READ;
        t->next_at = t->just_read ? now : is_ours(t) ? t->asked_at + SLOTS_RENEW : soon(s, now);
}

void slots_failed(struct slots *s, uint32_t slot, const struct error *err, usec now)
{
        struct slot *t = &s->slots[slot];

        t->busy = false;
        t->fresh = false; /* the write may have succeeded nevertheless */
        if (err->kind == ERROR_CONFLICT) {
                t->next_at = now;
                return;
        }
        if (!string_equal(s->why, err->text))
                s->changes++;
        (void)snprintf(s->why, sizeof(s->why), "%s", err->text);
        t->next_at = err->retry_after ? now + MIN_OF(err->retry_after, SLOTS_LEASE) : soon(s, now);
}

/* ---- saying that we wait ------------------------------------------------ */

static uint32_t held_by(const struct slots *s, const char *who, usec now)
{
        uint32_t n = 0;

        for (uint32_t i = 0; i < s->n; i++)
                n += !is_free(s, &s->slots[i], now) && string_equal(text(s->slots[i].holder), who);
        return n;
}

/* Should we wait for this slot? Only if its holder has the most of all, and at least two more than we, no
 * other worker waits for it, and we do not wait for another one already. */
static bool to_ask_for(const struct slots *s, const struct slot *t, uint32_t ours, usec now)
{
        uint32_t his = held_by(s, text(t->holder), now);
        bool mine;

        if (his < ours + 2 || (waits_with(s, t, &mine) >= 0 && !mine))
                return false;
        for (uint32_t i = 0; i < s->n; i++) {
                const struct slot *other = &s->slots[i];

                if (!other->known ||
                    (!is_ours(other) && is_free(s, other, now) && now >= other->avoid_until) ||
                    (other->marked_at && now - other->marked_at < MARK_LIFE))
                        return false;
                if (!is_ours(other) && held_by(s, text(other->holder), now) > his)
                        return false;
        }
        return true;
}

/* ---- jobs --------------------------------------------------------------- */

static bool job(struct slots *s, struct slot *t, enum slots_job_kind kind, usec now, struct slots_job *out)
{
        *out = (struct slots_job){ .kind = kind,
                                   .slot = (uint32_t)(t - s->slots),
                                   .version = text(t->version),
                                   .transitions = t->transitions };
        t->busy = true;
        t->doing = kind;
        t->asked_at = now;
        return true;
}

static bool renew_next(struct slots *s, struct slot *t, usec now, struct slots_job *out)
{
        bool mine;

        if (t->theirs || now < t->next_at)
                return false;
        if (!t->fresh)
                return job(s, t, SLOTS_READ, now, out);
        if (t->released) {
                if (waits_with(s, t, &mine) >= 0 && !mine)
                        t->avoid_until = now + 3 * SLOTS_RETRY;
                (void)job(s, t, SLOTS_FREE, now, out);
                out->waits = "";
                return true;
        }
        (void)job(s, t, SLOTS_HOLD, now, out);
        if (t->state == CLAIM_HELD && *text(t->waits)) /* even_out decided against it */
                out->waits = "";
        return true;
}

static bool take_next(struct slots *s, struct slot *t, usec now, struct slots_job *out)
{
        if (s->stopping || now < t->next_at)
                return false;
        if (!t->fresh || !t->just_read)
                return job(s, t, SLOTS_READ, now, out);
        t->just_read = false;
        if (s->outdated) {
                t->next_at = soon(s, now);
                return false;
        }
        if (is_free(s, t, now) && now >= t->avoid_until) {
                (void)job(s, t, SLOTS_HOLD, now, out);
                out->acquired = !is_me(s, t);
                out->transitions += out->acquired;
                out->waits = "";
                return true;
        }
        if (!is_free(s, t, now) && to_ask_for(s, t, count_ours(s), now)) {
                t->marked_at = now;
                (void)snprintf(s->mark, sizeof(s->mark), "%s %u", s->me, count_ours(s));
                (void)job(s, t, SLOTS_WAIT, now, out);
                out->waits = s->mark;
                return true;
        }
        t->next_at = soon(s, now);
        return false;
}

bool slots_next(struct slots *s, usec now, struct slots_job *out)
{
        for (uint32_t i = 0; i < s->n; i++) {
                struct slot *t = &s->slots[i];

                slot_turn(s, t, now);
                if (!t->busy && (is_ours(t) ? renew_next(s, t, now, out) : take_next(s, t, now, out)))
                        return true;
        }
        return false;
}

usec slots_deadline(const struct slots *s)
{
        usec at = USEC_NEVER;

        for (uint32_t i = 0; i < s->n; i++) {
                const struct slot *t = &s->slots[i];

                if (!t->busy && !t->theirs && (is_ours(t) || !s->stopping))
                        at = MIN_OF(at, t->next_at);
                if (t->state == CLAIM_HELD || (t->released && !t->busy))
                        at = MIN_OF(at, t->theirs ? 0 : t->renewed_at + SLOTS_DEADLINE);
        }
        return at;
}

/* ---- what the port says ------------------------------------------------- */

uint64_t slots_changes(const struct slots *s) { return s->changes; }

void slots_look(const struct slots *s, uint32_t slot, struct claim *out)
{
        const struct slot *t = &s->slots[slot];

        *out = (struct claim){ .state = t->state, .give_up_at = t->give_up_at };
        if (t->state != CLAIM_WAITING)
                return;
        out->failed = s->outdated || *s->why;
        if (s->outdated)
                out->why = s->outdated_by;
        else
                out->why = *s->why ? s->why : *text(t->holder) && !is_me(s, t) ? t->holder : "";
}

void slots_release(struct slots *s, uint32_t slot)
{
        struct slot *t = &s->slots[slot];

        if (t->state != CLAIM_LEAVING || t->released)
                return;
        t->released = true;
        t->next_at = 0;
}

void slots_stop(struct slots *s)
{
        s->stopping = true;
        for (uint32_t i = 0; i < s->n; i++)
                if (s->slots[i].state == CLAIM_HELD)
                        leave(s, &s->slots[i], USEC_NEVER);
}

bool slots_stopped(const struct slots *s)
{
        for (uint32_t i = 0; i < s->n; i++)
                if (is_ours(&s->slots[i]) || (s->slots[i].busy && s->slots[i].doing == SLOTS_HOLD))
                        return false;
        return s->stopping;
}
