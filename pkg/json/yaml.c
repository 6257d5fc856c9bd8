#include "json/yaml.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <yaml.h>

#include "json/check.h"

enum { SIZE_MOST = 1 << 20, DEPTH_MOST = 72, NODES_MOST = 100000, NAME_SHOWN = 80 };

/* ---- problems ----------------------------------------------------------- */

void problem_add(struct problems *all, unsigned line, unsigned column, const char *path, const char *format,
                 ...)
{
        char text[1024];
        va_list args;

        if (all->n == all->cap) {
                size_t cap = all->cap ? 2 * all->cap : 8;
                struct problem *grown = reallocarray(all->list, cap, sizeof(*grown));

                if (!grown)
                        return;
                all->list = grown;
                all->cap = cap;
        }
        va_start(args, format);
        text_vprint(text, sizeof(text), format, args); /* it may quote the file */
        va_end(args);
        /* A text that could not be made stays NULL: the place is told, and that memory ran out. */
        all->list[all->n] = (struct problem){ .line = line,
                                              .column = column,
                                              .path = str_dup(str_of(path ? path : "")),
                                              .text = str_dup(str_of(text)) };
        if (all->list[all->n].path)
                text_plain(all->list[all->n].path);
        all->n++;
}

void problems_done(struct problems *all)
{
        for (size_t i = 0; i < all->n; i++) {
                free(all->list[i].path);
                free(all->list[i].text);
        }
        free(all->list);
        *all = (struct problems){ 0 };
}

struct place {
        unsigned line, column;
        size_t index;
};

static int by_place(const void *a, const void *b)
{
        const struct place *p = a, *q = b;

        if (p->line != q->line)
                return p->line < q->line ? -1 : 1;
        if (p->column != q->column)
                return p->column < q->column ? -1 : 1;
        return p->index < q->index ? -1 : 1;
}

static void format_one(const struct problem *p, const char *file, struct buf *out)
{
        buf_printf(out, "%s:%u:%u: ", file, p->line, p->column);
        if (p->path && *p->path)
                buf_printf(out, "%s: ", p->path);
        buf_text(out, p->text ? p->text : "out of memory");
        buf_char(out, '\n');
}

void problems_format(const struct problems *all, const char *file, struct buf *out)
{
        FREE_AT_END struct place *order = all->n ? calloc(all->n, sizeof(*order)) : NULL;

        for (size_t i = 0; order && i < all->n; i++)
                order[i] = (struct place){ all->list[i].line, all->list[i].column, i };
        if (order)
                qsort(order, all->n, sizeof(*order), by_place);
        for (size_t i = 0; i < all->n; i++)
                format_one(&all->list[order ? order[i].index : i], file, out);
}

/* ---- arena -------------------------------------------------------------- */

struct block {
        struct block *next;
        size_t used, size;
        _Alignas(max_align_t) char bytes[];
};

static void *arena_get(struct documents *docs, size_t n)
{
        struct block *b = docs->memory;
        void *p;

        n = (n + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
        if (!b || b->size - b->used < n) {
                size_t size = MAX_OF(n, b ? (size_t)32768 : (size_t)1024);

                b = malloc(sizeof(*b) + size);
                if (!b)
                        return NULL;
                *b = (struct block){ .next = docs->memory, .size = size };
                docs->memory = b;
        }
        p = b->bytes + b->used;
        b->used += n;
        return memset(p, 0, n);
}

/* An array that doubles; what it leaves behind stays in the arena until the end. */
static void *arena_grow(struct documents *docs, void *array, size_t n, size_t size)
{
        void *grown;

        if (n & (n - 1) || (n && n < 4))
                return array;
        grown = arena_get(docs, MAX_OF(2 * n, (size_t)4) * size);
        if (grown && n)
                memcpy(grown, array, n * size);
        return grown;
}

static struct str arena_copy(struct documents *docs, const char *p, size_t n)
{
        char *copy = arena_get(docs, n + 1);

        if (copy && n)
                memcpy(copy, p, n);
        return (struct str){ copy, copy ? n : 0 };
}

void documents_done(struct documents *docs)
{
        struct block *b = docs->memory;

        while (b) {
                struct block *next = b->next;

                free(b);
                b = next;
        }
        *docs = (struct documents){ 0 };
}

/* ---- scalars: the core schema of YAML 1.2 ------------------------------- */

static bool one_of(struct str s, const char *a, const char *b, const char *c)
{
        return str_is(s, a) || str_is(s, b) || str_is(s, c);
}

static size_t digits(struct str s, size_t i)
{
        size_t from = i;

        while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9')
                i++;
        return i - from;
}

/* [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )? */
static bool is_number(struct str s, bool *whole)
{
        size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+'), before = digits(s, i), after = 0;

        *whole = true;
        i += before;
        if (i < s.n && s.p[i] == '.') {
                *whole = false;
                after = digits(s, ++i);
                i += after;
        }
        if (before + after == 0)
                return false;
        if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
                *whole = false;
                i++;
                i += i < s.n && (s.p[i] == '-' || s.p[i] == '+');
                if (digits(s, i) == 0)
                        return false;
                i += digits(s, i);
        }
        return i == s.n;
}

