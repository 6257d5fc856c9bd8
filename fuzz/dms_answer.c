/* What a queue answers: messages, and how many acknowledgements it took. */
#include "demand.h"
#include "source/dms/dms.h"
#include "source/poller.h"

/* The source without anything else: its spec stands right behind the poller. */
struct bare {
        struct poller poller;
        const struct dms_spec *spec;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static char queue[] = "q", group[] = "g";
        static const struct dms_spec spec = { .queue_id = queue, .group_id = group };
        struct bare bare = { .spec = &spec };
        struct dms_track track = { 0 };
        struct error err = { 0 };
        int64_t n = poller_answer(&bare.poller, &dms_ops, READER_FETCH, &track,
                                  (struct str){ (const char *)data, size }, &err);

        DEMAND(n >= 0 || err.text[0]);
        return 0;
}
