/* Triggers from files and folders. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/trigger.h"
#define HASH_NONFATAL_OOM 1 /* what finds no memory is not in its table: hh.tbl is NULL */
#include "base/table.h"

/* The parser refuses more than a MiB and says so; this is enough for it to notice. */
enum { READ_MOST = (1 << 20) + 1 };

static int read_some(int fd, const char *path, struct buf *text, struct error *err)
{
        if (!buf_reserve(text, READ_MOST + 1))
                return error_memory(err);
        while (text->n < READ_MOST) {
                ssize_t n = read(fd, text->p + text->n, READ_MOST - text->n);

                if (n == 0)
                        break;
                if (n < 0 && errno != EINTR)
                        return error_errno(err, errno, "read %s", path);
                text->n += n > 0 ? (size_t)n : 0;
        }
        return 0;
}

static int read_file(const char *path, struct buf *text, struct error *err)
{
        int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC), result;

        if (fd < 0)
                return error_errno(err, errno, "open %s", path);
        result = read_some(fd, path, text, err);
        if (fd != STDIN_FILENO)
                (void)close(fd);
        return result;
}

/* found by namespace/name, by its uid, or by its clash_key */
struct trigger_place {
        UT_hash_handle hh;
        const struct trigger *trigger;
        char key[];
};

static void name_key(const struct trigger *t, struct buf *key)
{
        buf_printf(key, "%s/%s", t->namespace_, t->name);
}

/* Its positions and the ids of its events begin with it; without one of its own it is the name. */
static void uid_key(const struct trigger *t, struct buf *key) { buf_text(key, t->uid); }

/* Nothing: it clashes with none. */
static void claim_key(const struct trigger *t, struct buf *key)
{
        const struct source_type *type = &t->types[t->source];

        if (t->suspend || !type->clash_key)
                return;
        buf_printf(key, "%s\n", type->name);
        type->clash_key(t, key);
}

static int put(struct trigger_place **table, const struct trigger *t, struct str key)
{
        struct trigger_place *p = calloc(1, sizeof(*p) + key.n + 1);

        if (!p)
                return -1;
        p->trigger = t;
        memcpy(p->key, key.p, key.n);
        HASH_ADD(hh, *table, key, key.n, p);
        if (p->hh.tbl)
                return 0;
        free(p);
        return -1;
}

static const struct trigger *find(const struct trigger_place *table, const struct trigger *t,
                                  void (*key_of)(const struct trigger *, struct buf *))
{
        BUF_AT_END struct buf key = BUF_INIT(8192);
        const struct trigger_place *p = NULL;

        key_of(t, &key);
        if (key.n && !key.failed)
                HASH_FIND(hh, table, key.p, key.n, p);
        return p ? p->trigger : NULL;
}

static void places_done(struct trigger_place *table)
{
        for (struct trigger_place *p = table, *next; p; p = next) {
                next = p->hh.next;
                HASH_DEL(table, p);
                free(p);
        }
}

static int add(struct triggers *all, struct trigger *t)
{
        struct trigger **grown = reallocarray(all->list, all->n + 1, sizeof(struct trigger *));
        BUF_AT_END struct buf name = BUF_INIT(8192), uid = BUF_INIT(8192), claim = BUF_INIT(8192);

        if (!grown)
                return -1;
        all->list = grown;
        name_key(t, &name);
        uid_key(t, &uid);
        claim_key(t, &claim);
        if (name.failed || uid.failed || claim.failed || put(&all->places, t, buf_view(&name)) < 0 ||
            put(&all->uids, t, buf_view(&uid)) < 0 || (claim.n && put(&all->claims, t, buf_view(&claim)) < 0))
                return -1;
        all->list[all->n++] = t;
        return 0;
}

static const struct node *word(const struct node *n, const char *member)
{
        const struct node *m = node_member(n, member);

        return m && m->kind == NODE_STRING ? m : NULL;
}

/* Ours, or meant to be ours: then what is wrong with it is told. */
static bool is_ours(const struct node *n)
{
        const struct node *version = word(n, "apiVersion"), *kind = word(n, "kind");
        struct str group = version ? version->text : (struct str){ 0 };

        if (n->kind != NODE_MAP || (!version && !kind))
                return true;
        if (version)
                return str_is(str_cut(&group, '/'), API_GROUP) && group.n > 0;
        return str_is(kind->text, "Trigger");
}

