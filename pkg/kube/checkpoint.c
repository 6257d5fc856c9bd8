#include "kube/checkpoint.h"

#include <assert.h>
#include <stdio.h>

#include "base/table.h"
#include "json/writer.h"

enum { VALUE_MOST = 2 << 20 };

/* What is known of a key, with its writer's name. wanted: what a write that is under way, or must be made
 * again, is to leave there. */
struct known {
        UT_hash_handle hh;
        char *key, *value, *wanted;
};

struct kube_checkpoint {
        struct kube_client *client;
        char *path, *what, *owner, *writer;
        const char *owner_kind;
        struct known *keys;
        char *version; /* NULL: not read, or to be read again */
        struct kube_call *call;
        struct list gets, puts, writing; /* requests */
};

static struct store_request *first_of(struct list *l)
{
        struct request *r = LIST_FIRST(l, struct request, node);

        return r ? CONTAINER_OF(r, struct store_request, request) : NULL;
}

static struct known *known_get(struct kube_checkpoint *c, const char *key)
{
        struct known *k;

        HASH_FIND_STR(c->keys, key, k);
        if (k)
                return k;
        k = calloc(1, sizeof(*k));
        if (!k || !(k->key = str_dup(str_of(key))))
                abort();
        HASH_ADD_KEYPTR(hh, c->keys, k->key, strlen(k->key), k);
        return k;
}

static void replace(char **to, const char *text)
{
        free(*to);
        *to = text ? str_dup(str_of(text)) : NULL;
        if (text && !*to)
                abort();
}

static void complete(struct kube_checkpoint *c, struct request *r, const struct error *why)
{
        if (why)
                request_fail(r, kube_client_loop(c->client), why);
        else
                request_end(r, kube_client_loop(c->client));
}

static void complete_all(struct kube_checkpoint *c, struct list *l, const struct error *why)
{
        for (struct request *r; (r = LIST_TAKE(l, struct request, node));)
                complete(c, r, why);
}

static void advance(struct kube_checkpoint *c);

/* ---- who wrote it ------------------------------------------------------- */

/* Values are JSON objects; the writer's name is their last member. Values alone can't tell writers apart: two
 * workers make the same claim of the same tick. */
static const struct str SIGNATURE = { "\"writer\":\"", 10 };

static struct str signature_of(struct str value)
{
        size_t n = SIGNATURE.n + KUBE_CHECKPOINT_WRITER + 2;
        struct str end = { value.p + value.n - n, n };

        return value.n > n && str_starts(end, SIGNATURE) && end.p[n - 2] == '"' ? end : (struct str){ 0 };
}

static bool is_signed(struct str value, const char *writer)
{
        struct str s = signature_of(value);

        return s.n && memcmp(s.p + SIGNATURE.n, writer, KUBE_CHECKPOINT_WRITER) == 0;
}

static void sign(struct str value, const char *writer, struct buf *out)
{
        bool object = value.n >= 2 && value.p[0] == '{' && value.p[value.n - 1] == '}';

        buf_str(out, object ? (struct str){ value.p, value.n - 1 } : value);
        if (object)
                buf_printf(out, "%s" STR_FMT "%s\"}", value.n > 2 ? "," : "", STR_ARG(SIGNATURE), writer);
}

/* The value as it was given. */
static void unsign(const char *value, struct buf *out)
{
        struct str all = str_of(value), end = signature_of(all);

        all.n -= end.n;
        if (end.n)
                all.n -= all.p[all.n - 1] == ',';
        buf_str(out, all);
        if (end.n)
                buf_char(out, '}');
}

/* ---- reading ------------------------------------------------------------ */

static bool is_theirs(const struct kube_checkpoint *c, json_t *metadata)
{
        json_t *owners = json_object_get(metadata, "ownerReferences"), *owner;
        size_t i;

        json_array_foreach(owners, i,
                           owner) if (string_equal(json_string_value(json_object_get(owner, "uid")),
                                                   c->owner)) return false;
        return c->owner && json_array_size(owners) > 0;
}

/* Takes over what the ConfigMap says. false: another writer changed a key of ours. What bears our name is
 * ours, whenever it was written. What is gone nobody wrote: the ConfigMap was made again, and what is known
 * goes back into it. */
