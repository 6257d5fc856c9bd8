#include "filter/internal.h"

#include <math.h>

#include "json/scan.h"

#include "json/yaml.h" /* text_clip */

struct chunk {
        struct chunk *next;
};

void *arena_get(struct arena *a, size_t bytes)
{
        void *p;

        bytes = (bytes + 15) & ~(size_t)15;
        if (!a->chunks || a->cap - a->used < bytes) {
                size_t size = MAX_OF(bytes + 16, (size_t)4096);
                struct chunk *fresh = calloc(1, size);

                if (!fresh)
                        return NULL;
                fresh->next = a->chunks;
                a->chunks = fresh;
                a->cap = size;
                a->used = 16;
        }
        p = (char *)a->chunks + a->used;
        a->used += bytes;
        return p;
}

void arena_done(struct arena *a)
{
        while (a->chunks) {
                struct chunk *next = a->chunks->next;

                free(a->chunks);
                a->chunks = next;
        }
}

/* A combination while the pattern is read: lists in the order of the pattern, one for each path. */
struct draft {
        struct list **lists;
        size_t n;
};
struct drafts {
        struct draft *list;
        size_t n;
};

struct compiler {
        struct scan scan;
        struct pattern *pattern;
        struct arena *arena;
        struct buf path;  /* names joined with dots: where a value is looked for */
        struct buf place; /* where in the pattern: "detail.$or[1].state[0].numeric" */
        struct buf scratch;
        struct error *err;
        unsigned depth; /* objects around the place */
        unsigned names; /* in path */
        bool in_or;
        bool or_is_name; /* "$or" is the name of a field, as any other */
        bool has_or;
        /* what stands behind a "$or" does not look like alternatives: that it is a name is likelier */
        bool is_no_or;
};

/* ---- complaints; each returns false */

static bool out_of_memory(struct compiler *c)
{
        (void)error_memory(c->err);
        return false;
}

static void complain(struct compiler *c, const char *format, ...) PRINTF(2, 3);
static void complain(struct compiler *c, const char *format, ...)
{
        BUF_AT_END struct buf text = BUF_INIT(1024);
        struct str place = text_clip(buf_view(&c->place), 200);
        va_list arguments;

        buf_printf(&text, STR_FMT "%s", STR_ARG(place), place.n ? ": " : "");
        va_start(arguments, format);
        buf_vprintf(&text, format, arguments);
        va_end(arguments);
        for (size_t i = 0; i < text.n; i++) /* an error is one line, whatever the pattern's names are */
                text.p[i] = (unsigned char)text.p[i] < 0x20 ? ' ' : text.p[i];
        (void)error_set(c->err, ERROR_INVALID, "%s", text.p ? text.p : "");
}
#define refuse(c, ...)                                                                                       \
        (complain(c, __VA_ARGS__), false) /* the analyzer does not follow functions of many arguments */

static bool syntax(struct compiler *c)
{
        return refuse(c, "no valid JSON at byte %zu: %s", (size_t)(c->scan.p - c->scan.begin),
                      c->scan.fault ? c->scan.fault : "expected a value");
}

static bool expected(struct compiler *c, const char *what)
{
        struct scan *s = &c->scan;
        const char *start;
        struct str found;

        (void)scan_peek(s);
        start = s->p;
        if (!scan_skip(s, PATTERN_DEPTH_MAX))
                return syntax(c);
        found = text_clip((struct str){ start, (size_t)(s->p - start) }, 40);
        return refuse(c, "expected %s, not " STR_FMT, what, STR_ARG(found));
}

/* ---- texts */

static bool keep(struct compiler *c, struct str s, struct str *out)
{
        char *p = arena_get(c->arena, s.n + 1);

        if (!p)
                return out_of_memory(c);
        memcpy(p, s.p, s.n);
        *out = (struct str){ p, s.n };
        return true;
}

/* At the opening quote: the text that the string stands for, kept. */
static bool take_string(struct compiler *c, struct str *out)
{
        struct str raw;
        bool escaped;

        if (!scan_string(&c->scan, &raw, &escaped))
                return syntax(c);
        buf_reset(&c->scratch);
        if (!scan_decode(raw, &c->scratch))
                return refuse(c, "half of a surrogate pair in \"" STR_FMT "\": write the character itself",
                              STR_ARG(text_clip(raw, 80)));
        return c->scratch.failed ? out_of_memory(c) : keep(c, buf_view(&c->scratch), out);
}

static bool take_name(struct compiler *c, struct str *out)
{
        if (scan_peek(&c->scan) != '"') {
                (void)scan_fail(&c->scan, "expected a member's name in quotes");
                return syntax(c);
        }
        if (!take_string(c, out))
                return false;
        if (!scan_take(&c->scan, ':')) {
                (void)scan_fail(&c->scan, "expected ':'");
                return syntax(c);
        }
        return true;
}

