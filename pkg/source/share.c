#include "source/share.h"

#include "base/random.h"

enum { DIGITS_MOST = 18 };

uint32_t share_slot(struct str name, uint32_t slots)
{
        size_t from = name.n;
        int64_t number;

        while (from && name.n - from < DIGITS_MOST && name.p[from - 1] >= '0' && name.p[from - 1] <= '9')
                from--;
        if (from < name.n && str_to_int64((struct str){ name.p + from, name.n - from }, &number))
                return (uint32_t)((uint64_t)number % slots);
        return (uint32_t)(hash_bytes(0, name) % slots);
}

int share_init(struct share *s, const struct claims *port, struct error *err)
{
        *s = (struct share){ .port = *port };
        if (!port->ops)
                return 0;
        s->changes = UINT64_MAX; /* not looked at yet */
        s->slots = calloc(port->slots, sizeof(*s->slots));
        return s->slots ? 0 : error_memory(err);
}

void share_done(struct share *s)
{
        free(TAKE(s->slots));
        free(TAKE(s->tracks));
        s->tracks_n = 0;
}

static struct claim look(const struct share *s, uint32_t slot)
{
        struct claim c;

        s->port.ops->look(s->port.cookie, slot, &c);
        return c;
}

static struct share_track *track_of(struct share *s, uint32_t track)
{
        uint32_t twice = MAX_OF(2 * s->tracks_n, 16u), n = MAX_OF(twice, track + 1);
        struct share_track *grown;

        if (track < s->tracks_n)
                return &s->tracks[track];
        if (!(grown = realloc(s->tracks, n * sizeof(*grown))))
                return NULL;
        memset(grown + s->tracks_n, 0, (n - s->tracks_n) * sizeof(*grown));
        s->tracks = grown;
        s->tracks_n = n;
        return &s->tracks[track];
}

static int not_held(struct str name, const struct claim *c, struct error *err)
{
        const char *why = c->state == CLAIM_WAITING && c->why ? c->why : "";

        if (c->state == CLAIM_WAITING && c->failed)
                (void)error_set(err, ERROR_UNREACHABLE, "%s", why);
        else
                (void)error_set(err, ERROR_CONFLICT, STR_FMT " is read by another worker%s%s", STR_ARG(name),
                                *why ? ": " : "", why);
        err->retry = true;
        return -1;
}

int share_claim(struct share *s, const struct reader_job *job, struct error *err)
{
        struct share_track *t;
        struct claim c;

        if (!s->port.ops)
                return 0;
        if (!(t = track_of(s, job->track)))
                return error_memory(err);
        *t = (struct share_track){ .slot = share_slot(job->name, s->port.slots), .known = true };
        c = look(s, t->slot);
        if (c.state == CLAIM_HELD) {
                t->open = true;
                s->slots[t->slot].open++;
                return 0;
        }
        return not_held(job->name, &c, err);
}

static void release_if_empty(struct share *s, uint32_t slot)
{
        if (s->slots[slot].open == 0 && look(s, slot).state == CLAIM_LEAVING)
                s->port.ops->release(s->port.cookie, slot);
}

bool share_left(struct share *s, uint32_t track)
{
        struct share_track *t = s->port.ops && track < s->tracks_n ? &s->tracks[track] : NULL;
        bool open = t && t->open;

        if (!t || !t->known)
                return false;
        t->known = t->open = false;
        if (!open)
                return false;
        s->slots[t->slot].open--;
        release_if_empty(s, t->slot);
        return look(s, t->slot).state != CLAIM_HELD;
}

static void withdraw(struct share *s, struct reader *r, uint32_t slot, usec give_up_at)
{
        for (uint32_t i = 0; i < s->tracks_n; i++)
                if (s->tracks[i].open && s->tracks[i].slot == slot)
                        reader_withdraw(r, i, give_up_at);
}

static void hurry(struct share *s, struct reader *r, uint32_t slot)
{
        for (uint32_t i = 0; i < s->tracks_n; i++)
                if (s->tracks[i].known && !s->tracks[i].open && s->tracks[i].slot == slot)
                        reader_hurry(r, i);
}

void share_turn(struct share *s, struct reader *r)
{
        uint64_t changes = s->port.ops ? s->port.ops->changes(s->port.cookie) : s->changes;

        if (changes == s->changes)
                return;
        s->changes = changes;
        for (uint32_t slot = 0; slot < s->port.slots; slot++) {
                struct claim c = look(s, slot);

                if (c.state == CLAIM_HELD && s->slots[slot].state != CLAIM_HELD)
                        hurry(s, r, slot);
                if (c.state == CLAIM_LEAVING)
                        withdraw(s, r, slot, c.give_up_at);
                s->slots[slot].state = c.state;
                release_if_empty(s, slot);
        }
}

void share_stop(struct share *s)
{
        if (s->port.ops && !s->stopping)
                s->port.ops->stop(s->port.cookie);
        s->stopping = true;
}

bool share_stopped(const struct share *s) { return !s->port.ops || s->port.ops->stopped(s->port.cookie); }