static bool take_over(struct kube_checkpoint *c, json_t *root)
{
        json_t *data = json_object_get(root, "data"), *value;
        bool first = c->keys == NULL, ours = true;
        struct known *k, *next;
        const char *key;

        HASH_ITER(hh, c->keys, k, next)
        {
                const char *now = json_string_value(json_object_get(data, k->key));

                if (!now && k->value) {
                        if (!k->wanted)
                                replace(&k->wanted, k->value);
                        continue;
                }
                ours = ours && (string_equal(now, k->value) || (now && is_signed(str_of(now), c->writer)));
                replace(&k->value, now);
                replace(&k->wanted, NULL);
        }
        json_object_foreach(data, key, value) if (first && json_is_string(value))
                replace(&known_get(c, key)->value, json_string_value(value));
        replace(&c->version,
                json_string_value(json_object_get(json_object_get(root, "metadata"), "resourceVersion")));
        return ours;
}

static void answer_get(struct kube_checkpoint *c, struct store_request *r)
{
        const struct known *k;
        struct error err;

        list_remove(&r->request.node);
        HASH_FIND(hh, c->keys, r->key.p, r->key.n, k);
        r->found = k && k->value;
        buf_reset(&r->value);
        r->value.max = VALUE_MOST;
        if (r->found)
                unsign(k->value, &r->value);
        if (r->value.failed)
                (void)error_memory(&err);
        complete(c, &r->request, r->value.failed ? &err : NULL);
}

static void was_read(void *cookie, const struct kube_answer *a)
{
        struct kube_checkpoint *c = cookie;
        struct error err;
        json_t *root;

        c->call = NULL;
        if (a->failed) {
                complete_all(c, &c->gets, &a->error);
                complete_all(c, &c->puts, &a->error);
                return;
        }
        root = json_loadb(a->body.p, a->body.n, 0, NULL);
        if (is_theirs(c, json_object_get(root, "metadata"))) {
                (void)error_set(&err, ERROR_CONFLICT,
                                "%s belongs to another %s of this name: it is left alone", c->what,
                                c->owner_kind);
                complete_all(c, &c->gets, &err);
                complete_all(c, &c->puts, &err);
        } else if (!take_over(c, root)) {
                (void)error_set(&err, ERROR_CONFLICT,
                                "%s: another worker writes this checkpoint: this one waits", c->what);
                complete_all(c, &c->puts, &err);
        }
        json_decref(root);
        for (struct store_request *r; (r = first_of(&c->gets));)
                answer_get(c, r);
        advance(c);
}

static void read_again(struct kube_checkpoint *c)
{
        struct kube_request q = { .method = "GET",
                                  .path = c->path,
                                  .what = c->what,
                                  .done = was_read,
                                  .cookie = c,
                                  .timeout = 10 * USEC_SEC };

        c->call = kube_send(c->client, &q);
}

/* ---- writing ------------------------------------------------------------ */

static void was_written(void *cookie, const struct kube_answer *a)
{
        struct kube_checkpoint *c = cookie;
        struct known *k, *next;
        json_t *root;

        c->call = NULL;
        if (a->failed && a->error.kind == ERROR_CONFLICT) {
                /* Somebody wrote; whether it matters is seen by reading. These are written again, before what
                 * came later. */
                replace(&c->version, NULL);
                for (struct list_node *last; (last = c->writing.last);) {
                        list_remove(last);
                        list_prepend(&c->puts, last);
                }
                advance(c);
                return;
        }
        if (a->failed) {
                replace(&c->version, NULL); /* it may have been written all the same */
                complete_all(c, &c->writing, &a->error);
                advance(c);
                return;
        }
        root = json_loadb(a->body.p, a->body.n, 0, NULL);
        replace(&c->version,
                json_string_value(json_object_get(json_object_get(root, "metadata"), "resourceVersion")));
        json_decref(root);
        HASH_ITER(hh, c->keys, k, next)
        if (k->wanted) {
                free(k->value);
                k->value = k->wanted;
                k->wanted = NULL;
        }
        complete_all(c, &c->writing, NULL);
        advance(c);
}

