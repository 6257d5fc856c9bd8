/* What a service says no with: a verdict that fits its status, and words that a log can take. */
#include "demand.h"
#include "huawei/refusal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const int statuses[] = { 200, 301, 400, 401, 403, 404, 408, 429, 500, 503 };
        static const char *const services[] = { "dms", "dis", "smn", "sts", "iam", "lts" };
        struct cloud_error e;
        struct error err;
        int status;

        if (size < 2)
                return 0;
        status = statuses[data[0] % COUNT_OF(statuses)];
        refusal_read(&e, services[data[1] % COUNT_OF(services)], status,
                     (struct str){ (const char *)data + 2, size - 2 }, 0);
        DEMAND(e.status == status && (e.verdict == CLOUD_DONE) == (status == 200));
        DEMAND(status < 500 || e.verdict == CLOUD_RETRY || e.verdict == CLOUD_THROTTLE);
        DEMAND(status != 429 || e.verdict == CLOUD_THROTTLE);
        DEMAND(str_is_utf8(str_of(e.code)) && str_is_utf8(str_of(e.words)));
        for (const char *p = e.words; *p; p++)
                DEMAND((unsigned char)*p >= 0x20);
        for (const char *p = e.code; *p; p++)
                DEMAND((unsigned char)*p >= 0x20);
        DEMAND(e.verdict == CLOUD_DONE || refusal_error(&e, "call", &err) == -1);
        return 0;
}
