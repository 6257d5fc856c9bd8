#include "source/apig/apig.h"

enum { SEGMENTS_MOST = 64, SCORE_LITERAL = 4, SCORE_NAMED = 2 };

struct segment { struct str text; bool named; };
struct apig_path { char *text; struct segment segments[SEGMENTS_MOST]; size_t n, names; bool rest, prefix; /* rest: the last one takes all that is left */ };

static int refuse(struct buf *why, struct str segment, const char *what)
{
        buf_printf(why, "\"" STR_FMT "\" %s", STR_ARG(segment), what);
        return -1;
}

static bool is_name(struct str s)
{
        for (size_t i = 0; i < s.n; i++) {
                char c = s.p[i];

                if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-'))
                        return false;
        }
        return s.n > 0;
}

static int add_segment(struct apig_path *p, struct str s, bool last, struct buf *why)
{
        struct segment *to = &p->segments[p->n];

        if (p->n == SEGMENTS_MOST)
                return refuse(why, s, "is one segment too many: at most 64");
        if (p->rest)
                return refuse(why, s, "stands behind a parameter with +, which takes all that is left: put that one last");
        *to = (struct segment){ .text = s };
        p->n++;
        if (s.n < 2 || s.p[0] != '{' || s.p[s.n - 1] != '}')
                return memchr(s.p, '{', s.n) || memchr(s.p, '}', s.n) ? refuse(why, s, "mixes text and a parameter: a parameter is a whole segment, {name}") : 0;
        to->named = true;
        to->text = (struct str){ s.p + 1, s.n - 2 };
        if (to->text.n && to->text.p[to->text.n - 1] == '+') {
                to->text.n--;
                p->rest = true;
                if (!last)
                        return refuse(why, s, "takes all that is left: put it last");
        }
        if (!is_name(to->text))
                return refuse(why, s, "is no parameter: write {name} or {name+}, of letters, digits, _ and -");
        for (size_t i = 0; i + 1 < p->n; i++)
                if (p->segments[i].named && str_equal(p->segments[i].text, to->text))
                        return refuse(why, s, "comes twice");
        p->names++;
        return 0;
}

int apig_path_new(struct apig_path **out, const char *text, bool prefix, struct buf *why)
{
        struct apig_path *p = calloc(1, sizeof(*p));
        struct str rest;

        if (!p || !(p->text = str_dup(str_of(text)))) {
                free(p);
                buf_text(why, "out of memory");
                return -1;
        }
        p->prefix = prefix;
        rest = str_of(p->text);
        if (rest.n == 0 || rest.p[0] != '/') {
                (void)apig_path_free(p);
                buf_text(why, "a path begins with /");
                return -1;
        }
        (void)str_cut(&rest, '/');
        while (rest.n) {
                struct str segment = str_cut(&rest, '/');

                if (add_segment(p, segment, rest.n == 0, why) < 0) {
                        (void)apig_path_free(p);
                        return -1;
                }
        }
        *out = p;
        return 0;
}

struct apig_path *apig_path_free(struct apig_path *p)
{
        if (p)
                free(p->text);
        free(p);
        return NULL;
}

unsigned apig_path_match(const struct apig_path *p, struct str path, struct str *values)
{
        unsigned score = 1;
        size_t name = 0;

        if (path.n == 0 || path.p[0] != '/')
                return 0;
        path = (struct str){ path.p + 1, path.n - 1 };
        for (size_t i = 0; i < p->n; i++) {
                const struct segment *s = &p->segments[i];
                struct str part = path;

                if (s->named && p->rest && i + 1 == p->n) {
                        if (part.n == 0)
                                return 0;
                        if (values)
                                values[name] = part;
                        return score + 1;
                }
                part = str_cut(&path, '/');
                if (s->named ? part.n == 0 : !str_equal(part, s->text))
                        return 0;
                if (s->named && values)
                        values[name++] = part;
                score += s->named ? SCORE_NAMED : SCORE_LITERAL;
                if (i + 1 < p->n && path.n == 0)
                        return 0;
        }
        if (path.n == 0)
                return score + (p->prefix ? 0 : 1);
        return p->prefix ? score : 0;
}

size_t apig_path_names(const struct apig_path *p) { return p->names; }

struct str apig_path_name(const struct apig_path *p, size_t index)
{
        for (size_t i = 0; i < p->n; i++)
                if (p->segments[i].named && index-- == 0)
                        return p->segments[i].text;
        return (struct str){ 0 };
}
