#include "controller/clash.h"

#include <stdio.h>

#include "base/list.h"
#include "base/table.h"
#include "controller/decode.h"
#include "controller/status.h"
#include "json/value.h"

struct clash_group {
        UT_hash_handle hh;
        struct list members; /* the first runs */
        char key[];
};

struct clash_member {
        UT_hash_handle hh;
        struct list_node node;
        struct clash_group *group;
        struct trigger *trigger;
        bool waits; /* an earlier controller told it to */
        char *created;
        char key[]; /* namespace/name */
};

static void *must(void *p)
{
        if (!p)
                abort(); /* out of memory: a controller that starts anew knows all of it */
        return p;
}

static struct clash_member *member_of(const struct list_node *n)
{
        return n ? LIST_ITEM((struct list_node *)n, struct clash_member, node) : NULL;
}

static struct clash_member *find(const struct clashes *c, const char *namespace_, const char *name)
{
        struct clash_member *m;
        char key[600];

        (void)snprintf(key, sizeof(key), "%s/%s", namespace_, name);
        HASH_FIND_STR(c->members, key, m);
        return m;
}

/* false: it clashes with none. */
static bool group_key(const struct trigger *t, struct buf *key)
{
        const struct source_type *type = &t->types[t->source];

        if (t->suspend || !type->clash_key)
                return false;
        buf_printf(key, "%s\n%s\n", t->namespace_, type->name);
        type->clash_key(t, key);
        return !key->failed;
}

static struct clash_group *group_of(struct clashes *c, struct str key)
{
        struct clash_group *g;

        HASH_FIND(hh, c->groups, key.p, key.n, g);
        if (g)
                return g;
        g = must(calloc(1, sizeof(*g) + key.n + 1));
        memcpy(g->key, key.p, key.n);
        HASH_ADD(hh, c->groups, key, key.n, g);
        return g;
}

static bool is_before(const struct clash_member *a, const struct clash_member *b)
{
        int order = strcmp(a->created, b->created);

        if (a->waits != b->waits)
                return b->waits;
        return order ? order < 0 : strcmp(a->key, b->key) < 0;
}

static void enter(struct clash_group *g, struct clash_member *m, bool last)
{
        struct list_node *before = last ? NULL : g->members.first;

        while (before && is_before(member_of(before), m))
                before = before->next;
        list_insert(&g->members, &m->node, before);
        m->group = g;
}

static void tell(const struct clash_group *g,
                 void (*changed)(void *cookie, const char *namespace_, const char *name), void *cookie)
{
        for (const struct list_node *n = g->members.first; changed && n; n = n->next)
                changed(cookie, member_of(n)->trigger->namespace_, member_of(n)->trigger->name);
}

static void member_free(struct clashes *c, struct clash_member *m)
{
        struct clash_group *g = m->group;

        list_remove(&m->node);
        if (!g->members.n) {
                HASH_DEL(c->groups, g);
                free(g);
        }
        HASH_DEL(c->members, m);
        (void)trigger_free(m->trigger);
        free(m->created);
        free(m);
}

static void add(struct clashes *c, struct clash_group *g, struct trigger *t,
                const struct clash_change *change)
{
        json_t *ready = status_condition(json_object_get(change->object, "status"), "Ready");
        size_t size = strlen(t->namespace_) + strlen(t->name) + 2;
        struct clash_member *m = must(calloc(1, sizeof(*m) + size));

        (void)snprintf(m->key, size, "%s/%s", t->namespace_, t->name);
        m->trigger = t;
        m->waits = strcmp(json_cstring(ready, "reason"), STATUS_CONFLICT) == 0;
        m->created = must(str_dup(
                str_of(json_cstring(json_object_get(change->object, "metadata"), "creationTimestamp"))));
        HASH_ADD_STR(c->members, key, m);
        enter(g, m, change->later);
}

static bool may_clash(json_t *object, const struct source_type *types, size_t types_n)
{
        json_t *source = json_object_get(json_object_get(object, "spec"), "source");

        for (size_t i = 0; i < types_n; i++)
                if (types[i].clash_key && json_object_get(source, types[i].name))
                        return true;
        return false;
}

static struct trigger *decode(const struct clash_change *change, const struct source_type *types,
                              size_t types_n)
{
        struct problems problems = { 0 };
        struct trigger *t = NULL;

        if (may_clash(change->object, types, types_n))
                t = decode_object(change->object, types, types_n, &problems);
        problems_done(&problems);
        return t;
}

void clashes_note(struct clashes *c, const struct clash_change *change, const struct source_type *types,
                  size_t types_n, void (*changed)(void *cookie, const char *namespace_, const char *name),
                  void *cookie)
{
        BUF_AT_END struct buf key = BUF_INIT(8192);
        json_t *metadata = json_object_get(change->object, "metadata");
        struct clash_member *m = find(c, change->namespace_, change->name);
        bool ends = !change->object || json_object_get(metadata, "deletionTimestamp");
        struct trigger *t;
        struct clash_group *g;

        if (!ends && m &&
            m->trigger->generation == json_integer_value(json_object_get(metadata, "generation")))
                return; /* its status alone has changed */
        t = ends ? NULL : decode(change, types, types_n);
        if (t && !group_key(t, &key))
                t = trigger_free(t);
        if (t && m && str_equal(buf_view(&key), str_of(m->group->key))) {
                (void)trigger_free(m->trigger);
                m->trigger = t;
                return;
        }
        if (m) {
                tell(m->group, changed, cookie);
                member_free(c, m);
        }
        if (!t)
                return;
        g = group_of(c, buf_view(&key));
        add(c, g, t, change);
        tell(g, changed, cookie);
}

bool clashes_find(const struct clashes *c, const struct trigger *t, struct buf *why)
{
        const struct source_type *type = &t->types[t->source];
        const struct clash_member *m = find(c, t->namespace_, t->name),
                                  *first = m ? member_of(m->group->members.first) : NULL;
        BUF_AT_END struct buf both = BUF_INIT(4096);

        if (!m || first == m || !type->clash(t, first->trigger, &both))
                return false;
        buf_printf(why, "spec.source.%s.%s: the Triggers %s and %s %s: %s came first", type->name,
                   type->clash_field, m->key, first->key, both.p ? both.p : "clash", first->key);
        return true;
}

void clashes_done(struct clashes *c)
{
        for (struct clash_member *m = c->members, *next; m; m = next) {
                next = m->hh.next;
                member_free(c, m);
        }
}