/* Based and with underscores, as YAML 1.1 and kubectl have it: 0x1f, 0o17, 017, 0b101, 1_000, each with a
 * sign. */
static bool resolve_based(struct node *n)
{
        struct str s = n->text;
        bool negative = s.n && s.p[0] == '-', any = false;
        unsigned base = 10;
        uint64_t value = 0;
        double real = 0;

        if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
                s = (struct str){ s.p + 1, s.n - 1 };
        if (s.n > 1 && s.p[0] == '0') {
                char kind = s.p[1];

                base = kind == 'x' || kind == 'X' ? 16 : kind == 'b' || kind == 'B' ? 2 : 8;
                s = kind >= '0' && kind <= '9' ? (struct str){ s.p + 1, s.n - 1 }
                                               : (struct str){ s.p + 2, s.n - 2 };
                if (base == 8 && !(kind >= '0' && kind <= '9') && kind != 'o' && kind != 'O' && kind != '_')
                        return false;
        } else if (!s.n || !memchr(s.p, '_', s.n) || s.p[0] == '_')
                return false;
        for (size_t i = 0; i < s.n; i++) {
                int digit = hex_digit(s.p[i]);

                if (s.p[i] == '_')
                        continue;
                if (digit < 0 || (unsigned)digit >= base)
                        return false;
                any = true;
                real = real * base + digit;
                value = value * base + (unsigned)digit;
        }
        if (!any)
                return false;
        if (real >= 0x1p63) {
                n->kind = NODE_FLOAT;
                n->real = (negative ? -1 : 1) * (real >= 0x1p64 ? INFINITY : real);
        } else {
                n->kind = NODE_INT;
                n->integer = negative ? -(int64_t)value : (int64_t)value;
        }
        return true;
}

/* YAML 1.1's, which kubectl reads: the core schema of 1.2 has the first of each alone. */
static bool is_true(struct str s)
{
        return one_of(s, "true", "True", "TRUE") || one_of(s, "yes", "Yes", "YES") ||
               one_of(s, "on", "On", "ON") || str_is(s, "y") || str_is(s, "Y");
}
static bool is_false(struct str s)
{
        return one_of(s, "false", "False", "FALSE") || one_of(s, "no", "No", "NO") ||
               one_of(s, "off", "Off", "OFF") || str_is(s, "n") || str_is(s, "N");
}

