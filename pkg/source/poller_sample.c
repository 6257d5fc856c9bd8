#include "source/poller.h"

#include "json/yaml.h"
#include "source/page.h"

enum { SAMPLE_MOST = 256 << 20 };

/* What a page borrows; found again through its pointer. */
struct sample {
        struct remember remember;
        struct reader_stats stats;
};

static struct sample *sample_of(const struct page *p)
{
        return CONTAINER_OF(p->remember, struct sample, remember);
}

static void discard(struct page *p)
{
        struct sample *s = sample_of(p);

        (void)page_free(p);
        free(s);
}

struct page *poller_sample_begin(const struct node *document, const char *known, struct error *err)
{
        struct sample *s;
        struct page *p;

        if (shape_members(document, known, err) < 0)
                return NULL;
        s = calloc(1, sizeof(*s));
        p = s ? page_new(&s->remember, &s->stats, SAMPLE_MOST) : NULL;
        if (p)
                return p;
        free(s);
        (void)error_memory(err);
        return NULL;
}

int poller_sample_end(struct page *p, int filled, struct record **out, struct error *err)
{
        if (filled == 0 && (page_failed(p) || !p->first))
                filled = error_memory(err);
        if (filled < 0) {
                discard(p);
                return -1;
        }
        *out = &p->first->record;
        return 0;
}

void poller_sample_free(struct record *r)
{
        if (r)
                discard(CONTAINER_OF(r, struct lent, record)->page);
}

void poller_sample_member(struct writer *w, const char *key, const struct node *document, const char *name,
                          const char *otherwise)
{
        const struct node *n = node_member(document, name);
        bool there = n && n->kind != NODE_NULL;

        if (!there && !otherwise)
                return;
        writer_key(w, str_of(key));
        if (there)
                node_write(n, w);
        else
                writer_string(w, str_of(otherwise));
}

void poller_sample_text(const struct node *n, struct buf *out)
{
        struct writer w;

        writer_init(&w, out);
        if (n && n->kind == NODE_STRING)
                buf_str(out, n->text);
        else if (n && n->kind != NODE_NULL)
                node_write(n, &w);
}
