#include "source/apig/callers.h"

enum { LOOKED_AT = 8 };
#define NONE UINT32_MAX

/* next: of the same place in heads */
struct caller {
        uint64_t who;
        int64_t paid_until;
        uint32_t newer, older, next;
};
struct callers {
        struct bucket_rate rate;
        struct caller *all;
        uint32_t *heads, mask, n, most, newest, oldest;
};

int callers_new(struct callers **out, const struct bucket_rate *rate, uint32_t most, struct error *err)
{
        struct callers *c = calloc(1, sizeof(*c));
        uint32_t heads = 1;

        while (heads < most)
                heads *= 2;
        if (!c || !(c->all = calloc(most, sizeof(*c->all))) ||
            !(c->heads = calloc(heads, sizeof(*c->heads)))) {
                (void)callers_free(c);
                return error_memory(err);
        }
        memset(c->heads, 0xff, heads * sizeof(*c->heads));
        c->rate = *rate;
        c->mask = heads - 1;
        c->most = most;
        c->newest = c->oldest = NONE;
        *out = c;
        return 0;
}

struct callers *callers_free(struct callers *c)
{
        if (!c)
                return NULL;
        free(c->all);
        free(c->heads);
        free(c);
        return NULL;
}

static void leave(struct callers *c, uint32_t at)
{
        const struct caller *who = &c->all[at];

        *(who->newer != NONE ? &c->all[who->newer].older : &c->newest) = who->older;
        *(who->older != NONE ? &c->all[who->older].newer : &c->oldest) = who->newer;
}

static void enter(struct callers *c, uint32_t at)
{
        struct caller *who = &c->all[at];

        who->newer = NONE;
        who->older = c->newest;
        *(who->older != NONE ? &c->all[who->older].newer : &c->oldest) = at;
        c->newest = at;
}

static uint32_t *head_of(struct callers *c, uint64_t who) { return &c->heads[(uint32_t)who & c->mask]; }

/* A place for someone new. */
static uint32_t place(struct callers *c, usec now)
{
        uint32_t at = c->oldest, *link;

        if (c->n < c->most)
                return c->n++;
        for (int i = 0; i < LOOKED_AT && at != NONE && c->all[at].paid_until > now * 1000; i++)
                at = c->all[at].newer;
        if (at == NONE || c->all[at].paid_until > now * 1000)
                at = c->oldest;
        leave(c, at);
        for (link = head_of(c, c->all[at].who); *link != at; link = &c->all[*link].next)
                ;
        *link = c->all[at].next;
        return at;
}

usec callers_take(struct callers *c, uint64_t who, usec now)
{
        uint32_t *head = head_of(c, who), at = *head;

        while (at != NONE && c->all[at].who != who)
                at = c->all[at].next;
        if (at != NONE)
                leave(c, at);
        else {
                at = place(c, now);
                c->all[at] = (struct caller){ .who = who, .paid_until = BUCKET_FULL, .next = *head };
                *head = at;
        }
        enter(c, at);
        if (!bucket_gives(&c->rate, c->all[at].paid_until, now))
                return bucket_at(&c->rate, c->all[at].paid_until, now) - now;
        c->all[at].paid_until = bucket_take(&c->rate, c->all[at].paid_until, 1, now);
        return 0;
}

uint32_t callers_count(const struct callers *c) { return c->n; }