static void resolve(struct node *n)
{
        struct str s = n->text, unsigned_ = s;
        bool whole;

        n->kind = NODE_STRING;
        if (s.n == 0 || str_is(s, "~") || one_of(s, "null", "Null", "NULL")) {
                n->kind = NODE_NULL;
                return;
        }
        if (is_true(s) || is_false(s)) {
                n->kind = NODE_BOOL;
                n->boolean = is_true(s);
                return;
        }
        if (resolve_based(n))
                return;
        if (is_number(s, &whole)) {
                struct str decimal = s.p[0] == '+' ? (struct str){ s.p + 1, s.n - 1 } : s;

                if (whole && str_to_int64(decimal, &n->integer)) {
                        n->kind = NODE_INT;
                        return;
                }
                n->kind = NODE_FLOAT;
                n->real = strtod(s.p, NULL);
                return;
        }
        if (s.p[0] == '-' || s.p[0] == '+')
                unsigned_ = (struct str){ s.p + 1, s.n - 1 };
        if (one_of(unsigned_, ".inf", ".Inf", ".INF")) {
                n->kind = NODE_FLOAT;
                n->real = s.p[0] == '-' ? -INFINITY : INFINITY;
        } else if (one_of(s, ".nan", ".NaN", ".NAN")) {
                n->kind = NODE_FLOAT;
                n->real = NAN;
        }
}

/* ---- characters --------------------------------------------------------- */

static size_t sequence(struct str s)
{
        unsigned char c = (unsigned char)s.p[0];
        size_t n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

        return n <= s.n && str_is_utf8((struct str){ s.p, n }) ? n : 0;
}

static uint32_t code_point(const char *text, size_t n)
{
        const unsigned char *p = (const unsigned char *)text;
        uint32_t c = n == 1 ? p[0] : n == 2 ? p[0] & 0x1fu : n == 3 ? p[0] & 0x0fu : p[0] & 0x07u;

        for (size_t i = 1; i < n; i++)
                c = c << 6 | (p[i] & 0x3fu);
        return c;
}

static bool printable(uint32_t c)
{
        return c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c <= 0x7e) || c == 0x85 ||
               (c >= 0xa0 && c <= 0xd7ff) || (c >= 0xe000 && c <= 0xfffd) || c >= 0x10000;
}

/* libyaml tells no place for these, so they are looked for first. */
static bool characters_fine(struct str text, struct problems *problems)
{
        unsigned line = 1, column = 1;

        for (struct str s = text; s.n;) {
                size_t n = sequence(s);
                uint32_t c = n ? code_point(s.p, n) : 0;

                if (!n) {
                        problem_add(problems, line, column, "",
                                    "the byte 0x%02x is not valid UTF-8: save the file in UTF-8",
                                    (unsigned char)s.p[0]);
                        return false;
                }
                if (!printable(c)) {
                        problem_add(problems, line, column, "",
                                    "the control character U+%04X is not allowed: write it as an escape in "
                                    "double quotes, or remove it",
                                    c);
                        return false;
                }
                column++;
                if (c == '\n' || (c == '\r' && !(s.n > 1 && s.p[1] == '\n'))) {
                        line++;
                        column = 1;
                }
                s.p += n;
                s.n -= n;
        }
        return true;
}

static bool hex4(const char *p, unsigned *out)
{
        *out = 0;
        for (int i = 0; i < 4; i++) {
                char c = p[i];
                unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                             : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                             : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                                    : 16;

                if (d > 15)
                        return false;
                *out = *out << 4 | d;
        }
        return true;
}

/* JSON writes characters above U+FFFF as two escapes, which YAML does not know: they become its own
 * \UXXXXXXXX. */
static char *join_surrogates(struct str text, size_t *n)
{
        char *copy = str_dup(text);
        size_t to = 0;
        bool quoted = false;

        for (size_t i = 0; copy && i < text.n;) {
                unsigned high, low;

                if (text.p[i] == '"')
                        quoted = !quoted;
                if (quoted && text.p[i] == '\\' && i + 12 <= text.n && text.p[i + 1] == 'u' &&
                    text.p[i + 6] == '\\' && text.p[i + 7] == 'u' && hex4(text.p + i + 2, &high) &&
                    hex4(text.p + i + 8, &low) && (high & 0xfc00) == 0xd800 && (low & 0xfc00) == 0xdc00) {
                        char escape[11];

                        (void)snprintf(escape, sizeof(escape), "\\U%08X",
                                       0x10000 + ((high & 0x3ff) << 10 | (low & 0x3ff)));
                        memcpy(copy + to, escape, 10);
                        to += 10;
                        i += 12;
                        continue;
                }
                if (quoted && text.p[i] == '\\' && i + 1 < text.n)
                        copy[to++] = text.p[i++];
                copy[to++] = text.p[i++];
        }
        *n = to;
        return copy;
}