/* Steps into a member or an item, for complaints; returns what place_leave takes. */
static size_t place_enter(struct compiler *c, struct str name)
{
        size_t before = c->place.n;

        if (before)
                buf_char(&c->place, '.');
        buf_str(&c->place, name);
        return before;
}

static size_t place_item(struct compiler *c, size_t i)
{
        size_t before = c->place.n;

        buf_printf(&c->place, "[%zu]", i);
        return before;
}

static void place_leave(struct compiler *c, size_t before) { c->place.n = before; }

static bool is_digit(char c) { return c == '-' || (c >= '0' && c <= '9'); }

/* ---- operators. Each stands at its operand and fills the test. */

struct tests {
        struct test *list;
        size_t n, cap;
};
static void cleanup_tests(struct tests *t) { free(t->list); }

static bool tests_add(struct compiler *c, struct tests *tests, struct test t)
{
        if (tests->n == tests->cap) {
                size_t cap = tests->cap ? tests->cap * 2 : 8;
                struct test *list = reallocarray(tests->list, cap, sizeof(*list));

                if (!list)
                        return out_of_memory(c);
                tests->list = list;
                tests->cap = cap;
        }
        tests->list[tests->n++] = t;
        return true;
}

static int compare_tests(const void *a, const void *b) { return test_compare(a, b); }

/* Texts that must be equal stand first, so that a long list of them costs little. */
static bool tests_keep(struct compiler *c, const struct tests *tests, struct test **out, size_t *exact_n)
{
        *out = arena_get(c->arena, MAX_OF(tests->n, (size_t)1) * sizeof(**out));
        if (!*out)
                return out_of_memory(c);
        if (tests->n)
                memcpy(*out, tests->list, tests->n * sizeof(**out));
        qsort(*out, tests->n, sizeof(**out), compare_tests);
        for (*exact_n = 0; *exact_n < tests->n && (*out)[*exact_n].kind == TEST_EXACT;)
                ++*exact_n;
        return true;
}

static bool op_exactly(struct compiler *c, struct test *t)
{
        t->kind = TEST_EXACT;
        return scan_peek(&c->scan) == '"' ? take_string(c, &t->text) : expected(c, "a string");
}

static bool caseless(struct compiler *c, struct test *t, enum test_kind kind)
{
        struct str s;
        size_t n = 0;

        if (scan_peek(&c->scan) != '"')
                return expected(c, "a string");
        if (!take_string(c, &s))
                return false;
        t->kind = kind;
        t->cases = arena_get(c->arena, (s.n + 1) * sizeof(*t->cases));
        if (!t->cases)
                return out_of_memory(c);
        for (size_t i = 0, length; i < s.n; i += length) { /* the pattern is valid UTF-8 */
                unsigned char lead = (unsigned char)s.p[i];
                uint32_t character = lead < 0x80   ? lead
                                     : lead < 0xe0 ? lead & 0x1f
                                     : lead < 0xf0 ? lead & 0x0f
                                                   : lead & 0x07;

                length = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
                for (size_t k = 1; k < length; k++)
                        character = character << 6 | ((unsigned char)s.p[i + k] & 0x3f);
                cases_of(character, &t->cases[n++]);
        }
        t->cases_n = n;
        return true;
}

static bool op_caseless(struct compiler *c, struct test *t) { return caseless(c, t, TEST_CASELESS); }

/* The end of an operator's object. */
static bool close_operator(struct compiler *c)
{
        if (!scan_more(&c->scan, '}'))
                return c->scan.fault ? syntax(c) : true;
        return refuse(c, "only one operator may stand in an object: put the second in an object of its own");
}

/* "text" or {"equals-ignore-case": "text"} */
static bool affix(struct compiler *c, struct test *t, enum test_kind exact, enum test_kind without_case)
{
        struct str name = { 0 };
        size_t place;

        if (scan_peek(&c->scan) == '"') {
                t->kind = exact;
                return take_string(c, &t->text);
        }
        if (!scan_take(&c->scan, '{'))
                return expected(c, "a string or {\"equals-ignore-case\": \"…\"}");
        if (!take_name(c, &name))
                return false;
        if (!str_is(name, "equals-ignore-case"))
                return refuse(c, "expected \"equals-ignore-case\", not \"" STR_FMT "\"",
                              STR_ARG(text_clip(name, 40)));
        place = place_enter(c, name);
        if (!caseless(c, t, without_case) || !close_operator(c))
                return false;
        place_leave(c, place);
        return true;
}

