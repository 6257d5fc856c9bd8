/* Notifications of object stores from anyone: what becomes a record is one JSON value with a name, a bucket
 * and a key. */
#include "json/check.h"
#include "source/obs/records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct obs_records all = { 0 };

        if (size > OBS_BODY_MOST)
                return 0;
        if (obs_parse((struct str){ (const char *)data, size }, &all) != OBS_RECORDS) {
                if (all.n || all.list)
                        abort();
                return 0;
        }
        if (!all.n || all.n > OBS_RECORDS_MOST)
                abort();
        for (size_t i = 0; i < all.n; i++) {
                const struct obs_record *r = &all.list[i];

                if (strlen(r->id) != 32 || !r->event || !r->bucket || !r->key ||
                    !json_is_value((struct str){ r->json, r->json_n }, NULL))
                        abort();
        }
        obs_records_done(&all);
        return 0;
}
