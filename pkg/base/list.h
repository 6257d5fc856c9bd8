/* The intrusive list: its nodes stand in what is listed, which is in one list at a time by that node. Nothing
 * is allocated, all is O(1). Zeroed is empty, and a zeroed node in none. Neither a list nor a node is copied
 * or moved while something is in it. One thread at a time. */
#pragma once

#include "base/base.h"

struct list_node {
        struct list_node *next, *previous;
        struct list *list; /* NULL: in none */
};
struct list {
        struct list_node *first, *last;
        size_t n;
};

static inline bool list_has(const struct list_node *node) { return node->list != NULL; }

/* Before a node of the list; NULL: at its end. The node is in no list. */
static inline void list_insert(struct list *list, struct list_node *node, struct list_node *before)
{
        struct list_node *previous = before ? before->previous : list->last;

        *node = (struct list_node){ .next = before, .previous = previous, .list = list };
        if (previous)
                previous->next = node;
        else
                list->first = node;
        if (before)
                before->previous = node;
        else
                list->last = node;
        list->n++;
}

static inline void list_append(struct list *list, struct list_node *node) { list_insert(list, node, NULL); }

static inline void list_prepend(struct list *list, struct list_node *node)
{
        list_insert(list, node, list->first);
}

/* From whichever list it is in; of one that is in none nothing happens. */
static inline void list_remove(struct list_node *node)
{
        struct list *list = node->list;

        if (!list)
                return;
        if (node->previous)
                node->previous->next = node->next;
        else
                list->first = node->next;
        if (node->next)
                node->next->previous = node->previous;
        else
                list->last = node->previous;
        list->n--;
        *node = (struct list_node){ 0 };
}

/* The first, removed; NULL: it is empty. */
static inline struct list_node *list_take(struct list *list)
{
        struct list_node *first = list->first;

        if (first)
                list_remove(first);
        return first;
}

/* What a node stands in: struct thing *t = LIST_ITEM(node, struct thing, node). Of NULL it is NULL. */
#define LIST_ITEM(node, type, member) ((type *)list_item_((node), offsetof(type, member)))
static inline void *list_item_(struct list_node *node, size_t offset)
{
        return node ? (char *)node - offset : NULL;
}
#define LIST_FIRST(list, type, member) LIST_ITEM((list)->first, type, member)
#define LIST_TAKE(list, type, member) LIST_ITEM(list_take(list), type, member)
/* for LIST_EACH (struct thing, t, &list, node) { … }: the current one may be removed and freed, no other. */
#define LIST_EACH(type, item, list, member)                                                                  \
        for (type *item = LIST_FIRST(list, type, member),                                                    \
                  *item##_next = item ? LIST_ITEM(item->member.next, type, member) : NULL;                   \
             item;                                                                                           \
             item = item##_next, item##_next = item ? LIST_ITEM(item->member.next, type, member) : NULL)
