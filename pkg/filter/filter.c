#include "filter/filter.h"

#include "filter/internal.h"
#include "json/scan.h"
#include "json/yaml.h" /* text_clip */

/* An array of the record and an element of one, noted once a value in it counts. Number 0 stands for none. */
/* chosen: the element that the values picked so far stand in */
struct array {
        const struct step *step;
        uint32_t start, end, chosen;
};
struct element {
        uint32_t array, parent, start, end;
        uint64_t failed;
};

struct filter {
        struct pattern pattern;
        struct array *arrays;
        struct element *elements;
        struct place *places; /* the objects and arrays that the scan is in */
        size_t arrays_n, arrays_cap, elements_n, elements_cap, places_n, places_cap;
        uint32_t *trail; /* arrays in which an element was chosen, the latest last */
        size_t trail_n, trail_cap;
        uint64_t search; /* one number for each search through a list, never used again */
        uint64_t tries, steps;
        bool out_of_memory, large; /* large: hits of the record have much room */
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
        free(f->places);
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

/* An object or array that the scan is in, and that fields of the pattern may lie in. Of an array: the element
 * that the scan is in, while it is an object or array itself. Numbers are given once a value counts. */
struct place {
        struct step *step;
        /* the innermost array around it that the scan is in an element of: a number in places, NOWHERE: none
         */
        uint32_t scope;
        uint32_t array_id, array_start, element_id, element_start;
        uint32_t below; /* while numbers are given */
        bool is_array, begun, in_element;
};
enum { NOWHERE = UINT32_MAX };

/* What is decoded there is used again at once: what failed would be forgotten. */
static void look_at_scratch(struct filter *f) { f->out_of_memory = f->out_of_memory || f->scratch.failed; }

static uint32_t position(const struct filter *f) { return (uint32_t)(f->scan.p - f->scan.begin); }

static bool give_number(struct filter *f, struct place *p, uint32_t parent)
{
        if (!ROOM(f, f->arrays, f->arrays_cap, f->arrays_n) ||
            !ROOM(f, f->elements, f->elements_cap, f->elements_n))
                return false;
        if (!p->array_id) {
                p->array_id = (uint32_t)f->arrays_n++;
                f->arrays[p->array_id] = (struct array){ .step = p->step, .start = p->array_start };
        }
        p->element_id = (uint32_t)f->elements_n++;
        f->elements[p->element_id] = (struct element){ .array = p->array_id,
                                                       .parent = parent,
                                                       .start = p->element_start };
        return true;
}

/* Of the element that the scope's place is in, and before it of those around it. */
static uint32_t element_number(struct filter *f, uint32_t scope)
{
        uint32_t at = scope, below = NOWHERE, parent;

        for (; at != NOWHERE && !f->places[at].element_id; at = f->places[at].scope) {
                f->places[at].below = below;
                below = at;
        }
        parent = at == NOWHERE ? 0 : f->places[at].element_id;
        for (; below != NOWHERE; below = f->places[below].below) {
                if (!give_number(f, &f->places[below], parent))
                        return 0;
                parent = f->places[below].element_id;
        }
        return parent;
}

static void note(struct filter *f, struct hits *h, uint32_t scope)
{
        uint32_t element = element_number(f, scope);

        /* of many values in one element one is enough */
        if ((h->n && h->list[h->n - 1].element == element) || !ROOM(f, h->list, h->cap, h->n))
                return;
        h->list[h->n++] = (struct hit){ element, position(f) };
        f->large = f->large || h->cap * sizeof(*h->list) > TABLE_KEPT;
}

static bool already(const struct filter *f, const struct hits *h, uint32_t scope)
{
        uint32_t element = scope == NOWHERE ? 0 : f->places[scope].element_id;

        return h->n && (scope == NOWHERE || element) && h->list[h->n - 1].element == element;
}

static bool judge(struct filter *f, struct step *step, uint32_t scope, struct value *v)
{
        if (step->absence && !already(f, &step->present, scope))
                note(f, &step->present, scope);
        for (struct list *l = step->lists; l; l = l->next) {
                if (already(f, &l->hits, scope))
                        continue;
                v->steps_most = STEPS_MAX - f->steps;
                if (tests_match(l->tests, l->tests_n, l->exact_n, v))
                        note(f, &l->hits, scope);
                look_at_scratch(f);
                f->steps += v->steps;
                v->steps = 0;
                if (f->steps > STEPS_MAX)
                        return scan_fail(&f->scan, "too much to test");
        }
        return true;
}

/* The step that a member's name leads to: names and pattern paths may both hold dots. */
static struct step *follow(struct filter *f, struct step *step, struct str raw, bool escaped)
{
        struct str name = raw;
        bool last;