static bool is_list(const struct node *n)
{
        const struct node *kind = word(n, "kind"), *items = node_member(n, "items");

        return kind && (str_is(kind->text, "List") || str_is(kind->text, "TriggerList")) && items &&
               items->kind == NODE_LIST;
}

struct loading {
        struct triggers *all;
        const char *file;
        const struct source_type *types;
        size_t types_n;
        struct problems problems;
};

/* Both would be run, and their sources get into each other's way. */
static const struct trigger *find_clash(const struct triggers *all, const struct trigger *t, struct buf *why)
{
        const struct trigger *other = find(all->claims, t, claim_key);

        return other && t->types[t->source].clash(t, other, why) ? other : NULL;
}

static bool clashes(struct loading *l, const struct trigger *t, const struct node *root)
{
        const struct source_type *type = &t->types[t->source];
        const struct node *source = node_member(node_member(node_member(root, "spec"), "source"), type->name);
        BUF_AT_END struct buf why = BUF_INIT(2048), path = BUF_INIT(256);
        const struct trigger *other = find_clash(l->all, t, &why);
        const struct node *at = other ? node_member(source, type->clash_field) : NULL;

        if (!other)
                return false;
        at = at ? at : source;
        buf_printf(&path, "spec.source.%s.%s", type->name, type->clash_field);
        problem_add(&l->problems, at->line, at->column, path.p ? path.p : "",
                    "the Triggers %s/%s and %s/%s, at %s:%u, %s", t->namespace_, t->name, other->namespace_,
                    other->name, other->file, other->line, why.p ? why.p : "clash");
        return true;
}

static bool is_there(struct loading *l, const struct trigger *t, const struct node *root)
{
        const struct trigger *other = find(l->all->places, t, name_key);
        const struct node *name = node_member(node_member(root, "metadata"), "name");

        if (other)
                problem_add(&l->problems, name->line, name->column, "metadata.name",
                            "the Trigger %s/%s is there already, at %s:%u: rename one of them", t->namespace_,
                            t->name, other->file, other->line);
        return other != NULL;
}

/* As of a copy of what a cluster gave: each would go on where the other stands. */
static bool has_uid_of_other(struct loading *l, const struct trigger *t, const struct node *root)
{
        const struct trigger *other = find(l->all->uids, t, uid_key);
        const struct node *metadata = node_member(root, "metadata"), *uid = node_member(metadata, "uid");

        if (!other)
                return false;
        uid = uid ? uid : node_member(metadata, "name");
        problem_add(
                &l->problems, uid->line, uid->column, "metadata.uid",
                "the Trigger %s/%s, at %s:%u, has \"%s\", too, and both would keep their positions under it: "
                "leave it out, a cluster gives it",
                other->namespace_, other->name, other->file, other->line, t->uid);
        return true;
}

static void load_trigger(struct loading *l, const struct node *n)
{
        struct trigger *t = trigger_decode(n, l->types, l->types_n, &l->problems);

        if (!t)
                return;
        if (!is_there(l, t, n) && !has_uid_of_other(l, t, n) && !clashes(l, t, n)) {
                if ((t->file = str_dup(str_of(l->file))) && add(l->all, t) == 0)
                        return;
                problem_add(&l->problems, t->line, t->column, "", "out of memory");
        }
        (void)trigger_free(t);
}

static void load_document(struct loading *l, const struct node *n)
{
        if (n->kind == NODE_NULL || (l->all->stop && l->all->stop(l->all->cookie)))
                return;
        if (is_list(n))
                for (size_t i = 0; i < node_member(n, "items")->n; i++)
                        load_document(l, node_member(n, "items")->items[i]);
        else if (is_ours(n))
                load_trigger(l, n);
}

static int load_file(struct triggers *all, const char *path, const struct source_type *types, size_t n,
                     struct buf *report, struct error *err)
{
        struct loading l = {
                .all = all, .file = strcmp(path, "-") == 0 ? "<stdin>" : path, .types = types, .types_n = n
        };
        BUF_AT_END struct buf text = BUF_INIT(READ_MOST + 2);
        struct documents docs;
        bool fine;

