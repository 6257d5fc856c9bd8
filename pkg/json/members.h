/* Reads the objects that a peer sends straight into a struct of the caller's, by a table of their members:
 * one pass over the text, no tree, nothing allocated. What is handed out borrows from the text. Any thread.
 *
 *      struct event { struct json_value id, text; int64_t time; };
 *      static const struct json_member event_members[] = {
 *              MEMBER(TEXT, "id", struct event, id, .required = true),
 *              MEMBER(TEXT, "body.text", struct event, text),
 *              MEMBER(NUMBER, "time", struct event, time),
 *      };
 *      static const struct json_object event = JSON_OBJECT("an event", event_members);
 *
 * Of a member that comes twice the last one counts, of a list the first; what the table does not name is
 * passed by. Names are compared as they are written: one with escapes is none of the table's. */
#pragma once

#include "base/buf.h"
#include "base/error.h"

/* A value as it stands in the text. */
struct json_value {
        struct str text; /* of a string what stands between its quotes; p NULL: it is not there */
        bool is_string, escaped;
};
/* Is it that word of JSON: "true", "false" or "null"? */
static inline bool json_value_is(struct json_value v, const char *word)
{
        return !v.is_string && str_is(v.text, word);
}
/* Appends what it says: the text of a string, the JSON of anything else. */
void json_value_add(struct json_value, struct buf *);
/* As it is written there, a string with its quotes. */
static inline struct str json_value_raw(struct json_value v)
{
        return v.is_string ? (struct str){ v.text.p - 1, v.text.n + 2 } : v.text;
}

enum json_member_kind {
        MEMBER_TEXT,   /* struct json_value: a string; null: it is not there */
        MEMBER_NUMBER, /* int64_t: a whole number, which may stand in a string; null: it is not there */
        MEMBER_ANY,    /* struct json_value: whatever it is, null, too */
        /* of objects: each is read into the same struct, and taken before the next is read; null: it is not
         * there */
        MEMBER_LIST,
};

struct json_object;
struct json_member {
        enum json_member_kind kind;
        const char *name; /* "body.text": of the object that is called body. Those of one stand together. */
        size_t offset;
        bool required;     /* a text that is empty is not there, either */
        int64_t otherwise; /* what a number is that is not there */
        const struct json_object *items;
        bool any_item; /* of a list: an item that is no object is taken as one without any of these members */
        int (*take)(void *object, struct error *); /* object: that the list is in */
};
/* A member of the struct that has another type than its kind does not compile. */
#define MEMBER_IS_TEXT(member) _Generic(member, struct json_value : 0)
#define MEMBER_IS_ANY(member) _Generic(member, struct json_value : 0)
#define MEMBER_IS_NUMBER(member) _Generic(member, int64_t : 0)
#define MEMBER_IS_LIST(member) 0
#define MEMBER(kind_, name_, struct_, member_, ...)                                                          \
        {                                                                                                    \
                .kind = MEMBER_##kind_, .name = (name_),                                                     \
                .offset = offsetof(struct_, member_) +                                                       \
                          0 * sizeof(MEMBER_IS_##kind_(((struct_ *)0)->member_)),                            \
                __VA_ARGS__                                                                                  \
        }

struct json_object {
        const char *what; /* "an event": for what is wrong with it */
        const struct json_member *members;
        size_t n; /* at most 64 */
};
#define JSON_OBJECT(what_, members_)                                                                         \
        {                                                                                                    \
                .what = (what_), .members = (members_), .n = COUNT_OF(members_)                              \
        }

/* An error says what is wrong: "an event has no id". What was taken before is taken. */
int json_read_object(struct str text, const struct json_object *, void *into, struct error *) MUST_CHECK;
/* The same of a text that is a list; its name says nothing. */
int json_read_list(struct str text, const struct json_member *list, void *into, struct error *) MUST_CHECK;