/* ---- syntax errors in plain words --------------------------------------- */

static const struct {
        const char *context, *problem, *words;
} plain_words[] = {
        ROW("scanning a quoted scalar", "unexpected end of stream",
            "the quoted text that begins on line %zu is never closed: add the closing quote"),
        ROW("scanning a quoted scalar", "unexpected document indicator",
            "the quoted text that begins on line %zu is never closed: add the closing quote"),
        ROW("", "unknown escape character",
            "unknown escape in double quotes: write \\\\ for a backslash, or use single quotes"),
        ROW("", "did not find expected hexdecimal number",
            "the escape needs hexadecimal digits: \\xXX, \\uXXXX or \\UXXXXXXXX"),
        ROW("", "invalid Unicode character escape code",
            "the escape names no character: a surrogate stands alone"),
        ROW("", "mapping values are not allowed",
            "a colon can't stand here: quote the text it is part of, or check the indentation"),
        ROW("", "mapping keys are not allowed", "a question mark can't stand here: quote the text it begins"),
        ROW("", "block sequence entries are not allowed",
            "a list item can't stand here: put it on a line of its own"),
        ROW("", "could not find expected ':'", "a colon and a space are missing after the key on line %zu"),
        ROW("block mapping", "did not find expected key",
            "expected a member of the map that begins on line %zu: check the indentation"),
        ROW("block collection", "did not find expected '-'",
            "expected another item of the list that begins on line %zu: check the indentation"),
        ROW("flow sequence", "did not find expected ',' or ']'",
            "expected \",\" or \"]\" in the list that begins on line %zu"),
        ROW("flow mapping", "did not find expected ',' or '}'",
            "expected \",\" or \"}\" in the map that begins on line %zu"),
        ROW("", "did not find expected <document start>",
            "only one value can stand here: separate documents by a line \"---\""),
        ROW("", "tab character", "a tab can't indent: use spaces"),
        ROW("", "character that cannot start any token",
            "a value can't begin with this character: quote it; and a tab can't indent: use spaces"),
        ROW("anchor", "", "anchors and aliases are not allowed: write the value out"),
        ROW("alias", "", "anchors and aliases are not allowed: write the value out"),
        ROW("tag", "", "tags are not allowed: remove it, and quote what is to be a string"),
        ROW("", "undefined tag handle", "tags are not allowed: remove it, and quote what is to be a string"),
        ROW("block scalar", "",
            "the block of text is not well-formed: after | or > only a chomping or indentation indicator may "
            "stand, and its lines are indented by spaces"),
        ROW("", "did not find expected node content", "a value is missing here"),
        ROW("", "incompatible YAML document", "only YAML 1.1 and 1.2 are understood: remove the %%YAML line"),
        ROW("directive", "", "unknown directive: a line can't begin with %% here"),
};

static void tell_syntax_error(const yaml_parser_t *p, struct problems *problems)
{
        const char *context = p->context ? p->context : "",
                   *problem = p->problem ? p->problem : "not well-formed";
        unsigned line = (unsigned)p->problem_mark.line + 1, column = (unsigned)p->problem_mark.column + 1;

        for (size_t i = 0; i < COUNT_OF(plain_words); i++) {
                if (!strstr(context, plain_words[i].context) || !strstr(problem, plain_words[i].problem))
                        continue;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
                problem_add(problems, line, column, "", plain_words[i].words, p->context_mark.line + 1);
#pragma GCC diagnostic pop
                return;
        }
        problem_add(problems, line, column, "", "not well-formed YAML: %s%s%s", context, *context ? ": " : "",
                    problem);
}

/* ---- the tree ----------------------------------------------------------- */

struct reader {
        yaml_parser_t parser;
        struct documents *docs;
        struct problems *problems;
        size_t nodes;
        bool complained; /* of something one can read on after */
        bool stop;       /* told already, or memory is out */
};

