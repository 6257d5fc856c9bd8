#include "worker/feed.h"

#include <stdio.h>

#include "log/log.h"

int feed_open_source(struct feed *f, struct error *err)
{
        const struct feed_config *c = &f->config;

        if (c->kind->open(&f->source, c->spec, c->services, err) < 0)
                return -1;
        f->source->kind = c->kind;
        return 0;
}

void feed_done(struct feed *f)
{
        free(TAKE(f->status.source_text));
        free(TAKE(f->status.delivery_text));
        free(TAKE(f->logged_text));
}

static const char *said(const char *text) { return text ? text : ""; }

void feed_keep(char **to, const char *text)
{
        char kept[256];

        if (strcmp(said(*to), said(text)) == 0)
                return;
        (void)text_copy(kept, sizeof(kept), said(text));
        free(*to);
        *to = *kept ? str_dup(str_of(kept)) : NULL;
}

/* A new state is logged at once. While it lasts, a changed reason is logged no more often than this; the
 * status always shows the newest. */
static const usec LOGGED_APART = 30 * USEC_SEC;

static void log_source(struct feed *f, usec now)
{
        const struct feed_status *s = &f->status;

        feed_keep(&f->logged_text, s->source_text);
        f->logged = true;
        f->logged_at = now;
        log_at_for(f->config.services->log,
                   s->source == SOURCE_DISCONNECTED || s->source == SOURCE_FAILED ? LOG_WARN : LOG_INFO,
                   "source", LOG_S("state", source_state_name(s->source)),
                   LOG_S("reason", said(s->source_text)));
}

usec feed_log_deadline(const struct feed *f)
{
        return f->logged && strcmp(said(f->logged_text), said(f->status.source_text)) != 0
                       ? f->logged_at + LOGGED_APART
                       : USEC_NEVER;
}

void feed_log(struct feed *f, usec now)
{
        if (feed_log_deadline(f) <= now)
                log_source(f, now);
}

void feed_source_said(struct feed *f, enum source_state state, const char *text, usec now)
{
        bool up = state == SOURCE_CONNECTED || state == SOURCE_IDLE || state == SOURCE_STANDBY;
        struct feed_status *s = &f->status;
        bool other = state != s->source || !f->logged || (!f->logged_text && text && *text);
        char plain[256];

        s->source = state;
        text_print(plain, sizeof(plain), "%s", said(text));
        feed_keep(&s->source_text, plain);
        s->connected_since = up ? (s->connected_since ? s->connected_since : now) : 0;
        s->changes++;
        if (other)
                log_source(f, now);
        else
                feed_log(f, now);
}

void feed_delivery_said(struct feed *f, enum delivery_state state, const char *text)
{
        f->status.delivery = state;
        feed_keep(&f->status.delivery_text, text);
}
