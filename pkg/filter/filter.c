#include "filter/filter.h"

#include "filter/internal.h"
#include "json/scan.h"
#include "json/yaml.h" /* text_clip */

/* An array of the record and an element of one, noted once a value in it counts. Number 0 stands for none. */
struct array { const struct step *step; uint32_t start, end, chosen; }; /* chosen: the element that the values picked so far stand in */
struct element { uint32_t array, parent, start, end; uint64_t failed; };

struct filter {
        struct pattern pattern;
        struct array *arrays;
        struct element *elements;
        size_t arrays_n, arrays_cap, elements_n, elements_cap;
        uint32_t *trail;                /* arrays in which an element was chosen, the latest last */
        size_t trail_n, trail_cap;
        uint64_t search;                /* one number for each search through a list, never used again */
        unsigned tries;
        bool out_of_memory;
        struct scan scan;
        struct buf scratch;
};

int filter_new(struct filter **out, struct str json, struct error *err)
{
        struct filter *f = calloc(1, sizeof(*f));

        if (!f)
                return error_memory(err);
        f->scratch = BUF_INIT(RECORD_MAX);
        if (pattern_compile(&f->pattern, json, err) < 0) {
                filter_free(f);
                return -1;
        }
        *out = f;
        return 0;
}

struct filter *filter_free(struct filter *f)
{
        if (!f)
                return NULL;
        pattern_done(&f->pattern);
        buf_done(&f->scratch);
        free(f->arrays);
        free(f->elements);
        free(f->trail);
        free(f);
        return NULL;
}

/* Room for one more; what is there already is used again for the next record. */
static bool room(struct filter *f, void **list, size_t *cap, size_t n, size_t size)
{
        size_t larger = *cap ? *cap * 2 : 16;
        void *p;

        if (n < *cap)
                return true;
        p = reallocarray(*list, larger, size);
        if (!p) {
                f->out_of_memory = true;
                return false;
        }
        *list = p;
        *cap = larger;
        return true;
}
#define ROOM(f, list, cap, n) room(f, (void **)&(list), &(cap), n, sizeof(*(list)))

/* ---- the scan: which values are there, and in which array elements */

/* Where the scan is inside an array; numbers are given once a value counts. */
struct array_scope { struct element_scope *outer; const struct step *step; uint32_t id, start; };
struct element_scope { struct array_scope *array; uint32_t id, start; };

static uint32_t position(const struct filter *f) { return (uint32_t)(f->scan.p - f->scan.begin); }

static uint32_t element_number(struct filter *f, struct element_scope *e)
{
        struct array_scope *a;
        uint32_t parent;

        if (!e || e->id)
                return e ? e->id : 0;
        a = e->array;
        parent = element_number(f, a->outer);
        if (!ROOM(f, f->arrays, f->arrays_cap, f->arrays_n) || !ROOM(f, f->elements, f->elements_cap, f->elements_n))
                return 0;
        if (!a->id) {
                a->id = (uint32_t)f->arrays_n++;
                f->arrays[a->id] = (struct array){ .step = a->step, .start = a->start };
        }
        e->id = (uint32_t)f->elements_n++;
        f->elements[e->id] = (struct element){ .array = a->id, .parent = parent, .start = e->start };
        return e->id;
}

static void note(struct filter *f, struct hits *h, struct element_scope *scope)
{
        uint32_t element = element_number(f, scope);

        /* of many values in one element one is enough */
        if ((h->n && h->list[h->n - 1].element == element) || !ROOM(f, h->list, h->cap, h->n))
                return;
        h->list[h->n++] = (struct hit){ element, position(f) };
}

static bool already(const struct hits *h, const struct element_scope *scope)
{
        return h->n && (scope ? scope->id && h->list[h->n - 1].element == scope->id : h->list[h->n - 1].element == 0);
}

static void judge(struct filter *f, struct step *step, struct element_scope *scope, struct value *v)
{
        if (step->absence && !already(&step->present, scope))
                note(f, &step->present, scope);
        for (struct list *l = step->lists; l; l = l->next) {
                if (already(&l->hits, scope))
                        continue;
                for (size_t i = 0; i < l->tests_n; i++)
                        if (test_matches(&l->tests[i], v)) {
                                note(f, &l->hits, scope);
                                break;
                        }
        }
}

static bool scan_value(struct filter *f, struct step *step, struct element_scope *scope, unsigned depth);

/* The step that a member's name leads to: names and pattern paths may both hold dots. */
static struct step *follow(struct filter *f, struct step *step, struct str raw, bool escaped)
{
        struct str name = raw;
        bool last;

        if (escaped) {
                buf_reset(&f->scratch);
                (void)scan_decode(raw, &f->scratch);
                name = buf_view(&f->scratch);
        }
        if (!memchr(name.p, '.', name.n))
                return step_child(step, name);
        do {
                last = !memchr(name.p, '.', name.n);
                step = step_child(step, str_cut(&name, '.'));
        } while (step && !last);
        return step;
}

