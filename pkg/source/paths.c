#include "source/paths.h"

#define HASH_NONFATAL_OOM 1 /* what finds no memory is not in its table: hh.tbl is NULL */
#include "base/table.h"
#include "source/source.h"

enum { PATHS_BYTES = 1 << 20 };

struct path_owner {
        struct list_node node; /* of its Trigger's list */
        const struct trigger *trigger;
        const struct trigger *heir; /* the successor that has it, too, and is being started; NULL: none */
        UT_hash_handle hh;
        size_t n;
        char way[];
};

static struct path_owner *find(const struct paths *p, struct str way)
{
        struct path_owner *o;

        HASH_FIND(hh, p->owners, way.p, way.n, o);
        return o;
}

static void write_ways(const struct trigger *t, struct buf *out)
{
        const struct source_kind *kind = trigger_source(t);

        if (!t->suspend && kind->push && kind->push->ways)
                kind->push->ways(t, out);
}

static int own(struct paths *p, struct list *mine, const struct trigger *t, struct str way)
{
        struct path_owner *o;

        if (find(p, way))
                return 0;
        o = calloc(1, sizeof(*o) + way.n + 1);
        if (!o)
                return -1;
        o->trigger = t;
        o->n = way.n;
        memcpy(o->way, way.p, way.n);
        HASH_ADD(hh, p->owners, way, o->n, o);
        if (!o->hh.tbl) {
                free(o);
                return -1;
        }
        list_append(mine, &o->node);
        return 0;
}

/* The owner of the first of these ways that is neither its own nor its predecessor's; NULL: none. */
static const struct path_owner *taken(const struct paths *p, const struct list *before,
                                      const struct trigger *t, struct str ways)
{
        while (ways.n) {
                const struct path_owner *o = find(p, str_cut(&ways, '\n'));

                if (o && o->trigger != t && (!before || o->node.list != before))
                        return o;
        }
        return NULL;
}

static void name_heir(const struct paths *p, const struct list *before, const struct trigger *t,
                      struct str ways)
{
        LIST_EACH (struct path_owner, o, before, node)
                o->heir = NULL;
        while (ways.n) {
                struct path_owner *o = find(p, str_cut(&ways, '\n'));

                if (o && o->node.list == before)
                        o->heir = t;
        }
}

int paths_take(struct paths *p, struct list *mine, const struct list *before, const struct trigger *t,
               struct error *err)
{
        BUF_AT_END struct buf ways = BUF_INIT(PATHS_BYTES);
        const struct path_owner *other;

        write_ways(t, &ways);
        if (ways.failed)
                return error_memory(err);
        other = taken(p, before, t, buf_view(&ways));
        if (other)
                return error_set(err, ERROR_EXISTS,
                                 "spec.source.%s: %s/%s has %s, as has %s/%s, which alone would be called: "
                                 "give one of "
                                 "them another path or method",
                                 trigger_source(t)->name, t->namespace_, t->name, other->way,
                                 other->trigger->namespace_, other->trigger->name);
        for (struct str rest = buf_view(&ways); rest.n;)
                if (own(p, mine, t, str_cut(&rest, '\n')) < 0) {
                        paths_leave(p, mine);
                        return error_memory(err);
                }
        if (before)
                name_heir(p, before, t, buf_view(&ways));
        return 0;
}

const struct trigger *paths_other(const struct paths *p, const struct list *before, const struct trigger *t)
{
        BUF_AT_END struct buf ways = BUF_INIT(PATHS_BYTES);
        const struct path_owner *other;

        write_ways(t, &ways);
        other = taken(p, before, t, buf_view(&ways));
        return other ? other->trigger : NULL;
}

void paths_leave(struct paths *p, struct list *mine)
{
        while (mine->first) {
                struct path_owner *o = LIST_ITEM(mine->first, struct path_owner, node);

                list_remove(&o->node);
                HASH_DEL(p->owners, o);
                free(o);
        }
}

void paths_inherit(struct paths *p, struct list *mine, struct list *before)
{
        LIST_EACH (struct path_owner, o, before, node) {
                if (!o->heir)
                        continue;
                o->trigger = TAKE(o->heir);
                list_remove(&o->node);
                list_append(mine, &o->node);
        }
        paths_leave(p, before);
}