static bool op_prefix(struct compiler *c, struct test *t)
{
        return affix(c, t, TEST_PREFIX, TEST_CASELESS_PREFIX);
}
static bool op_suffix(struct compiler *c, struct test *t)
{
        return affix(c, t, TEST_SUFFIX, TEST_CASELESS_SUFFIX);
}

/* Cuts the text at its stars and removes the escapes. */
static bool op_wildcard(struct compiler *c, struct test *t)
{
        struct str s;
        size_t stars = 0;
        char *p;

        if (scan_peek(&c->scan) != '"')
                return expected(c, "a string");
        if (!take_string(c, &s))
                return false;
        for (size_t i = 0; i < s.n; i++)
                stars += s.p[i] == '*';
        t->kind = TEST_WILDCARD;
        t->pieces = arena_get(c->arena, (stars + 1) * sizeof(*t->pieces));
        p = arena_get(c->arena, s.n + 1);
        if (!t->pieces || !p)
                return out_of_memory(c);
        t->pieces_n = 1;
        t->pieces[0] = (struct str){ p, 0 };
        for (size_t i = 0; i < s.n; i++) {
                if (s.p[i] == '*') {
                        if (i + 1 < s.n && s.p[i + 1] == '*')
                                return refuse(c, "two stars in a row: one says the same");
                        t->pieces[t->pieces_n++] = (struct str){ p, 0 };
                        continue;
                }
                if (s.p[i] == '\\' && (++i == s.n || (s.p[i] != '*' && s.p[i] != '\\')))
                        return refuse(c, "a backslash must stand before a star or a backslash (in JSON: "
                                         "\"\\\\*\", \"\\\\\\\\\")");
                *p++ = s.p[i];
                t->pieces[t->pieces_n - 1].n++;
        }
        return true;
}

static bool op_cidr(struct compiler *c, struct test *t)
{
        struct str s, network;
        int64_t bits;

        if (scan_peek(&c->scan) != '"')
                return expected(c, "a string such as \"10.0.0.0/8\"");
        if (!take_string(c, &s))
                return false;
        t->kind = TEST_ADDRESS;
        network = str_cut(&s, '/');
        t->network = address_of(network);
        if (!t->network.bits)
                return refuse(c, "expected an IPv4 or IPv6 address and a length, such as \"10.0.0.0/8\"");
        if (!str_to_int64(s, &bits) || bits < 0 || bits >= t->network.bits)
                return refuse(c, "expected a length from 0 to %u after the slash", t->network.bits - 1);
        t->network_bits = (unsigned)bits;
        return true;
}

static bool take_comparable(struct compiler *c, struct test *t)
{
        t->kind = TEST_NUMBER;
        if (!is_digit(scan_peek(&c->scan)))
                return expected(c, "a number");
        if (!scan_number(&c->scan, &t->text))
                return syntax(c);
        t->number = number_of(t->text);
        return t->number.comparable ||
               refuse(c, STR_FMT " has more digits or a larger exponent than a double: it cannot be compared",
                      STR_ARG(text_clip(t->text, 60)));
}

static bool take_operator(struct compiler *c, struct str *out)
{
        return scan_peek(&c->scan) == '"' ? take_string(c, out)
                                          : expected(c, "one of \"=\", \"<\", \"<=\", \">\", \">=\"");
}

/* Between two items of a list: true when one more follows; *ok false on a fault. */
static bool more_items(struct compiler *c, bool *ok)
{
        bool more = scan_more(&c->scan, ']');

        *ok = more || !c->scan.fault || syntax(c);
        return more;
}

static bool upper_bound(struct compiler *c, struct test *t)
{
        struct str op;
        struct test bound;

        if (!take_operator(c, &op))
                return false;
        if (!str_is(op, "<") && !str_is(op, "<="))
                return refuse(c,
                              "a range is written [\">\", low, \"<\", high], with \">=\" and \"<=\" too; not "
                              "\"" STR_FMT "\"",
                              STR_ARG(text_clip(op, 40)));
        if (!scan_take(&c->scan, ','))
                return refuse(c, "expected a number after \"" STR_FMT "\"", STR_ARG(op));
        if (!take_comparable(c, &bound))
                return false;
        t->range.high = bound.number.value;
        t->range.high_open = str_is(op, "<");
        return t->range.low < t->range.high ||
               refuse(c, "the lower bound of a range must be less than the upper");
}

