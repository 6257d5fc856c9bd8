/* What the targets of the API gateway share: one API, which the source's own table decodes, and calls as the
 * listener takes them. */
#pragma once

#include <jansson.h>

#include "fuzz/demand.h"
#include "http/server/intake.h"
#include "source/source.h"

#define NOW ((usec)1704164645 * USEC_SEC) /* 20240102T030405Z */
static inline usec still(void *cookie UNUSED) { return NOW; }
static const struct clock still_clock = { .monotonic = still, .wall = still };

struct api {
        struct loop *loop;
        struct trigger *trigger;
        const struct source_kind *kind;
        struct services services;
        struct source *source;
        struct task wake;
};

static inline struct api *api_new(const char *text, const char *secrets)
{
        struct api *a = calloc(1, sizeof(*a));
        struct documents docs = { 0 };
        struct problems problems = { 0 };
        struct error err;

        DEMAND(a && loop_new(&a->loop, &err) == 0 && yaml_parse(&docs, str_of(text), &problems) == 0);
        a->trigger = trigger_decode(docs.roots[0], source_types(), source_kinds_n, &problems);
        DEMAND(a->trigger);
        documents_done(&docs);
        problems_done(&problems);
        a->kind = trigger_source(a->trigger);
        a->services = (struct services){ .loop = a->loop,
                                         .clock = &still_clock,
                                         .trigger = a->trigger,
                                         .secrets = secrets,
                                         .wake = &a->wake };
        if (a->kind->open(&a->source, a->trigger->source_spec, &a->services, &err) < 0) {
                (void)fprintf(stderr, "%s\n", err.text);
                abort();
        }
        return a;
}

/* ---- calls -------------------------------------------------------------- */

static inline struct str call_header(const struct push_request *q, const char *name)
{
        return http_message_header(q->head, str_of(name));
}

static inline void call_each_header(const struct push_request *q,
                                    void (*each)(void *, struct str, struct str), void *cookie)
{
        const struct http_message *m = q->head;

        for (const char *p = m->head.p, *end = p ? p + m->head.n : NULL; p && p < end;) {
                struct str name = str_of(p), value = str_of(p + name.n + 1);

                each(cookie, name, value);
                p = value.p + value.n + 1;
        }
}

static inline struct push_request call_of(const struct http_message *m)
{
        struct push_request q = { .method = str_of(http_method_name(m)),
                                  .query = buf_view(&m->target),
                                  .body = buf_view(&m->body),
                                  .client = STR("192.0.2.1"),
                                  .id = STR("0123456789abcdef0123456789abcdef"),
                                  .head = m,
                                  .header = call_header,
                                  .each_header = call_each_header };

        q.path = str_cut(&q.query, '?');
        return q;
}

/* The first request of the bytes; false: they begin with none that is served. */
static inline bool call_take(struct http_intake *k, struct str bytes)
{
        static const struct http_limits limits = { .target_max = 32768,
                                                   .header_max = 32768,
                                                   .head_max = 131072,
                                                   .body_max = 65536,
                                                   .headers_max = 256 };
        size_t used = 1;

        http_intake_init(k, &limits);
        while (used && bytes.n && !http_intake_complete(k)) {
                if (http_intake_feed(k, bytes, &used) < 0)
                        return false;
                bytes = (struct str){ bytes.p + used, bytes.n - used };
        }
        return http_intake_complete(k);
}

/* The reply as a listener could send it: a final status, and lines of a name and a value that say nothing of
 * the connection or the body's length. */
static inline void reply_check(const struct push_reply *r)
{
        static const char *const ours[] = { "Connection", "Content-Length",   "Transfer-Encoding",
                                            "Keep-Alive", "Upgrade",          "Trailer",
                                            "TE",         "Proxy-Connection", "Date" };
        struct str rest = buf_view(&r->headers);

        DEMAND(r->status >= 200 && r->status <= 599);
        DEMAND(!r->headers.failed && !r->body.failed);
        while (rest.n) {
                const char *end = memmem(rest.p, rest.n, "\r\n", 2);
                struct str value, name;

                DEMAND(end);
                value = (struct str){ rest.p, (size_t)(end - rest.p) };
                rest = (struct str){ end + 2, rest.n - value.n - 2 };
                name = str_cut(&value, ':');
                DEMAND(name.n && value.n && value.p[0] == ' ');
                for (size_t i = 0; i < name.n; i++)
                        DEMAND(name.p[i] > ' ' && name.p[i] < 0x7f &&
                               !strchr("\"(),/:;<=>?@[\\]{}", name.p[i]));
                for (size_t i = 0; i < value.n; i++)
                        DEMAND((unsigned char)value.p[i] >= ' ' || value.p[i] == '\t');
                for (size_t i = 0; i < COUNT_OF(ours); i++)
                        DEMAND(!str_equal_nocase(name, str_of(ours[i])));
        }
}
