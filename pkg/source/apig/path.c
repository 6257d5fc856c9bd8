#include "base/uri.h"
#include "source/apig/apig.h"

enum { SEGMENTS_MOST = 64, SCORE_LITERAL = 4, SCORE_NAMED = 2 };

struct segment {
        struct str text;
        bool named;
};
/* text: what segments are views of */
struct apig_path {
        struct buf text;
        struct segment segments[SEGMENTS_MOST];
        size_t n, names;
        bool rest, prefix; /* rest: the last one takes all that is left */
};

static int refuse(struct buf *why, struct str segment, const char *what)
{
        buf_printf(why, "\"" STR_FMT "\" %s", STR_ARG(segment), what);
        return -1;
}

static bool is_name(struct str s)
{
        for (size_t i = 0; i < s.n; i++) {
                char c = s.p[i];

                if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '_' || c == '-'))
                        return false;
        }
        return s.n > 0;
}

static int add_parameter(struct apig_path *p, struct str s, bool last, struct buf *why)
{
        struct str name = { s.p + 1, s.n - 2 };
        bool rest = name.n && name.p[name.n - 1] == '+';

        if (rest && !last)
                return refuse(why, s, "takes all that is left: put it last");
        name.n -= rest;
        if (!is_name(name))
                return refuse(why, s,
                              "is no parameter: write {name} or {name+}, of letters, digits, _ and -");
        for (size_t i = 0; i < p->n; i++)
                if (p->segments[i].named && str_equal(p->segments[i].text, name))
                        return refuse(why, s, "comes twice");
        p->rest = rest;
        p->segments[p->n++] = (struct segment){ .text = { p->text.p + p->text.n, name.n }, .named = true };
        p->names++;
        buf_str(&p->text, name);
        return 0;
}

/* In the normal form, as the paths of requests are when they are compared. */
static void add_literal(struct apig_path *p, struct str s)
{
        size_t from = p->text.n;
        struct str text;

        uri_segment(&p->text, s);
        text = (struct str){ p->text.p + from, p->text.n - from };
        if (str_is(text, "."))
                return;
        if (!str_is(text, ".."))
                p->segments[p->n++] = (struct segment){ .text = text };
        else if (p->n)
                p->names -= p->segments[--p->n].named;
}

static int add_segment(struct apig_path *p, struct str s, bool last, struct buf *why)
{
        if (p->n == SEGMENTS_MOST)
                return refuse(why, s, "is one segment too many: at most 64");
        if (p->rest)
                return refuse(
                        why, s,
                        "stands behind a parameter with +, which takes all that is left: put that one last");
        if (memchr(s.p, '?', s.n) || memchr(s.p, '#', s.n))
                return refuse(why, s,
                              "holds ? or #, which end a path: percent-encode it, %3F or %23, where it is "
                              "part of the path");
        if (s.n >= 2 && s.p[0] == '{' && s.p[s.n - 1] == '}')
                return add_parameter(p, s, last, why);
        if (memchr(s.p, '{', s.n) || memchr(s.p, '}', s.n))
                return refuse(why, s, "mixes text and a parameter: a parameter is a whole segment, {name}");
        add_literal(p, s);
        return 0;
}

int apig_path_new(struct apig_path **out, const char *text, bool prefix, struct buf *why)
{
        struct apig_path *p = calloc(1, sizeof(*p));
        struct str rest = str_of(text);

        if (p)
                p->text.max = 3 * rest.n + 1;
        if (!p || !buf_reserve(&p->text, 3 * rest.n)) { /* once, so that the segments stay where they are */
                (void)apig_path_free(p);
                buf_text(why, "out of memory");
                return -1;
        }
        p->prefix = prefix;
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
                buf_done(&p->text);
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

void apig_path_write(const struct apig_path *p, struct buf *b)
{
        for (size_t i = 0; i < p->n; i++) {
                const struct segment *s = &p->segments[i];

                buf_char(b, '/');
                if (s->named)
                        buf_text(b, p->rest && i + 1 == p->n ? "{+}" : "{}");
                else
                        buf_str(b, s->text);
        }
        if (!p->n)
                buf_char(b, '/');
        if (p->prefix && !p->rest)
                buf_text(b, p->n ? "/*" : "*");
}

size_t apig_path_names(const struct apig_path *p) { return p->names; }

struct str apig_path_name(const struct apig_path *p, size_t index)
{
        for (size_t i = 0; i < p->n; i++)
                if (p->segments[i].named && index-- == 0)
                        return p->segments[i].text;
        return (struct str){ 0 };
}