static bool op_numeric(struct compiler *c, struct test *t)
{
        struct str op;
        struct test bound;
        bool more, ok;

        if (!scan_take(&c->scan, '['))
                return expected(c, "a list such as [\">=\", 0, \"<\", 10]");
        if (!take_operator(c, &op))
                return false;
        if (!str_is(op, "=") && !str_is(op, "<") && !str_is(op, "<=") && !str_is(op, ">") &&
            !str_is(op, ">="))
                return refuse(c, "expected one of \"=\", \"<\", \"<=\", \">\", \">=\", not \"" STR_FMT "\"",
                              STR_ARG(text_clip(op, 40)));
        if (!scan_take(&c->scan, ','))
                return refuse(c, "expected a number after \"" STR_FMT "\"", STR_ARG(op));
        if (!take_comparable(c, &bound))
                return false;
        more = more_items(c, &ok);
        if (!ok)
                return false;
        if (op.p[0] == '=')
                *t = bound;
        else {
                t->kind = TEST_RANGE;
                t->range.low = op.p[0] == '>' ? bound.number.value : -HUGE_VAL;
                t->range.high = op.p[0] == '<' ? bound.number.value : HUGE_VAL;
                t->range.low_open = str_is(op, ">");
                t->range.high_open = str_is(op, "<");
        }
        if (!more)
                return true;
        if (op.p[0] != '>')
                return refuse(c,
                              "nothing may follow \"" STR_FMT
                              "\" and its number; a range begins with \">\" or \">=\"",
                              STR_ARG(op));
        if (!upper_bound(c, t))
                return false;
        more = more_items(c, &ok);
        return ok && (!more || refuse(c, "a range has two bounds, not more"));
}

typedef bool operator_function(struct compiler *, struct test *);

/* One operand or a list of them, all taken by the function; a list's items may be told apart by kind. */
static bool one_or_more(struct compiler *c, struct tests *tests, operator_function *take, const char *what)
{
        bool ok, more = true;
        struct test t;
        size_t i = 0, place;
        enum test_kind first = TEST_EXISTS;

        if (!scan_take(&c->scan, '[')) {
                t = (struct test){ 0 };
                return take(c, &t) && tests_add(c, tests, t);
        }
        if (scan_take(&c->scan, ']'))
                return refuse(c, "expected %s: the list is empty", what);
        for (; more; i++) {
                t = (struct test){ 0 };
                place = place_item(c, i);
                if (!take(c, &t))
                        return false;
                if (i == 0)
                        first = t.kind;
                if (t.kind != first)
                        return refuse(c, "expected all strings or all numbers in one list");
                place_leave(c, place);
                if (!tests_add(c, tests, t))
                        return false;
                more = more_items(c, &ok);
                if (!ok)
                        return false;
        }
        return true;
}

static bool but_value(struct compiler *c, struct test *t)
{
        char first = scan_peek(&c->scan);

        return first == '"'      ? op_exactly(c, t)
               : is_digit(first) ? take_comparable(c, t)
                                 : expected(c, "a string or a number");
}

static bool but_affix(struct compiler *c, struct test *t, enum test_kind kind)
{
        if (!op_exactly(c, t))
                return false;
        t->kind = kind;
        return t->text.n || refuse(c, "the empty string begins and ends every string: nothing would match");
}

static bool but_prefix(struct compiler *c, struct test *t) { return but_affix(c, t, TEST_PREFIX); }
static bool but_suffix(struct compiler *c, struct test *t) { return but_affix(c, t, TEST_SUFFIX); }

static const struct operator
{
        const char *name;
        operator_function *take;
}
but_operators[] = {
        { "prefix", but_prefix },
        { "suffix", but_suffix },
        { "equals-ignore-case", op_caseless },
        { "wildcard", op_wildcard },
};

static const struct operator* operator_find(const struct operator* all, size_t n, struct str name)
{
        for (size_t i = 0; i < n; i++)
                if (str_is(name, all[i].name))
                        return &all[i];
        return NULL;
}

static bool refuse_operator(struct compiler *c, const struct operator* all, size_t n, struct str name)
{
        const char *names[16], *nearest;
        BUF_AT_END struct buf list = BUF_INIT(512);

        for (size_t i = 0; i < n; i++) {
                names[i] = all[i].name;
                buf_printf(&list, "%s%s", i ? ", " : "", all[i].name);
        }
        nearest = nearest_name(name, names, n);
        if (nearest)
                return refuse(c, "no operator is called \"" STR_FMT "\"; did you mean \"%s\"?",
                              STR_ARG(text_clip(name, 40)), nearest);
        return refuse(c, "no operator is called \"" STR_FMT "\" here; there are %s",
                      STR_ARG(text_clip(name, 40)), list.p ? list.p : "");
}