static bool next_event(struct reader *r, yaml_event_t *event)
{
        memset(event, 0, sizeof(*event));
        if (yaml_parser_parse(&r->parser, event))
                return true;
        if (r->parser.error != YAML_MEMORY_ERROR)
                tell_syntax_error(&r->parser, r->problems);
        r->stop = true;
        return false;
}

static struct node *out_of_memory(struct reader *r)
{
        r->stop = true;
        return NULL;
}

static void complain(struct reader *r, const yaml_mark_t *at, const char *text, const char *name)
{
        problem_add(r->problems, (unsigned)at->line + 1, (unsigned)at->column + 1, "", "%s%s%s", text,
                    name ? name : "", name ? "\"" : "");
        r->complained = true;
}

static void refuse_properties(struct reader *r, const yaml_event_t *event, const yaml_char_t *anchor,
                              const yaml_char_t *tag)
{
        if (anchor)
                complain(r, &event->start_mark,
                         "anchors and aliases are not allowed: write the value out where it is used; remove "
                         "the anchor \"&",
                         (const char *)anchor);
        if (tag)
                complain(
                        r, &event->start_mark,
                        "tags are not allowed: remove it, and quote what is to be a string; found the tag \"",
                        (const char *)tag);
}

static struct node *new_node(struct reader *r, const yaml_event_t *event, unsigned depth)
{
        struct node *n;

        if (++r->nodes > NODES_MOST || depth > DEPTH_MOST) {
                problem_add(r->problems, (unsigned)event->start_mark.line + 1,
                            (unsigned)event->start_mark.column + 1, "",
                            r->nodes > NODES_MOST ? "more than %d values: split the file"
                                                  : "more than %d levels deep: nest less",
                            r->nodes > NODES_MOST ? NODES_MOST : DEPTH_MOST);
                r->stop = true;
                return NULL;
        }
        n = arena_get(r->docs, sizeof(*n));
        if (!n)
                return out_of_memory(r);
        n->line = (unsigned)event->start_mark.line + 1;
        n->column = (unsigned)event->start_mark.column + 1;
        return n;
}

static struct node *read_node(struct reader *r, yaml_event_t *event, unsigned depth);

static struct node *read_scalar(struct reader *r, yaml_event_t *event, unsigned depth)
{
        struct node *n = new_node(r, event, depth);

        if (!n)
                return NULL;
        n->text = arena_copy(r->docs, (const char *)event->data.scalar.value, event->data.scalar.length);
        if (!n->text.p)
                return out_of_memory(r);
        refuse_properties(r, event, event->data.scalar.anchor, event->data.scalar.tag);
        if (event->data.scalar.tag) {
                n->text = STR("!"); /* node_refused: what it was meant to be is not known */
                return n;
        }
        n->kind = NODE_STRING;
        if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
                resolve(n);
        return n;
}

static struct node *read_alias(struct reader *r, yaml_event_t *event, unsigned depth)
{
        struct node *n = new_node(r, event, depth);

        if (!n)
                return NULL;
        complain(r, &event->start_mark,
                 "anchors and aliases are not allowed: write the value out in place of \"*",
                 (const char *)event->data.alias.anchor);
        n->text = STR("*");
        return n;
}

static struct node *read_list(struct reader *r, yaml_event_t *event, unsigned depth)
{
        struct node *n = new_node(r, event, depth + 1); /* what is in it */

        if (!n)
                return NULL;
        n->kind = NODE_LIST;
        refuse_properties(r, event, event->data.sequence_start.anchor, event->data.sequence_start.tag);
        for (;;) {
                yaml_event_t next;

                if (!next_event(r, &next))
                        return NULL;
                if (next.type == YAML_SEQUENCE_END_EVENT) {
                        yaml_event_delete(&next);
                        return n;
                }
                n->items = arena_grow(r->docs, n->items, n->n, sizeof(struct node *));
                if (!n->items) {
                        yaml_event_delete(&next);
                        return out_of_memory(r);
                }
                n->items[n->n] = read_node(r, &next, depth + 1);
                if (!n->items[n->n++])
                        return NULL;
        }
}

struct key_order {
        const struct member *member;
        size_t index;
};