static bool scan_object(struct filter *f, struct step *step, struct element_scope *scope, unsigned depth)
{
        struct scan *s = &f->scan;
        struct str name;
        bool escaped;

        s->p++;
        if (scan_take(s, '}'))
                return true;
        do {
                struct step *child;

                if (!scan_name(s, &name, &escaped))
                        return false;
                child = follow(f, step, name, escaped);
                if (child ? !scan_value(f, child, scope, depth) : !scan_skip(s, depth))
                        return false;
        } while (scan_more(s, '}'));
        return !s->fault;
}

static bool scan_element(struct filter *f, struct step *step, struct array_scope *array, unsigned depth)
{
        struct element_scope scope = { .array = array, .start = position(f) };
        bool ok = scan_value(f, step, &scope, depth);

        if (scope.id)
                f->elements[scope.id].end = position(f);
        return ok;
}

static bool scan_array(struct filter *f, struct step *step, struct element_scope *outer, unsigned depth)
{
        struct array_scope array = { .outer = outer, .step = step, .start = position(f) };
        struct scan *s = &f->scan;

        s->p++;
        if (scan_take(s, ']'))
                return true;
        do {
                char first = scan_peek(s);

                /* Plain values belong to what the array stands in: any two of them may match together. */
                if (first == '{' || first == '[' ? !scan_element(f, step, &array, depth) : !scan_value(f, step, outer, depth))
                        return false;
        } while (scan_more(s, ']'));
        if (array.id)
                f->arrays[array.id].end = position(f);
        return !s->fault;
}

static bool scan_value(struct filter *f, struct step *step, struct element_scope *scope, unsigned depth)
{
        struct scan *s = &f->scan;
        struct value v = { .scratch = &f->scratch };
        char first = scan_peek(s);

        if (first == '{' || first == '[') {
                if (depth == 0)
                        return scan_fail(s, "nested too deep");
                if (first == '{')
                        return step->children_n ? scan_object(f, step, scope, depth - 1) : scan_skip(s, depth);
                return scan_array(f, step, scope, depth - 1);
        }
        if (!step->lists)
                return scan_skip(s, depth);
        switch (first) {
        case '"':
                v.kind = VALUE_STRING;
                if (!scan_string(s, &v.raw, &v.escaped))
                        return false;
                break;
        case 't':
        case 'f':
        case 'n':
                v.kind = first == 't' ? VALUE_TRUE : first == 'f' ? VALUE_FALSE : VALUE_NULL;
                if (!scan_word(s, first == 't' ? "true" : first == 'f' ? "false" : "null"))
                        return false;
                break;
        default:
                v.kind = VALUE_NUMBER;
                if (first != '-' && (first < '0' || first > '9'))
                        return scan_fail(s, s->p == s->end ? "the text ends where a value is expected" : "expected a value");
                if (!scan_number(s, &v.raw))
                        return false;
        }
        judge(f, step, scope, &v);
        return true;
}

static void forget(struct step *n)
{
        n->present.n = 0;
        for (struct list *l = n->lists; l; l = l->next)
                l->hits.n = 0;
        for (size_t i = 0; i < n->children_n; i++)
                forget(n->children[i]);
}

static int scan_record(struct filter *f, struct str json, struct error *err)
{
        struct scan *s = &f->scan;

        if (json.n > RECORD_MAX)
                return error_set(err, ERROR_INVALID, "the record has %zu bytes; a filter reads up to %zu", json.n, RECORD_MAX);
        scan_init(s, json);
        forget(f->pattern.root);
        f->arrays_n = f->elements_n = 1;
        f->out_of_memory = false;
        f->tries = 0;
        buf_reset(&f->scratch);
        if (scan_peek(s) != '{')
                return error_set(err, ERROR_INVALID, "the record is no JSON object");
        if (!scan_object(f, f->pattern.root, NULL, RECORD_DEPTH_MAX - 1))
                return error_set(err, ERROR_INVALID, "the record is no valid JSON: byte %u: %s", position(f), s->fault);
        if (scan_peek(s) || s->p != s->end)
                return error_set(err, ERROR_INVALID, "the record is no valid JSON: byte %u: something follows the object", position(f));
        return f->out_of_memory || f->scratch.failed ? error_memory(err) : 0;
}

/* ---- the search: a value for each field, so that no two stand in different elements of one array */

/* The outermost array that the element stands in and of which another element is chosen; 0: none. */
static uint32_t conflict(const struct filter *f, uint32_t element)
{
        uint32_t found = 0;

        for (; element; element = f->elements[element].parent) {
                uint32_t array = f->elements[element].array, chosen = f->arrays[array].chosen;

                if (chosen && chosen != element)
                        found = array;
        }
        return found;
}