static bool but_operator(struct compiler *c, struct tests *tests)
{
        const struct operator* op;
        struct str name = { 0 };
        size_t place;

        if (!take_name(c, &name))
                return false;
        op = operator_find(but_operators, COUNT_OF(but_operators), name);
        if (!op)
                return refuse_operator(c, but_operators, COUNT_OF(but_operators), name);
        place = place_enter(c, name);
        if (!one_or_more(c, tests, op->take, "a string") || !close_operator(c))
                return false;
        place_leave(c, place);
        return true;
}

static bool op_anything_but(struct compiler *c, struct test *t)
{
        CLEANUP(cleanup_tests) struct tests tests = { 0 };
        bool ok = scan_take(&c->scan, '{') ? but_operator(c, &tests)
                                           : one_or_more(c, &tests, but_value, "strings or numbers");

        if (!ok)
                return false;
        t->kind = TEST_ANYTHING_BUT;
        t->buts_n = tests.n;
        return tests_keep(c, &tests, &t->buts, &t->exact_n);
}

static bool op_exists(struct compiler *c, struct test *t)
{
        char first = scan_peek(&c->scan);

        if (first != 't' && first != 'f')
                return expected(c, "true or false");
        if (!scan_word(&c->scan, first == 't' ? "true" : "false"))
                return syntax(c);
        /* false is no test of a value: the caller takes it for what it is */
        t->kind = first == 't' ? TEST_EXISTS : TEST_ANYTHING_BUT;
        t->buts_n = t->exact_n = 0;
        t->buts = NULL;
        return true;
}

static const struct operator operators[] = {
        { "prefix", op_prefix },
        { "suffix", op_suffix },
        { "equals-ignore-case", op_caseless },
        { "wildcard", op_wildcard },
        { "anything-but", op_anything_but },
        { "numeric", op_numeric },
        { "exists", op_exists },
        { "cidr", op_cidr },
        { "exactly", op_exactly },
};

/* ---- value lists */

static bool take_operator_object(struct compiler *c, struct test *t, bool *absent)
{
        const struct operator* op;
        struct str name = { 0 };
        size_t place;

        c->scan.p++;
        if (scan_peek(&c->scan) == '}')
                return refuse(c, "expected an operator, such as {\"prefix\": \"a\"}: the object is empty");
        if (!take_name(c, &name))
                return false;
        op = operator_find(operators, COUNT_OF(operators), name);
        if (!op)
                return refuse_operator(c, operators, COUNT_OF(operators), name);
        place = place_enter(c, name);
        if (!op->take(c, t) || !close_operator(c))
                return false;
        place_leave(c, place);
        *absent = op->take == op_exists && t->kind != TEST_EXISTS;
        return true;
}

static bool take_value(struct compiler *c, struct test *t, bool *absent)
{
        struct scan *s = &c->scan;
        char first = scan_peek(s);

        *absent = false;
        switch (first) {
        case '{': return take_operator_object(c, t, absent);
        case '"':
                t->kind = TEST_EXACT;
                if (!take_string(c, &t->text))
                        return false;
                if (address_of(t->text).bits) { /* an address is the same however it is written */
                        t->network = address_of(t->text);
                        t->network_bits = t->network.bits;
                        t->kind = TEST_ADDRESS;
                }
                return true;
        case 't':
        case 'f':
        case 'n':
                t->kind = TEST_WORD;
                t->word = first == 't' ? VALUE_TRUE : first == 'f' ? VALUE_FALSE : VALUE_NULL;
                return scan_word(s, first == 't' ? "true" : first == 'f' ? "false" : "null") || syntax(c);
        default:
                if (!is_digit(first))
                        return expected(c, "a string, number, true, false, null or an operator such as "
                                           "{\"prefix\": \"a\"}");
                t->kind = TEST_NUMBER;
                if (!scan_number(s, &t->text))
                        return syntax(c);
                t->number = number_of(t->text);
                return true;
        }
}

/* Behind the opening bracket. */
static bool take_list(struct compiler *c, struct list *list)
{
        CLEANUP(cleanup_tests) struct tests tests = { 0 };
        bool ok, absent, more = true;
        struct test t;

        if (scan_take(&c->scan, ']'))
                return refuse(
                        c, "the list is empty: name the values that match, or [{\"exists\": true}] for any");
        for (size_t i = 0; more; i++) {
                size_t place = place_item(c, i);

                t = (struct test){ 0 };
                if (!take_value(c, &t, &absent))
                        return false;
                place_leave(c, place);
                list->absent |= absent;
                if (!absent && !tests_add(c, &tests, t))
                        return false;
                more = more_items(c, &ok);
                if (!ok)
                        return false;
        }
        list->tests_n = tests.n;
        return tests_keep(c, &tests, &list->tests, &list->exact_n);
}

/* ---- combinations */

