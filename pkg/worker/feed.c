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

void feed_source_said(struct feed *f, enum source_state state, const char *text, usec now)
{
        bool up = state == SOURCE_CONNECTED || state == SOURCE_IDLE || state == SOURCE_STANDBY;
        struct pipeline_status *s = &f->status;

        s->source = state;
        (void)snprintf(s->source_text, sizeof(s->source_text), "%s", text ? text : "");
        s->connected_since = up ? (s->connected_since ? s->connected_since : now) : 0;
        log_at_for(f->config.services->log,
                   state == SOURCE_DISCONNECTED || state == SOURCE_FAILED ? LOG_WARN : LOG_INFO, "source",
                   LOG_S("state", source_state_name(state)), LOG_S("reason", s->source_text));
        s->changes++;
}

void feed_delivery_said(struct feed *f, enum delivery_state state, const char *text)
{
        f->status.delivery = state;
        (void)snprintf(f->status.delivery_text, sizeof(f->status.delivery_text), "%s", text ? text : "");
}
