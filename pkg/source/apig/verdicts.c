#include "source/apig/verdicts.h"

#define HASH_NONFATAL_OOM 1 /* what finds no memory is not in its table: hh.tbl is NULL */
#include "base/table.h"

/* ---- verdicts ----------------------------------------------------------- */

struct verdict *verdict_new(struct str context)
{
        struct verdict *v = calloc(1, sizeof(*v) + context.n + 1);

        if (!v)
                return NULL;
        v->holders = 1;
        v->until = USEC_NEVER;
        v->context_n = context.n;
        if (context.n)
                memcpy(v->context, context.p, context.n);
        return v;
}

struct verdict *verdict_refuse(int status, const char *code, const char *message)
{
        struct verdict *v = verdict_new((struct str){ 0 });

        if (v)
                v->refusal = (struct apig_refusal){ .status = status, .code = code, .message = message };
        return v;
}

struct verdict *verdict_hold(struct verdict *v)
{
        v->holders++;
        return v;
}

struct verdict *verdict_release(struct verdict *v)
{
        if (v && --v->holders == 0)
                free(v);
        return NULL;
}

/* ---- what is remembered ------------------------------------------------- */

struct entry {
        UT_hash_handle hh;
        unsigned char key[VERDICT_KEY];
        struct verdict *verdict;
        usec until;
        size_t bytes;
};
/* The table keeps the order of use: the first was not used for longest. */
struct verdicts {
        struct entry *entries;
        size_t n, bytes, most, bytes_most;
};

int verdicts_new(struct verdicts **out, size_t most, size_t bytes_most, struct error *err)
{
        struct verdicts *v = calloc(1, sizeof(*v));

        if (!v)
                return error_memory(err);
        v->most = most;
        v->bytes_most = bytes_most;
        *out = v;
        return 0;
}

/* It is in the table no more. */
static void entry_free(struct verdicts *v, struct entry *e)
{
        v->n--;
        v->bytes -= e->bytes;
        (void)verdict_release(e->verdict);
        free(e);
}

static void drop(struct verdicts *v, struct entry *e)
{
        HASH_DEL(v->entries, e);
        entry_free(v, e);
}

static void drop_oldest(struct verdicts *v)
{
        if (v->entries)
                drop(v, v->entries);
}

struct verdicts *verdicts_free(struct verdicts *v)
{
        while (v && v->entries)
                drop_oldest(v);
        free(v);
        return NULL;
}

static struct entry *entry_of(struct verdicts *v, const unsigned char *key)
{
        struct entry *e;

        HASH_FIND(hh, v->entries, key, VERDICT_KEY, e);
        return e;
}

struct verdict *verdicts_find(struct verdicts *v, const unsigned char key[VERDICT_KEY], usec now)
{
        struct entry *e = entry_of(v, key);
        struct verdict *verdict;

        if (!e)
                return NULL;
        if (now >= e->until) {
                drop(v, e);
                return NULL;
        }
        verdict = verdict_hold(e->verdict);
        if (!e->hh.next)
                return verdict;
        HASH_DEL(v->entries, e);
        HASH_ADD(hh, v->entries, key, VERDICT_KEY, e);
        if (!e->hh.tbl)
                entry_free(v, e); /* it is asked again */
        return verdict;
}

void verdicts_keep(struct verdicts *v, const unsigned char key[VERDICT_KEY], struct verdict *verdict,
                   usec until)
{
        struct entry *e = entry_of(v, key);
        size_t bytes = sizeof(*e) + sizeof(*verdict) + verdict->context_n;

        if (e)
                drop(v, e);
        if (bytes > v->bytes_most || !v->most)
                return;
        while (v->n >= v->most || v->bytes + bytes > v->bytes_most)
                drop_oldest(v);
        e = calloc(1, sizeof(*e));
        if (!e)
                return; /* it is asked again */
        memcpy(e->key, key, VERDICT_KEY);
        e->verdict = verdict_hold(verdict);
        e->until = until;
        e->bytes = bytes;
        v->n++;
        v->bytes += bytes;
        HASH_ADD(hh, v->entries, key, VERDICT_KEY, e);
        if (!e->hh.tbl)
                entry_free(v, e);
}

size_t verdicts_count(const struct verdicts *v) { return v->n; }
size_t verdicts_bytes(const struct verdicts *v) { return v->bytes; }