static int by_key(const void *a, const void *b)
{
        const struct key_order *p = a, *q = b;
        size_t n = MIN_OF(p->member->key.n, q->member->key.n);
        int c = n ? memcmp(p->member->key.p, q->member->key.p, n) : 0;

        if (c)
                return c;
        if (p->member->key.n != q->member->key.n)
                return p->member->key.n < q->member->key.n ? -1 : 1;
        return p->index < q->index ? -1 : 1;
}

/* Tells of the keys that come twice and keeps the first of each. Sorted, so that a hostile file costs no
 * square. */
static bool drop_duplicates(struct reader *r, struct node *map)
{
        FREE_AT_END struct key_order *order = calloc(map->n ? map->n : 1, sizeof(*order));
        const struct member *first = NULL;
        size_t kept = 0;

        if (!order)
                return false;
        for (size_t i = 0; i < map->n; i++)
                order[i] = (struct key_order){ &map->members[i], i };
        qsort(order, map->n, sizeof(*order), by_key);
        for (size_t i = 0; i < map->n; i++) {
                const struct member *m = order[i].member;

                if (i == 0 || !str_equal(m->key, first->key)) {
                        first = m;
                        continue;
                }
                problem_add(r->problems, m->line, m->column, "",
                            "\"" STR_FMT
                            "\" is given twice in this map, first on line %u: remove one of them",
                            STR_ARG(text_clip(m->key, NAME_SHOWN)), first->line);
                r->complained = true;
                map->members[order[i].index].line = 0;
        }
        for (size_t i = 0; i < map->n; i++)
                if (map->members[i].line)
                        map->members[kept++] = map->members[i];
        map->n = kept;
        return true;
}

/* A key: what is no scalar is told and read over. false: stop. */
static bool read_key(struct reader *r, yaml_event_t *event, struct member *m, bool *keep, unsigned depth)
{
        *keep = event->type == YAML_SCALAR_EVENT;
        m->line = (unsigned)event->start_mark.line + 1;
        m->column = (unsigned)event->start_mark.column + 1;
        if (!*keep) {
                if (event->type != YAML_ALIAS_EVENT)
                        complain(r, &event->start_mark, "a key must be a text: a list or map can't be one",
                                 NULL);
                return read_node(r, event, depth) != NULL;
        }
        refuse_properties(r, event, event->data.scalar.anchor, event->data.scalar.tag);
        m->key = arena_copy(r->docs, (const char *)event->data.scalar.value, event->data.scalar.length);
        if (m->key.p && str_is(m->key, "<<") && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
                complain(r, &event->start_mark,
                         "merging maps is not allowed: write the members out in place of \"<<", "");
                *keep = false;
        }
        yaml_event_delete(event);
        if (!m->key.p)
                r->stop = true;
        return m->key.p != NULL;
}

static struct node *read_map(struct reader *r, yaml_event_t *event, unsigned depth)
{
        struct node *n = new_node(r, event, depth + 1);

        if (!n)
                return NULL;
        n->kind = NODE_MAP;
        refuse_properties(r, event, event->data.mapping_start.anchor, event->data.mapping_start.tag);
        for (;;) {
                yaml_event_t next;
                struct member m = { 0 };
                bool keep;

                if (!next_event(r, &next))
                        return NULL;
                if (next.type == YAML_MAPPING_END_EVENT) {
                        yaml_event_delete(&next);
                        return drop_duplicates(r, n) ? n : out_of_memory(r);
                }
                if (!read_key(r, &next, &m, &keep, depth + 1) || !next_event(r, &next))
                        return NULL;
                m.value = read_node(r, &next, depth + 1);
                if (!m.value)
                        return NULL;
                if (!keep)
                        continue;
                n->members = arena_grow(r->docs, n->members, n->n, sizeof(struct member));
                if (!n->members)
                        return out_of_memory(r);
                n->members[n->n++] = m;
        }
}

/* Takes the event. NULL: r->stop. */
static struct node *read_node(struct reader *r, yaml_event_t *event, unsigned depth)
{
        struct node *n = NULL;