static size_t first_from(const struct hits *h, size_t low, uint32_t at)
{
        size_t high = h->n;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (h->list[middle].at < at)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

/* The next of the values, from number i on, that goes with what is chosen; h->n: none. */
static size_t next_consistent(struct filter *f, const struct hits *h, size_t i)
{
        while (i < h->n) {
                uint32_t array = conflict(f, h->list[i].element), start;

                f->tries++;
                if (!array)
                        return i;
                start = f->elements[f->arrays[array].chosen].start;
                i = first_from(h, i + 1, h->list[i].at < start ? start : f->arrays[array].end);
        }
        return i;
}

static bool choose(struct filter *f, uint32_t element)
{
        for (; element; element = f->elements[element].parent) {
                struct array *array = &f->arrays[f->elements[element].array];

                if (array->chosen)
                        continue;
                if (!ROOM(f, f->trail, f->trail_cap, f->trail_n))
                        return false;
                f->trail[f->trail_n++] = f->elements[element].array;
                array->chosen = element;
        }
        return true;
}

static void unchoose(struct filter *f, size_t mark)
{
        while (f->trail_n > mark)
                f->arrays[f->trail[--f->trail_n]].chosen = 0;
}

/* The innermost element that matters to a later field: two values that agree in it are as good as each other. */
static uint32_t what_matters(const struct filter *f, uint32_t element, unsigned shared)
{
        while (element && f->arrays[f->elements[element].array].step->depth > shared)
                element = f->elements[element].parent;
        return element;
}

static bool exhausted(const struct filter *f) { return f->tries > TRIES_MAX || f->out_of_memory; }

static bool search(struct filter *f, const struct rule *rule, size_t i)
{
        const struct field *field = &rule->fields[i];
        const struct hits *h;
        uint64_t number;

        if (i == rule->n)
                return true;
        h = &field->list->hits;
        if (field->list->absent && next_consistent(f, &field->list->step->present, 0) == field->list->step->present.n && search(f, rule, i + 1))
                return true;
        number = ++f->search;
        for (size_t k = next_consistent(f, h, 0); k < h->n && !exhausted(f); k = next_consistent(f, h, k + 1)) {
                struct element *matters = &f->elements[what_matters(f, h->list[k].element, field->shared)];
                size_t mark = f->trail_n;
                bool found;

                if (matters->failed == number)
                        continue;
                found = choose(f, h->list[k].element) && search(f, rule, i + 1);
                unchoose(f, mark);
                if (found)
                        return true;
                matters->failed = number;
        }
        return false;
}

static bool any_rule(struct filter *f)
{
        if (f->elements_cap)
                f->elements[0].failed = 0;
        for (size_t i = 0; i < f->pattern.rules_n && !exhausted(f); i++)
                if (search(f, &f->pattern.rules[i], 0))
                        return true;
        return false;
}

int filter_match(struct filter *f, struct str json, bool *matches, struct error *err)
{
        bool found;

        if (!f->elements_cap && !ROOM(f, f->elements, f->elements_cap, f->elements_n))
                return error_memory(err);
        if (scan_record(f, json, err) < 0)
                return -1;
        found = any_rule(f);
        if (f->out_of_memory)
                return error_memory(err);
        if (!found && f->tries > TRIES_MAX)
                return error_set(err, ERROR_INVALID, "the record's arrays hold too many values that match apart but not together: the search was given up");
        *matches = found;
        return 0;
}

/* ---- the reason */

/* The first in the pattern of the rule's lists that nothing in the record matches; *matched: how many do. */
static const struct list *unmatched(const struct rule *rule, size_t *matched)
{
        const struct list *first = NULL;

        *matched = 0;
        for (size_t i = 0; i < rule->n; i++) {
                const struct list *l = rule->fields[i].list;

                if (l->hits.n || (l->absent && !l->step->present.n))
                        ++*matched;
                else if (!first || l->order < first->order)
                        first = l;
        }
        return first;
}

static void explain_apart(const struct rule *rule, struct buf *why)
{
        const struct list *first = rule->fields[0].list, *last = first;

        for (size_t i = 1; i < rule->n; i++) {
                const struct list *l = rule->fields[i].list;

                first = l->order < first->order ? l : first;
                last = l->order > last->order ? l : last;
        }
        buf_printf(why, STR_FMT " … " STR_FMT ": each is matched, but not within the same element of an array", STR_ARG(first->path), STR_ARG(last->path));
}

static void explain_rules(const struct pattern *p, struct buf *why)
{
        const struct rule *nearest = &p->rules[0];
        const struct list *missing = NULL;
        size_t best = 0, matched;

        /* of several combinations the one that is nearest to a match */
        for (size_t i = 0; i < p->rules_n; i++) {
                const struct list *l = unmatched(&p->rules[i], &matched);

                if (i && matched <= best)
                        continue;
                best = matched;
                missing = l;
                nearest = &p->rules[i];
        }
        if (!missing)
                explain_apart(nearest, why);
        else {
                struct str text = text_clip(missing->text, 200);

                buf_printf(why, STR_FMT ": no value matches " STR_FMT "%s", STR_ARG(missing->path), STR_ARG(text), text.n < missing->text.n ? "…" : "");
        }
        if (p->rules_n > 1)
                buf_printf(why, " (the nearest of %zu combinations)", p->rules_n);
}

void filter_explain(struct filter *f, struct str json, struct buf *why)
{
        struct error err = { 0 };
        bool matches = false;

        if (filter_match(f, json, &matches, &err) < 0)
                buf_text(why, err.text);
        else if (matches)
                buf_text(why, "it matches");
        else
                explain_rules(&f->pattern, why);
}