static void drafts_done(struct drafts *d)
{
        for (size_t i = 0; i < d->n; i++)
                free(d->list[i].lists);
        free(d->list);
        *d = (struct drafts){ 0 };
}

static bool drafts_add(struct compiler *c, struct drafts *d, struct draft one)
{
        struct draft *list;

        if (d->n == PATTERN_RULES_MAX)
                return refuse(c,
                              "the \"$or\" lists multiply to more than %d combinations: split the Trigger, "
                              "or list values instead",
                              PATTERN_RULES_MAX);
        list = reallocarray(d->list, d->n + 1, sizeof(*list));
        if (!list)
                return out_of_memory(c);
        d->list = list;
        list[d->n++] = one;
        return true;
}

/* Copies of all of them; one empty one where there is none. */
static bool drafts_copy(struct compiler *c, const struct drafts *from, struct drafts *to)
{
        for (size_t i = 0; i < MAX_OF(from->n, (size_t)1); i++) {
                struct draft copy = { .n = from->n ? from->list[i].n : 0 };

                if (copy.n) {
                        copy.lists = reallocarray(NULL, copy.n, sizeof(struct list *));
                        if (!copy.lists)
                                return out_of_memory(c);
                        memcpy(copy.lists, from->list[i].lists, copy.n * sizeof(struct list *));
                }
                if (!drafts_add(c, to, copy)) {
                        free(copy.lists);
                        return false;
                }
        }
        return true;
}

/* All of them demand this list too. What one demanded at the same path before is forgotten, as the reference
 * does. */
static bool drafts_demand(struct compiler *c, struct drafts *d, struct list *list)
{
        if (d->n == 0 && !drafts_add(c, d, (struct draft){ 0 }))
                return false;
        for (size_t i = 0; i < d->n; i++) {
                struct draft *one = &d->list[i];
                struct list **lists;
                size_t k = 0;

                while (k < one->n && one->lists[k]->step != list->step)
                        k++;
                if (k == PATTERN_FIELDS_MAX)
                        return refuse(c, "more than %d members must match: split the Trigger",
                                      PATTERN_FIELDS_MAX);
                if (k == one->n) {
                        lists = reallocarray(one->lists, one->n + 1, sizeof(struct list *));
                        if (!lists)
                                return out_of_memory(c);
                        one->lists = lists;
                        one->n++;
                }
                one->lists[k] = list;
        }
        return true;
}

/* ---- objects */

static struct step *step_make(struct compiler *c, struct str path)
{
        struct step *at = c->pattern->root;
        bool last = false;

        while (!last) {
                struct step *child = at->first_child;
                struct str name;

                last = !memchr(path.p, '.', path.n);
                name = str_cut(&path, '.');
                while (child && !str_equal(child->name, name))
                        child = child->next;
                if (!child) {
                        child = arena_get(c->arena, sizeof(*child));
                        if (!child)
                                return NULL;
                        child->name = name;
                        child->parent = at;
                        child->depth = at->depth + 1;
                        child->next = at->first_child;
                        at->first_child = child;
                        at->children_n++;
                }
                at = child;
        }
        return at;
}

/* At the opening bracket. */
static bool take_field(struct compiler *c, struct drafts *drafts)
{
        struct list *list = arena_get(c->arena, sizeof(*list));
        const char *start = c->scan.p++;

        if (!list)
                return out_of_memory(c);
        if (!keep(c, buf_view(&c->path), &list->path))
                return false;
        list->step = step_make(c, list->path);
        if (!list->step)
                return out_of_memory(c);
        list->order = (size_t)(start - c->scan.begin);
        if (!take_list(c, list))
                return false;
        list->text = (struct str){ start, (size_t)(c->scan.p - start) };
        return drafts_demand(c, drafts, list);
}

static bool is_reserved(struct str name)
{
        static const char *const reserved[] = {
                "exactly",
                "equals-ignore-case",
                "prefix",
                "suffix",
                "anything-but",
                "exists",
                "wildcard",
                "numeric",
                "cidr",
                "=",
                "<",
                "<=",
                ">",
                ">=",
                "regex",
                "not-wildcard",
                "not-equals-ignore-case",
                "date-after",
                "date-on-or-after",
                "date-before",
                "date-on-or-before",
                "in-date-range",
                "ip-address-in-range",
                "ip-address-not-in-range",
        };

        for (size_t i = 0; i < COUNT_OF(reserved); i++)
                if (str_is(name, reserved[i]))
                        return true;
        return false;
}

static bool take_object(struct compiler *c, struct drafts *drafts);

/* Behind "$or": and its colon: each of the combinations so far goes on in as many ways as the list has
 * objects. */