        if (event->type == YAML_SCALAR_EVENT)
                n = read_scalar(r, event, depth);
        else if (event->type == YAML_ALIAS_EVENT)
                n = read_alias(r, event, depth);
        else if (event->type == YAML_SEQUENCE_START_EVENT)
                n = read_list(r, event, depth);
        else if (event->type == YAML_MAPPING_START_EVENT)
                n = read_map(r, event, depth);
        else
                r->stop = true; /* libyaml's grammar rules it out */
        yaml_event_delete(event);
        return n;
}

static void read_documents(struct reader *r)
{
        while (!r->stop) {
                yaml_event_t event;
                struct node *root, **roots;
                bool end;

                if (!next_event(r, &event))
                        return;
                end = event.type == YAML_STREAM_END_EVENT;
                if (end || event.type == YAML_STREAM_START_EVENT || event.type == YAML_DOCUMENT_START_EVENT ||
                    event.type == YAML_DOCUMENT_END_EVENT) {
                        yaml_event_delete(&event);
                        if (end)
                                return;
                        continue;
                }
                root = read_node(r, &event, 1);
                if (!root)
                        return;
                roots = arena_grow(r->docs, r->docs->roots, r->docs->n, sizeof(struct node *));
                if (!roots) {
                        r->stop = true;
                        return;
                }
                r->docs->roots = roots;
                roots[r->docs->n++] = root;
        }
}

int yaml_parse(struct documents *docs, struct str text, struct problems *problems)
{
        struct reader r = { .docs = docs, .problems = problems };
        FREE_AT_END char *joined = NULL;
        struct str start;

        text = json_without_mark(text); /* YAML 1.2, 5.2, too */
        start = str_trim(text);
        *docs = (struct documents){ 0 };
        if (text.n > SIZE_MOST) {
                problem_add(problems, 1, 1, "", "the file is larger than 1 MiB: split it");
                return -1;
        }
        if (!characters_fine(text, problems))
                return -1;
        if (start.n && (start.p[0] == '{' || start.p[0] == '[') && memmem(text.p, text.n, "\\u", 2)) {
                joined = join_surrogates(text, &text.n);
                if (!joined)
                        return -1;
                text.p = joined;
        }
        if (!yaml_parser_initialize(&r.parser))
                return -1;
        yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&r.parser, (const unsigned char *)text.p, text.n);
        read_documents(&r);
        yaml_parser_delete(&r.parser);
        return r.stop || r.complained ? -1 : 0;
}

const struct node *node_member(const struct node *n, const char *key)
{
        for (size_t i = 0; n && n->kind == NODE_MAP && i < n->n; i++)
                if (str_is(n->members[i].key, key))
                        return n->members[i].value;
        return NULL;
}

/* A number that JSON writes the same way is passed on as it was written, with all its digits. */
static bool is_json_number(struct str s)
{
        size_t i = s.n && s.p[0] == '-', n = digits(s, i);
        bool whole;

        if (!is_number(s, &whole) || n == 0 || (n > 1 && s.p[i] == '0') || s.p[0] == '+')
                return false;
        return i + n == s.n || s.p[i + n] != '.' || digits(s, i + n + 1) > 0;
}

void node_write(const struct node *n, struct writer *w)
{
        switch (n->kind) {
        case NODE_NULL: writer_null(w); return;
        case NODE_BOOL: writer_bool(w, n->boolean); return;
        case NODE_INT: writer_int(w, n->integer); return;
        case NODE_FLOAT:
                if (is_json_number(n->text))
                        writer_raw(w, n->text);
                else
                        writer_double(w, n->real);
                return;
        case NODE_STRING: writer_string(w, n->text); return;
        case NODE_LIST:
                writer_array(w);
                for (size_t i = 0; i < n->n; i++)
                        node_write(n->items[i], w);
                writer_array_end(w);
                return;
        case NODE_MAP:
                writer_object(w);
                for (size_t i = 0; i < n->n; i++) {
                        writer_key(w, n->members[i].key);
                        node_write(n->members[i].value, w);
                }
                writer_object_end(w);
                return;
        }
}
