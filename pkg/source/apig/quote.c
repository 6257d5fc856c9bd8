/* What an authorizer or IAM said, for people: it was shown the caller's request, and may repeat what lets the
 * caller in. */
#include "source/apig/apig.h"

enum { QUOTED_MOST = 160, SECRET_SHORTEST = 3 };

struct search {
        struct str words;
        size_t at, longest;
};

static void look_for(struct search *s, struct str value)
{
        value = str_trim(value);
        if (value.n >= SECRET_SHORTEST && value.n > s->longest && value.n <= s->words.n - s->at &&
            memcmp(s->words.p + s->at, value.p, value.n) == 0)
                s->longest = value.n;
}

/* A header's value, and what follows its scheme. */
static void look_for_header(void *cookie, struct str name UNUSED, struct str value)
{
        look_for(cookie, value);
        (void)str_cut(&value, ' ');
        look_for(cookie, value);
}

static void look_for_query(struct search *s, struct str query)
{
        BUF_AT_END struct buf plain = BUF_INIT(65536);

        while (query.n) {
                struct str value = str_cut(&query, '&');

                (void)str_cut(&value, '=');
                look_for(s, value);
                buf_reset(&plain);
                buf_unpercent(&plain, value, true);
                look_for(s, buf_view(&plain));
        }
}

void apig_quote(const struct judge_wait *w, struct str words, struct buf *out)
{
        const struct push_request *q = &CONTAINER_OF(w, struct apig_request, wait)->request;
        struct search s = { .words = words };

        for (size_t n = 0; s.at < words.n && n < QUOTED_MOST; n++) {
                s.longest = 0;
                q->each_header(q, look_for_header, &s);
                look_for_query(&s, q->query);
                if (s.longest)
                        buf_text(out, "***");
                else
                        buf_char(out, words.p[s.at]);
                s.at += s.longest ? s.longest : 1;
        }
}