static bool take_or(struct compiler *c, struct drafts *drafts)
{
        CLEANUP(drafts_done) struct drafts all = { 0 };
        bool in_or = c->in_or, ok, more = true;
        size_t n = 0;

        if (scan_peek(&c->scan) != '[') {
                c->is_no_or = true;
                return expected(c, "a list of objects, of which one must match");
        }
        c->scan.p++;
        if (scan_take(&c->scan, ']'))
                return refuse(c, "expected two objects or more, of which one must match");
        c->in_or = true;
        for (; more; n++) {
                CLEANUP(drafts_done) struct drafts branch = { 0 };
                size_t place = place_item(c, n);

                if (scan_peek(&c->scan) != '{') {
                        c->is_no_or = true;
                        return expected(c, "an object");
                }
                if (!drafts_copy(c, drafts, &branch) || !take_object(c, &branch))
                        return false;
                for (size_t i = 0; i < branch.n; i++) {
                        if (!drafts_add(c, &all, branch.list[i]))
                                return false;
                        branch.list[i].lists = NULL;
                }
                place_leave(c, place);
                more = more_items(c, &ok);
                if (!ok)
                        return false;
        }
        c->in_or = in_or;
        if (n < 2)
                return refuse(c, "expected two objects or more, of which one must match");
        drafts_done(drafts);
        *drafts = all;
        all = (struct drafts){ 0 };
        return true;
}

static bool take_member(struct compiler *c, struct drafts *drafts)
{
        struct str name = { 0 };
        size_t place, path = c->path.n;
        bool ok;
        char first;

        if (!take_name(c, &name))
                return false;
        place = place_enter(c, name);
        if (str_is(name, "$or") && !c->or_is_name) {
                c->has_or = true;
                ok = take_or(c, drafts);
                place_leave(c, place);
                return ok;
        }
        if (c->in_or && is_reserved(name))
                return refuse(c, "an operator's name cannot be a member's inside \"$or\": \"$or\" holds "
                                 "objects of members, each with a list of values");
        if (c->names++)
                buf_char(&c->path, '.');
        buf_str(&c->path, name);
        first = scan_peek(&c->scan);
        ok = first == '{'   ? take_object(c, drafts)
             : first == '[' ? take_field(c, drafts)
                            : expected(c, "an object, or a list of values: put it into [ ]");
        c->path.n = path;
        c->names--;
        place_leave(c, place);
        return ok;
}

/* At the opening brace. */
static bool take_object(struct compiler *c, struct drafts *drafts)
{
        if (c->depth == PATTERN_DEPTH_MAX)
                return refuse(c, "more than %d objects in one another", PATTERN_DEPTH_MAX);
        c->scan.p++;
        c->depth++;
        if (scan_take(&c->scan, '}'))
                return refuse(
                        c, "an empty object matches nothing: name a member, such as {\"state\": [\"open\"]}");
        do {
                if (!take_member(c, drafts))
                        return false;
        } while (scan_more(&c->scan, '}'));
        c->depth--;
        return c->scan.fault ? syntax(c) : true;
}

/* ---- what the matcher uses */

static int by_length(const void *a, const void *b)
{
        struct str x = (*(struct step *const *)a)->name, y = (*(struct step *const *)b)->name;

        return x.n != y.n ? (x.n < y.n ? -1 : 1) : memcmp(x.p, y.p, x.n);
}

struct step *step_child(const struct step *n, struct str name)
{
        size_t low = 0, high = n->children_n;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                struct str at = n->children[middle]->name;
                int order = at.n != name.n ? (at.n < name.n ? -1 : 1) : memcmp(at.p, name.p, name.n);