        if (escaped) {
                buf_reset(&f->scratch);
                (void)scan_decode(raw, &f->scratch);
                look_at_scratch(f);
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

static bool scan_plain(struct filter *f, struct step *step, uint32_t scope)
{
        struct scan *s = &f->scan;
        struct value v = { .scratch = &f->scratch };
        char first = scan_peek(s);

        if (!step->lists)
                return scan_skip(s, SCAN_ANY_DEPTH);
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
                        return scan_fail(s, s->p == s->end ? "the text ends where a value is expected"
                                                           : "expected a value");
                if (!scan_number(s, &v.raw))
                        return false;
        }
        return judge(f, step, scope, &v);
}

/* At the opening bracket. */
static bool enter(struct filter *f, struct step *step, uint32_t scope, bool is_array)
{
        struct scan *s = &f->scan;

        if (f->places_n == RECORD_DEPTH_MAX)
                return scan_fail(s, "nested too deep where the pattern looks");
        if (!ROOM(f, f->places, f->places_cap, f->places_n))
                return scan_no_memory(s);
        f->places[f->places_n++] = (struct place){
                .step = step, .scope = scope, .is_array = is_array, .array_start = position(f)
        };
        s->p++;
        return true;
}

static bool scan_value(struct filter *f, struct step *step, uint32_t scope)
{
        char first = scan_peek(&f->scan);

        if (first == '[')
                return enter(f, step, scope, true);
        if (first == '{')
                return step->children_n ? enter(f, step, scope, false) : scan_skip(&f->scan, SCAN_ANY_DEPTH);
        return scan_plain(f, step, scope);
}

static bool scan_member(struct filter *f)
{
        struct place *p = &f->places[f->places_n - 1];
        struct str name;
        struct step *child;
        bool escaped;

        if (!scan_name(&f->scan, &name, &escaped))
                return false;
        child = follow(f, p->step, name, escaped);
        return child ? scan_value(f, child, p->scope) : scan_skip(&f->scan, SCAN_ANY_DEPTH);
}

static bool scan_item(struct filter *f)
{
        struct place *p = &f->places[f->places_n - 1];
        char first = scan_peek(&f->scan);

        /* Plain values belong to what the array stands in: any two of them may match together. */
        if (first != '{' && first != '[')
                return scan_plain(f, p->step, p->scope);
        p->in_element = true;
        p->element_id = 0;
        p->element_start = position(f);
        return scan_value(f, p->step, (uint32_t)f->places_n - 1);
}

/* Does one more member or item follow in the innermost place? */
static bool goes_on(struct filter *f, struct place *p)
{
        char close = p->is_array ? ']' : '}';

        if (p->in_element && p->element_id)
                f->elements[p->element_id].end = position(f);
        p->in_element = false;
        if (p->begun)
                return scan_more(&f->scan, close);
        p->begun = true;
        return !scan_take(&f->scan, close);
}

/* The whole of it, from the object's opening bracket. What is nested lies on a list and not on the stack: the
 * depth is the sender's. */
static bool scan_all(struct filter *f)
{
        struct scan *s = &f->scan;

        f->places_n = 0;
        if (!enter(f, f->pattern.root, NOWHERE, false))
                return false;
        while (f->places_n) {
                struct place *p = &f->places[f->places_n - 1];

                if (goes_on(f, p)) {
                        if (!(p->is_array ? scan_item(f) : scan_member(f)))
                                return false;
                        continue;
                }
                if (s->fault)
                        return false;
                if (p->array_id)
                        f->arrays[p->array_id].end = position(f);
                f->places_n--;
        }
        return true;
}

/* Room for one large record is not kept for all that follow. */
#define TRIM(list, cap)                                                                                      \
        do {                                                                                                 \
                if ((cap) * sizeof(*(list)) > TABLE_KEPT) {                                                  \
                        free(TAKE(list));                                                                    \
                        (cap) = 0;                                                                           \
                }                                                                                            \
        } while (0)

static void trim_hits(struct step *n)
{
        TRIM(n->present.list, n->present.cap);
        for (struct list *l = n->lists; l; l = l->next)
                TRIM(l->hits.list, l->hits.cap);
        for (size_t i = 0; i < n->children_n; i++)
                trim_hits(n->children[i]);
}

static void trim(struct filter *f)
{
        TRIM(f->arrays, f->arrays_cap);
        TRIM(f->elements, f->elements_cap);
        TRIM(f->places, f->places_cap);
        TRIM(f->trail, f->trail_cap);
        if (f->scratch.cap > TABLE_KEPT)
                buf_done(&f->scratch);
        if (f->large)
                trim_hits(f->pattern.root);
        f->large = false;
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
                return error_set(err, ERROR_INVALID, "the record has %zu bytes; a filter reads up to %zu",
                                 json.n, RECORD_MAX);
        scan_init(s, json);
        forget(f->pattern.root);
        f->arrays_n = f->elements_n = 1;
        f->out_of_memory = false;
        f->tries = f->steps = 0;
        buf_reset(&f->scratch);
        if (scan_peek(s) != '{')
                return error_set(err, ERROR_INVALID, "the record is no JSON object");
        if (!scan_all(f) && s->no_memory)
                return error_memory(err);
        if (f->steps > STEPS_MAX)
                return error_set(err, ERROR_INVALID,
                                 "the record holds more than can be tested against the pattern's lists: the "
                                 "search was given up");
        if (s->fault)
                return error_set(err, ERROR_INVALID, "the record is no valid JSON: byte %u: %s", position(f),
                                 s->fault);
        if (scan_peek(s) || s->p != s->end)
                return error_set(err, ERROR_INVALID,
                                 "the record is no valid JSON: byte %u: something follows the object",
                                 position(f));
        return f->out_of_memory ? error_memory(err) : 0;
}

/* ---- the search: a value for each field, so that no two stand in different elements of one array */

/* The outermost array that the element stands in and of which another element is chosen; 0: none. */
static uint32_t conflict(struct filter *f, uint32_t element)
{
        uint32_t found = 0;

        for (; element; element = f->elements[element].parent, f->tries++) {
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
        for (; element; element = f->elements[element].parent, f->tries++) {
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

/* The innermost element that matters to a later field: two values that agree in it are as good as each other.
 */
static uint32_t what_matters(struct filter *f, uint32_t element, unsigned shared)
{
        for (; element && f->arrays[f->elements[element].array].step->depth > shared; f->tries++)
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
        if (field->list->absent &&
            next_consistent(f, &field->list->step->present, 0) == field->list->step->present.n &&
            search(f, rule, i + 1))
                return true;
        number = ++f->search;
        for (size_t k = next_consistent(f, h, 0); k < h->n && !exhausted(f);
             k = next_consistent(f, h, k + 1)) {
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

static int match(struct filter *f, struct str json, bool *matches, struct error *err)
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
                return error_set(err, ERROR_INVALID,
                                 "the record's arrays hold too many values that match apart but not "
                                 "together: the search was given up");
        *matches = found;
        return 0;
}

int filter_match(struct filter *f, struct str json, bool *matches, struct error *err)
{
        int result = match(f, json, matches, err);

        trim(f);
        return result;
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
        buf_printf(why,
                   STR_FMT " … " STR_FMT ": each is matched, but not within the same element of an array",
                   STR_ARG(first->path), STR_ARG(last->path));
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

                buf_printf(why, STR_FMT ": no value matches " STR_FMT "%s", STR_ARG(missing->path),
                           STR_ARG(text), text.n < missing->text.n ? "…" : "");
        }
        if (p->rules_n > 1)
                buf_printf(why, " (the nearest of %zu combinations)", p->rules_n);
}

void filter_explain(struct filter *f, struct str json, struct buf *why)
{
        struct error err = { 0 };
        bool matches = false;

        if (match(f, json, &matches, &err) < 0)
                buf_text(why, err.text);
        else if (matches)
                buf_text(why, "it matches");
        else
                explain_rules(&f->pattern, why);
        trim(f);
}
