#include "base/heap.h"

void heap_done(struct heap *h)
{
        free(h->nodes);
        *h = (struct heap){ 0 };
}

bool heap_reserve(struct heap *h, size_t nodes)
{
        struct heap_node **grown;
        size_t cap;

        if (nodes < h->cap)
                return true;
        cap = MAX_OF(h->cap * 2, nodes + 1);
        cap = MAX_OF(cap, (size_t)16);
        grown = realloc(h->nodes, cap * sizeof(struct heap_node *));
        if (!grown)
                return false;
        h->nodes = grown;
        h->cap = cap;
        return true;
}

static void place(struct heap *h, struct heap_node *n, size_t i)
{
        h->nodes[i] = n;
        n->index = i;
}

static void sift(struct heap *h, struct heap_node *n)
{
        size_t i = n->index;

        for (; i > 1 && n->at < h->nodes[i / 2]->at; i /= 2)
                place(h, h->nodes[i / 2], i);
        for (size_t child; (child = 2 * i) <= h->n; i = child) {
                if (child < h->n && h->nodes[child + 1]->at < h->nodes[child]->at)
                        child++;
                if (n->at <= h->nodes[child]->at)
                        break;
                place(h, h->nodes[child], i);
        }
        place(h, n, i);
}

bool heap_insert(struct heap *h, struct heap_node *n, usec at)
{
        if (!n->index) {
                if (!heap_reserve(h, h->n + 1))
                        return false;
                place(h, n, ++h->n);
        }
        n->at = at;
        sift(h, n);
        return true;
}

void heap_remove(struct heap *h, struct heap_node *n)
{
        struct heap_node *last;
        size_t i = n->index;

        if (!i)
                return;
        last = h->nodes[h->n--];
        n->index = 0;
        if (last == n)
                return;
        place(h, last, i);
        sift(h, last);
}
