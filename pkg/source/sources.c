#include "api/worker.h"
#include "source/apig/apig.h"
#include "source/cloudeye/cloudeye.h"
#include "source/dds/dds.h"
#include "source/dis/dis.h"
#include "source/dms/dms.h"
#include "source/source.h"
#include "source/kafka/kafka.h"
#include "source/obs/obs.h"
#include "source/smn/smn.h"
#include "source/timer/timer.h"

/* The one table of sources: a new one is a folder and a line here. */
const struct source_kind *const source_kinds[] = { &timer_source, &kafka_source, &apig_source,
                                                   &smn_source,   &obs_source,   &cloudeye_source,
                                                   &dms_source,   &dis_source,   &dds_source };
const size_t source_kinds_n = COUNT_OF(source_kinds);

const struct source_type *source_types(void)
{
        static const struct source_type types[] = {
                { .name = "timer", .type = &timer_type },
                { .name = "kafka", .type = &kafka_type, .fits = kafka_fits, .storeless = true },
                { .name = "apig", .type = &apig_type, .storeless = true },
                { .name = "smn", .type = &smn_type },
                { .name = "obs", .type = &obs_type },
                { .name = "cloudEye", .type = &cloudeye_type },
                { .name = "dms", .type = &dms_type, .fits = dms_fits, .storeless = true },
                { .name = "dis",
                  .type = &dis_type,
                  .shared = true,
                  .clash_key = dis_clash_key,
                  .clash = dis_clash,
                  .clash_field = "appName" },
                { .name = "dds", .type = &dds_type, .shared = true, .stored = true },
        };

        _Static_assert(COUNT_OF(types) == COUNT_OF(source_kinds), "each kind has its type");
        return types;
}

const struct source_kind *trigger_source(const struct trigger *t) { return source_kinds[t->source]; }

bool trigger_external(const struct trigger *t, struct buf *what)
{
        return trigger_source(t)->external && trigger_source(t)->external(t, what);
}

void push_refuse(const struct push_refused *r, struct push_reply *reply)
{
        for (size_t i = 0; i < source_kinds_n; i++)
                if (source_kinds[i]->push && source_kinds[i]->push->refuse) {
                        source_kinds[i]->push->refuse(r, reply);
                        return;
                }
        reply->status = r->status;
        buf_text(&reply->headers, "Content-Type: text/plain\r\n");
        buf_printf(&reply->body, "%s\n", r->text);
}

const char *source_state_name(enum source_state state)
{
        static const char *const names[SOURCE_STATE_MAX] = {
                [SOURCE_CONNECTING] = WORKER_SOURCE_CONNECTING,
                [SOURCE_CONNECTED] = WORKER_SOURCE_CONNECTED,
                [SOURCE_IDLE] = WORKER_SOURCE_IDLE,
                [SOURCE_STANDBY] = WORKER_SOURCE_STANDBY,
                [SOURCE_DISCONNECTED] = WORKER_SOURCE_DISCONNECTED,
                [SOURCE_FAILED] = WORKER_SOURCE_FAILED,
                [SOURCE_REMOVED] = WORKER_SOURCE_REMOVED,
        };

        return names[state];
}