static void write_pending(struct kube_checkpoint *c)
{
        BUF_AT_END struct buf body = BUF_INIT(VALUE_MOST);
        struct kube_request q = { .method = "PATCH",
                                  .content_type = "application/merge-patch+json",
                                  .path = c->path,
                                  .what = c->what,
                                  .done = was_written,
                                  .cookie = c,
                                  .timeout = 10 * USEC_SEC };
        struct known *k, *next;
        struct writer w;

        for (struct store_request *r; (r = first_of(&c->puts));) {
                replace(&known_get(c, r->key.p)->wanted, r->value.p); /* the latest of a key wins */
                list_remove(&r->request.node);
                list_append(&c->writing, &r->request.node);
        }
        writer_init(&w, &body);
        writer_object(&w);
        writer_key(&w, STR("metadata"));
        writer_object(&w);
        writer_member_text(&w, "resourceVersion", c->version);
        writer_object_end(&w);
        writer_key(&w, STR("data"));
        writer_object(&w);
        HASH_ITER(hh, c->keys, k, next)
        if (k->wanted) {
                writer_key(&w, str_of(k->key));
                writer_string(&w, str_of(k->wanted));
        }
        writer_object_end(&w);
        writer_object_end(&w);
        q.body = buf_view(&body);
        c->call = kube_send(c->client, &q);
}

static void advance(struct kube_checkpoint *c)
{
        if (c->call || (!c->gets.first && !c->puts.first))
                return;
        if (!c->version || c->gets.first)
                read_again(c);
        else
                write_pending(c);
}

/* ---- the port ----------------------------------------------------------- */

/* A ConfigMap's keys are letters, digits, '-', '_' and '.'; anything else becomes _XX. */
static void encode_key(struct str key, struct buf *out)
{
        for (size_t i = 0; i < key.n; i++) {
                char c = key.p[i];

                if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                    c == '.')
                        buf_char(out, c);
                else
                        buf_printf(out, "_%02X", (unsigned)(unsigned char)c);
        }
}

static void queue(struct kube_checkpoint *c, struct list *to, struct store_request *r, struct str key)
{
        struct error err;

        buf_reset(&r->key);
        r->key.max = 1024;
        encode_key(key, &r->key);
        if (r->key.failed || r->value.failed) {
                (void)error_memory(&err);
                complete(c, &r->request, &err);
                return;
        }
        list_append(to, &r->request.node);
        advance(c);
}

static void get(void *cookie, struct store_request *r, struct str key)
{
        struct kube_checkpoint *c = cookie;

        buf_reset(&r->value);
        queue(c, &c->gets, r, key);
}

static void put(void *cookie, struct store_request *r, struct str key, struct str value)
{
        struct kube_checkpoint *c = cookie;

        buf_reset(&r->value);
        r->value.max = VALUE_MOST;
        sign(value, c->writer, &r->value);
        queue(c, &c->puts, r, key);
}

/* A write that is on its way goes on. */
static void cancel(void *cookie UNUSED, struct store_request *r) { list_remove(&r->request.node); }

static const struct store_ops ops = { get, put, cancel };
struct store kube_checkpoint_port(struct kube_checkpoint *c) { return (struct store){ &ops, c, USEC_SEC }; }

int kube_checkpoint_new(struct kube_checkpoint **out, struct kube_client *client,
                        const struct kube_checkpoint_config *config, struct error *err)
{
        struct kube_checkpoint *c = calloc(1, sizeof(*c));
        BUF_AT_END struct buf path = BUF_INIT(4096), what = BUF_INIT(4096);

        if (!c)
                return error_memory(err);
        assert(strlen(config->writer) == KUBE_CHECKPOINT_WRITER);
        c->client = client;
        buf_printf(&path, "/api/v1/namespaces/%s/configmaps/%s", config->namespace_, config->name);
        buf_printf(&what, "checkpoint ConfigMap %s/%s", config->namespace_, config->name);
        c->path = buf_take(&path);
        c->what = buf_take(&what);
        c->writer = str_dup(str_of(config->writer));
        c->owner_kind = config->owner_kind ? config->owner_kind : "owner";
        c->owner = config->owner ? str_dup(str_of(config->owner)) : NULL;
        if (!c->path || !c->what || !c->writer || (config->owner && !c->owner)) {
                (void)kube_checkpoint_free(c);
                return error_memory(err);
        }
        *out = c;
        return 0;
}

struct kube_checkpoint *kube_checkpoint_free(struct kube_checkpoint *c)
{
        struct known *k, *next;

        if (!c)
                return NULL;
        kube_cancel(c->call);
        HASH_ITER(hh, c->keys, k, next)
        {
                HASH_DEL(c->keys, k);
                free(k->key);
                free(k->value);
                free(k->wanted);
                free(k);
        }
        free(c->version);
        free(c->path);
        free(c->what);
        free(c->owner);
        free(c->writer);
        free(c);
        return NULL;
}
