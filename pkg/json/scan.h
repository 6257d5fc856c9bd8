/* A scanner over JSON text (RFC 8259): it checks the grammar and hands out slices and builds nothing; a bit
 * for each level beyond 512 is all that is ever allocated. Of what lies outside strings every byte is judged;
 * inside strings, escapes and control characters are, UTF-8 is not. Owned by the caller. */
#pragma once

#include "base/buf.h"

struct scan {
        const char *begin, *p, *end;
        const char *fault; /* what is wrong at p, once a function has returned false */
        bool no_memory;    /* that is the fault: the text may be fine */
};

static inline void scan_init(struct scan *s, struct str text)
{
        *s = (struct scan){ .begin = text.p, .p = text.p, .end = text.p + text.n };
}
static inline bool scan_fail(struct scan *s, const char *fault)
{
        s->fault = s->fault ? s->fault : fault;
        return false;
}

static inline bool scan_no_memory(struct scan *s)
{
        s->no_memory = s->no_memory || !s->fault;
        return scan_fail(s, "out of memory");
}

/* The first byte of the next token, 0 at the end. */
static inline char scan_peek(struct scan *s)
{
        while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
                s->p++;
        return s->p < s->end ? *s->p : '\0';
}

/* Takes that byte when it is the next token. */
static inline bool scan_take(struct scan *s, char c)
{
        if (scan_peek(s) != c || s->p == s->end)
                return false;
        s->p++;
        return true;
}

unsigned utf8_put(char out[4], uint32_t character); /* returns the length */

/* At the opening quote: what stands between the quotes, as written, and whether it holds escapes. */
bool scan_string(struct scan *, struct str *raw, bool *escaped) MUST_CHECK;
bool scan_number(struct scan *, struct str *text) MUST_CHECK; /* at a digit or minus */
/* true, false or null, whichever is asked for */
bool scan_word(struct scan *, const char *word) MUST_CHECK;
#define SCAN_ANY_DEPTH UINT32_MAX
/* one whole value, that may hold so many levels */
bool scan_skip(struct scan *, unsigned depth) MUST_CHECK;
/* Between two members: true when one more follows, false at the end (fault is NULL then) or on a fault. */
bool scan_more(struct scan *, char close) MUST_CHECK;
/* A member's name and its colon. */
bool scan_name(struct scan *, struct str *raw, bool *escaped) MUST_CHECK;
/* Appends the text that a checked string stands for. false: half of a surrogate pair stood alone, and became
 * U+FFFD. */
bool scan_decode(struct str raw, struct buf *out);