        if (all->visit)
                all->visit(all->cookie, path, false);
        if (read_file(path, &text, err) < 0)
                return -1;
        l.problems.pass_unknown = all->pass_unknown;
        fine = yaml_parse(&docs, buf_view(&text), &l.problems) == 0;
        for (size_t i = 0; i < docs.n; i++)
                load_document(&l, docs.roots[i]);
        documents_done(&docs);
        if (l.problems.unknown && !all->unknown)
                memcpy(all->first_unknown, l.problems.first_unknown, sizeof(all->first_unknown));
        all->unknown += l.problems.unknown;
        if (!fine && l.problems.n == 0)
                problem_add(&l.problems, 1, 1, "", "out of memory");
        if (l.problems.n == 0)
                return fine ? 0 : error_memory(err);
        problems_format(&l.problems, l.file, report);
        (void)error_set(err, ERROR_INVALID, "%s: %zu problem%s", l.file, l.problems.n,
                        l.problems.n == 1 ? "" : "s");
        problems_done(&l.problems);
        return -1;
}

static bool is_manifest(const char *name)
{
        const char *dot = strrchr(name, '.');

        return dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0 || strcmp(dot, ".json") == 0);
}

static int is_shown(const struct dirent *entry) { return entry->d_name[0] != '.'; }
static int by_bytes(const struct dirent **a, const struct dirent **b)
{
        return strcmp((*a)->d_name, (*b)->d_name);
}

static int load_folder(struct triggers *all, const char *path, const struct source_type *types, size_t n,
                       struct buf *report, struct error *err);

/* What a folder holds. Folders behind links are not gone into: a link may lead back. */
static int load_entry(struct triggers *all, const char *path, const struct source_type *types, size_t n,
                      struct buf *report, struct error *err)
{
        struct stat own, info;

        if (lstat(path, &own) < 0 || stat(path, &info) < 0)
                return is_manifest(path) ? error_errno(err, errno, "read %s", path) : 0;
        if (S_ISDIR(info.st_mode))
                return S_ISDIR(own.st_mode) ? load_folder(all, path, types, n, report, err) : 0;
        /* it would be waited for; whoever means it names it */
        if (is_manifest(path) && !S_ISREG(info.st_mode))
                return error_set(err, ERROR_INVALID, "read %s: it is no regular file", path);
        return is_manifest(path) ? load_file(all, path, types, n, report, err) : 0;
}

/* Every file is read, so that all problems come at once. */
static int load_folder(struct triggers *all, const char *path, const struct source_type *types, size_t n,
                       struct buf *report, struct error *err)
{
        struct dirent **entries;
        int count, result = 0;

        if (all->visit)
                all->visit(all->cookie, path, true);
        count = scandir(path, &entries, is_shown, by_bytes);
        if (count < 0)
                return error_errno(err, errno, "read %s", path);
        for (int i = 0; i < count; i++) {
                BUF_AT_END struct buf file = BUF_INIT(65536);

                buf_printf(&file, "%s%s%s", path, path[strlen(path) - 1] == '/' ? "" : "/",
                           entries[i]->d_name);
                if (file.failed)
                        result = error_memory(err);
                else if (load_entry(all, file.p, types, n, report, err) < 0)
                        result = -1;
                free(entries[i]);
        }
        free(entries);
        return result;
}

int triggers_load(struct triggers *all, const char *path, const struct source_type *types, size_t n,
                  struct buf *report, struct error *err)
{
        struct stat info;

        if (*path == 0)
                return error_set(err, ERROR_INVALID, "a file's name is empty");
        if (strcmp(path, "-") != 0 && stat(path, &info) == 0 && S_ISDIR(info.st_mode))
                return load_folder(all, path, types, n, report, err);
        return load_file(all, path, types, n, report, err);
}

void triggers_done(struct triggers *all)
{
        for (size_t i = 0; i < all->n; i++)
                (void)trigger_free(all->list[i]);
        free(all->list);
        places_done(all->places);
        places_done(all->uids);
        places_done(all->claims);
        *all = (struct triggers){ 0 };
}

struct trigger *triggers_find(const struct triggers *all, const char *name, struct error *err)
{
        for (size_t i = 0; i < all->n; i++)
                if (name ? string_equal(all->list[i]->name, name) : all->n == 1)
                        return all->list[i];
        if (name)
                (void)error_set(err, ERROR_NOT_FOUND, "holds no Trigger named %s", name);
        else
                (void)error_set(err, ERROR_INVALID, "holds %zu Triggers: say which one with --name=NAME",
                                all->n);
        return NULL;
}
