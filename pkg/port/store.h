/* Port: where positions live that no broker keeps (timers' last ticks, tokens, watermarks). Implemented by
 * pkg/checkpoint (files), pkg/kube (a ConfigMap) and the simulator. Nothing blocks: calls queue, completions
 * are taken. Loop's thread. */
#pragma once

#include "base/error.h"

struct store_result {
        uint64_t tag;
        bool is_get;
        bool found;       /* get: there was a value */
        struct str value; /* get: borrowed until the next take */
        bool failed;      /* error says why; ERROR_CONFLICT: someone else writes this key, stop */
        struct error error;
};
struct store_ops {
        void (*get)(void *cookie, uint64_t tag, struct str key);
        /* Replaces the key's value; done when it is durable. Puts of one key complete in order. Copies key
         * and value. */
        void (*put)(void *cookie, uint64_t tag, struct str key, struct str value);
        bool (*take)(void *cookie, struct store_result *); /* false: nothing done */
};
/* One user's end of a store; its completions make its own task ready. */
struct store {
        const struct store_ops *ops;
        void *cookie;
};

static inline void store_get(const struct store *s, uint64_t tag, struct str key)
{
        s->ops->get(s->cookie, tag, key);
}
static inline void store_put(const struct store *s, uint64_t tag, struct str key, struct str value)
{
        s->ops->put(s->cookie, tag, key, value);
}
static inline bool store_take(const struct store *s, struct store_result *r)
{
        return s->ops->take(s->cookie, r);
}
