#include "api/worker.h"
#include "source/apig/apig.h"
#include "source/cloudeye/cloudeye.h"
#include "source/driver.h"
#include "source/kafka/kafka.h"
#include "source/obs/obs.h"
#include "source/smn/smn.h"
#include "source/timer/timer.h"

/* The one table of sources: a new one is a folder and a line here. */
const struct driver *const source_drivers[] = { &timer_driver, &kafka_driver, &apig_driver,
                                                &smn_driver,   &obs_driver,   &cloudeye_driver };
const size_t source_drivers_n = COUNT_OF(source_drivers);

const struct source_type *source_types(void)
{
        static const struct source_type types[] = {
                { "timer", &timer_type }, { "kafka", &kafka_type }, { "apig", &apig_type },
                { "smn", &smn_type },     { "obs", &obs_type },     { "cloudEye", &cloudeye_type }
        };

        _Static_assert(COUNT_OF(types) == COUNT_OF(source_drivers), "each driver has its type");
        return types;
}

const struct driver *trigger_driver(const struct trigger *t) { return source_drivers[t->source]; }

bool trigger_outside(const struct trigger *t, struct buf *what)
{
        return trigger_driver(t)->outside && trigger_driver(t)->outside(t, what);
}

const char *lost_reason_name(enum lost_reason reason)
{
        static const char *const names[LOST_REASON_MAX] = { "retention", "recreated" };

        return names[reason];
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
