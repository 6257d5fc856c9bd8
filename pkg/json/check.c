#include "json/check.h"

struct scan { const char *p, *end; unsigned depth; uint64_t object[JSON_DEPTH_MAX / 64]; };

static bool at(const struct scan *s, char c) { return s->p < s->end && *s->p == c; }

static void skip_space(struct scan *s)
{
        while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
                s->p++;
}

static bool take(struct scan *s, char c)
{
        bool there = at(s, c);

        s->p += there;
        return there;
}

static bool take_word(struct scan *s, struct str word)
{
        bool there = (size_t)(s->end - s->p) >= word.n && memcmp(s->p, word.p, word.n) == 0;

        s->p += there ? word.n : 0;
        return there;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

static bool take_digits(struct scan *s)
{
        const char *from = s->p;

        while (s->p < s->end && is_digit(*s->p))
                s->p++;
        return s->p > from;
}

static bool take_number(struct scan *s)
{
        (void)take(s, '-');
        if (!take(s, '0') && !take_digits(s))
                return false;
        if (take(s, '.') && !take_digits(s))
                return false;
        if (at(s, 'e') || at(s, 'E')) {
                s->p++;
                if (!take(s, '+'))
                        (void)take(s, '-');
                return take_digits(s);
        }
        return true;
}

static bool take_escape(struct scan *s)
{
        if (s->p == s->end || !strchr("\"\\/bfnrtu", *s->p) || !*s->p)
                return false;
        if (*s->p++ != 'u')
                return true;
        for (int i = 0; i < 4; i++, s->p++)
                if (s->p == s->end || !is_hex(*s->p))
                        return false;
        return true;
}

static bool take_string(struct scan *s)
{
        if (!take(s, '"'))
                return false;
        while (s->p < s->end) {
                unsigned char c = (unsigned char)*s->p++;

                if (c == '"')
                        return true;
                if (c < 0x20 || (c == '\\' && !take_escape(s)))
                        return false;
        }
        return false;
}

static bool in_object(const struct scan *s) { return s->object[(s->depth - 1) / 64] >> ((s->depth - 1) % 64) & 1; }

static bool enter(struct scan *s, bool object)
{
        uint64_t bit;

        if (s->depth == JSON_DEPTH_MAX)
                return false;
        bit = (uint64_t)1 << (s->depth % 64);
        s->object[s->depth / 64] = object ? s->object[s->depth / 64] | bit : s->object[s->depth / 64] & ~bit;
        s->depth++;
        s->p++;
        skip_space(s);
        return true;
}

static bool take_name(struct scan *s)
{
        if (!take_string(s))
                return false;
        skip_space(s);
        if (!take(s, ':'))
                return false;
        skip_space(s);
        return true;
}

/* After a value: closes what ends here. False when the text is wrong; *more tells whether another value follows. */
static bool after_value(struct scan *s, bool *more)
{
        for (;;) {
                skip_space(s);
                *more = false;
                if (s->depth == 0)
                        return s->p == s->end;
                if (take(s, ',')) {
                        skip_space(s);
                        *more = true;
                        return !in_object(s) || take_name(s);
                }
                if (!take(s, in_object(s) ? '}' : ']'))
                        return false;
                s->depth--;
        }
}

/* A value, or the start of one that holds others: *opened. */
static bool take_value(struct scan *s, bool *opened)
{
        *opened = false;
        if (s->p == s->end)
                return false;
        switch (*s->p) {
        case '{':
        case '[': {
                bool object = *s->p == '{';

                if (!enter(s, object))
                        return false;
                if (take(s, object ? '}' : ']')) {
                        s->depth--;
                        return true;
                }
                *opened = true;
                return !object || take_name(s);
        }
        case '"': return take_string(s);
        case 't': return take_word(s, STR("true"));
        case 'f': return take_word(s, STR("false"));
        case 'n': return take_word(s, STR("null"));
        default: return take_number(s);
        }
}

bool json_is_value(struct str text)
{
        struct scan s = { .p = text.p, .end = text.p + text.n };
        bool more = true;

        if (text.n == 0)
                return false;
        skip_space(&s);
        while (more) {
                bool opened;

                if (!take_value(&s, &opened))
                        return false;
                if (!opened && !after_value(&s, &more))
                        return false;
        }
        return str_is_utf8(text);
}
