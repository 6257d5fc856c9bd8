#include "source/remember.h"

/* A table that can't grow says so instead of ending the process. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(element) ((void)(element))
#include "base/table.h"
#include "source/reader.h"

struct seen {
        UT_hash_handle hh;
        struct seen *next;
        uint64_t position;
        size_t n;
        char id[];
};

void remember_clear(struct remember *r)
{
        struct seen *s, *next;

        HASH_ITER(hh, r->table, s, next)
        {
                HASH_DEL(r->table, s);
                free(s);
        }
        *r = (struct remember){ .most = r->most };
}

bool remember_has(const struct remember *r, struct str id)
{
        struct seen *s;

        if (!id.p)
                return false;
        HASH_FIND(hh, r->table, id.p, id.n, s);
        return s != NULL;
}

struct seen *remember_add(struct remember *r, struct str id)
{
        struct seen *s = calloc(1, sizeof(*s) + id.n);

        if (!s)
                return NULL;
        s->n = id.n;
        if (id.p)
                memcpy(s->id, id.p, id.n);
        HASH_ADD_KEYPTR(hh, r->table, s->id, s->n, s);
        if (s->hh.tbl)
                return s;
        free(s);
        return NULL;
}

void remember_drop(struct remember *r, struct seen *s)
{
        HASH_DEL(r->table, s);
        free(s);
}

void remember_keep(struct remember *r, struct seen *s, uint64_t position)
{
        s->position = position;
        *(r->last ? &r->last->next : &r->first) = s;
        r->last = s;
}

static void forget_first(struct remember *r)
{
        struct seen *s = r->first;

        r->first = s->next;
        if (!r->first)
                r->last = NULL;
        remember_drop(r, s);
}

void remember_saved(struct remember *r)
{
        if (r->saved < r->most)
                r->saved++;
        else
                forget_first(r);
}

/* ---- the state that is saved -------------------------------------------- */

/* "3:abc" */
static size_t written(size_t n)
{
        size_t digits = 1;

        for (size_t left = n; left >= 10; left /= 10)
                digits++;
        return digits + 1 + n;
}

static void write_part(struct buf *out, struct str part)
{
        buf_int(out, (int64_t)part.n);
        buf_char(out, ':');
        buf_str(out, part);
}

void remember_write(const struct remember *r, struct str mark, uint64_t below, struct buf *out)
{
        size_t size = written(mark.n), n = 0;

        if (!r->most) {
                buf_str(out, mark);
                return;
        }
        write_part(out, mark);
        for (const struct seen *s = r->first; s && s->position < below; s = s->next, n++)
                size += written(s->n);
        for (const struct seen *s = r->first; s && s->position < below; s = s->next, n--) {
                if (n <= r->most && size <= READER_STATE_MOST)
                        write_part(out, (struct str){ s->id, s->n });
                else
                        size -= written(s->n);
        }
}

static bool read_part(struct str *state, struct str *part)
{
        const char *colon = !state->p ? NULL : memchr(state->p, ':', MIN_OF(state->n, (size_t)8));
        struct str length = { state->p, colon ? (size_t)(colon - state->p) : 0 };
        int64_t n;

        if (!str_to_int64(length, &n) || n < 0 || (size_t)n > state->n - length.n - 1)
                return false;
        *part = (struct str){ colon + 1, (size_t)n };
        *state = (struct str){ colon + 1 + n, state->n - length.n - 1 - (size_t)n };
        return true;
}

int remember_read(struct remember *r, struct str state, struct str *mark, struct error *err)
{
        struct str id;
        struct seen *s;

        *mark = state;
        if (!r->most || state.n == 0)
                return 0;
        if (!read_part(&state, mark))
                return error_set(err, ERROR_INVALID, "the saved position is not one that this program wrote");
        while (state.n) {
                if (!read_part(&state, &id))
                        return error_set(err, ERROR_INVALID, "the ids saved with the position are not whole");
                if (remember_has(r, id))
                        continue;
                if (!(s = remember_add(r, id)))
                        return error_memory(err);
                remember_keep(r, s, 0);
                remember_saved(r);
        }
        return 0;
}
