#include "source/page.h"

#include <assert.h>
#include <stdalign.h>

/* ---- memory ------------------------------------------------------------- */

enum { CHUNK = 4096 - 64, CHUNK_MOST = 1 << 18 };
struct chunk {
        struct chunk *next;
        size_t n, cap;
        alignas(max_align_t) char bytes[];
};

static void *arena_take(struct page *p, struct arena *a, size_t n, size_t align)
{
        struct chunk *c = a->first;
        size_t at = c ? (c->n + align - 1) / align * align : 0;

        if (!c || at > c->cap || n > c->cap - at) {
                size_t room = p->most - MIN_OF(p->heads.bytes + p->body.bytes, p->most);
                size_t cap = MAX_OF((size_t)CHUNK, a->bytes / 2);

                cap = MIN_OF(cap, (size_t)CHUNK_MOST);
                cap = MAX_OF(cap, n);
                cap = cap > room ? n : cap;
                if (n > room) {
                        p->too_large = true;
                        return NULL;
                }
                if (!(c = malloc(sizeof(*c) + cap))) {
                        p->no_memory = true;
                        return NULL;
                }
                *c = (struct chunk){ .next = a->first, .cap = cap };
                a->first = c;
                a->bytes += cap;
                p->stats->page_bytes += cap;
                at = 0;
        }
        c->n = at + n;
        return c->bytes + at;
}

static void arena_done(struct page *p, struct arena *a)
{
        for (struct chunk *c = a->first, *next; c; c = next) {
                next = c->next;
                free(c);
        }
        p->stats->page_bytes -= a->bytes;
        *a = (struct arena){ 0 };
}

/* ---- life --------------------------------------------------------------- */

struct page *page_new(struct remember *remember, struct reader_stats *stats, size_t most)
{
        struct page *p = calloc(1, sizeof(*p));

        if (p) {
                p->remember = remember;
                p->stats = stats;
                p->most = most;
        }
        return p;
}

struct page *page_free(struct page *p)
{
        if (!p)
                return NULL;
        for (struct lent *l = p->first; l && l->page == p; l = l->next)
                free(l->copy);
        arena_done(p, &p->body);
        arena_done(p, &p->heads);
        free(p);
        return NULL;
}

void page_reject(struct page *p)
{
        for (struct lent *l = p->first; l; l = l->next)
                if (l->seen)
                        remember_drop(p->remember, l->seen);
        (void)page_free(p);
}

void page_number(struct page *p, uint32_t track, uint64_t position, usec now)
{
        p->position = position;
        p->since = now;
        p->borrowing = p->n;
        for (struct lent *l = p->first; l; l = l->next, position++) {
                struct record *r = &l->record;
                size_t pinned = sizeof(*l) + r->id.n + l->mark.n + r->key.n + r->value.n;

                r->track = track;
                r->position = position;
                if (!r->pinned)
                        r->pinned = (uint32_t)MIN_OF(pinned, (size_t)UINT32_MAX);
                if (l->seen)
                        remember_keep(p->remember, l->seen, position);
        }
}

/* ---- filling ------------------------------------------------------------ */

bool page_failed(const struct page *p) { return p->no_memory || p->too_large; }
void page_no_memory(struct page *p) { p->no_memory = true; }

char *page_bytes(struct page *p, size_t n) { return arena_take(p, &p->body, n, 1); }

void *page_keep(struct page *p, size_t n) { return arena_take(p, &p->heads, n, alignof(max_align_t)); }

/* An escape is never shorter than what it stands for; what is left of the room goes back. */
static struct str take_text(struct page *p, struct arena *a, struct json_value v)
{
        size_t room = v.text.n + 1;
        struct buf out = { .p = v.text.p ? arena_take(p, a, room, 1) : NULL, .cap = room, .max = v.text.n };

        if (!out.p)
                return (struct str){ 0 };
        json_value_add(v, &out);
        assert(!out.failed);
        a->first->n -= room - out.n;
        return (struct str){ out.p, out.n };
}

struct str page_text(struct page *p, struct json_value v) { return take_text(p, &p->body, v); }
struct str page_text_beside(struct page *p, struct json_value v) { return take_text(p, &p->heads, v); }

static bool keep_text(struct page *p, struct str text, struct str *kept)
{
        char *copy = arena_take(p, &p->heads, text.n, 1);

        if (!copy)
                return false;
        if (text.n)
                memcpy(copy, text.p, text.n);
        *kept = (struct str){ copy, text.n };
        return true;
}

struct record *page_record(struct page *p, struct str id, struct str mark)
{
        struct lent *l;

        if (page_failed(p))
                return NULL;
        if (p->remember->most && remember_has(p->remember, id)) {
                p->stats->duplicates++;
                return NULL;
        }
        l = arena_take(p, &p->heads, sizeof(*l), alignof(struct lent));
        if (!l)
                return NULL;
        *l = (struct lent){ .page = p };
        if (!keep_text(p, id, &l->record.id) || (mark.n && !keep_text(p, mark, &l->mark)))
                return NULL;
        if (p->remember->most && id.n && !(l->seen = remember_add(p->remember, id))) {
                p->no_memory = true;
                return NULL;
        }
        *(p->last ? &p->last->next : &p->first) = l;
        p->last = l;
        p->n++;
        return &l->record;
}

/* ---- giving back -------------------------------------------------------- */

static void let_go(struct page *p, struct lent *l)
{
        if (l->detached)
                return;
        l->detached = true;
        if (--p->borrowing == 0)
                arena_done(p, &p->body);
}

void page_released(struct page *p, struct lent *l)
{
        l->out = false;
        p->out--;
        let_go(p, l);
        free(TAKE(l->copy));
}

bool page_detach(struct page *p, struct lent *l)
{
        struct record *r = &l->record;
        char *copy;

        if (l->detached)
                return true;
        if (!(copy = malloc(r->key.n + r->value.n + 1)))
                return false;
        if (r->key.n)
                memcpy(copy, r->key.p, r->key.n);
        if (r->value.n)
                memcpy(copy + r->key.n, r->value.p, r->value.n);
        if (r->key.p)
                r->key.p = copy;
        if (r->value.p)
                r->value.p = copy + r->key.n;
        l->copy = copy;
        let_go(p, l);
        return true;
}