                if (order == 0)
                        return n->children[middle];
                if (order < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return NULL;
}

static bool sort_children(struct compiler *c, struct step *n)
{
        size_t i = 0;

        if (!n->children_n)
                return true;
        n->children = arena_get(c->arena, n->children_n * sizeof(struct step *));
        if (!n->children)
                return out_of_memory(c);
        for (struct step *child = n->first_child; child; child = child->next) {
                n->children[i++] = child;
                if (!sort_children(c, child))
                        return false;
        }
        qsort(n->children, n->children_n, sizeof(struct step *), by_length);
        return true;
}

/* Java's order of strings, by UTF-16 units: characters from U+10000 stand before U+E000. It shows where an
 * absence is asked for. */
static int by_path(const void *a, const void *b)
{
        struct str x = ((const struct field *)a)->list->path, y = ((const struct field *)b)->list->path;

        for (size_t i = 0; i < x.n && i < y.n; i++) {
                unsigned char p = (unsigned char)x.p[i], q = (unsigned char)y.p[i];

                if (p != q)
                        return p >= 0xee && q >= 0xee && (p >= 0xf0) != (q >= 0xf0) ? (p >= 0xf0 ? -1 : 1)
                               : p < q                                              ? -1
                                                                                    : 1;
        }
        return x.n < y.n ? -1 : x.n > y.n;
}

static unsigned common_depth(const struct step *a, const struct step *b)
{
        while (a != b) {
                const struct step **deeper = a->depth >= b->depth ? &a : &b;

                *deeper = (*deeper)->parent;
        }
        return a->depth;
}

static bool make_rule(struct compiler *c, const struct draft *draft, struct rule *rule)
{
        rule->n = draft->n;
        rule->fields = arena_get(c->arena, rule->n * sizeof(*rule->fields));
        if (!rule->fields)
                return out_of_memory(c);
        for (size_t i = 0; i < rule->n; i++) {
                struct list *list = draft->lists[i];

                rule->fields[i].list = list;
                if (list->used)
                        continue;
                list->used = true;
                list->next = list->step->lists;
                list->step->lists = list;
                list->step->absence |= list->absent;
        }
        qsort(rule->fields, rule->n, sizeof(*rule->fields), by_path);
        for (size_t i = 0; i < rule->n; i++)
                for (size_t k = i + 1; k < rule->n; k++)
                        rule->fields[i].shared = MAX_OF(
                                rule->fields[i].shared,
                                common_depth(rule->fields[i].list->step, rule->fields[k].list->step));
        return true;
}

static bool compile(struct compiler *c, struct str json)
{
        CLEANUP(drafts_done) struct drafts drafts = { 0 };
        struct str text;

        if (json.n > PATTERN_MAX)
                return refuse(c, "the pattern has more than %d bytes", PATTERN_MAX);
        if (!str_is_utf8(json))
                return refuse(c, "the pattern is not valid UTF-8");
        if (!keep(c, json, &text))
                return false;
        scan_init(&c->scan, text);
        c->pattern->root = arena_get(c->arena, sizeof(struct step));
        if (!c->pattern->root)
                return out_of_memory(c);
        if (scan_peek(&c->scan) != '{')
                return refuse(c, "a pattern is a JSON object, such as {\"state\": [\"open\"]}");
        if (!take_object(c, &drafts))
                return false;
        if (scan_peek(&c->scan) || c->scan.p != c->scan.end)
                return refuse(c, "something follows the pattern's object at byte %zu",
                              (size_t)(c->scan.p - c->scan.begin));
        c->pattern->rules = arena_get(c->arena, drafts.n * sizeof(*c->pattern->rules));
        if (!c->pattern->rules)
                return out_of_memory(c);
        for (c->pattern->rules_n = 0; c->pattern->rules_n < drafts.n; c->pattern->rules_n++)
                if (!make_rule(c, &drafts.list[c->pattern->rules_n], &c->pattern->rules[c->pattern->rules_n]))
                        return false;
        return sort_children(c, c->pattern->root);
}

static bool compile_as(struct pattern *pattern, struct str json, bool or_is_name, bool *has_or,
                       bool *is_no_or, struct error *err)
{
        struct compiler c = {
                .pattern = pattern,
                .arena = &pattern->arena,
                .err = err,
                .path = BUF_INIT(PATTERN_MAX),
                .place = BUF_INIT(PATTERN_MAX * 2),
                .scratch = BUF_INIT(PATTERN_MAX),
                .or_is_name = or_is_name,
        };
        bool ok = compile(&c, json);

        if (ok && (c.path.failed || c.place.failed))
                ok = out_of_memory(&c);
        *has_or = c.has_or;
        *is_no_or = c.is_no_or;
        buf_done(&c.path);
        buf_done(&c.place);
        buf_done(&c.scratch);
        return ok;
}

/* As the reference does it: where one "$or" of a pattern holds no alternatives, all of them are names of
 * fields, if that makes a pattern. */
int pattern_compile(struct pattern *pattern, struct str json, struct error *err)
{
        struct error as_names;
        bool has_or, is_no_or, ignored;

        if (compile_as(pattern, json, false, &has_or, &is_no_or, err))
                return 0;
        if (!has_or)
                return -1;
        pattern_done(pattern);
        if (compile_as(pattern, json, true, &ignored, &ignored, &as_names))
                return 0;
        if (is_no_or && err)
                *err = as_names;
        return -1;
}

static void hits_done(struct step *n)
{
        free(n->present.list);
        for (struct list *l = n->lists; l; l = l->next)
                free(l->hits.list);
        for (struct step *child = n->first_child; child; child = child->next)
                hits_done(child);
}

void pattern_done(struct pattern *p)
{
        if (p->root)
                hits_done(p->root);
        arena_done(&p->arena);
        *p = (struct pattern){ 0 };
}
